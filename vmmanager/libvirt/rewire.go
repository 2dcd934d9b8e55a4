package libvirt

import (
	"encoding/xml"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"duet/vmmanager"
)

// reconnectDelay is how many seconds QEMU holds requests back while an endpoint
// is away, before it pauses the VM. It covers a restart of the daemon.
const reconnectDelay = 10

// rewire returns the domain definition with the named disks backed by their
// endpoints; reconnect says that the hypervisor understands <reconnect>. It takes all disks that are no removable
// media or none: a VM with one disk elsewhere would not be the same on the other node.
func rewire(text []byte, endpoints []vmmanager.Endpoint, reconnect bool) ([]byte, error) {
	domain, err := parseXML(text)
	if err != nil {
		return nil, err
	}
	if err := protectable(domain, endpoints); err != nil {
		return nil, err
	}
	edits := entitle(text, domain, endpoints)
	for _, to := range endpoints {
		d, _ := findDisk(domain, to.Target)
		edits = append(edits, rewireDisk(text, d, to.Socket, reconnect)...)
	}
	return apply(text, edits), nil
}

// title tells whoever meets the VM in virsh or virt-manager why it does not start there. It must not change:
// untitle knows it by its text.
const title = "managed by Duet, which starts it: duet status"

// entitle returns the edit that gives a VM the title, if it has none of its own.
func entitle(text []byte, domain *element, endpoints []vmmanager.Endpoint) []edit {
	name := domain.child("name")
	if len(endpoints) == 0 || name == nil || domain.child("title") != nil {
		return nil
	}
	return []edit{{name.end, name.end, indent(text, name) + "<title>" + title + "</title>"}}
}

// untitle returns the edit that takes the title away when no disk that was rewired is left after those of to are put
// elsewhere; before is the definition until then, nil if it is not known.
func untitle(text []byte, domain, before *element, to []vmmanager.Disk) []edit {
	is := domain.child("title")
	left := slices.ContainsFunc(disks(domain), func(d disk) bool {
		had, _ := findDisk(before, d.target)
		goes := slices.ContainsFunc(to, func(by vmmanager.Disk) bool { return by.Target == d.target })
		return d.socket() != "" && !goes && had.socket() == ""
	})
	if is == nil || is.text != title || left {
		return nil
	}
	return []edit{remove(text, is)}
}

// rewireDisk returns the edits that put one disk on an endpoint. Target, boot
// order, serial, address, alias, I/O threads and limits of the disk stay.
func rewireDisk(text []byte, d disk, socket string, reconnect bool) []edit {
	edits := []edit{retag(text, d.element, set("type", "network"))}
	// A guest's discards reach the volume; an error pauses the VM instead of being shown to it.
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
	// It describes the chain below the old image, which the endpoint does not have.
	for _, c := range d.all("backingStore") {
		edits = append(edits, remove(text, c))
	}
	return edits
}

// managed are the attributes of <driver> that an endpoint needs otherwise than a file or block device may have them.
var managed = []string{"name", "type", "cache", "discard", "error_policy", "rerror_policy", "io", "copy_on_read",
	"discard_no_unref"}

// restore returns the domain definition with the named disks backed by files or block devices, and what rewire changed
// of them as it is in own, the definition before. A disk that was on an endpoint in own too has nothing to be given
// back, and is set as one of which nothing is known. The edits are made on text, so what an admin has changed of
// other parts since stays.
func restore(text []byte, own vmmanager.Definition, to []vmmanager.Disk) ([]byte, error) {
	domain, err := parseXML(text)
	if err != nil {
		return nil, err
	}
	var before *element
	if len(own.Text) > 0 {
		if before, err = parseXML(own.Text); err != nil {
			return nil, err
		}
	}
	edits := untitle(text, domain, before, to)
	for _, by := range to {
		d, err := replaceable(domain, by.Target)
		if err != nil {
			return nil, err
		}
		was := origin{text: own.Text, driver: set("name", "qemu", "error_policy", "stop", "rerror_policy", "stop")}
		if had, ok := findDisk(before, by.Target); ok && had.socket() == "" {
			was.disk, was.driver = had, nil
			if driver := had.child("driver"); driver != nil {
				was.driver = driver.attrs
			}
			was.same = slices.ContainsFunc(own.Disks, func(o vmmanager.Disk) bool {
				return o.Target == by.Target &&
					o.Path == by.Path
			})
		}
		edits = append(edits, restoreDisk(text, d, by, was)...)
	}
	return apply(text, edits), nil
}

