//go:build linux

package field

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"duet/testbed/machine"
)

const readme = "../../../README.md"

var (
	pairs = flag.String("pairs", "12/12,12/13", "Debian releases of the two hosts of each run")
	deb   = flag.String("deb", "", "the package to install; \"\" makes one of this tree")
)

// TestField leads each pair through the README and through what happens to hosts afterwards.
func TestField(t *testing.T) {
	for _, name := range strings.Split(*pairs, ",") {
		var a, b machine.Release
		if _, err := fmt.Sscanf(name, "%d/%d", &a, &b); err != nil || a.Codename() == "" || b.Codename() == "" {
			t.Fatalf("-pairs: %q is no pair of releases such as 12/13", name)
		}
		t.Run(strings.ReplaceAll(name, "/", "-"), func(t *testing.T) { follow(newPair(t, a, b)) })
	}
}

func follow(p *pair) {
	f, err := os.Open(readme)
	p.must(err)
	defer f.Close()
	blocks, err := Read(f)
	p.must(err)
	file, newer := packages(p)
	for _, node := range []string{"alpha", "beta", "third"} {
		p.must(p.site.Machines[node].Push(p.ctx, file, "/root/duet.deb"))
		p.must(p.site.Machines[node].Push(p.ctx, newer, "/root/duet-next.deb"))
		p.types(node, "cd /root && apt-get install -y ./duet.deb")
	}
	p.define("alpha")
	p.writes("alpha", 10)
	for _, block := range blocks {
		p.follow(block)
	}
	p.are(time.Minute, map[string]string{"alpha": "PRIM", "beta": "SECOND"})
	p.writes("alpha", 20)

	p.swapped()
	p.lostPower()
	p.rebooted()
	p.restarted()
	p.upgraded()
	p.removed()
}

// swapped: a planned move, to beta.
func (p *pair) swapped() {
	p.types("alpha", "duet swap "+vm)
	p.are(time.Minute, map[string]string{"alpha": "SECOND", "beta": "PRIM"})
	p.whole("beta", "alpha")
	p.writes("beta", 20)
}

// lostPower: beta, which holds the VM, loses its power and returns.
func (p *pair) lostPower() {
	p.must(p.site.Machines["beta"].Kill())
	p.are(30*time.Second, map[string]string{"alpha": "ALONE"})
	p.writes("alpha", 20)
	p.must(p.site.Machines["beta"].Boot(p.ctx))
	p.are(time.Minute, map[string]string{"alpha": "PRIM", "beta": "SECOND"})
	p.whole("alpha", "beta") // now that beta's console can be read again
}

// rebooted: the holder is rebooted in order, which moves the VM first.
func (p *pair) rebooted() {
	began := time.Now()
	p.must(p.site.Machines["alpha"].Reboot(p.ctx))
	p.Logf("alpha# systemctl reboot   (%v)", time.Since(began).Round(10*time.Millisecond))
	p.are(time.Minute, map[string]string{"alpha": "SECOND", "beta": "PRIM"})
	p.whole("beta", "alpha")
}

// restarted: both daemons are restarted under the VM's load, which goes on without an error and without a boot.
func (p *pair) restarted() {
	boots := len(p.said("beta").Boots)
	p.types("beta", "systemctl restart libvirtd duetd")
	p.writes("beta", 20)
	p.stays("beta", boots)
}

// stays fails if the VM on a node has booted or seen an error since it had so many boots.
func (p *pair) stays(node string, boots int) {
	p.Helper()
	p.are(time.Minute, map[string]string{node: "PRIM"})
	log := p.said(node)
	if len(log.Boots) != boots || len(log.Newest().Errors) != 0 {
		p.Errorf("the VM on %s has booted %d times, was %d; errors: %q", node, len(log.Boots), boots, log.Newest().Errors)
	}
}

// upgraded: the next version is installed on both while the VM runs.
func (p *pair) upgraded() {
	boots := len(p.said("beta").Boots)
	for _, node := range []string{"alpha", "beta"} {
		before := p.types(node, "systemctl show -P MainPID duetd")
		p.types(node, "cd /root && apt-get install -y ./duet-next.deb")
		p.until(time.Minute, "the new duetd runs on "+node, func() error {
			if now := p.types(node, "systemctl show -P MainPID duetd"); now == before || now == "0" {
				return fmt.Errorf("its process is %s, was %s", now, before)
			}
			return nil
		})
	}
	p.are(time.Minute, map[string]string{"alpha": "SECOND", "beta": "PRIM"})
	p.writes("beta", 20)
	p.stays("beta", boots)
}

// removed: the VM is given back and runs on without Duet.
func (p *pair) removed() {
	boots := len(p.said("beta").Boots)
	p.types("beta", "duet vm release "+vm)
	for _, node := range []string{"alpha", "beta", "third"} {
		p.types(node, "apt-get purge -y duet")
		if left := p.types(node, "ls -d /run/systemd/system && systemctl list-unit-files --no-legend 'duet*'; command -v duet duetd || :"); strings.Contains(left, "duet") {
			p.Errorf("%s still has %s", node, left)
		}
	}
	p.writes("beta", 20)
	if log := p.said("beta"); len(log.Boots) != boots || len(log.Newest().Errors) != 0 {
		p.Errorf("the VM has booted %d times, was %d; errors: %q", len(log.Boots), boots, log.Newest().Errors)
	}
	if names := strings.Fields(p.types("beta", "virsh -c qemu:///system list --name")); !slices.Contains(names, vm) {
		p.Errorf("VMs that run on beta: %v", names)
	}
}
