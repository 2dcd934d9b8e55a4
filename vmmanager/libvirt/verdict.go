package libvirt

import (
	"cmp"
	"fmt"
	"path"
	"slices"
	"strings"

	"duet/vmmanager"
)

// The needs, each with what it means for a VM that a host lacks it.

// Refused is what libvirt or QEMU would not start for sure; what may be there by the time, or only makes the VM
// another one, is a warning. What is not known is no finding. Codes are for programs and stay; a fact names nothing
// that changes by itself (free memory, free pages), so that the same fault is the same notice at each look.

// refused, warning and finding return one finding; fact is a format for args.
func refused(code, about, remedy, fact string, args ...any) []vmmanager.Finding {
	return finding(vmmanager.Refused, code, about, remedy, fact, args...)
}

func warning(code, about, remedy, fact string, args ...any) []vmmanager.Finding {
	return finding(vmmanager.Warning, code, about, remedy, fact, args...)
}

func finding(level vmmanager.Level, code, about, remedy, fact string, args ...any) []vmmanager.Finding {
	return []vmmanager.Finding{{Level: level, Code: code, About: about, Fact: fmt.Sprintf(fact, args...),
		Remedy: remedy}}
}

// identity is what tells the VM from others.
type identity struct{ name, uuid string } // the UUID in lower case

// of: libvirt takes no second VM of a UUID. One of the same name and another UUID is replaced by Define; a protect
// refuses it all the same, as fitness.Room has it.
func (i identity) of(h *host) []vmmanager.Finding {
	for _, v := range h.vms {
		switch {
		case v.uuid == i.uuid && i.uuid != "" && v.name != i.name:
			return refused("uuid-taken", "",
				fmt.Sprintf("`virsh undefine %s` if it is an old copy, otherwise give that one a UUID of its own",
					v.name),
				"VM %s is defined with the same UUID (%s)", v.name, v.uuid)
		case v.name == i.name && v.uuid != i.uuid && i.uuid != "":
			return warning("name-taken", "",
				fmt.Sprintf("`virsh domrename %s NEWNAME`, or `virsh undefine %s` if it is not needed", v.name, v.name),
				"another VM of the name %s is defined and would be replaced", v.name)
		}
	}
	return nil
}

// memory is ordinary memory, in bytes.
type memory struct{ size int64 }

// of: more than all memory and swap of the host cannot work; what is not free now may be when it is needed.
func (m memory) of(h *host) []vmmanager.Finding {
	switch all := h.memory.total + h.memory.swap; {
	case h.memory.total == 0 || m.size <= h.memory.free:
		return nil
	case m.size > all:
		return refused("memory-short", "memory", "`virsh setmaxmem` gives the VM less, while it is off",
			"it has %s, the host %s with its swap space", amount(m.size), amount(all))
	}
	// How much is free changes all the time: it is not told, so that the finding stays the same.
	return warning("memory-short", "memory", "stop something there, or give the VM less",
		"it has %s, which the host has not free now", amount(m.size))
}

// hugePages is memory in huge pages of one size, in bytes; page 0 is the host's default.
type hugePages struct{ size, page int64 }

// of: pages are counted over the whole host, whatever NUMA node they are on.
func (m hugePages) of(h *host) []vmmanager.Finding {
	page := cmp.Or(m.page, h.memory.page)
	if h.pages == nil || page == 0 {
		return nil
	}
	want := (m.size + page - 1) / page
	remedy := fmt.Sprintf("`sysctl vm.nr_hugepages` reserves more: of %s, %d are needed for this VM alone",
		amount(page), want)
	switch have, known := h.pages[page]; {
	case !known:
		return refused("hugepages-missing", "memory",
			"boot the host with pages of that size, or take another in the VM", "the host has no huge pages of %s",
			amount(page))
	case have.total < want:
		return refused("hugepages-short", "memory", remedy, "it needs %d huge pages of %s, and fewer are reserved",
			want, amount(page))
	case have.free < want:
		return warning("hugepages-short", "memory", remedy, "it needs %d huge pages of %s, and fewer are free now",
			want, amount(page))
	}
	return nil
}

// amount writes bytes for people: 512 MiB, 1.5 GiB.
func amount(n int64) string {
	unit, names := float64(n), []string{"B", "KiB", "MiB", "GiB", "TiB"}
	for len(names) > 1 && unit >= 1024 {
		unit, names = unit/1024, names[1:]
	}
	return strings.TrimSuffix(fmt.Sprintf("%.1f", unit), ".0") + " " + names[0]
}

// pinning is a set of the host's CPUs.
type pinning struct{ about, set string } // in libvirt's words, as 0-3,^2

