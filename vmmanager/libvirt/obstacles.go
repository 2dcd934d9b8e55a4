package libvirt

import (
	"fmt"
	"slices"

	"duet/vmmanager"
)

// sector is what the size of every disk is a multiple of, in bytes. That of blockrepl.Sector.
const sector = 512

// Obstacles are all that keeps Duet from protecting a VM of that definition. def is as Definition returned it: its
// Disks have the sizes. A disk that cannot be measured is an error of Definition already.
func (h *Hypervisor) Obstacles(def vmmanager.Definition) []vmmanager.Finding {
	domain, err := parseXML(def.Text)
	if err != nil {
		return []vmmanager.Finding{{Level: vmmanager.Refused, Code: "definition-unreadable", Fact: err.Error()}}
	}
	return obstacles(domain, def.Disks)
}

// obstacles looks at every disk and device; found are the disks that can be replicated, with their sizes.
func obstacles(domain *element, found []vmmanager.Disk) []vmmanager.Finding {
	var all []vmmanager.Finding
	refuse := func(code, about, fact, remedy string) {
		all = append(all, vmmanager.Finding{Level: vmmanager.Refused, Code: code, About: about, Fact: fact,
			Remedy: remedy})
	}
	hard := 0
	for _, d := range disks(domain) {
		if d.device == "cdrom" || d.device == "floppy" {
			continue
		}
		hard++
		if why := d.obstacle(); why != "" {
			refuse("disk-unsupported", "disk "+d.target, "it "+why, "")
		}
	}
	if hard == 0 {
		refuse("no-disk", "", "it has no hard disk that could be replicated", "")
	}
	for _, d := range found {
		if fact, remedy := badSize(d); fact != "" {
			refuse("disk-size", "disk "+d.Target, fact, remedy)
		}
	}
	for _, t := range ties(domain.child("devices")) {
		refuse("device-tied", t.about, t.fact, t.remedy)
	}
	return all
}

// badSize says why a disk of that size cannot be replicated, and the command that mends it. The command is a whole
// one; two empty texts: the size is good. An image has to be grown, never cut: the guest may have data at its end.
func badSize(d vmmanager.Disk) (fact, remedy string) {
	whole := (d.Size + sector - 1) / sector * sector
	switch {
	case d.Size <= 0 && d.Block:
		return fmt.Sprintf("%s has no size: it has no medium, or is not set up", d.Path), "`lsblk " + d.Path +
			"` shows it"
	case d.Size <= 0:
		return fmt.Sprintf("%s has 0 bytes", d.Path),
			fmt.Sprintf("give it its size, such as `qemu-img resize -f %s %s 10G`", d.Format, d.Path)
	case d.Size == whole:
		return "", ""
	case d.Block: // only where a hypervisor cuts a part out of one
		return fmt.Sprintf("%s has %d bytes, which is no multiple of %d", d.Path, d.Size, sector),
			fmt.Sprintf("make it %d bytes or larger, such as `lvextend -L %db %s`", whole, whole, d.Path)
	}
	// Not "+N": qemu-img adds to the size that it has rounded up itself.
	return fmt.Sprintf("%s has %d bytes, which is no multiple of %d", d.Path, d.Size, sector),
		fmt.Sprintf("`qemu-img resize -f %s %s %d` while the VM is off", d.Format, d.Path, whole)
}

// tie is a device that ties a VM to its host.
type tie struct{ about, fact, remedy string } // as in a Finding

// ties returns the devices that tie the VM to this node. protectable tells the first one, obstacles all.
func ties(devices *element) []tie {
	var all []tie
	for i, dev := range devices.all("hostdev") {
		kind := dev.attr("type")
		// A USB stick or dongle may be missing on the other node if the admin has said so.
		if kind == "usb" && dev.child("source").attr("startupPolicy") == "optional" {
			continue
		}
		remedy := "remove it"
		if kind == "usb" {
			remedy = "remove it, or set startupPolicy='optional' on its source"
		}
		all = append(all, tie{fmt.Sprintf("hostdev %d", i+1), fmt.Sprintf("a %s device of this host is passed through",
			kind), remedy})
	}
	for i, nic := range devices.all("interface") {
		if nic.attr("type") == "hostdev" {
			all = append(all, tie{fmt.Sprintf("interface %d", i+1), "a network device of this host is passed through",
				"use a bridge or a libvirt network"})
		}
	}
	for i, fs := range devices.all("filesystem") {
		if fs.child("readonly") != nil {
			continue
		}
		at := fs.child("source").attr("dir")
		all = append(all, tie{fmt.Sprintf("filesystem %d", i+1),
			fmt.Sprintf("the guest shares the directory %q of this host, which is not replicated", at),
			"remove it or make it <readonly/>"})
	}
	for i, mem := range devices.all("memory") {
		if model := mem.attr("model"); slices.Contains([]string{"nvdimm", "virtio-pmem"}, model) {
			all = append(all, tie{fmt.Sprintf("memory device %d", i+1),
				fmt.Sprintf("a memory device of model %s keeps data in a file that is not replicated", model),
				"remove it"})
		}
	}
	return all
}
