//go:build linux

package field

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"duet/console/api"
	"duet/testbed/guest"
	"duet/testbed/machine"
	"duet/testbed/netns"
)

// vm is the README's VM, and where its console lies on the host that runs it.
const (
	vm      = "web01"
	console = "/var/log/libvirt/qemu/web01-console.log"
	images  = "/var/lib/libvirt/images"
)

// pair is two hosts and a third computer, being led through the README.
type pair struct {
	*testing.T
	kind   kind
	ctx    context.Context
	site   *machine.Site
	values map[string]string // what is known to fill in
	acked  uint64            // the highest record that a look at a console has shown to be acknowledged
}

// needs skips the test where machines cannot be.
func needs(t *testing.T, k kind) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: it boots machines")
	}
	for _, tool := range append(k.tools, "debootstrap", "systemd-nspawn", "unshare", "nsenter", "nft", "ip") {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("needs %s: `make deps` installs it", tool)
		}
	}
}

// newPair boots machines at the README's addresses.
func newPair(t *testing.T, k kind, alpha, beta machine.Release) *pair {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), k.scaled(15*time.Minute)) // the first run makes the images
	t.Cleanup(cancel)
	site, err := machine.NewSite(ctx, machine.Config{
		Prefix: k.prefix, Cache: cache(t),
		Networks: []netns.Network{
			{Name: "lan", Subnet: netip.MustParsePrefix("192.168.7.0/24")},
			{Name: "cross", Subnet: netip.MustParsePrefix("10.0.0.0/24")},
		},
		Machines: []machine.Spec{
			{Name: "alpha", Release: alpha, Emulated: k.emulated}, {Name: "beta", Release: beta, Emulated: k.emulated},
			{Name: "third", Release: alpha},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	p := &pair{T: t, kind: k, ctx: ctx, site: site, values: map[string]string{
		"THIRD": site.LAN.Addr("third", "lan").String(), "./duet_…_amd64.deb": "./" + deb(version),
	}}
	t.Cleanup(func() {
		if t.Failed() {
			p.showLogs()
		}
		if err := site.Close(); err != nil {
			t.Error(err)
		}
	})
	p.step("boot", p.boot)
	return p
}

// boot switches all machines on at once.
func (p *pair) boot() {
	p.Helper()
	var err error
	up := make(chan error)
	for _, m := range p.site.Machines {
		go func() { up <- m.Boot(p.ctx) }()
	}
	for range p.site.Machines {
		err = errors.Join(err, <-up)
	}
	p.must(err)
}

// step leads the pair through a part of the test and says how long it took.
func (p *pair) step(name string, part func()) {
	p.Helper()
	began := time.Now()
	part()
	p.Logf("---- %s took %v", name, time.Since(began).Round(time.Second))
}

func cache(t *testing.T) string {
	t.Helper()
	dir, err := os.UserCacheDir()
	if err != nil {
		dir = os.TempDir()
	}
	return filepath.Join(dir, "duet-testbed")
}

func (p *pair) must(err error) {
	p.Helper()
	if err != nil {
		p.Fatal(err)
	}
}

// types is a person at the keyboard of a machine, in root's folder: what is typed and what comes back is shown. Who is
// told to repeat a command does so: on an emulated machine a node may take longer to answer than the other waits.
func (p *pair) types(node, command string) string {
	p.Helper()
	for again := 0; ; again++ {
		began := time.Now()
		out, err := machine.Do(p.ctx, p.site.Machines[node], "cd /root\n"+command)
		p.Logf("%s# %s   (%v)\n%s", node, command, time.Since(began).Round(10*time.Millisecond), out)
		if err == nil || again == p.kind.repeats || !strings.Contains(out, "repeat the command") {
			p.must(err)
			return out
		}
	}
}

// line types a command of the README.
func (p *pair) line(l Line) {
	p.Helper()
	command, err := l.Fill(p.values)
	p.must(err)
	if p.site.Machines[l.Node] == nil {
		p.Fatalf("README line %d: there is no machine %s", l.Number, l.Node)
	}
	if strings.HasPrefix(command, "duet cluster init ") {
		command += p.kind.settings
	}
	if strings.HasSuffix(command, "--watch") { // it would go on until somebody ends it
		const ended = "timeout --foreground --preserve-status --signal=INT %v %s"
		command = fmt.Sprintf(ended, p.kind.scaled(2*time.Second).Seconds(), command)
	}
	for _, word := range strings.Fields(p.types(l.Node, command)) { // a token, as a person would copy it
		if kind, _, ok := strings.Cut(word, "."); ok && (kind == "duet1" || kind == "duetw1") {
			p.values[kind+".…"] = word
		}
	}
}

// until waits for a condition on the machines and says in the end what was missing. The limit is that of a container.
func (p *pair) until(limit time.Duration, what string, check func() error) {
	p.Helper()
	limit = p.kind.scaled(limit)
	ctx, cancel := context.WithTimeout(p.ctx, limit)
	defer cancel()
	began := time.Now()
	tick := time.NewTicker(p.kind.scaled(100 * time.Millisecond)) // a look costs the machine time as well
	defer tick.Stop()
	for {
		err := check()
		if err == nil {
			p.Logf("%s after %v", what, time.Since(began).Round(10*time.Millisecond))
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			p.Fatalf("waited %v in vain: %s: %v", limit, what, err)
		}
	}
}

// on is what a node's own daemon says of the module there.
func (p *pair) on(node string) (api.NodeState, error) {
	out, err := machine.Do(p.ctx, p.site.Machines[node], "duet status --json || test $? -ge 10")
	if err != nil {
		return api.NodeState{}, err
	}
	var s api.Status
	if err := json.Unmarshal([]byte(out), &s); err != nil {
		return api.NodeState{}, err
	}
	m, err := s.Module(vm)
	if err != nil {
		return api.NodeState{}, err
	}
	return m.On(node)
}

// are waits until the module has these roles, ready.
func (p *pair) are(limit time.Duration, roles map[string]string) {
	p.Helper()
	p.until(limit, fmt.Sprintf("roles are %v", roles), func() error {
		for node, role := range roles {
			st, err := p.on(node)
			if err != nil {
				return err
			}
			if st.Role != role || st.Status != "Ready" {
				return fmt.Errorf("%s is %s (%s): %s", node, st.Role, st.Status, st.Why)
			}
		}
		return nil
	})
}

// said is what the VM has said on the console of a host.
func (p *pair) said(node string) guest.Log {
	p.Helper()
	out, err := machine.Do(p.ctx, p.site.Machines[node], "cat "+console+" 2>/dev/null || :")
	p.must(err)
	log, err := guest.ParseConsole(strings.NewReader(out + "\n"))
	p.must(err)
	p.acked = max(p.acked, log.Acked())
	return log
}

// writes waits until the VM has n more records acknowledged on a host.
func (p *pair) writes(node string, n uint64) {
	p.Helper()
	before := p.said(node).Acked()
	p.until(time.Minute, fmt.Sprintf("the VM writes on %s", node), func() error {
		if now := p.said(node).Acked(); now < before+n {
			return fmt.Errorf("%d records, %d before", now, before)
		}
		return nil
	})
}

// boots is how often the VM has begun to boot on a host.
func (p *pair) boots(node string) int {
	p.Helper()
	return len(p.said(node).Boots)
}

// whole waits until the VM has booted on a host once more than it had, and fails if that boot lacks a record that was
// acknowledged before on the other host, or saw an error.
func (p *pair) whole(node string, boots int, earlier string) {
	p.Helper()
	acked := p.acked // until then; of this boot nothing has been read yet
	var now guest.Log
	p.until(time.Minute, "the VM has looked at its disk on "+node, func() error {
		now = p.said(node)
		if b := now.Newest(); len(now.Boots) <= boots || !b.Scanned || len(b.Acks) == 0 {
			return fmt.Errorf("it has booted %d times, %d before; now it has written %d records", len(now.Boots), boots,
				len(b.Acks))
		}
		return nil
	})
	newest := now.Newest()
	if acked = max(acked, p.said(earlier).Acked()); newest.Last < acked {
		p.Errorf("record %d was acknowledged on %s, the disk ends at %d on %s", acked, earlier, newest.Last, node)
	}
	if newest.Holes+newest.Torn+newest.Breaks != 0 || len(newest.Errors) != 0 {
		p.Errorf("on %s the disk has %d holes, %d torn blocks, %d breaks; errors: %q",
			node, newest.Holes, newest.Torn, newest.Breaks, newest.Errors)
	}
}

// undisturbed fails if the VM on a host has booted since it had so many boots, or has seen an error.
func (p *pair) undisturbed(node string, boots int) {
	p.Helper()
	p.writes(node, 20)
	if log := p.said(node); len(log.Boots) != boots || len(log.Newest().Errors) != 0 {
		p.Errorf("the VM on %s has booted %d times, was %d; errors: %q", node, len(log.Boots), boots, log.Newest().Errors)
	}
}

// guest is what the VM boots. An emulated machine takes minutes to boot a kernel in it.
func (p *pair) guest() (guest.Files, error) {
	if p.kind.emulated {
		return guest.BuildBare(p.ctx, p.TempDir())
	}
	return guest.Build(p.ctx, filepath.Join(cache(p.T), "guest"), "")
}

// define makes the README's VM on a host, as virt-manager would, and starts it.
func (p *pair) define(node string) {
	p.Helper()
	files, err := p.guest()
	p.must(err)
	d := guest.Domain{Name: vm, Disks: []guest.Disk{{File: images + "/" + vm + ".img"}}, Console: console}
	for _, f := range []struct {
		from string
		to   *string
	}{{files.Kernel, &d.Files.Kernel}, {files.Initrd, &d.Files.Initrd}} {
		if f.from == "" {
			continue
		}
		*f.to = filepath.Join(images, filepath.Base(f.from))
		for _, m := range []string{"alpha", "beta"} { // a kernel is a file outside the VM's disks: the admin copies it
			p.must(p.site.Machines[m].Push(p.ctx, f.from, *f.to))
		}
	}
	xml, err := d.XML()
	p.must(err)
	file := filepath.Join(p.TempDir(), "domain.xml")
	p.must(os.WriteFile(file, []byte(xml), 0o644))
	p.must(p.site.Machines[node].Push(p.ctx, file, "/root/web01.xml"))
	p.types(node, "truncate -s 64M "+images+"/"+vm+".img")
	p.types(node, "virsh -c qemu:///system define /root/web01.xml")
	p.types(node, "virsh -c qemu:///system start "+vm)
}

func (p *pair) showLogs() {
	ctx, cancel := context.WithTimeout(context.Background(), p.kind.scaled(10*time.Second))
	defer cancel()
	for _, node := range []string{"alpha", "beta"} {
		r, err := p.site.Machines[node].Run(ctx,
			"journalctl -b --no-pager -o short-precise -u duetd -u libvirtd -u virtlogd |"+
				"grep -v memberlist | tail -60; tail -20 /var/log/libvirt/qemu/web01.log")
		p.Logf("%s: %v\n%s", node, err, r.Output)
	}
}
