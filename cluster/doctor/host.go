package doctor

import (
	"fmt"
	"path"
	"slices"
	"strings"
)

// Bounds of a healthy host, in bytes or numbers.
const (
	metadataFloor = 64 << 20  // below it the node refuses work, see badgerlog.DefaultMinFree
	metadataLow   = 512 << 20 // time to look
	hostShare     = 512 << 20 // what a host wants for itself
	filesFloor    = 4096      // open files: a volume takes some ten
)

func hypervisor(s *sheet, f Facts) {
	h := f.Hypervisor
	switch {
	case h.Problem != "":
		s.add(Problem, "libvirt",
			"`systemctl status libvirtd virtqemud`; where it is missing: `apt install libvirt-daemon-system qemu-system-x86`",
			"no VM can run here: %s", h.Problem)
		return
	case h.Name == "":
		return // the facts say elsewhere that nobody asked
	case h.Version == "":
		s.add(OK, "libvirt", "", "%s answers", h.Name)
	default:
		s.add(OK, "libvirt", "", "%s %s with %s", h.Name, h.Version, orWord(h.Emulator, "no emulator"))
	}
	if !f.Host.KVM {
		s.add(Warning, "kvm", "switch virtualization on in the firmware, then `modprobe kvm_intel` or `modprobe kvm_amd`",
			"there is no /dev/kvm: VMs of type kvm do not start, others are emulated and slow")
	}
}

// confinement judges what keeps guests' processes from Duet's sockets and images.
func confinement(s *sheet, f Facts) {
	h := f.Hypervisor
	var models []string
	for _, m := range h.Security {
		if m.Model != "none" { // libvirt's word for no other than dac
			models = append(models, m.Model)
		}
	}
	if h.Version != "" && h.Problem == "" {
		s.add(OK, "guests", "", "guests run as %s, confined by %s", orWord(h.User, "their hypervisor's user"),
			orWord(strings.Join(models, ", "), "nothing"))
	}
	asked := h.Version != "" // without the hypervisor's word, the kernel's counts
	switch {
	case f.Host.AppArmor && (slices.Contains(models, "apparmor") || !asked):
		if f.Host.Abstraction {
			s.add(OK, "apparmor", "", "AppArmor lets guests reach /run/duet/volumes")
			break
		}
		s.add(Problem, "apparmor",
			"`echo '/run/duet/volumes/** rw,' >>"+abstraction+"`; a running VM takes it at its next start",
			"AppArmor keeps guests from /run/duet/volumes: no rule for duet in %s", strings.TrimSpace(abstraction))
	case f.Host.AppArmor:
		s.add(Note, "apparmor", "", "AppArmor is on, but libvirt does not confine guests by it")
	}
	switch {
	case f.Host.SELinux == "enforcing" && (slices.Contains(models, "selinux") || !asked):
		s.add(Note, "selinux", "`semanage fcontext -a -t svirt_image_t '/var/lib/duet/volumes(/.*)?' && "+
			"restorecon -R /var/lib/duet/volumes`; `ausearch -m avc -ts recent` shows what is refused",
			"SELinux is enforcing: images and sockets need a label that guests may use")
	case f.Host.SELinux != "":
		s.add(OK, "selinux", "", "SELinux is %s", f.Host.SELinux)
	}
}

// abstraction is where local rules for all guests stand.
const abstraction = " /etc/apparmor.d/local/abstractions/libvirt-qemu"

// memory judges whether all that may run here could, at the same time. It counts the VMs that run and those that are
// protected, whose peer may fail at any time, each with all the memory that it may use. Huge pages are counted
// apart: the kernel takes nothing else for them.
func memory(s *sheet, f Facts) {
	if f.Host.Memory == 0 || f.Hypervisor.Version == "" {
		return
	}
	protected := map[string]bool{}
	for _, m := range f.Modules {
		protected[m.VM] = true
	}
	var want, huge int64
	count := 0
	var hungry []string
	for _, vm := range f.Hypervisor.VMs {
		if !protected[vm.Name] && !vm.Running {
			continue
		}
		count++
		want += vm.Memory
		if vm.HugePages {
			huge += vm.Memory
			hungry = append(hungry, vm.Name)
		}
	}
	switch {
	case count == 0:
		s.add(OK, "memory", "", "%s of memory, and no VM that may run here", size(f.Host.Memory))
	case want > f.Host.Memory-hostShare:
		s.add(Warning, "memory", "`virsh setmem` and `virsh setmaxmem` make a VM smaller; or let fewer VMs run here",
			"if all %d VMs that may run here did, they would take %s, and this host has %s",
			count, size(want), size(f.Host.Memory))
	default:
		s.add(OK, "memory", "", "%s of memory; all VMs that may run here (%d) take %s", size(f.Host.Memory), count,
			size(want))
	}
	if huge > f.Host.Huge {
		s.add(Warning, "memory", "`sysctl vm.nr_hugepages=…` on this host, and in /etc/sysctl.d to keep it",
			"%s want %s of huge pages, and %s are set aside", strings.Join(hungry, ", "), size(huge), size(f.Host.Huge))
	}
}

