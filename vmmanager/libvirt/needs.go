package libvirt

import (
	"cmp"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"duet/vmmanager"
)

// need is one thing that a definition asks of the host that runs it, beside its replicated disks. Its types have to
// be comparable, see sameNeed, and are made by the functions below for one definition.
type need interface {
	// of tells what is missing on a host; nothing: it has it.
	of(h *host) []vmmanager.Finding
}

// needs returns all that a definition asks of a host. Their order is that of the findings.
func needs(domain *element) []need {
	devices := domain.child("devices")
	return slices.Concat(
		[]need{identity{textOf(domain.child("name")), strings.ToLower(textOf(domain.child("uuid")))}},
		memoryNeeds(domain), cpuNeeds(domain), bootNeeds(domain), mediaNeeds(domain), interfaceNeeds(devices),
		chardevNeeds(devices), graphicsNeeds(devices), deviceNeeds(devices), stateNeeds(domain), argumentNeeds(domain),
	)
}

// textOf is the text directly inside, without the space around it; "" of nil.
func textOf(e *element) string {
	if e == nil {
		return ""
	}
	return strings.TrimSpace(e.text)
}

// numbered calls f for each element of that name with what admins call it: "interface 1". Numbers count from 1 over
// the elements of that name, in the order of the definition.
func numbered(devices *element, name string, f func(about string, e *element)) {
	for i, e := range devices.all(name) {
		f(fmt.Sprintf("%s %d", name, i+1), e)
	}
}

// bytesOf reads an amount as libvirt writes it: <memory unit='KiB'>8192</memory>. 0 if it is none.
func bytesOf(e *element) int64 {
	n, err := strconv.ParseInt(textOf(e), 10, 64)
	if err != nil {
		return 0
	}
	return n * unitOf(e.attr("unit"))
}

// unitOf is a unit in bytes; KiB if it is empty, as in libvirt (formatdomain: KB is 1000, KiB 1024), 0 if it is not
// known.
func unitOf(unit string) int64 {
	switch cmp.Or(unit, "KiB") {
	case "b", "bytes":
		return 1
	case "KB":
		return 1e3
	case "k", "KiB":
		return 1 << 10
	case "MB":
		return 1e6
	case "M", "MiB":
		return 1 << 20
	case "GB":
		return 1e9
	case "G", "GiB":
		return 1 << 30
	case "TB":
		return 1e12
	case "T", "TiB":
		return 1 << 40
	}
	return 0
}

// memoryNeeds: ordinary memory, or huge pages. <memory> is what the VM has at boot; what its balloon gives back
// (<currentMemory>) may be wanted at any time. Of several sizes of pages the first is taken.
func memoryNeeds(domain *element) []need {
	size := bytesOf(domain.child("memory"))
	huge := domain.child("memoryBacking", "hugepages")
	if huge == nil {
		return []need{memory{size}}
	}
	page := int64(0) // the host's default
	if p := huge.child("page"); p != nil {
		n, _ := strconv.ParseInt(p.attr("size"), 10, 64) // 0 where it says nothing
		page = n * unitOf(p.attr("unit"))
	}
	return []need{hugePages{size, page}}
}

// cpuNeeds: the CPUs of the host that the VM is pinned to.
func cpuNeeds(domain *element) []need {
	var all []need
	pin := func(about, set string) {
		if set != "" {
			all = append(all, pinning{about, set})
		}
	}
	pin("vcpu", domain.child("vcpu").attr("cpuset"))
	tune := domain.child("cputune")
	for _, p := range tune.all("vcpupin") {
		pin("vcpupin "+p.attr("vcpu"), p.attr("cpuset"))
	}
	for _, p := range tune.all("iothreadpin") {
		pin("iothreadpin "+p.attr("iothread"), p.attr("cpuset"))
	}
	pin("emulatorpin", tune.child("emulatorpin").attr("cpuset"))
	return all
}

// bootNeeds: files that QEMU reads to start the guest. libvirt makes the file of the UEFI variables itself where it
// puts it by itself.
func bootNeeds(domain *element) []need {
	os := domain.child("os")
	var all []need
	for _, part := range []string{"kernel", "initrd", "dtb", "shim"} {
		if at := textOf(os.child(part)); at != "" {
			all = append(all, file{part, at, "the VM boots from it"})
		}
	}
	if at := textOf(os.child("loader")); at != "" {
		all = append(all, file{"firmware", at, ""})
	}
	if nvram := os.child("nvram"); nvram != nil {
		at := cmp.Or(textOf(nvram), nvram.child("source").attr("file"))
		if template := nvram.attr("template"); template != "" {
			all = append(all, nvramTemplate{template, at})
		}
		if at != "" && !libvirtOwn(at) {
			all = append(all, folder{"UEFI variables", at})
		}
	}
	for _, table := range os.child("acpi").all("table") {
		all = append(all, file{"ACPI table", textOf(table), ""})
	}
	for _, info := range domain.all("sysinfo") {
		for _, entry := range info.all("entry") {
			if at := entry.attr("file"); at != "" {
				all = append(all, file{"fwcfg " + entry.attr("name"), at, ""})
			}
		}
	}
	return all
}

