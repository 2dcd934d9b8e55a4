package libvirt

import (
	"bufio"
	"encoding/hex"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// host is what a computer has of that which definitions ask for, at one moment. A map that
// is nil is not known: nothing is said of what would be in it. It is not changed once it was made; hasVolume asks
// libvirt when it is called.
type host struct {
	vms      []hostVM
	networks map[string]hostNetwork
	links    map[string]hostLink
	filters  map[string]bool // of networks
	secrets  map[string]bool // by UUID
	sockets  []listener
	memory   hostMemory
	pages    map[int64]hostPages // huge pages by their size in bytes
	cpus     cpuSet              // that are online
	// exists tells whether there is anything at a path; errors but "no such file" count as yes.
	exists func(path string) bool
	// hasVolume tells whether a storage pool is active and has a volume; nil: not known.
	hasVolume func(pool, volume string) bool
}

type hostVM struct {
	name, uuid string // the UUID in lower case
	running    bool
}

type hostNetwork struct {
	active, autostart bool
	bridge            string // of the host, that it leads to; empty: its own, or none
	portgroups        []string
}

type hostLink struct{ up, bridge bool } // a network device: whether it is up, and a bridge of the kernel's

// hostMemory is in bytes. free counts what can be freed; page is the usual size of huge pages.
type hostMemory struct{ total, swap, free, page int64 }

type hostPages struct{ total, free int64 } // pages

// runs reports whether the VM runs on this host.
func (h *host) runs(name string) bool {
	return slices.ContainsFunc(h.vms, func(v hostVM) bool { return v.name == name && v.running })
}

// listener is a socket of this host that others connect to.
type listener struct {
	proto string // tcp, udp
	addr  netip.Addr
	port  uint16
}

// busy reports whether nobody else can listen at that address and port. An address that
// does not parse counts as all of them. A socket at the wildcard address is in the way of all of them, of both
// families.
func (h *host) busy(proto, addr string, port uint16) bool {
	want, err := netip.ParseAddr(addr)
	all := err != nil || want.IsUnspecified()
	return slices.ContainsFunc(h.sockets, func(l listener) bool {
		return l.proto == proto && l.port == port && (all || l.addr.IsUnspecified() || l.addr.Unmap() == want.Unmap())
	})
}

// cpuSet is a set of CPUs of a host.
type cpuSet map[int]bool

// parseCPUs reads "0-3,8,^2"; ok is false where that is none. A number after ^ is taken out, wherever it stands.
// Numbers end below 65,536, so that a wrong text costs no memory.
func parseCPUs(text string) (set cpuSet, ok bool) {
	set = cpuSet{}
	var out []int
	for part := range strings.SplitSeq(strings.TrimSpace(text), ",") {
		part, not := strings.CutPrefix(strings.TrimSpace(part), "^")
		first, last, isRange := strings.Cut(part, "-")
		a, err := strconv.Atoi(strings.TrimSpace(first))
		b := a
		if err == nil && isRange {
			b, err = strconv.Atoi(strings.TrimSpace(last))
		}
		const most = 1 << 16 // CPUs
		if err != nil || a < 0 || b < a || b >= most {
			return nil, false
		}
		for cpu := a; cpu <= b; cpu++ {
			if not {
				out = append(out, cpu)
			} else {
				set[cpu] = true
			}
		}
	}
	for _, cpu := range out {
		delete(set, cpu)
	}
	return set, len(set) > 0
}

// localHost reads what this computer itself tells: all but what libvirt knows. It reads /proc and /sys, of the
// namespaces that this process is in. What cannot be read is not known.
func localHost() *host {
	h := &host{memory: readMemory(), pages: readPages(), sockets: readSockets(), links: readLinks(), exists: exists}
	if text, err := os.ReadFile("/sys/devices/system/cpu/online"); err == nil {
		h.cpus, _ = parseCPUs(string(text)) // nil where it says nothing
	}
	return h
}

// exists tells whether there is anything at a path that can be opened there. Links are followed. A path that may
// not be looked at counts as there.
func exists(path string) bool {
	_, err := os.Stat(path)
	return !os.IsNotExist(err)
}

// readMemory reads /proc/meminfo; zeros where it cannot be read.
func readMemory() hostMemory {
	f, err := os.Open("/proc/meminfo")
	if err != nil {
		return hostMemory{}
	}
	defer f.Close()
	return parseMemory(f)
}

// parseMemory reads lines "Name: number kB" (proc(5)), where kB are KiB. MemAvailable is what can be had without
// swapping.
func parseMemory(r io.Reader) hostMemory {
	var m hostMemory
	for lines := bufio.NewScanner(r); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) < 2 {
			continue
		}
		n, err := strconv.ParseInt(fields[1], 10, 64)
		if err != nil {
			continue
		}
		switch fields[0] {
		case "MemTotal:":
			m.total = n << 10
		case "SwapTotal:":
			m.swap = n << 10
		case "MemAvailable:":
			m.free = n << 10
		case "Hugepagesize:":
			m.page = n << 10
		}
	}
	return m
}

