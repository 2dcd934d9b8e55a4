package engine

import (
	"errors"
	"fmt"
	"os"
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

// both waits until both nodes have a definition, and what they keep is that.
func (p *pair) both(text string) {
	p.t.Helper()
	p.until("both have "+text, func() bool {
		for _, n := range p.nodes {
			if n.text() != text || n.keeps() != text {
				return false
			}
		}
		return true
	})
}

// silent waits until no node has anything to say.
func (p *pair) silent() {
	p.t.Helper()
	p.until("nothing is left to say", func() bool {
		for _, n := range p.nodes {
			if len(n.running().State().Status.Notices) > 0 {
				return false
			}
		}
		return true
	})
}

// looked waits until a node knows what its hypervisor has.
func (p *pair) looked(n *simNode) {
	p.t.Helper()
	p.until(string(n.name)+" has looked", func() (yes bool) {
		n.inside(func(e *Engine) { yes = e.keep.Had != "" })
		return yes
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

// TestEditOfAFollower: an edit on the node that only follows counts as one where the VM runs: that has it from its next
// start.
func TestEditOfAFollower(t *testing.T) {
	p := newPair(t)
	a, b := p.formed()
	p.looked(b)
	must(t, b.hv.AdminEdit("web01", []byte("mine")))
	p.both("mine")
	if live, _ := a.hv.Live("web01"); string(live.Text) != "<domain/>" {
		t.Errorf("what runs on alpha was changed to %q", live.Text)
	}
	must(t, a.hv.AdminEdit("web01", []byte("yours")))
	p.both("yours")
	b.halt()
	must(t, b.hv.AdminEdit("web01", []byte("in the dark")))
	b.boot()
	p.both("in the dark")
	p.inStep(a, b)
	must(t, a.running().Command(t.Context(), appmodules.CmdRestart, false))
	p.until("alpha runs it", func() bool {
		live, _ := a.hv.Live("web01")
		return string(live.Text) == "in the dark"
	})
	p.inStep(a, b)
	p.silent()
}

// TestEditOfAStoppedFollower: the same of a module that is stopped, and the next start on the other node has it.
func TestEditOfAStoppedFollower(t *testing.T) {
	p := newPair(t)
	a, b := p.halted()
	must(t, b.hv.AdminEdit("web01", []byte("mine")))
	p.both("mine")
	for _, n := range []*simNode{a, b} {
		must(t, n.running().Command(t.Context(), appmodules.CmdStart, false))
	}
	p.inStep(a, b)
	p.both("mine")
	p.silent()
}

// TestEditIsMended: the VM does not start on either node, and what lies on each the other refuses: a mend counts on
// whichever node it is made.
func TestEditIsMended(t *testing.T) {
	for _, where := range []cluster.NodeID{"alpha", "beta"} {
		t.Run(string(where), func(t *testing.T) {
			p := newPair(t)
			a, b := p.formedAs(func(_ *simNode, c *Config) {
				scripted(c).judge = func(text string) (refusal string) {
					if strings.HasPrefix(text, "broken") {
						refusal = "there is no " + text
					}
					return refusal
				}
			})
			must(t, a.running().Command(t.Context(), appmodules.CmdStopAll, false))
			p.is(a, "STOP", "NotReady")
			p.is(b, "STOP", "NotReady")
			for _, n := range []*simNode{a, b} {
				must(t, n.hv.AdminEdit("web01", []byte("broken "+n.name)))
				p.until("its edit is adopted", func() bool { return n.keeps() == "broken "+string(n.name) })
			}
			p.says(b, editLies)
			must(t, p.nodes[where].hv.AdminEdit("web01", []byte("mended")))
			p.both("mended")
			p.silent()
		})
	}
}

// TestEditBeforeAStart: an edit that only a start finds is what it starts, also where the peer was not heard.
func TestEditBeforeAStart(t *testing.T) {
	p := newPair(t)
	a, b := p.halted() // else alpha would write alone meanwhile
	b.halt()
	a.halt()
	must(t, b.hv.AdminEdit("web01", []byte("mine")))
	b.boot()
	if n := p.says(b, "definition-elsewhere"); !strings.Contains(n.Text, "on beta counts when alpha is heard") {
		t.Errorf("the notice is %+v", n)
	}
	if got := b.keeps(); got != "<domain/>" {
		t.Errorf("beta keeps %q before it has heard of alpha", got)
	}
	must(t, b.running().Command(t.Context(), appmodules.CmdPrim, true))
	p.is(b, "ALONE", "Ready")
	if b.text() != "mine" || b.keeps() != "mine" {
		t.Errorf("beta runs %q and keeps %q", b.text(), b.keeps())
	}
	p.quiet(b, "definition-elsewhere")
	a.boot()
	must(t, a.running().Command(t.Context(), appmodules.CmdStart, false))
	p.inStep(b, a)
	p.both("mine")
}

// TestEditWaitsForThePeer: an edit of a time in which the peer was not heard is taken up when it is.
func TestEditWaitsForThePeer(t *testing.T) {
	p := newPair(t)
	a, b := p.halted()
	a.halt()
	b.halt()
	must(t, b.hv.AdminEdit("web01", []byte("mine")))
	b.boot()
	p.says(b, "definition-elsewhere")
	a.boot()
	p.both("mine")
	p.silent()
}

// TestEditOfAnOlderOne: an edit of a version that is not the newest any more is replaced by that, by what the peer
// sends or by a start. That is told until the next edit, with the file that has it.
func TestEditOfAnOlderOne(t *testing.T) {
	for _, byStart := range []bool{false, true} {
		t.Run(fmt.Sprintf("by a start %v", byStart), func(t *testing.T) {
			p := newPair(t)
			a, b := p.nodes["alpha"], p.nodes["beta"]
			p.formed()
			p.looked(b)
			var vm *script
			b.halt()
			if byStart {
				b.bootAs(func(c *Config) { vm = scripted(c) })
				p.inStep(a, b)
				vm.set(func(s *script) { s.define = errors.New("not now") })
				must(t, a.hv.AdminEdit("web01", []byte("newer")))
				p.until("beta keeps it", func() bool { return b.keeps() == "newer" })
				must(t, b.hv.AdminEdit("web01", []byte("old, edited")))
				must(t, a.running().Command(t.Context(), appmodules.CmdSwap, false))
				p.inStep(b, a)
			} else {
				must(t, a.hv.AdminEdit("web01", []byte("newer")))
				p.until("alpha keeps it", func() bool { return a.keeps() == "newer" })
				must(t, b.hv.AdminEdit("web01", []byte("old, edited")))
				b.boot()
			}
			p.both("newer")
			n := p.says(b, "definition-replaced")
			if n.Text != "an edit of the VM's definition on beta was replaced by that of alpha, which is newer" || n.Alarm {
				t.Errorf("the notice is %+v", n)
			}
			_, where, _ := strings.Cut(n.Remedy, "it is kept in ")
			where = strings.TrimSuffix(where, " on beta")
			if kept, err := os.ReadFile(where); err != nil || string(kept) != "old, edited" {
				t.Errorf("%s: it is %q, %v", n.Remedy, kept, err)
			}
			p.quiet(b, "definition-elsewhere")
			must(t, b.hv.AdminEdit("web01", []byte("edited again")))
			p.both("edited again")
			p.silent()
		})
	}
}

// TestEditAfterARejoin: a node that comes back with the guest that it had follows the first edit there as any other,
// although its definition was not looked at while that guest was up.
func TestEditAfterARejoin(t *testing.T) {
	p := newPair(t)
	a, b := p.nodes["alpha"], p.nodes["beta"]
	text := []byte("<domain/>")
	must(t, Create(b.store, "beta", "alpha", Definition{Module: "web01", Version: 1, Text: text}, appmodules.Digest(text)))
	must(t, b.hv.Start(t.Context(), "web01"))
	p.formed()
	p.until("the guest that was left has gone", func() bool {
		state, err := b.hv.State(t.Context(), "web01")
		return err == nil && state == vmmanager.Off
	})
	must(t, b.hv.AdminEdit("web01", []byte("edited on beta")))
	p.both("edited on beta")
	must(t, a.hv.AdminEdit("web01", []byte("edited on alpha")))
	p.both("edited on alpha")
}

// TestEditsAtOnce: where both nodes have made the next version each would start its own, and says so, until the next
// edit.
func TestEditsAtOnce(t *testing.T) {
	p := newPair(t)
	a, b := p.halted()
	p.cut.Store(true)
	must(t, a.hv.AdminEdit("web01", []byte("one")))
	must(t, b.hv.AdminEdit("web01", []byte("two")))
	p.until("both have their own", func() bool { return a.keeps() == "one" && b.keeps() == "two" })
	p.cut.Store(false)
	n := p.says(b, editLies)
	if n.Text != "the VM's definition was edited on beta and on alpha at once: each would start its own" || n.Alarm {
		t.Errorf("the notice is %+v", n)
	}
	if a.text() != "one" || b.text() != "two" {
		t.Errorf("alpha has %q, beta %q", a.text(), b.text())
	}
	must(t, b.hv.AdminEdit("web01", []byte("three")))
	p.both("three")
	p.silent()
}

// TestEditLies: an edit that the peer refused stays where it was made when the right goes to the peer. That node says
// so; it is mended there, or by the next edit on the peer.
func TestEditLies(t *testing.T) {
	p := newPair(t)
	a, b := p.formed()
	b.hv.SetFindings("web01", noNetwork)
	must(t, a.hv.AdminEdit("web01", []byte("onlya")))
	p.says(a, "definition-unfit")
	must(t, a.running().Command(t.Context(), appmodules.CmdSwap, false))
	p.inStep(b, a)
	n := p.says(a, editLies)
	if want := "the edit of the VM's definition on alpha is not on beta: it would not run there: " +
		"there is no network onlya"; n.Text != want || !strings.Contains(n.Remedy, "on either host") {
		t.Errorf("the notice is %+v", n)
	}
	p.quiet(a, "definition-unfit")
	a.halt()
	must(t, a.hv.AdminEdit("web01", []byte("onlya again")))
	a.boot()
	p.until("that is seen after a restart", func() bool { return a.keeps() == "onlya again" })
	p.says(a, editLies)
	if b.text() != "<domain/>" || b.keeps() != "<domain/>" {
		t.Errorf("beta has %q and keeps %q", b.text(), b.keeps())
	}
	must(t, b.hv.AdminEdit("web01", []byte("both")))
	p.both("both")
	p.quiet(a, editLies)

	must(t, a.hv.AdminEdit("web01", []byte("onlya")))
	p.says(a, editLies)
	b.hv.SetFindings("web01")
	p.both("onlya")
	p.silent()
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
	if n := p.says(a, editLies); !strings.Contains(n.Text, "disk vdb is a file of this node") {
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
	p.says(a, editLies)
	vm.set(func(s *script) { s.unfit = nil })
	must(t, a.hv.AdminEdit("web01", []byte("<domain/>")))
	p.quiet(a, editLies)
}