// nvramTemplate is the file that UEFI variables are first made from.
type nvramTemplate struct{ path, nvram string }

// mediaNeeds: what lies in the drives for removable media.
func mediaNeeds(domain *element) []need {
	var all []need
	for _, d := range disks(domain) {
		if m, ok := mediumOf(d); ok {
			m.vm = textOf(domain.child("name"))
			all = append(all, m)
		}
	}
	return all
}

// interfaceNeeds: networks, bridges and devices of the host that the VM's interfaces are on. Other types are
// not looked at; hostdev is refused as a tie.
func interfaceNeeds(devices *element) []need {
	var all []need
	numbered(devices, "interface", func(about string, nic *element) {
		source := nic.child("source")
		switch nic.attr("type") {
		case "network":
			all = append(all, network{about, source.attr("network"), source.attr("portgroup")})
		case "bridge":
			all = append(all, link{about, source.attr("bridge"), onBridge,
				nic.child("virtualport").attr("type") == "openvswitch"})
		case "direct":
			all = append(all, link{about, source.attr("dev"), onDevice, false})
		case "ethernet":
			if target := nic.child("target"); target.attr("managed") == "no" {
				all = append(all, link{about, target.attr("dev"), onTap, false})
			}
		case "vhostuser":
			if source.attr("mode") == "client" {
				all = append(all, peerSocket{about, source.attr("path")})
			}
		case "vdpa":
			all = append(all, file{about, source.attr("dev"), ""})
		}
		if f := nic.child("filterref").attr("filter"); f != "" {
			all = append(all, filter{about, f})
		}
		if at := nic.child("rom").attr("file"); at != "" {
			all = append(all, file{about, at, ""})
		}
	})
	return all
}

// chardevNeeds: files, devices, sockets and ports behind serial ports and their like. A port or socket that QEMU
// listens at has to be free, one that it connects to has to be served.
func chardevNeeds(devices *element) []need {
	var all []need
	for _, name := range []string{"serial", "parallel", "console", "channel", "redirdev", "smartcard"} {
		numbered(devices, name, func(about string, dev *element) {
			for _, n := range chardev(about, dev.attr("type"), dev) {
				// libvirt lists the first serial port once more, as a console.
				if !slices.ContainsFunc(all, func(have need) bool { return sameNeed(have, n) }) {
					all = append(all, n)
				}
			}
		})
	}
	numbered(devices, "rng", func(about string, rng *element) {
		switch backend := rng.child("backend"); backend.attr("model") {
		case "random":
			if at := textOf(backend); at != "" {
				all = append(all, file{about, at, ""})
			}
		case "egd":
			all = append(all, chardev(about, backend.attr("type"), backend)...)
		}
	})
	return all
}

// chardev is what one character device of that type asks for. libvirt keeps the two ends of a udp device in two
// <source> elements.
func chardev(about, kind string, dev *element) []need {
	var all []need
	for _, source := range dev.all("source") {
		at := source.attr("path")
		switch {
		case kind == "dev":
			all = append(all, file{about, at, ""})
		case kind == "file":
			all = append(all, folder{about, at})
		case kind == "unix" && source.attr("mode") == "connect":
			all = append(all, peerSocket{about, at})
		case kind == "unix" && at != "" && !libvirtOwn(at):
			all = append(all, folder{about, at})
		case (kind == "tcp" || kind == "udp") && source.attr("mode") == "bind":
			all = append(all, portNeeds(about, kind, source.attr("host"), source.attr("service"))...)
		}
	}
	if at := dev.child("log").attr("file"); at != "" {
		all = append(all, folder{about, at})
	}
	return all
}

// sameNeed reports whether two parts of a VM ask for the same. What they are about does not count. A type with a
// slice or a map in it would panic here.
func sameNeed(a, b need) bool {
	anonymous := func(n need) need {
		switch n := n.(type) {
		case file:
			n.about = ""
			return n
		case folder:
			n.about = ""
			return n
		case peerSocket:
			n.about = ""
			return n
		case port:
			n.about = ""
			return n
		}
		return n
	}
	return anonymous(a) == anonymous(b)
}

