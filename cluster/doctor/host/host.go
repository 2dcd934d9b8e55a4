// Package host gathers the facts of this computer that package doctor judges: what
// the kernel and the files in /etc tell, free space, and which ports of other nodes answer.
// It changes nothing.
//
// It needs no daemon, and sees less without being root: what it may not read is as if it were not there. Spaces blocks
// on the disks that it measures, for good if one hangs; Look and Ports on the system's own, Reach and Libvirt on the
// network until their context ends. There are no
// goroutines after a call. Linux only, but for the ports: elsewhere free space and limits stay unknown.
//
// Files: host.go the kernel and /etc, space_linux.go disks and limits, reach.go ports, who.go names of users.
package host

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"duet/cluster/doctor"
)

// Config says what to look at.
type Config struct {
	Root string // in front of every path; tests set it
}

// Look gathers what there is but Spaces; what a system does not tell stays zero. Files and Locked are of this process,
// so of the daemon only if the daemon looks.
func Look(c Config) doctor.Host {
	out := doctor.Host{
		KVM:         exists(c.path("/dev/kvm")),
		AppArmor:    strings.HasPrefix(c.read("/sys/module/apparmor/parameters/enabled"), "Y"),
		Abstraction: c.abstraction(),
		SELinux:     c.selinux(),
		Firewall:    c.firewall(),
	}
	out.Memory, out.Huge = memory(c.read("/proc/meminfo"))
	// The first is the first device under its old name, beside the numbered one.
	for _, pattern := range []string{"/dev/watchdog", "/dev/watchdog[0-9]*"} {
		found, _ := filepath.Glob(c.path(pattern)) // the patterns are well formed
		for _, f := range found {
			out.Watchdogs = append(out.Watchdogs, strings.TrimPrefix(f, c.Root))
		}
	}
	out.Files, out.Locked = fileLimit(), locked(c.read("/proc/self/status"))
	return out
}

func (c Config) path(p string) string { return filepath.Join(c.Root, p) }

// read returns a file that is small, empty if it cannot be read.
func (c Config) read(p string) string {
	b, err := os.ReadFile(c.path(p))
	if err != nil {
		return ""
	}
	return string(b)
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// selinux is what the kernel enforces. Empty: the kernel has none, or it is switched off.
func (c Config) selinux() string {
	switch strings.TrimSpace(c.read("/sys/fs/selinux/enforce")) {
	case "1":
		return "enforcing"
	case "0":
		return "permissive"
	}
	return ""
}

// firewall names the one that an admin would use: the front ends first, nft if it is there. It says which command
// opens a port, not whether one is closed: Reach shows that. Empty: no front end was found.
func (c Config) firewall() string {
	for _, line := range strings.Split(c.read("/etc/ufw/ufw.conf"), "\n") {
		if strings.EqualFold(strings.TrimSpace(line), "ENABLED=yes") {
			return "ufw"
		}
	}
	switch {
	case exists(c.path("/run/firewalld.pid")) || exists(c.path("/run/firewalld")):
		return "firewalld"
	case exists(c.path("/usr/sbin/nft")) || exists(c.path("/sbin/nft")):
		return "nft"
	}
	return ""
}

// abstraction tells whether QEMU's AppArmor profile has a rule for Duet: in the local additions, or in a file that
// these include. A system whose profile takes in no local file has to have the rule in the profile itself. It may
// miss a rule that an admin has written elsewhere.
func (c Config) abstraction() bool {
	const dir = "/etc/apparmor.d/"
	if !slices.ContainsFunc(includes(c.read(dir+"abstractions/libvirt-qemu")), func(name string) bool {
		return strings.HasPrefix(name, "local/abstractions/libvirt-qemu")
	}) {
		return rule(c.read(dir + "abstractions/libvirt-qemu"))
	}
	local := c.read(dir + "local/abstractions/libvirt-qemu")
	if rule(local) {
		return true
	}
	return slices.ContainsFunc(includes(local), func(name string) bool { return rule(c.read(dir + name)) })
}

// rule finds a line of a profile, no comment, that is about Duet's volumes. It does not understand what the rule
// allows.
func rule(profile string) bool {
	for _, line := range strings.Split(profile, "\n") {
		if line = strings.TrimSpace(line); !strings.HasPrefix(line, "#") && strings.Contains(line, "/run/duet") {
			return true
		}
	}
	return false
}

// includes lists the files that a profile takes in: `include <x>`, `include if exists <x>`, with or without a # in
// front. In AppArmor's language #include is the older spelling, and no comment. Names are relative to
// /etc/apparmor.d.
func includes(profile string) []string {
	var out []string
	for _, line := range strings.Split(profile, "\n") {
		line = strings.TrimPrefix(strings.TrimSpace(line), "#")
		if !strings.HasPrefix(line, "include ") {
			continue
		}
		_, rest, opened := strings.Cut(line, "<")
		if name, _, closed := strings.Cut(rest, ">"); opened && closed {
			out = append(out, name)
		}
	}
	return out
}

// memory reads /proc/meminfo: all, and what is set aside as huge pages, in bytes. Its numbers are in KiB but for the
// count of huge pages.
func memory(meminfo string) (all, huge int64) {
	value := func(key string) int64 {
		for _, line := range strings.Split(meminfo, "\n") {
			f := strings.Fields(line)
			if len(f) > 1 && f[0] == key+":" {
				n, _ := strconv.ParseInt(f[1], 10, 64) // 0 if the kernel writes something else
				return n
			}
		}
		return 0
	}
	return value("MemTotal") << 10, value("HugePages_Total") * value("Hugepagesize") << 10
}

// locked reads /proc/self/status: memory of this process is locked. VmLck is 0 kB where nothing is.
func locked(status string) bool {
	for _, line := range strings.Split(status, "\n") {
		f := strings.Fields(line)
		if len(f) > 1 && f[0] == "VmLck:" {
			return f[1] != "0"
		}
	}
	return false
}

// within returns the nearest directory above path that there is. A directory that is still to be made lies on the
// file system of the one above it.
func within(path string) string {
	for !exists(path) && path != filepath.Dir(path) {
		path = filepath.Dir(path)
	}
	return path
}
