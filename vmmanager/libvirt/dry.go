package libvirt

import (
	"slices"
	"strings"

	"duet/vmmanager"
)

// dryText is a definition for a dry run. libvirt's own makes a tap device for each
// interface, so they become ones that need none; what they are on is judged by itself.
// Removable media are left out: a VM may start without them. It is never stored.
func dryText(text []byte) ([]byte, error) {
	domain, err := parseXML(text)
	if err != nil {
		return nil, err
	}
	var edits []edit
	for _, nic := range domain.child("devices").all("interface") {
		edits = append(edits, retag(text, nic, set("type", "user"), "managed", "trustGuestRxFilters"))
		for _, c := range nic.children {
			if !slices.Contains([]string{"mac", "model", "address", "boot", "alias"}, c.name) {
				edits = append(edits, remove(text, c))
			}
		}
	}
	for _, d := range disks(domain) {
		if source := d.child("source"); source != nil && (d.device == "cdrom" || d.device == "floppy") {
			edits = append(edits, retag(text, d.element, set("type", "file")), remove(text, source))
			for _, c := range d.all("backingStore") {
				edits = append(edits, remove(text, c))
			}
		}
	}
	return apply(text, edits), nil
}

// refusal is what libvirt says in a dry run, by a part of its words. Its error codes are too coarse to tell these
// apart.
type refusal struct{ words, code, about, remedy string } // about is the part of the VM

// refusals are the known ones. The first that fits counts. Wider words stand below narrower ones.
var refusals = []refusal{
	{"validate against schema", "definition-unknown", "definition",
		"take out what this libvirt does not know, or bring both hosts to the same release"},
	{"Cannot check QEMU binary", "emulator-missing", "emulator",
		"install that QEMU, or name one that both hosts have in <emulator>"},
	{"No emulator found", "emulator-missing", "emulator", "install QEMU for it: `apt install qemu-system`"},
	{"does not support virt type", "emulator-missing", "emulator",
		"`ls -l /dev/kvm` shows whether this host can virtualize: its firmware may have it switched off"},
	{"does not support machine type", "machine-missing", "machine",
		"bring QEMU of both hosts to the same release, or take a machine type that both have: `virsh domcapabilities`"},
	{"Unable to find any firmware", "firmware-missing", "firmware", "`apt install ovmf`"},
	{"TPM", "tpm-missing", "tpm", "`apt install swtpm-tools`"},
	{"hugetlbfs", "hugepages-missing", "memory",
		"`mount -t hugetlbfs hugetlbfs /dev/hugepages`, and `systemctl restart libvirtd`"},
	{"NUMA node", "numa-missing", "memory", "tune it to NUMA nodes that both hosts have, or to none"},
	{"CPU", "cpu-missing", "cpu", "take a CPU model that both hosts have: `virsh hypervisor-cpu-baseline`"},
}

// refusedDry turns what libvirt said into a finding; certain: it says the same to a start. What is known by its
// words is refused in any case; what is not, and not certain, is a warning.
func refusedDry(said string, certain bool) vmmanager.Finding {
	said = strings.TrimPrefix(strings.Join(strings.Fields(said), " "), "unsupported configuration: ")
	for _, r := range refusals {
		if strings.Contains(said, r.words) {
			return vmmanager.Finding{Level: vmmanager.Refused, Code: r.code, About: r.about, Fact: said,
				Remedy: r.remedy}
		}
	}
	if !certain {
		return vmmanager.Finding{Level: vmmanager.Warning, Code: "hypervisor-doubts",
			Fact: "libvirt may not start it, as it says in a dry run: " + said}
	}
	return vmmanager.Finding{Level: vmmanager.Refused, Code: "hypervisor-refuses",
		Fact: "libvirt would not start it: " + said}
}