// spaces compares what is free with what sparse images may still take.
func spaces(s *sheet, f Facts) {
	for _, sp := range f.Host.Spaces {
		free := fmt.Sprintf("%s free in %s for %s", size(sp.Free), sp.Dir, sp.For)
		remedy := "`df -h " + sp.Dir + "`, then delete something there or enlarge it"
		switch {
		case sp.For == ForMetadata && sp.Free < metadataFloor:
			s.add(Problem, "space", remedy, "only %s: below %s the node refuses work", free, size(metadataFloor))
		case sp.For == ForMetadata && sp.Free < metadataLow:
			s.add(Warning, "space", remedy, "only %s: below %s the node will refuse work", free, size(metadataFloor))
		case sp.Grow > sp.Free:
			s.add(Warning, "space", remedy, "%s, and the images there may still grow by %s", free, size(sp.Grow))
		default:
			s.add(OK, "space", "", "%s", free)
		}
	}
}

// limits judges what the system lets the daemon have. A command that looked has limits of its own, which say nothing
// of the daemon's.
func limits(s *sheet, f Facts) {
	if !f.Daemon {
		return
	}
	unit := "`systemctl edit duetd`, under [Service]: "
	if f.Host.Files != 0 && f.Host.Files < filesFloor {
		s.add(Warning, "limits", unit+"LimitNOFILE=65536; then `systemctl restart duetd`", "duetd may open %d files only",
			f.Host.Files)
	}
	if !f.Host.Locked {
		s.add(Warning, "limits", unit+"LimitMEMLOCK=infinity; then `systemctl restart duetd`",
			"duetd's memory is not locked: while the host swaps, heartbeats may be late")
		return
	}
	s.add(OK, "limits", "", "duetd's memory is locked, it may open %d files", f.Host.Files)
}

// watchdog never asks for one: without it nothing is lost, only a host that hangs stays as it is.
func watchdog(s *sheet, f Facts) {
	// /dev/watchdog is the first one under its old name.
	there := slices.Contains(f.Host.Watchdogs, f.Watchdog)
	switch {
	case f.Watchdog != "" && there:
		s.add(OK, "watchdog", "", "%s resets this host if duetd hangs", f.Watchdog)
	case f.Watchdog != "":
		s.add(Problem, "watchdog", "`modprobe softdog` gives one in software; or start duetd without --watchdog",
			"there is no %s, which duetd was given as its watchdog", f.Watchdog)
	case len(f.Host.Watchdogs) > 0:
		s.add(Note, "watchdog", "duetd --watchdog "+f.Host.Watchdogs[0],
			"a watchdog is there (%s) and not used: nothing resets this host if duetd hangs", path.Base(f.Host.Watchdogs[0]))
	default:
		s.add(Note, "watchdog", "", "no watchdog: nothing resets this host if duetd hangs")
	}
}

// guard judges whether guests end that the daemon leaves behind. It says nothing where the daemon was told of no
// guard.
func guard(s *sheet, f Facts) {
	switch {
	case f.Guard == nil:
	case *f.Guard:
		s.add(OK, "guard", "", "a guard pauses the VMs here if duetd dies and does not come back")
	default:
		s.add(Warning, "guard", "`systemctl start duet-guard`, then `systemctl status duet-guard`",
			"no guard runs: if duetd dies here and does not come back, its VMs run on beside those that the peer starts")
	}
}

func orWord(s, other string) string {
	if s == "" {
		return other
	}
	return s
}
