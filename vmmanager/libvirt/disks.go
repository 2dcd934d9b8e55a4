package libvirt

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"duet/vmmanager"
)

// disk is a <disk> element and what it says. It may be a <mirror> or <backingStore> too, which have the same
// source; then only element and kind are set.
type disk struct {
	*element
	target string // vda
	kind   string // file, block, volume, network…
	device string // disk, cdrom, floppy, lun
	format string // raw, qcow2
}

// disks returns the disks of a domain in their order.
func disks(domain *element) []disk {
	var found []disk
	for _, e := range domain.child("devices").all("disk") {
		d := disk{
			element: e, target: e.child("target").attr("dev"), kind: e.attr("type"),
			device: e.attr("device"), format: e.child("driver").attr("type"),
		}
		if d.device == "" {
			d.device = "disk"
		}
		if d.format == "" {
			d.format = "raw" // what libvirt takes when nothing is said
		}
		found = append(found, d)
	}
	return found
}

// findDisk returns the disk with that target.
func findDisk(domain *element, target string) (disk, bool) {
	for _, d := range disks(domain) {
		if d.target == target {
			return d, true
		}
	}
	return disk{}, false
}

// path returns the file or block device that holds the disk; "" if neither does.
func (d disk) path() string {
	source := d.child("source")
	switch d.kind {
	case "file":
		return source.attr("file")
	case "block":
		return source.attr("dev")
	}
	return ""
}

// socket returns the unix socket of the NBD endpoint behind the disk; "" if there is none.
func (d disk) socket() string {
	source := d.child("source")
	host := source.child("host")
	if d.kind != "network" || source.attr("protocol") != "nbd" || host.attr("transport") != "unix" {
		return ""
	}
	return host.attr("socket")
}

// obstacle says why Duet cannot protect the disk and what to do; "" if it can. It goes on after "it".
func (d disk) obstacle() string {
	switch {
	case d.device == "lun":
		return "passes SCSI commands through to a device: use device='disk'"
	case d.child("shareable") != nil:
		return "is shared between VMs: remove <shareable/> or keep the shared data inside one VM"
	case d.child("readonly") != nil:
		return "is read-only: attach it as a cdrom, or remove <readonly/>"
	case d.child("transient") != nil:
		return "is transient, its writes are thrown away: remove <transient/>"
	case d.child("encryption") != nil || d.child("source", "encryption") != nil:
		return "is encrypted by the hypervisor: copy it into an unencrypted image, and encrypt inside the guest or below " +
			"the image"
	case d.kind == "network" && d.socket() == "":
		return fmt.Sprintf("is on a network already (%s): copy it into a local file or block device",
			d.child("source").attr("protocol"))
	case d.kind != "file" && d.kind != "block" && d.kind != "volume" && d.kind != "network":
		return fmt.Sprintf("is of type %q: copy it into a local file or block device", d.kind)
	case d.child("source") == nil:
		return "has no source: remove the disk or give it a file"
	}
	return ""
}

// protected reports whether a disk of the domain is backed by an endpoint.
func protected(domain *element) bool {
	for _, d := range disks(domain) {
		if d.socket() != "" {
			return true
		}
	}
	return false
}

// replicable returns the disks that Duet can replicate, without their sizes and
// with an empty path where only libvirt knows it (pool volumes).
func replicable(domain *element) []vmmanager.Disk {
	var found []vmmanager.Disk
	for _, d := range disks(domain) {
		if d.device == "disk" && d.kind != "network" && d.obstacle() == "" {
			found = append(found, vmmanager.Disk{Target: d.target, Path: d.path(), Format: d.format, Block: d.kind == "block"})
		}
	}
	return found
}

const (
	// QEMU, docs/interop/qcow2: the magic at byte 0, the size at 24, both big-endian.
	qcow2Magic  = 0x514649fb // "QFI" 0xfb
	qcow2Header = 32         // bytes up to the end of the size field
)

// qcow2Size reads the size the guest sees from the head of a qcow2 file.
func qcow2Size(head []byte) (int64, error) {
	if len(head) < qcow2Header || binary.BigEndian.Uint32(head) != qcow2Magic {
		return 0, errors.New("not a qcow2 image")
	}
	size := int64(binary.BigEndian.Uint64(head[24:]))
	if size < 0 {
		return 0, errors.New("qcow2 image has an impossible size")
	}
	return size, nil
}

// imageSize returns the bytes a guest sees of a raw or qcow2 image. errors.ErrUnsupported for other formats:
// libvirt has to be asked. The file is only read; for a block device the size is where its end is.
func imageSize(path, format string) (int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, fmt.Errorf("open image: %w", err)
	}
	defer f.Close()
	switch format {
	case "raw":
		return f.Seek(0, io.SeekEnd) // works for block devices too
	case "qcow2":
		head := make([]byte, qcow2Header)
		if _, err := io.ReadFull(f, head); err != nil {
			return 0, fmt.Errorf("read image: %w", err)
		}
		return qcow2Size(head)
	}
	return 0, fmt.Errorf("size of a %s image: %w", format, errors.ErrUnsupported)
}

// strays returns the disks of a running domain that are not on the endpoints, and those that have none. A disk that
// is being copied is where its <source> says, until the switch over.
func strays(domain *element, endpoints []vmmanager.Endpoint) []vmmanager.Stray {
	var found []vmmanager.Stray
	for _, to := range endpoints {
		d, ok := findDisk(domain, to.Target)
		switch {
		case !ok:
			found = append(found, vmmanager.Stray{Target: to.Target})
		case d.socket() != to.Socket:
			found = append(found, vmmanager.Stray{Target: to.Target, On: d.place(), Above: d.over(to.Socket)})
		}
	}
	for _, d := range disks(domain) {
		served := slices.ContainsFunc(endpoints, func(to vmmanager.Endpoint) bool { return to.Target == d.target })
		if !served && d.device != "cdrom" && d.device != "floppy" {
			found = append(found, vmmanager.Stray{Target: d.target, On: d.place(), Extra: true})
		}
	}
	return found
}

// place says for an admin what a disk is on.
func (d disk) place() string {
	source := d.child("source")
	switch {
	case d.path() != "":
		return d.path()
	case d.socket() != "":
		return d.socket()
	case d.kind == "volume":
		return "volume " + source.attr("volume") + " of pool " + source.attr("pool")
	case d.kind == "network":
		return source.attr("protocol") + " " + source.attr("name")
	}
	return "a disk of type " + d.kind
}

// over reports whether the disk is a layer, of several perhaps, over the endpoint. libvirt tells the chain below a
// live disk as nested elements.
func (d disk) over(socket string) bool {
	for below := d.child("backingStore"); below != nil; below = below.child("backingStore") {
		if (disk{element: below, kind: below.attr("type")}).socket() == socket {
			return true
		}
	}
	return false
}
