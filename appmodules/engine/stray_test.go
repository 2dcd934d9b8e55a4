package engine

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"duet/appmodules"
	"duet/vmmanager"
)

// TestStray: a disk that leaves its volume while the guest writes is an alarm, and ends the peer's part: its copy is
// outdated, and the module not Ready, until the disk is back; then the peer is resynced.
func TestStray(t *testing.T) {
	p := newPair(t)
	a, b, vm, _ := scriptedPair(p)
	away := appmodules.Stray{Away: true, Notice: appmodules.Notice{Alarm: true, Code: appmodules.DiskElsewhere,
		Text: "disk vda is on /snap", Remedy: "virsh blockcommit web01 vda"}}
	added := appmodules.Stray{Notice: appmodules.Notice{Code: "disk-not-replicated", Text: "disk vdb was added"}}
	to := func(strays ...appmodules.Stray) {
		t.Helper()
		vm.set(func(s *script) { s.strays = strays })
		must(t, a.hv.AdminAttach("web01", "vdx", "/x")) // the hypervisor tells that some disk has changed
	}
	to(added)
	p.says(a, "disk-not-replicated")
	p.inStep(a, b) // what is replicated still is

	to(added, away)
	p.is(a, "ALONE", "NotReady")
	if n := p.says(a, appmodules.DiskElsewhere); n != away.Notice {
		t.Errorf("the notice is %+v", n)
	}
	p.until("beta's copy is outdated", func() bool { return !b.running().State().Record.IsComplete() })
	a.refuses(appmodules.CmdSwap, "disk vda is on /snap: first virsh blockcommit web01 vda")
	a.refuses(appmodules.CmdRestart, "first virsh blockcommit web01 vda")
	p.writes(20)
	p.sever() // nothing connects them meanwhile
	a.inside(func(e *Engine) { e.leading.connect() })
	if s := a.running().State().Status; s.Role != appmodules.Alone || s.Volumes[0].Problem != "" {
		t.Errorf("it is %s and says %q", s.Role, s.Volumes[0].Problem)
	}
	to(added)
	p.inStep(a, b)
	p.writes(20)
	if text := p.says(a, "disk-not-replicated").Text; text != "disk vdb was added" {
		t.Errorf("it says %q", text)
	}
}

// TestStrayOfAVMThatIsOff: a VM that ends while a disk is elsewhere leaves its newest data there; the status says so
// until it runs again on its volumes.
func TestStrayOfAVMThatIsOff(t *testing.T) {
	p := newPair(t)
	a, b, vm, _ := scriptedPair(p)
	vm.set(func(s *script) {
		s.strays = []appmodules.Stray{{Away: true, Notice: appmodules.Notice{Code: appmodules.DiskElsewhere}}}
	})
	must(t, a.hv.AdminAttach("web01", "vdx", "/x"))
	p.is(a, "ALONE", "NotReady")
	must(t, a.running().Command(t.Context(), appmodules.CmdStopAll, false))
	p.is(a, "STOP", "NotReady")
	n := p.says(a, appmodules.DiskElsewhere)
	if !n.Alarm || !strings.Contains(n.Text, "the newest data of the VM are on a disk that is not its volume") ||
		!strings.HasPrefix(n.Remedy, "duet start web01") {
		t.Errorf("the notice is %+v", n)
	}
	vm.set(func(s *script) { s.strays = nil })
	for _, n := range []*simNode{a, b} {
		must(t, n.running().Command(t.Context(), appmodules.CmdStart, false))
	}
	p.inStep(a, b)
	if notices := a.running().State().Status.Notices; len(notices) != 0 {
		t.Errorf("it still says %+v", notices)
	}
}

// TestStrayOfTheOtherNode: what a VM's disk was on here does not matter any more once this node has all that its peer
// wrote since.
func TestStrayOfTheOtherNode(t *testing.T) {
	p := newPair(t)
	b := p.nodes["beta"]
	load := func() (k kept) {
		t.Helper()
		_, err := b.store.Load(keptKey, &k)
		must(t, err)
		return k
	}
	k := load()
	k.Strayed = true
	must(t, b.store.Save(keptKey, k))
	p.formed()
	p.until("that is noted", func() bool { return !load().Strayed })
}

