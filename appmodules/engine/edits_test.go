package engine

import (
	"errors"
	"strings"
	"testing"

	"duet/appmodules"
	"duet/cluster"
	"duet/vmmanager"
)

// text is the definition that the hypervisor of a node has.
func (n *simNode) text() string {
	n.p.t.Helper()
	def, err := n.hv.Definition(n.p.t.Context(), "web01")
	must(n.p.t, err)
	return string(def.Text)
}

// keeps is the definition that the engine of a node keeps.
func (n *simNode) keeps() string {
	n.p.t.Helper()
	d, err := n.running().Definition(n.p.t.Context())
	must(n.p.t, err)
	return string(d.Text)
}

// quiet waits until a node has no notice of that kind.
func (p *pair) quiet(n *simNode, code string) {
	p.t.Helper()
	p.until(string(n.name)+" says nothing of "+code, func() bool {
		for _, x := range n.running().State().Status.Notices {
			if x.Code == code {
				return false
			}
		}
		return true
	})
}

var noNetwork = vmmanager.Finding{Level: vmmanager.Refused, Code: "network-missing", Fact: "there is no network onlya"}

// halted is a pair whose module has run on alpha and is stopped.
func (p *pair) halted() (a, b *simNode) {
	p.t.Helper()
	a, b = p.formed()
	must(p.t, a.running().Command(p.t.Context(), appmodules.CmdStopAll, false))
	p.is(a, "STOP", "NotReady")
	p.is(b, "STOP", "NotReady")
	return a, b
}

// TestEditOfAStoppedModule: an edit on the node that ran the module last counts at once, also one that was made while
// its daemon was down, and also for what the peer refuses of it.
func TestEditOfAStoppedModule(t *testing.T) {
	p := newPair(t)
	a, b := p.halted()
	must(t, a.hv.AdminEdit("web01", []byte("new")))
	p.until("beta has it", func() bool { return b.text() == "new" && b.keeps() == "new" })
	b.hv.SetFindings("web01", noNetwork)
	a.halt()
	must(t, a.hv.AdminEdit("web01", []byte("onlya")))
	a.boot()
	if n := p.says(a, "definition-unfit"); !strings.Contains(n.Text, "there is no network onlya") {
		t.Errorf("it says %+v", n)
	}
	if b.text() != "new" {
		t.Errorf("beta has %q", b.text())
	}
	must(t, a.hv.AdminEdit("web01", []byte("new")))
	b.hv.SetFindings("web01")
	p.quiet(a, "definition-unfit")
	for _, n := range []*simNode{a, b} {
		must(t, n.running().Command(t.Context(), appmodules.CmdStart, false))
	}
	p.inStep(a, b)
}

// TestUnfitEditOfAStoppedModule: an edit that the peer must not get is told while the module is stopped.
func TestUnfitEditOfAStoppedModule(t *testing.T) {
	p := newPair(t)
	a, b, vm, _ := scriptedPair(p)
	must(t, a.running().Command(t.Context(), appmodules.CmdStopAll, false))
	p.is(a, "STOP", "NotReady")
	p.is(b, "STOP", "NotReady")
	vm.set(func(s *script) { s.unfit = errors.New("disk vdb is a file of this node") })
	must(t, a.hv.AdminEdit("web01", []byte("two disks")))
	if n := p.says(a, "definition-unfit"); !strings.Contains(n.Text, "disk vdb is a file of this node") {
		t.Errorf("it says %+v", n)
	}
	vm.set(func(s *script) { s.unfit = nil })
	must(t, a.hv.AdminEdit("web01", []byte("<domain/>")))
	p.quiet(a, "definition-unfit")
	if a.keeps() != "<domain/>" || b.text() != "<domain/>" {
		t.Errorf("alpha keeps %q, beta has %q", a.keeps(), b.text())
	}
}

// TestEditElsewhere: an edit on the node that does not have the right is told, and told by its next run too. It is gone
// when somebody takes it back, and otherwise put back before the VM starts there: it never becomes the definition.
func TestEditElsewhere(t *testing.T) {
	p := newPair(t)
	a, b := p.formed()
	p.until("beta has looked", func() (yes bool) {
		b.inside(func(e *Engine) { yes = e.keep.Had != "" })
		return yes
	})
	must(t, b.hv.AdminEdit("web01", []byte("mine")))
	n := p.says(b, "definition-elsewhere")
	if !strings.Contains(n.Text, "was edited on beta") || !strings.Contains(n.Text, "the definition of alpha counts") ||
		n.Remedy != "edit it on alpha" || n.Alarm {
		t.Errorf("the notice is %+v", n)
	}
	must(t, b.hv.AdminEdit("web01", []byte("<domain/>")))
	p.quiet(b, "definition-elsewhere")

	b.halt()
	must(t, b.hv.AdminEdit("web01", []byte("mine")))
	b.boot()
	p.says(b, "definition-elsewhere")
	b.halt()
	b.boot()
	p.says(b, "definition-elsewhere")
	p.inStep(a, b)
	must(t, a.hv.AdminEdit("web01", []byte("new")))
	p.until("the edit that counts is on both", func() bool { return a.text() == "new" && b.text() == "new" })
	p.quiet(b, "definition-elsewhere")
	p.until("beta has noted what it has", func() (yes bool) {
		b.inside(func(e *Engine) { yes = e.keep.Had == appmodules.Digest([]byte("new")) })
		return yes
	})

	must(t, b.hv.AdminEdit("web01", []byte("mine")))
	p.says(b, "definition-elsewhere")
	a.die()
	p.is(b, "ALONE", "Ready")
	if b.text() != "new" || b.keeps() != "new" {
		t.Errorf("beta runs %q and keeps %q", b.text(), b.keeps())
	}
	p.quiet(b, "definition-elsewhere")
	must(t, b.hv.AdminEdit("web01", []byte("newer")))
	p.until("an edit counts where it runs", func() bool { return b.keeps() == "newer" })
}