// of: some of them suffice for a start, none does not. A set that cannot be read is libvirt's to refuse.
func (p pinning) of(h *host) []vmmanager.Finding {
	want, ok := parseCPUs(p.set)
	if !ok || h.cpus == nil {
		return nil
	}
	there := 0
	for cpu := range want {
		if h.cpus[cpu] {
			there++
		}
	}
	const remedy = "pin it to CPUs that both hosts have, or to none"
	switch there {
	case len(want):
		return nil
	case 0:
		return refused("cpu-missing", p.about, remedy, "it is pinned to the CPUs %s, of which the host has none", p.set)
	}
	return warning("cpu-missing", p.about, remedy, "it is pinned to the CPUs %s, of which the host lacks some", p.set)
}

// file must be there; use says what for.
type file struct{ about, path, use string }

// of: an empty path asks for nothing.
func (f file) of(h *host) []vmmanager.Finding {
	if f.path == "" || h.exists(f.path) {
		return nil
	}
	why := ""
	if f.use != "" {
		why = ", and " + f.use
	}
	return refused("file-missing", f.about, "bring it to the same path on both hosts, or take it out of the definition",
		"%s does not exist%s", f.path, why)
}

// folder must be there for a file that QEMU makes in it.
type folder struct{ about, path string }

func (f folder) of(h *host) []vmmanager.Finding {
	dir := path.Dir(f.path)
	if f.path == "" || h.exists(f.path) || h.exists(dir) {
		return nil
	}
	return refused("folder-missing", f.about, "`mkdir -p "+dir+"`", "the folder of %s does not exist", f.path)
}

// peerSocket is a socket of another program that QEMU connects to.
type peerSocket struct{ about, path string }

// of: the program may be started later, so it is a warning.
func (s peerSocket) of(h *host) []vmmanager.Finding {
	if s.path == "" || h.exists(s.path) {
		return nil
	}
	return warning("socket-missing", s.about, "start the program that serves it", "nobody serves the socket %s", s.path)
}

// of: without the variables themselves, the file that they are made from must be there.
func (t nvramTemplate) of(h *host) []vmmanager.Finding {
	if t.nvram != "" && h.exists(t.nvram) {
		return nil
	}
	return file{"UEFI variables", t.path, "they begin as its copy"}.of(h)
}

// medium lies in a drive for removable media.
type medium struct {
	about, path, pool, volume string // path of a file, or the other two
	policy                    string // what libvirt is told to do without it
	vm, target                string // for the remedy
}

// missing reports whether the host lacks it. A pool that cannot be asked counts as having it.
func (m medium) missing(h *host) bool {
	if m.pool != "" {
		return h.hasVolume != nil && !h.hasVolume(m.pool, m.volume)
	}
	return m.path != "" && !h.exists(m.path)
}

// dropped reports whether the VM may start without it: unless an admin has said otherwise.
func (m medium) dropped() bool { return m.policy == "" || m.policy == "optional" }

// of: a medium that the start leaves out (withoutMissing) is a warning.
func (m medium) of(h *host) []vmmanager.Finding {
	if !m.missing(h) {
		return nil
	}
	what := m.path
	if m.pool != "" {
		what = fmt.Sprintf("volume %s of pool %s", m.volume, m.pool)
	}
	// The definition that is judged is kept where the VM is, which is not the host that judges.
	remedy := fmt.Sprintf("bring it there, or eject it on the host where the VM is: `virsh change-media %s %s --eject "+
		"--config`", m.vm, m.target)
	if !m.dropped() {
		return refused("medium-missing", m.about, remedy,
			"%s does not exist, and startupPolicy='%s' keeps the VM from starting without it", what, m.policy)
	}
	return warning("medium-missing", m.about, remedy, "%s does not exist: the VM starts without it", what)
}

// network is a network of libvirt's.
type network struct{ about, name, portgroup string }

// of: a network that leads to a bridge of the host needs that bridge, too.
func (n network) of(h *host) []vmmanager.Finding {
	if h.networks == nil {
		return nil
	}
	have, ok := h.networks[n.name]
	switch {
	case !ok:
		return refused("network-missing", n.about,
			fmt.Sprintf("`virsh net-define`, `net-start` and `net-autostart` make it, as `virsh net-dumpxml %s` shows it on "+
				"the other host if that has it; if none has it, `virsh edit` %s names another one", n.name, vmmanager.OnItsHost),
			"there is no network %s", n.name)
	case !have.active:
		return refused("network-inactive", n.about, fmt.Sprintf("`virsh net-start %s && virsh net-autostart %s`",
			n.name, n.name), "network %s is not active", n.name)
	}
	var all []vmmanager.Finding
	if have.bridge != "" {
		all = link{n.about, have.bridge, onBridge, false}.of(h)
	}
	if !have.autostart {
		all = append(all, warning("network-autostart", n.about, fmt.Sprintf("`virsh net-autostart %s`", n.name),
			"network %s does not start with the host", n.name)...)
	}
	if n.portgroup != "" && !slices.Contains(have.portgroups, n.portgroup) {
		all = append(all, warning("portgroup-missing", n.about, fmt.Sprintf("`virsh net-edit %s`", n.name),
			"network %s has no portgroup %s", n.name, n.portgroup)...)
	}
	return all
}