// TestUnfitDefinition: an edit that the peer could not run is not sent to it; the status says what the peer would start
// instead, until the definition fits again.
func TestUnfitDefinition(t *testing.T) {
	p := newPair(t)
	a, b, vm, _ := scriptedPair(p)
	text := func(n *simNode) string {
		t.Helper()
		def, err := n.hv.Definition(t.Context(), "web01")
		must(t, err)
		return string(def.Text)
	}
	vm.set(func(s *script) { s.unfit = errors.New("disk vdb is a file of this node") })
	must(t, a.hv.AdminEdit("web01", []byte("two disks")))
	n := p.says(a, "definition-unfit")
	if want := "beta does not get the VM's present definition and would start the one before: " +
		"disk vdb is a file of this node"; n.Text != want || n.Alarm {
		t.Errorf("the notice is %+v", n)
	}
	if got := text(b); got != "<domain/>" || a.running().State().Definition != 1 {
		t.Errorf("beta has %q, and the version is %d", got, a.running().State().Definition)
	}
	vm.set(func(s *script) { s.unfit = nil })
	must(t, a.hv.AdminEdit("web01", []byte("one disk")))
	p.until("beta has the definition that fits", func() bool { return text(b) == "one disk" })
	if notices := a.running().State().Status.Notices; len(notices) != 0 {
		t.Errorf("it still says %+v", notices)
	}
}

// TestPeerRefusesDefinition: an edit that the peer's host would refuse is not stored there, whether the VM ran when it
// was made or not. The peer could start what it has, status says so, and the edit follows once the host would take it.
// An edit that is made where the VM runs then is the newest on both nodes.
func TestPeerRefusesDefinition(t *testing.T) {
	for _, off := range []bool{false, true} {
		t.Run(fmt.Sprintf("off %v", off), func(t *testing.T) {
			p := newPair(t)
			a, b := p.formed()
			has := func(n *simNode) string {
				def, err := n.hv.Definition(t.Context(), "web01")
				must(t, err)
				return string(def.Text)
			}
			command := func(n *simNode, c appmodules.Event) {
				must(t, n.running().Command(t.Context(), c, false))
			}
			if off {
				command(a, appmodules.CmdStopAll)
				p.is(a, "STOP", "NotReady")
				p.is(b, "STOP", "NotReady")
			}
			b.hv.SetFindings("web01", vmmanager.Finding{Level: vmmanager.Refused, Code: "network-missing",
				About: "interface 1", Fact: "there is no network onlya", Remedy: "`virsh net-define onlya.xml`"},
				vmmanager.Finding{Level: vmmanager.Warning, Code: "x", Fact: "it would be slow"})
			must(t, a.hv.AdminEdit("web01", []byte("onlya")))
			if off {
				command(a, appmodules.CmdStart)
				command(b, appmodules.CmdStart)
				p.inStep(a, b)
			}
			n := p.says(a, "definition-unfit")
			want := "beta does not get the VM's present definition and would start the one before: it would not run there: " +
				"interface 1: there is no network onlya: `virsh net-define onlya.xml`"
			if n.Text != want || n.Alarm {
				t.Errorf("the notice is %+v", n)
			}
			if got := has(b); got != "<domain/>" || b.running().State().Definition != 1 {
				t.Errorf("beta has %q, version %d", got, b.running().State().Definition)
			}

			b.hv.SetFindings("web01")
			p.until("the edit follows", func() bool { return has(b) == "onlya" })
			p.until("nothing is left to say", func() bool { return len(a.running().State().Status.Notices) == 0 })

			b.hv.SetFindings("web01", vmmanager.Finding{Level: vmmanager.Refused, Fact: "no"})
			must(t, a.hv.AdminEdit("web01", []byte("again onlya")))
			p.says(a, "definition-unfit")
			command(a, appmodules.CmdSwap)
			p.inStep(b, a)
			if got := has(b); got != "onlya" {
				t.Errorf("beta runs %q", got)
			}
			must(t, b.hv.AdminEdit("web01", []byte("both")))
			p.until("the newest is on both", func() bool { return has(a) == "both" && has(b) == "both" })
		})
	}
}

