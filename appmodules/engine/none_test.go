package engine

import (
	"context"
	"strings"
	"testing"
	"time"

	"duet/appmodules"
)

// bare is a pair whose module has no volume and runs nothing.
func bare(t *testing.T) (p *pair, a, b *simNode, up func(n *simNode)) {
	p = newPairOf(t, "link-web01")
	a, b = p.nodes["alpha"], p.nodes["beta"]
	up = func(n *simNode) { n.boot(func(m *appmodules.Module) { m.Spec = appmodules.VM{Domain: "web01"} }) }
	up(a)
	up(b)
	for _, n := range []*simNode{a, b} {
		must(t, n.running().Command(t.Context(), appmodules.CmdStart, false))
	}
	p.is(a, "PRIM", "Ready")
	p.is(b, "SECOND", "Ready")
	return p, a, b, up
}

// runs waits until the workload is up on one node only, or on none.
func (p *pair) runs(on *simNode) {
	p.t.Helper()
	p.until("it runs where it should and nowhere else", func() bool {
		for _, n := range p.nodes {
			if now, err := n.none.State(p.t.Context()); err != nil || now.Up != (n == on) {
				return false
			}
		}
		return true
	})
}

// TestNoVolumes: a module without volumes goes through its life like any other.
func TestNoVolumes(t *testing.T) {
	p, a, b, up := bare(t)
	p.runs(a)
	swap := func(from, to *simNode) {
		t.Helper()
		must(t, from.running().Command(t.Context(), appmodules.CmdSwap, false))
		p.is(to, "PRIM", "Ready")
		p.is(from, "SECOND", "Ready")
		p.runs(to)
	}
	swap(a, b)
	swap(b, a)
	// A failover, and the return of the node that died.
	a.die()
	p.is(b, "ALONE", "Ready")
	p.runs(b)
	up(a)
	p.is(a, "SECOND", "Ready")
	p.is(b, "PRIM", "Ready")
	if a.running().State().Record.Cold {
		t.Error("a node without data counts as one that lost writes")
	}
	// An orderly reboot of each.
	for _, n := range []*simNode{a, b} {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		n.running().Evacuate(ctx)
		n.running().Stop(ctx)
		cancel()
		n.die()
		up(n)
		p.is(n, "SECOND", "Ready")
	}
	p.is(a, "PRIM", "Ready")
	p.runs(a)
	// Both lose power.
	a.die()
	b.die()
	up(b)
	p.is(b, "WAIT", "NotReady")
	up(a)
	p.settle([]*simNode{a, b})
	if st := a.running().State().Status; len(st.Volumes) != 0 {
		t.Errorf("it shows volumes: %+v", st.Volumes)
	}
}

// TestReports: what a workload tells leads to what its policy made of it.
func TestReports(t *testing.T) {
	p, a, b, up := bare(t)
	a.none.Tell(appmodules.Incident{What: appmodules.HasFailed, Why: "a checker says so"})
	p.until("it was restarted", func() bool { return strings.Contains(journal(a), "restart it here: a checker says so") })
	p.is(a, "PRIM", "Ready")
	p.runs(a)
	a.none.Tell(appmodules.Incident{What: appmodules.HasToMove, Why: "a checker says so"})
	p.is(b, "PRIM", "Ready")
	p.is(a, "SECOND", "Ready")
	p.runs(b)
	must(t, b.none.Kill(t.Context())) // nobody tells
	p.until("it is missed", func() bool { return strings.Contains(journal(b), "it ended unseen") })
	p.is(b, "PRIM", "Ready")
	p.runs(b)
	b.none.Tell(appmodules.Incident{What: appmodules.HasEnded, Why: "it is done"})
	p.is(b, "STOP", "NotReady")
	p.is(a, "STOP", "NotReady")
	p.runs(nil)
	ended := func(want string) {
		t.Helper()
		p.until("how it ended is told", func() bool { return b.running().State().Status.Ended == want })
	}
	ended("it is done")
	b.halt()
	up(b)
	ended("it is done") // also after a restart of the daemon
	must(t, b.running().Command(t.Context(), appmodules.CmdStop, false))
	ended("") // an operator has seen it
}
