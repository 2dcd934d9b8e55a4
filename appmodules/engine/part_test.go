package engine

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"duet/appmodules"
)

// TestPartAndRejoin: a node leaves its peer on purpose and comes back to it, also when it is asked for the one without
// the other.
func TestPartAndRejoin(t *testing.T) {
	p := newPair(t)
	a, b := p.formed()
	for range 2 {
		a.running().Rejoin() // from nothing
		must(t, a.running().Alive(t.Context()))
		p.is(a, "PRIM", "Ready")
		p.writes(20)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		must(t, a.running().Part(ctx, "a test"))
		cancel()
		p.writes(50)
		pause(500 * time.Millisecond) // longer than it takes to connect and resync
		if r := a.running().State().Status.Role; r != appmodules.Alone || b.running().State().Record.IsComplete() {
			t.Errorf("alpha is %s, and beta counts as complete, although alpha has left it", r)
		}
		a.running().Rejoin()
		p.is(a, "PRIM", "Ready")
		p.is(b, "SECOND", "Ready")
		p.writes(20)
	}
}

// TestSavedIsNotedLate: a daemon that dies after a VM went on from its memory, and before that is noted, does not take
// the running VM for one that is to be woken.
func TestSavedIsNotedLate(t *testing.T) {
	p := newPair(t)
	a, b := p.formed()
	must(t, a.hv.AdminSave("web01"))
	p.is(a, "STOP", "NotReady")
	p.is(b, "STOP", "NotReady")
	for _, n := range []*simNode{a, b} {
		must(t, n.running().Command(t.Context(), appmodules.CmdStart, false))
	}
	p.is(a, "PRIM", "Ready")
	must(t, a.running().call(t.Context(), func() { a.running().setSaved(true) }))
	a.halt()
	a.boot()
	p.is(a, "PRIM", "Ready")
	p.is(b, "SECOND", "Ready")
	p.writes(20)
	if log := journal(a); strings.Contains(log, "did not start") {
		t.Errorf("the running VM was started:\n%s", log)
	}
}

// TestBooted: after it an engine does not say any more that a module is stopped which was running.
func TestBooted(t *testing.T) {
	p := newPair(t)
	a, _ := p.formed()
	a.halt()
	a.boot()
	must(t, a.running().Booted(t.Context()))
	if s := a.running().State().Status; s.Role == appmodules.Stop {
		t.Errorf("the module is %s: %s", s.Role, s.Why)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := a.running().Booted(ended); !errors.Is(err, context.Canceled) {
		t.Errorf("with an ended context: %v", err)
	}
}
