package engine

import (
	"strings"
	"testing"
	"time"

	"duet/appmodules"
)

// TestCame: a node says how the right came to it, as long as it has it, also after it was started again; the other one
// says nothing.
func TestCame(t *testing.T) {
	p := newPair(t)
	a, b := p.formed()
	p.came(a, "it was put under protection here")

	must(t, a.running().Command(t.Context(), appmodules.CmdSwap, false))
	p.inStep(b, a)
	p.came(b, "alpha handed over: swapped by an operator")
	p.gone(a)
	p.until("beta has noted it", func() bool {
		_, keep, err := b.running().read()
		return err == nil && strings.HasPrefix(keep.Came.Why, "alpha handed over")
	})
	since := b.running().State().Status.Came.At
	b.halt()
	b.boot()
	p.inStep(b, a)
	p.came(b, "alpha handed over: swapped by an operator")
	if at := b.running().State().Status.Came.At; since.IsZero() || !at.Equal(since) {
		t.Errorf("it came at %v, and after a restart at %v", since, at)
	}

	b.die()
	p.is(a, "ALONE", "Ready")
	p.came(a, "the primary is silent and the data here are complete: take over; the peer is silent")
	b.boot()
	p.inStep(a, b)
	p.gone(b)
}

// TestCameByOrder: an operator's word is a reason, but not where the right was here before.
func TestCameByOrder(t *testing.T) {
	p := newPair(t)
	a, b := p.formed()
	must(t, a.running().Command(t.Context(), appmodules.CmdPrim, true)) // it is already
	p.came(a, "it was put under protection here")
	a.halt()
	b.halt()
	b.boot()
	must(t, b.running().Command(t.Context(), appmodules.CmdPrim, true))
	p.is(b, "ALONE", "Ready")
	p.came(b, "an operator made this node primary")
}

// TestCameAsItDoesNotStart: a VM that an operator restarts and that does not start where it ran goes to the peer, and
// why it did not start is why it runs there.
func TestCameAsItDoesNotStart(t *testing.T) {
	p := newPair(t)
	a, b, vm, _ := scriptedPair(p)
	vm.set(func(s *script) { s.start = errImage })
	must(t, a.running().Command(t.Context(), appmodules.CmdRestart, false))
	p.inStep(b, a)
	p.came(b, "alpha handed over: ")
	if came := b.running().State().Status.Came; !strings.Contains(came.Why, errImage.Error()) {
		t.Errorf("beta has the right because %q", came.Why)
	}
}

func (p *pair) came(n *simNode, why string) {
	p.t.Helper()
	if came := n.running().State().Status.Came; !strings.HasPrefix(came.Why, why) {
		p.t.Errorf("%s has the right because %q at %v, want %q", n.name, came.Why, came.At.Format(time.TimeOnly), why)
	}
}

func (p *pair) gone(n *simNode) {
	p.t.Helper()
	if came := n.running().State().Status.Came; came != (Arrival{}) {
		p.t.Errorf("%s has not the right and says %q", n.name, came.Why)
	}
}