// How an interface uses a network device of the host.
type usage uint8

const (
	onBridge usage = iota // it becomes a port of it
	onDevice              // it gets a macvtap device on top of it
	onTap                 // it is that device, which somebody else has made
)

// link is a network device of the host.
type link struct {
	about, name string // of what, and of which device
	use         usage
	ovs         bool // a bridge of Open vSwitch, which need not show as a device
}

// of: a device that is down is there for QEMU, so that is a warning; a tap is brought up by whoever made it.
func (l link) of(h *host) []vmmanager.Finding {
	if h.links == nil || l.name == "" {
		return nil
	}
	have, ok := h.links[l.name]
	down := fmt.Sprintf("`ip link set %s up`", l.name)
	switch {
	case !ok && l.ovs:
		return warning("bridge-missing", l.about, fmt.Sprintf("`ovs-vsctl add-br %s`", l.name),
			"there is no Open vSwitch bridge %s", l.name)
	case !ok && l.use == onBridge:
		return refused("bridge-missing", l.about,
			fmt.Sprintf("make it, for good in the host's network configuration; `ip link add %s type bridge && ip link set %s "+
				"up` until its next boot", l.name, l.name),
			"there is no bridge %s", l.name)
	case !ok:
		return refused("link-missing", l.about, "name a device that both hosts have, or use a bridge",
			"there is no network device %s", l.name)
	case l.use == onBridge && !l.ovs && !have.bridge:
		return refused("bridge-missing", l.about, "name a bridge, or use an interface of type direct",
			"the network device %s is no bridge", l.name)
	case !have.up && l.use != onTap:
		return warning("link-down", l.about, down, "the network device %s is down", l.name)
	}
	return nil
}

// filter is a network filter of libvirt's.
type filter struct{ about, name string }

// of: a host without the driver for filters has no list, and nothing is said.
func (f filter) of(h *host) []vmmanager.Finding {
	if h.filters == nil || h.filters[f.name] {
		return nil
	}
	return refused("filter-missing", f.about,
		fmt.Sprintf("`virsh nwfilter-define` makes it, as `virsh nwfilter-dumpxml %s` shows it on the other host if that "+
			"has it; if none has it, `virsh edit` %s names another one", f.name, vmmanager.OnItsHost),
		"there is no network filter %s", f.name)
}

// secret is one that libvirt keeps, by its UUID.
type secret struct{ about, uuid string } // in lower case

func (s secret) of(h *host) []vmmanager.Finding {
	if h.secrets == nil || h.secrets[s.uuid] {
		return nil
	}
	return refused("secret-missing", s.about, "`virsh secret-define` and `virsh secret-set-value` make it",
		"there is no secret %s", s.uuid)
}

// port is one that QEMU listens at.
type port struct {
	about, proto, addr string
	port               uint16
}

// of: a VM that runs here listens itself, see judge.
func (p port) of(h *host) []vmmanager.Finding {
	if !h.busy(p.proto, p.addr, p.port) {
		return nil
	}
	remedy := "give the VM another port"
	if strings.HasSuffix(p.about, "display") {
		remedy = "give the VM another port, or autoport='yes'"
	}
	return refused("port-used", p.about, remedy, "another program uses its %s port %d", p.proto, p.port)
}

// kept is a state of the VM that each host keeps for itself.
type kept struct {
	level             vmmanager.Level
	code, about, fact string
}

// of: it is so on every host.
func (k kept) of(*host) []vmmanager.Finding {
	return finding(k.level, k.code, k.about, "", "%s", k.fact)
}

// argument is a file named in an argument that goes to QEMU past libvirt.
type argument struct{ path string } // as it stands there

// of: the argument may be no path at all, so it is a warning.
func (a argument) of(h *host) []vmmanager.Finding {
	if h.exists(a.path) {
		return nil
	}
	return warning("file-missing", "arguments for QEMU", "bring it to the same path on both hosts",
		"%s does not exist, and what it is for is not known to Duet", a.path)
}

// judge holds needs against a host. What a VM that runs there has taken itself does not count. Findings come in the
// order of the needs, each once. Nothing is asked here but h.exists and h.hasVolume.
func judge(all []need, h *host) []vmmanager.Finding {
	running := slices.ContainsFunc(all, func(n need) bool { i, ok := n.(identity); return ok && h.runs(i.name) })
	var out []vmmanager.Finding
	for _, n := range all {
		switch n.(type) {
		case memory, hugePages, port:
			if running {
				continue
			}
		}
		for _, f := range n.of(h) {
			if !slices.Contains(out, f) {
				out = append(out, f)
			}
		}
	}
	return out
}