// readPages reads the pools of huge pages. A host that has none has an empty map.
func readPages() map[int64]hostPages {
	dirs, err := filepath.Glob("/sys/kernel/mm/hugepages/hugepages-*kB")
	if err != nil {
		return nil
	}
	all := map[int64]hostPages{}
	for _, dir := range dirs {
		size := strings.TrimSuffix(strings.TrimPrefix(filepath.Base(dir), "hugepages-"), "kB")
		kib, err := strconv.ParseInt(size, 10, 64)
		if err == nil {
			all[kib<<10] = hostPages{readNumber(dir, "nr_hugepages"), readNumber(dir, "free_hugepages")}
		}
	}
	return all
}

// readNumber reads a file of /sys with one number; 0 where there is none.
func readNumber(dir, name string) int64 {
	text, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		return 0
	}
	n, _ := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64) // 0 where it is none
	return n
}

// readSockets lists the ports that somebody listens at in this network namespace. A table that cannot be read, as
// of a host without IPv6, is left out.
func readSockets() []listener {
	var all []listener
	for _, table := range []string{"tcp", "tcp6", "udp", "udp6"} {
		if f, err := os.Open("/proc/net/" + table); err == nil {
			all = append(all, parseSockets(strings.TrimSuffix(table, "6"), f)...)
			_ = f.Close() // it was only read
		}
	}
	return all
}

// states of a socket in the kernel's tables.
const (
	tcpListen = "0A"
	udpOpen   = "07"
)

// parseSockets reads a table of the kernel: number, local address, remote address, state, all in hex. A udp socket
// that is not connected has the state of a closed tcp one. The address is one word of 32 bits, or four.
func parseSockets(proto string, r io.Reader) []listener {
	var all []listener
	for lines := bufio.NewScanner(r); lines.Scan(); {
		f := strings.Fields(lines.Text())
		if len(f) < 4 || f[3] != tcpListen && f[3] != udpOpen || (f[3] == tcpListen) != (proto == "tcp") {
			continue
		}
		at, hexPort, _ := strings.Cut(f[1], ":")
		n, err := strconv.ParseUint(hexPort, 16, 16)
		raw, badAddr := hex.DecodeString(at)
		if err != nil || badAddr != nil || len(raw)%4 != 0 {
			continue
		}
		for i := 0; i < len(raw); i += 4 { // words are in this computer's order: little-endian where KVM is common
			slices.Reverse(raw[i : i+4])
		}
		if addr, ok := netip.AddrFromSlice(raw); ok {
			all = append(all, listener{proto, addr, uint16(n)})
		}
	}
	return all
}

// readLinks lists the network devices of this network namespace.
func readLinks() map[string]hostLink {
	found, err := net.Interfaces()
	if err != nil {
		return nil
	}
	all := map[string]hostLink{}
	for _, l := range found {
		all[l.Name] = hostLink{up: l.Flags&net.FlagUp != 0, bridge: isBridge(l)}
	}
	return all
}

// isBridge reports whether a device is a bridge. It counts as one where /sys shows the
// devices of another network namespace than this process is in. Only the kernel's own bridges are: one of Open
// vSwitch is judged as such.
func isBridge(l net.Interface) bool {
	dir := filepath.Join("/sys/class/net", l.Name)
	if readNumber(dir, "ifindex") != int64(l.Index) {
		return true
	}
	return exists(filepath.Join(dir, "bridge"))
}

// networkOf reads a network of libvirt's: the bridge of the host that it leads to, and its portgroups. A network
// that makes its own bridge (NAT, routed, isolated) leads to none of the host's.
func networkOf(text []byte) (bridge string, portgroups []string, err error) {
	net, err := parseXML(text)
	if err != nil {
		return "", nil, err
	}
	if net.child("forward").attr("mode") == "bridge" && net.child("virtualport").attr("type") != "openvswitch" {
		bridge = net.child("bridge").attr("name")
	}
	for _, g := range net.all("portgroup") {
		portgroups = append(portgroups, g.attr("name"))
	}
	return bridge, portgroups, nil
}
