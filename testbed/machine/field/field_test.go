//go:build linux

package field

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"duet/testbed/machine"
)

var (
	pairs = flag.String("pairs", "12/12,12/13", "Debian releases of the two hosts of each run")
	of    = flag.String("kind", "container", "what the two hosts are: container, or emulated for Debian's own kernel")
)

// TestField leads each pair through the README and through what happens to hosts afterwards.
func TestField(t *testing.T) {
	kind, known := kinds[*of]
	if !known {
		t.Fatalf("-kind: %q is none of %v", *of, slices.Sorted(maps.Keys(kinds)))
	}
	needs(t, kind)
	debs := packages(t)
	for _, name := range strings.Split(*pairs, ",") {
		var a, b machine.Release
		if _, err := fmt.Sscanf(name, "%d/%d", &a, &b); err != nil || a.Codename() == "" || b.Codename() == "" {
			t.Fatalf("-pairs: %q is no pair of releases such as 12/13", name)
		}
		t.Run(strings.ReplaceAll(name, "/", "-"), func(t *testing.T) {
			p := newPair(t, kind, a, b)
			p.step("push", func() { p.push(debs) })
			p.step("follow", p.follow)
			p.step("swapped", p.swapped)
			p.step("lostPower", p.lostPower)
			p.step("rebooted", p.rebooted)
			p.step("restarted", p.restarted)
			p.step("guarded", p.guarded)
			p.step("upgraded", p.upgraded)
			p.step("removed", p.removed)
			p.nothingDenied()
		})
	}
}

// follow makes the README's VM and types what the README says.
func (p *pair) follow() {
	f, err := os.Open(readme)
	p.must(err)
	defer f.Close()
	blocks, err := Read(f)
	p.must(err)
	p.define("alpha")
	p.writes("alpha", 10)
	for _, line := range slices.Concat(blocks...) {
		p.line(line)
	}
	p.are(time.Minute, map[string]string{"alpha": "PRIM", "beta": "SECOND"})
	p.writes("alpha", 20)
	p.confined("alpha")
	p.provokesDenial("alpha")
	for node := range p.site.Machines {
		p.hasVersion(node, version)
	}
}

func (p *pair) hasVersion(node, version string) {
	p.Helper()
	if says := p.types(node, "duet version"); !strings.Contains(says, version) {
		p.Errorf("%s: version %s is installed, it says %s", node, version, says)
	}
}

// swapped: a planned move, to beta.
func (p *pair) swapped() {
	boots := p.boots("beta")
	p.types("alpha", "duet swap "+vm)
	p.are(time.Minute, map[string]string{"alpha": "SECOND", "beta": "PRIM"})
	p.whole("beta", boots, "alpha")
	p.confined("beta")
}

// lostPower: beta, which holds the VM, loses its power and returns.
func (p *pair) lostPower() {
	boots := p.boots("alpha")
	p.writes("beta", 20) // and what the person has read on the screen counts, whatever the disk keeps of it
	p.must(p.site.Machines["beta"].Kill())
	p.are(30*time.Second, map[string]string{"alpha": "ALONE"})
	p.confined("alpha")
	p.must(p.site.Machines["beta"].Boot(p.ctx)) // its console tells what the VM had acknowledged there
	p.whole("alpha", boots, "beta")
	p.are(time.Minute, map[string]string{"alpha": "PRIM", "beta": "SECOND"})
}

// rebooted: the holder is rebooted in order, which moves the VM first.
func (p *pair) rebooted() {
	boots := p.boots("beta")
	began := time.Now()
	p.must(p.site.Machines["alpha"].Reboot(p.ctx))
	p.Logf("alpha# systemctl reboot   (%v)", time.Since(began).Round(10*time.Millisecond))
	p.are(time.Minute, map[string]string{"alpha": "SECOND", "beta": "PRIM"})
	p.whole("beta", boots, "alpha")
}

// standstill is what nobody would call a short pause any more, on a busy computer. It is less than the 30 s for which
// libvirtd waits at its end for calls that do not come back.
const standstill = 20 * time.Second

