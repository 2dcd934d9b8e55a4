//go:build linux

package field

import (
	"strings"
	"time"
)

// kind is what the two hosts of a run are. The third computer, which has no VM, is always a container.
type kind struct {
	emulated bool
	prefix   string   // of its namespaces
	tools    []string // that it needs besides
	slow     int      // how much longer everything may take than in a container: the one place for that
	repeats  int      // how often a command that says so is repeated
	settings string   // what the admin of such hosts adds to `duet cluster init`
}

var kinds = map[string]kind{
	"container": {prefix: "dfd", slow: 1},
	// An emulated processor on which another one is emulated, both on a computer that has two. A process there may get no
	// processor for longer than the 2 s after which a node is taken for dead.
	"emulated": {emulated: true, prefix: "dfe", tools: []string{"mkfs.ext4", "qemu-system-x86_64"}, slow: 8,
		repeats: 5, settings: " --detection 10s"},
}

func (k kind) scaled(d time.Duration) time.Duration { return d * time.Duration(k.slow) }

// confined fails if the VM's QEMU runs without an AppArmor profile of its own that is enforced. Only a kernel of its
// own has AppArmor.
func (p *pair) confined(node string) {
	p.Helper()
	if !p.kind.emulated {
		return
	}
	label := p.types(node, "cat /proc/$(cat /run/libvirt/qemu/"+vm+".pid)/attr/current")
	if !strings.HasPrefix(label, "libvirt-") || !strings.HasSuffix(label, " (enforce)") {
		p.Errorf("on %s the VM's QEMU runs under %q", node, label)
	}
}

// provoked is a program that the VM's profile does not let it run: the denial shows that denials are seen.
const provoked = "/root/provoked"

func (p *pair) provokesDenial(node string) {
	p.Helper()
	if !p.kind.emulated {
		return
	}
	p.types(node, "cp /bin/true "+provoked+` && profile=$(virsh -c qemu:///system domuuid `+vm+`) &&
		! aa-exec -i -p libvirt-$profile -- `+provoked)
}

// nothingDenied fails if AppArmor has refused anything on a host, in any of its boots, but what was provoked.
func (p *pair) nothingDenied() {
	p.Helper()
	if !p.kind.emulated {
		return
	}
	for _, node := range []string{"alpha", "beta"} {
		const denials = `journalctl --no-pager -o short-precise _TRANSPORT=kernel + _TRANSPORT=audit |` +
			` grep 'apparmor="DENIED"' || :`
		seen := false
		for line := range strings.Lines(p.types(node, denials)) {
			if strings.Contains(line, provoked) {
				seen = true
			} else {
				p.Errorf("%s: AppArmor refused: %s", node, line)
			}
		}
		if node == "alpha" && !seen {
			p.Errorf("%s: the journal lacks the denial that was provoked", node)
		}
	}
}