// TestEditLies: an edit that the peer refused stays where it was made when the right goes to the peer. That node says
// so, and where it is mended there it is mended.
func TestEditLies(t *testing.T) {
	p := newPair(t)
	a, b := p.formed()
	b.hv.SetFindings("web01", noNetwork)
	must(t, a.hv.AdminEdit("web01", []byte("onlya")))
	p.says(a, "definition-unfit")
	must(t, a.running().Command(t.Context(), appmodules.CmdSwap, false))
	p.inStep(b, a)
	n := p.says(a, EditLies)
	if !strings.Contains(n.Text, "lies on alpha only") || !strings.Contains(n.Text, "there is no network onlya") ||
		!strings.Contains(n.Remedy, "edit it on alpha again") {
		t.Errorf("the notice is %+v", n)
	}
	p.quiet(a, "definition-unfit")

	must(t, a.hv.AdminEdit("web01", []byte("mended")))
	p.until("what alpha would start is mended", func() bool { return a.keeps() == "mended" })
	a.halt()
	must(t, a.hv.AdminEdit("web01", []byte("mended again")))
	a.boot()
	p.until("that is seen after a restart", func() bool { return a.keeps() == "mended again" })
	p.says(a, EditLies)
	if b.text() != "<domain/>" || b.keeps() != "<domain/>" {
		t.Errorf("beta has %q and keeps %q", b.text(), b.keeps())
	}
	must(t, a.hv.AdminEdit("web01", []byte("<domain/>")))
	p.quiet(a, EditLies)
	p.quiet(a, "definition-elsewhere")
	p.inStep(b, a)

	must(t, a.hv.AdminEdit("web01", []byte("onlya")))
	p.says(a, "definition-elsewhere") // nothing lies here any more that it could mend
	must(t, b.hv.AdminEdit("web01", []byte("both")))
	p.until("beta's next edit replaces it", func() bool { return a.text() == "both" && a.keeps() == "both" })
	p.quiet(a, "definition-elsewhere")
}

// TestWhatLies: a version that this node made lies here where the peer has the right and an older version, or another
// one of the same number, as after a takeover before it had heard of this one. What the peer made does not.
func TestWhatLies(t *testing.T) {
	p := newPair(t)
	e := stopped(p)
	e.keep.Definition = Definition{Version: 3, Text: []byte("mine")}
	same := appmodules.Digest([]byte("mine"))
	for _, c := range []struct {
		holder cluster.NodeID // as both say
		made   uint64         // here
		theirs uint64
		digest string // of theirs
		want   bool
	}{
		{"beta", 3, 2, "another", true},
		{"beta", 3, 2, "", true}, // of an older release
		{"beta", 3, 2, same, false},
		{"beta", 3, 3, "another", true},
		{"beta", 3, 3, same, false},
		{"beta", 3, 3, "", false},
		{"beta", 2, 2, "another", false}, // it came from the peer, which has not said so yet
		{"alpha", 3, 2, "another", false},
	} {
		e.rec = cluster.Record{Epoch: 4, Holder: c.holder}
		e.keep.Made, e.link.state = c.made, State{Record: e.rec, Definition: c.theirs, Digest: c.digest}
		if got := e.editLies(); got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
	e.rec.Holder, e.link.state.Record.Holder, e.keep.Made = "beta", "alpha", 3
	if e.editLies() {
		t.Error("what the peer said before it had the right is believed")
	}
}

// TestUnfitEditLies: what the peer must not get stays where it was made, and its node says so when the right is the
// peer's; taken back it is gone.
func TestUnfitEditLies(t *testing.T) {
	p := newPair(t)
	a, b, vm, _ := scriptedPair(p)
	vm.set(func(s *script) { s.unfit = errors.New("disk vdb is a file of this node") })
	must(t, a.hv.AdminEdit("web01", []byte("two disks")))
	p.says(a, "definition-unfit")
	must(t, a.running().Command(t.Context(), appmodules.CmdSwap, false))
	p.inStep(b, a)
	if n := p.says(a, EditLies); !strings.Contains(n.Text, "disk vdb is a file of this node") {
		t.Errorf("the notice is %+v", n)
	}
	must(t, b.running().Command(t.Context(), appmodules.CmdSwap, false))
	p.inStep(a, b)
	p.says(a, "definition-unfit")
	if a.text() != "two disks" || a.keeps() != "<domain/>" {
		t.Errorf("alpha has %q and keeps %q", a.text(), a.keeps())
	}
	must(t, a.running().Command(t.Context(), appmodules.CmdSwap, false))
	p.inStep(b, a)
	p.says(a, EditLies)
	vm.set(func(s *script) { s.unfit = nil })
	must(t, a.hv.AdminEdit("web01", []byte("<domain/>")))
	p.quiet(a, EditLies)
}