// restarted: both daemons are restarted under the VM's load, which goes on; so it does when duetd is killed. systemd
// keeps the volume's socket meanwhile, in which QEMU waits.
func (p *pair) restarted() {
	boots := p.boots("beta")
	const socket = "stat -c %i /run/duet/volumes/*.sock"
	before := p.types("beta", socket)
	for _, command := range []string{"systemctl restart libvirtd duetd",
		"kill -9 $(systemctl show --property MainPID --value duetd)"} {
		began := time.Now()
		p.types("beta", command)
		if took := time.Since(began); took > p.kind.scaled(standstill) {
			p.Errorf("%q: the VM's disk was away for %v", command, took)
		}
		p.undisturbed("beta", boots)
		p.are(time.Minute, map[string]string{"alpha": "SECOND", "beta": "PRIM"})
		if now := p.types("beta", socket); now != before {
			p.Errorf("after %q the volume has the socket %s, was %s", command, now, before)
		}
	}
	for node, want := range map[string]string{"alpha": "0", "beta": "1"} {
		kept := p.types(node, "systemctl show --property NFileDescriptorStore --value duetd")
		if kept = strings.TrimSpace(kept); kept != want {
			p.Errorf("systemd of %s keeps %s sockets of duetd, want %s", node, kept, want)
		}
	}
}

// guarded: systemd starts a guard again that is killed; and when duetd of beta hangs under its VM, the guard, confined
// as its unit says, pauses and ends that. systemd's watchdog starts the daemon again later.
func (p *pair) guarded() {
	const guard = "systemctl show --property MainPID --value duet-guard"
	before := strings.TrimSpace(p.types("beta", guard))
	p.types("beta", "kill -9 "+before)
	p.until(10*time.Second, "the guard is there again", func() error {
		now := strings.TrimSpace(p.types("beta", guard))
		doctor := p.types("beta", "duet doctor || :")
		if now == before || now == "0" || !strings.Contains(doctor, "a guard pauses") {
			return fmt.Errorf("the guard was process %s, is %s; the doctor says\n%s", before, now, doctor)
		}
		return nil
	})
	boots := p.boots("alpha")
	if p.kind.emulated { // systemd would start it again before the 10 s have passed for which the peer waits there
		p.types("beta", "systemd-analyze service-watchdogs no")
	}
	p.types("beta", "kill -STOP $(systemctl show --property MainPID --value duetd)")
	p.are(30*time.Second, map[string]string{"alpha": "ALONE"})
	if p.kind.emulated {
		p.types("beta", "systemd-analyze service-watchdogs yes && systemctl kill --signal KILL duetd")
	}
	p.whole("alpha", boots, "beta")
	p.are(time.Minute, map[string]string{"alpha": "PRIM", "beta": "SECOND"})
	said := p.types("beta", "journalctl --no-pager -o cat -u duet-guard")
	for _, want := range []string{"the guest is paused", "the guest is ended"} {
		if !strings.Contains(said, want) {
			p.Errorf("the guard of beta does not say %q", want)
		}
	}
	boots = p.boots("beta")
	p.types("alpha", "duet swap "+vm)
	p.are(time.Minute, map[string]string{"alpha": "SECOND", "beta": "PRIM"})
	p.whole("beta", boots, "alpha")
}

// upgraded: the next version is installed on both while the VM runs.
func (p *pair) upgraded() {
	boots := p.boots("beta")
	for _, node := range []string{"alpha", "beta"} {
		const daemon = "systemctl show --property MainPID --value duetd"
		before := p.types(node, daemon)
		p.types(node, "apt install ./"+deb(next))
		p.hasVersion(node, next)
		if now := p.types(node, daemon); now == before || now == "0" {
			p.Errorf("after the upgrade on %s its duetd is process %s, was %s", node, now, before)
		}
		p.are(time.Minute, map[string]string{"alpha": "SECOND", "beta": "PRIM"})
	}
	p.undisturbed("beta", boots)
}

// removed: the VM is given back and runs on without Duet.
func (p *pair) removed() {
	boots := p.boots("beta")
	p.types("beta", "duet vm release "+vm)
	for _, node := range []string{"alpha", "beta", "third"} {
		p.types(node, "apt purge -y duet")
		if left := p.types(node, "systemctl list-unit-files --no-legend 'duet*'; command -v duet duetd || :"); left != "" {
			p.Errorf("%s still has %s", node, left)
		}
	}
	p.undisturbed("beta", boots)
	p.confined("beta")
	if names := strings.Fields(p.types("beta", "virsh -c qemu:///system list --name")); !slices.Contains(names, vm) {
		p.Errorf("VMs that run on beta: %v", names)
	}
}
