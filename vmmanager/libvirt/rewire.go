package libvirt

import (
	"fmt"
	"slices"
	"strconv"

	"duet/vmmanager"
)

// reconnectDelay is how many seconds QEMU holds requests back while an endpoint
// is away, before it pauses the VM. It covers a restart of the daemon.
const reconnectDelay = 10

// rewire returns the domain definition with the named disks backed by their
// endpoints; reconnect says that the hypervisor understands <reconnect>.
func rewire(text []byte, endpoints []vmmanager.Endpoint, reconnect bool) ([]byte, error) {
	domain, err := parseXML(text)
	if err != nil {
		return nil, err
	}
	if err := protectable(domain, endpoints); err != nil {
		return nil, err
	}
	var edits []edit
	for _, to := range endpoints {
		d, _ := findDisk(domain, to.Target)
		edits = append(edits, rewireDisk(text, d, to.Socket, reconnect)...)
	}
	return apply(text, edits), nil
}

// rewireDisk returns the edits that put one disk on an endpoint. Target, boot
// order, serial, address, alias, I/O threads and limits of the disk stay.
func rewireDisk(text []byte, d disk, socket string, reconnect bool) []edit {
	edits := []edit{retag(text, d.element, set("type", "network"))}
	policy := set("name", "qemu", "type", "raw", "cache", "none", "discard", "unmap",
		"error_policy", "stop", "rerror_policy", "stop")
	source := d.child("source")
	before := indent(text, source)
	driver := d.child("driver")
	prefix := ""
	if driver == nil {
		prefix = startTag("driver", policy) + "/>" + before
	} else {
		// These belong to a local file or to qcow2; libvirt refuses them on an endpoint.
		edits = append(edits, retag(text, driver, policy, "io", "copy_on_read", "discard_no_unref"))
		for _, c := range driver.all("metadata_cache") {
			edits = append(edits, remove(text, c))
		}
	}
	edits = append(edits, edit{source.start, source.end, prefix + endpointSource(socket, before, reconnect)})
	for _, c := range d.all("backingStore") {
		edits = append(edits, remove(text, c))
	}
	return edits
}

// restore returns the domain definition with the named disks backed by files or
// block devices. They pause the VM on errors from then on, as endpoints do.
func restore(text []byte, to []vmmanager.Disk) ([]byte, error) {
	domain, err := parseXML(text)
	if err != nil {
		return nil, err
	}
	var edits []edit
	for _, by := range to {
		d, ok := findDisk(domain, by.Target)
		if !ok {
			return nil, fmt.Errorf("disk %s: %w: the definition has no such disk", by.Target, vmmanager.ErrUnsupported)
		}
		if why := d.obstacle(); why != "" {
			return nil, fmt.Errorf("disk %s: %w: it %s", by.Target, vmmanager.ErrUnsupported, why)
		}
		edits = append(edits, restoreDisk(text, d, by)...)
	}
	return apply(text, edits), nil
}

// restoreDisk returns the edits that put one disk on a file or block device. A
// disk that is there already keeps its source and all that libvirt knows of it.
func restoreDisk(text []byte, d disk, by vmmanager.Disk) []edit {
	policy := set("name", "qemu", "type", by.Format, "error_policy", "stop", "rerror_policy", "stop")
	source := d.child("source")
	before := indent(text, source)
	var edits []edit
	prefix := ""
	if driver := d.child("driver"); driver != nil {
		edits = append(edits, retag(text, driver, policy))
	} else {
		prefix = startTag("driver", policy) + "/>" + before
	}
	if d.kind == "volume" || d.path() == by.Path {
		return append(edits, edit{source.start, source.start, prefix})
	}
	kind, attr := "file", "file"
	if by.Block {
		kind, attr = "block", "dev"
	}
	for _, c := range d.all("backingStore") {
		edits = append(edits, remove(text, c))
	}
	return append(edits, retag(text, d.element, set("type", kind)),
		edit{source.start, source.end, prefix + startTag("source", set(attr, by.Path)) + "/>"})
}

// endpointSource returns the <source> of an endpoint. It names no export: an
// endpoint is one volume, and the default export is what every NBD server has.
func endpointSource(socket, before string, reconnect bool) string {
	inner := before
	if inner != "" {
		inner += "  "
	}
	host := inner + startTag("host", set("transport", "unix", "socket", socket)) + "/>"
	if reconnect {
		host += inner + startTag("reconnect", set("delay", strconv.Itoa(reconnectDelay))) + "/>"
	}
	return "<source protocol='nbd'>" + host + before + "</source>"
}

// protectable returns an ErrUnsupported that names the first thing in the
// domain that would be missing or wrong on another node.
func protectable(domain *element, endpoints []vmmanager.Endpoint) error {
	for i, to := range endpoints {
		if _, ok := findDisk(domain, to.Target); !ok {
			return fmt.Errorf("disk %s: %w: the definition has no such disk", to.Target, vmmanager.ErrUnsupported)
		}
		if slices.ContainsFunc(endpoints[:i], func(e vmmanager.Endpoint) bool { return e.Target == to.Target }) {
			return fmt.Errorf("disk %s: %w: two endpoints for one disk", to.Target, vmmanager.ErrUnsupported)
		}
	}
	for _, d := range disks(domain) {
		named := slices.ContainsFunc(endpoints, func(e vmmanager.Endpoint) bool { return e.Target == d.target })
		if !named && (d.device == "cdrom" || d.device == "floppy") {
			continue
		}
		why := d.obstacle()
		if why == "" && !named {
			vm := textOf(domain.child("name"))
			why = fmt.Sprintf("would not be replicated: `virsh detach-disk %s %s --config` takes it off; "+
				"to have it replicated too, release the VM and protect it anew", vm, d.target)
		}
		if named && (d.device == "cdrom" || d.device == "floppy") {
			why = "is removable: only hard disks are replicated"
		}
		if why != "" {
			return fmt.Errorf("disk %s: %w: it %s", d.target, vmmanager.ErrUnsupported, why)
		}
	}
	for _, t := range ties(domain.child("devices")) {
		return fmt.Errorf("%w: %s: %s: %s", vmmanager.ErrUnsupported, t.about, t.fact, t.remedy)
	}
	return nil
}