// TestDefinitionIsRefused: a hypervisor that does not take what the peer sent gets it at the next start; the primary
// sends what did not arrive again.
func TestDefinitionIsRefused(t *testing.T) {
	p := newPair(t)
	a, b := p.nodes["alpha"], p.nodes["beta"]
	var to *lossy
	var vm *script
	p.formedAs(func(n *simNode, c *Config) {
		if n == a {
			to = across(c)
			to.define.Store(2)
		} else {
			vm = scripted(c)
			vm.define = errors.New("the XML has no such element here")
		}
	})
	must(t, a.hv.AdminEdit("web01", []byte("new")))
	p.until("beta has heard of it", func() (yes bool) {
		b.inside(func(e *Engine) { yes = e.keep.Definition.Version == 2 })
		return yes
	})
	b.inside(func(e *Engine) {
		if e.keep.Defined == 2 {
			t.Error("a definition counts as stored that the hypervisor refused")
		}
	})
	if n := to.defined.Load(); n < 3 {
		t.Errorf("it was sent %d times, two of them in vain", n)
	}
	def, err := b.hv.Definition(t.Context(), "web01")
	if err != nil || string(def.Text) != "<domain/>" {
		t.Errorf("beta's hypervisor has %q, %v", def.Text, err)
	}
	own := Definition{Module: "web01", Version: 7, Text: []byte("newer"), Own: []byte(`{"Text":"b2xk"}`)}
	if err := b.running().OnDefine(t.Context(), own); err == nil || !strings.Contains(err.Error(), "no such element") {
		t.Errorf("the peer is told %v", err)
	}
	own.Version, own.Own = 8, nil // of a version that does not know of it
	if err := b.running().OnDefine(t.Context(), own); err == nil {
		t.Error("the peer is not told that it was refused")
	}
	if d, err := b.running().Definition(t.Context()); err != nil || d.Version != 8 || !d.hasOwn() {
		t.Errorf("what there was before the module is forgotten: %+v, %v", d, err)
	}
	must(t, a.running().Command(t.Context(), appmodules.CmdSwap, false))
	p.inStep(b, a)
	p.until("both hypervisors have it", func() bool {
		for _, n := range []*simNode{a, b} {
			if def, err := n.hv.Definition(t.Context(), "web01"); err != nil || string(def.Text) != "newer" {
				return false
			}
		}
		return true
	})
}

// TestStrayIsBackAfterARestart: a disk that has left its volume is brought back while the daemon is down, or while the
// VM is off across a restart of the daemon. The peer is connected and resynced again.
func TestStrayIsBackAfterARestart(t *testing.T) {
	p := newPair(t)
	a, b, vm, _ := scriptedPair(p)
	vm.set(func(s *script) {
		s.strays = []appmodules.Stray{{Away: true, Notice: appmodules.Notice{Code: appmodules.DiskElsewhere}}}
	})
	a.inside(func(e *Engine) { e.readStrays() })
	p.is(a, "ALONE", "NotReady")
	a.halt()
	a.boot() // with a VM whose disks are on their volumes
	p.inStep(a, b)
}

// TestDefinitionIsSentOnce: a definition that the peer has taken, and whose hypervisor refused it, is not sent again
// with each exchange of states.
func TestDefinitionIsSentOnce(t *testing.T) {
	p := newPair(t)
	var to *lossy
	a, b := p.formedAs(func(n *simNode, c *Config) {
		if n.name == "alpha" {
			to = across(c)
		} else {
			scripted(c).define = errors.New("the XML has no such element here")
		}
	})
	must(t, a.hv.AdminEdit("web01", []byte("new")))
	p.until("beta has it", func() (yes bool) {
		b.inside(func(e *Engine) { yes = e.keep.Definition.Version == 2 })
		return yes
	})
	p.until("beta says so", func() bool { return b.running().State().Definition == 2 || to.defined.Load() > 20 })
	if n := to.defined.Load(); n > 3 {
		t.Errorf("it was sent %d times", n)
	}
}