// replaceable finds a disk that may be put elsewhere.
func replaceable(domain *element, target string) (disk, error) {
	d, ok := findDisk(domain, target)
	if !ok {
		return d, fmt.Errorf("disk %s: %w: the definition has no such disk", target, vmmanager.ErrUnsupported)
	}
	if why := d.obstacle(); why != "" {
		return d, fmt.Errorf("disk %s: %w: it %s", target, vmmanager.ErrUnsupported, why)
	}
	return d, nil
}

// origin is what a disk was before it was rewired. Its element is nil where that is not known.
type origin struct {
	disk
	text   []byte     // in which it stands
	driver []xml.Attr // of its <driver>
	same   bool       // it lay where it goes to now
}

// restoreDisk returns the edits that put one disk on a file or block device. A
// disk that is there already keeps its source and all that libvirt knows of it. Only where it goes back to its old
// place is the old <source> taken over as it was, with its chain of backing files; in another one it gets a plain
// one.
func restoreDisk(text []byte, d disk, by vmmanager.Disk, was origin) []edit {
	source := d.child("source")
	before := indent(text, source)
	edits, prefix := restoreDriver(text, d, by, was, before)
	if d.socket() == "" && (d.kind == "volume" || d.path() == by.Path) {
		return append(edits, edit{source.start, source.start, prefix})
	}
	for _, c := range d.all("backingStore") {
		edits = append(edits, remove(text, c))
	}
	kind, attr := "file", "file"
	if by.Block {
		kind, attr = "block", "dev"
	}
	to := startTag("source", set(attr, by.Path)) + "/>"
	if was.same {
		kind = was.kind
		to = string(was.text[was.child("source").start:was.child("source").end])
		for _, c := range was.all("backingStore") {
			to += before + string(was.text[c.start:c.end])
		}
	}
	return append(edits, retag(text, d.element, set("type", kind)), edit{source.start, source.end, prefix + to})
}

// restoreDriver returns the edits of <driver>, and a new one to put before the source where there is none. Of the
// attributes that rewire manages the old ones come back and the others go; what else stands there is an admin's and
// stays. The type follows the new image.
func restoreDriver(text []byte, d disk, by vmmanager.Disk, was origin, before string) (edits []edit, prefix string) {
	var attrs []xml.Attr
	for _, a := range was.driver {
		if slices.Contains(managed, rawName(a.Name)) && a.Name.Local != "type" {
			attrs = append(attrs, a)
		}
	}
	attrs = append(attrs, set("type", by.Format)...)
	inner := ""
	if was.same && was.disk.element != nil {
		for _, c := range was.child("driver").all("metadata_cache") {
			inner += string(was.text[c.start:c.end])
		}
	} else {
		attrs = slices.DeleteFunc(attrs, func(a xml.Attr) bool { return a.Name.Local == "discard_no_unref" }) // of qcow2
	}
	driver := d.child("driver")
	if driver == nil {
		return nil, startTag("driver", attrs) + "/>" + before
	}
	tag := retag(text, driver, attrs, slices.DeleteFunc(slices.Clone(managed), func(name string) bool {
		return slices.ContainsFunc(attrs, func(a xml.Attr) bool { return a.Name.Local == name })
	})...)
	if opened, ok := strings.CutSuffix(tag.with, "/>"); ok && inner != "" {
		tag.with = opened + ">" + inner + "</driver>"
	} else {
		tag.with += inner
	}
	return []edit{tag}, ""
}

// harden returns the domain definition with the named disks set to pause the VM on errors. Nothing else changes,
// and nothing at all where it is so already, so that a Refit with it costs no pause.
func harden(text []byte, targets []string) ([]byte, error) {
	domain, err := parseXML(text)
	if err != nil {
		return nil, err
	}
	policy := set("error_policy", "stop", "rerror_policy", "stop")
	var edits []edit
	for _, target := range targets {
		d, err := replaceable(domain, target)
		if err != nil {
			return nil, err
		}
		if driver := d.child("driver"); driver == nil {
			source := d.child("source")
			attrs := slices.Concat(set("name", "qemu", "type", d.format), policy)
			edits = append(edits, edit{source.start, source.start, startTag("driver", attrs) + "/>" + indent(text, source)})
		} else if driver.attr("error_policy") != "stop" || driver.attr("rerror_policy") != "stop" {
			edits = append(edits, retag(text, driver, policy))
		}
	}
	return apply(text, edits), nil
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