// graphicsNeeds: fixed ports and render devices of displays. With autoport libvirt takes a port that is free.
// Without an address QEMU listens at libvirt's default, 127.0.0.1 unless qemu.conf says otherwise.
func graphicsNeeds(devices *element) []need {
	var all []need
	numbered(devices, "graphics", func(about string, g *element) {
		if at := g.child("gl").attr("rendernode"); at != "" {
			all = append(all, file{about, at, ""})
		}
		if g.attr("autoport") == "yes" || g.attr("type") != "vnc" && g.attr("type") != "spice" {
			return
		}
		listen := g.child("listen")
		addr := cmp.Or(listen.attr("address"), g.attr("listen"))
		if kind := listen.attr("type"); kind == "socket" || kind == "none" {
			return
		}
		for _, attr := range []string{"port", "tlsPort", "websocket"} {
			if p := g.attr(attr); p != "" && p != "-1" && p != "0" {
				all = append(all, portNeeds(g.attr("type")+" display", "tcp", cmp.Or(addr, "127.0.0.1"), p)...)
			}
		}
	})
	return all
}

// portNeeds is a port to listen at; a service that is no number is left to libvirt.
func portNeeds(about, proto, addr, service string) []need {
	n, err := strconv.ParseUint(service, 10, 16)
	if err != nil || n == 0 {
		return nil
	}
	return []need{port{about, proto, addr, uint16(n)}}
}

// deviceNeeds: what other devices are backed by. A directory that is shared for writing is refused as a tie as
// well.
func deviceNeeds(devices *element) []need {
	var all []need
	numbered(devices, "filesystem", func(about string, fs *element) {
		source := fs.child("source")
		if at := cmp.Or(source.attr("dir"), source.attr("file"), source.attr("dev")); at != "" {
			all = append(all, file{about, at, "the guest reads it"})
		}
		if at := source.attr("socket"); at != "" {
			all = append(all, peerSocket{about, at})
		}
	})
	numbered(devices, "input", func(about string, in *element) {
		if at := cmp.Or(in.child("source").attr("dev"), in.child("source").attr("evdev")); at != "" {
			all = append(all, file{about, at, ""})
		}
	})
	numbered(devices, "shmem", func(about string, m *element) {
		if at := m.child("server").attr("path"); at != "" {
			all = append(all, peerSocket{about, at})
		}
	})
	numbered(devices, "tpm", func(about string, tpm *element) {
		backend := tpm.child("backend")
		if at := backend.child("device").attr("path"); at != "" {
			all = append(all, file{about, at, ""})
		}
		if id := backend.child("encryption").attr("secret"); id != "" {
			all = append(all, secret{about, strings.ToLower(id)})
		}
	})
	numbered(devices, "video", func(about string, v *element) {
		if at := v.child("model", "acceleration").attr("rendernode"); at != "" {
			all = append(all, file{about, at, ""})
		}
	})
	return all
}

// stateNeeds: what a host keeps for a VM and Duet does not replicate. They are told of every such VM: nothing can
// be mended, and an admin has to know before the failover.
func stateNeeds(domain *element) []need {
	var all []need
	os := domain.child("os")
	if os.attr("firmware") == "efi" || os.child("loader").attr("type") == "pflash" {
		all = append(all, kept{vmmanager.Note, "uefi-variables", "UEFI variables",
			"its boot entries and Secure Boot keys are not replicated yet: " +
				"on each host they begin as the firmware's own, and go on there apart from those of the other"})
	}
	for _, tpm := range domain.child("devices").all("tpm") {
		switch tpm.child("backend").attr("type") {
		case "emulator":
			all = append(all, kept{vmmanager.Note, "tpm-state", "tpm",
				"its state is not replicated yet: on the other host it begins empty, and what " +
					"the guest has sealed with it (BitLocker, LUKS keys) asks for its recovery key there"})
		case "passthrough":
			all = append(all, kept{vmmanager.Note, "tpm-state", "tpm",
				"it is the host's own: what the guest has sealed with it asks for its recovery key on the other host"})
		}
	}
	return all
}

// argumentNeeds: files named in arguments that go to QEMU past libvirt. Each word between commas and equals signs
// that is a whole path counts as one. Arguments are elements of QEMU's own namespace, with whatever prefix.
func argumentNeeds(domain *element) []need {
	var all []need
	for _, line := range domain.children {
		if line.name != "commandline" && !strings.HasSuffix(line.name, ":commandline") {
			continue
		}
		for _, c := range line.children {
			if v := c.attr("value"); v == "-drive" || v == "-blockdev" {
				all = append(all, kept{vmmanager.Warning, "argument-drive", "arguments for QEMU",
					"a drive is given to QEMU past libvirt: what the guest writes to it is not replicated"})
			}
			for word := range strings.FieldsFuncSeq(c.attr("value"), func(r rune) bool {
				return r == ',' ||
					r == '='
			}) {
				if path.IsAbs(word) {
					all = append(all, argument{word})
				}
			}
		}
	}
	return all
}

// libvirtOwn reports whether libvirt itself makes what lies there.
func libvirtOwn(at string) bool {
	return strings.HasPrefix(at, "/var/lib/libvirt/") || strings.HasPrefix(at, "/run/libvirt/") || strings.HasPrefix(at,
		"/var/run/libvirt/")
}
