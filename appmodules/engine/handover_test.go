package engine

import (
	"errors"
	"strings"
	"testing"
	"time"

	"duet/appmodules"
	"duet/blockrepl"
	"duet/blockrepl/backing"
)

// TestHandoverWithoutAnAnswer: the peer has taken over, but its word of it is lost. The right is the peer's all the
// same: this node follows it, and nobody starts a second VM.
func TestHandoverWithoutAnAnswer(t *testing.T) {
	p := newPair(t)
	var to *lossy
	a, b := p.formedAs(func(n *simNode, c *Config) {
		if n.name == "alpha" {
			to = across(c)
		}
	})
	to.handover.Store(1)
	must(t, a.running().Command(t.Context(), appmodules.CmdSwap, false))
	p.inStep(b, a)
	p.writes(20)
	if log := journal(a); !strings.Contains(log, "the peer did not confirm that it has taken over; the right is") {
		t.Errorf("alpha says\n%s", log)
	}
	if rec := b.running().State().Record; rec.Epoch != 2 || rec.Holder != "beta" {
		t.Errorf("beta's record is %+v", rec)
	}
}

// TestHandoverToOneThatStops: a swap to a node whose module is to stop is refused there, and the module goes on where
// it was.
func TestHandoverToOneThatStops(t *testing.T) {
	p := newPair(t)
	a, b := p.formed()
	must(t, b.running().Command(t.Context(), appmodules.CmdStopAll, false))
	p.is(b, "SECOND", "Ready") // until its primary ends
	must(t, a.running().Command(t.Context(), appmodules.CmdSwap, false))
	p.is(a, "ALONE", "Ready")
	p.is(b, "STOP", "NotReady")
	p.writes(20)
	log := journal(a)
	for _, want := range []string{"the module is to stop on beta", "ask for it back", "the peer agreed to be outdated"} {
		if !strings.Contains(log, want) {
			t.Errorf("no %q in\n%s", want, log)
		}
	}
}

// TestHandoverToADaemonThatStops: it takes no right that it could not use.
func TestHandoverToADaemonThatStops(t *testing.T) {
	p := newPair(t)
	a, b := p.formed()
	b.inside(func(e *Engine) { e.retiring = true })
	must(t, a.running().Command(t.Context(), appmodules.CmdSwap, false))
	p.until("beta has refused", func() bool { return strings.Contains(journal(a), "the module is to stop on beta") })
	if rec := b.running().State().Record; rec.Epoch != 1 {
		t.Errorf("beta's record is %+v", rec)
	}
	b.halt()
	b.boot()
	p.is(b, "PRIM", "Ready") // it finds out what it was given
	p.writes(20)
}

// TestHandoverOfTwoDisks: one of two disks was ready to be handed over when the peer was lost. The guest goes on here,
// on both.
func TestHandoverOfTwoDisks(t *testing.T) {
	p := newPair(t)
	a, b, others := twins(p)
	hold := make(chan struct{})
	remove := others[b].image.Inject(backing.Fault{Ops: []blockrepl.Op{blockrepl.OpFlush}, Hold: hold})
	must(t, a.running().Command(t.Context(), appmodules.CmdSwap, false))
	p.until("alpha has lost beta in the handover", func() bool {
		return strings.Contains(journal(a), "the peer was lost before it could take over")
	})
	p.is(a, "ALONE", "Ready")
	p.writes(50)
	remove()
	close(hold)
	p.inStep(a, b)
	p.writes(50)
}

// TestHandoverCannotBeNoted: a right that cannot be given away durably is not given away; this node takes no part until
// it can save, says so, and its peer goes on.
func TestHandoverCannotBeNoted(t *testing.T) {
	t.Parallel() // it waits most of the time
	p := newPair(t)
	a, b := p.formed()
	a.store.breaks(errors.New("no space left"))
	must(t, a.running().Command(t.Context(), appmodules.CmdSwap, false))
	p.until("alpha says what is wrong", func() bool {
		return strings.Contains(a.why(), "this node cannot save what it decides: its metadata disk is full or broken; it "+
			"takes part again when that is mended")
	})
	if log := journal(a); !strings.Contains(log, "given away durably: metadata cannot be saved: no space left") {
		t.Errorf("alpha says\n%s", log)
	}
	p.is(b, "ALONE", "Ready")
	p.writes(20)
	a.store.breaks(nil)
	p.inStep(b, a)
}

// breaks has no save succeed from now on; nil: they do.
func (s *memStore) breaks(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail = err
}

// TestYesIsLost: the peer has agreed to be outdated, and its yes is lost on the way. Its refusal of the next connection
// tells the holder so, which asks again.
func TestYesIsLost(t *testing.T) {
	p := newPair(t)
	var to *lossy
	a, b := p.formedAs(func(n *simNode, c *Config) {
		if n.name == "alpha" {
			to = across(c)
		}
	}, safe)
	to.ask.Store(ever)
	p.data.Store(true)
	p.sever()
	p.until("beta has agreed", func() bool { return b.running().State().Record.Epoch == 2 })
	p.data.Store(false)
	p.until("alpha knows that", func() bool {
		return strings.Contains(journal(a), "the peer has agreed to be outdated: ask it again for its yes")
	})
	to.ask.Store(0)
	p.inStep(a, b)
	p.writes(20)
	if log := journal(a); !strings.Contains(log, "the peer agreed to be outdated (rule 3a)") {
		t.Errorf("alpha says\n%s", log)
	}
}

// TestLinkIsLostInAResync: a peer that is lost before it has everything was not needed: no write waits, and nobody is
// asked. One that is lost when it has everything and may know so is needed: the right is asked for.
func TestLinkIsLostInAResync(t *testing.T) {
	p := newPair(t)
	a, b := p.nodes["alpha"], p.nodes["beta"]
	var to *lossy
	a.bootAs(func(c *Config) { to = across(c) })
	must(t, a.running().Command(t.Context(), appmodules.CmdStart, false))
	p.is(a, "ALONE", "Ready")
	p.writes(20)
	hold := make(chan struct{})
	remove := b.disk.Inject(backing.Fault{Ops: []blockrepl.Op{blockrepl.OpWrite, blockrepl.OpZero}, Hold: hold})
	b.boot(func(m *appmodules.Module) { m.Policy.DiskBudget = appmodules.Duration(time.Minute) })
	must(t, b.running().Command(t.Context(), appmodules.CmdStart, false))
	p.until("the resync has begun", func() bool {
		return strings.Contains(journal(a), "the peer is connected: resync while the VM runs")
	})
	to.complete.Store(ever)
	p.sever()
	p.until("alpha has lost beta", func() bool {
		return strings.Contains(journal(a), "the peer was lost during its resync; it was not needed")
	})
	if rec := a.running().State().Record; rec.Epoch != 1 || !rec.Alone {
		t.Errorf("alpha asked for what it had: %+v", rec)
	}
	p.writes(20)
	remove()
	close(hold)
	p.until("all is on beta, which was not told so", func() bool { return to.completed.Load() > 1 })
	if rec := a.running().State().Record; rec.Alone {
		t.Errorf("alpha may go on without beta: %+v", rec)
	}
	p.sever()
	p.until("alpha asks", func() bool {
		return strings.Contains(journal(a), "the peer was lost: writes wait for the right to go on alone")
	})
	to.complete.Store(0)
	p.inStep(a, b)
	p.writes(20)
	if rec := a.running().State().Record; rec.Epoch < 2 {
		t.Errorf("nobody was asked: %+v", rec)
	}
}

// TestConfirmationCannotBeNoted: a node that cannot save that it is complete does not say so, and is not.
func TestConfirmationCannotBeNoted(t *testing.T) {
	t.Parallel() // it waits most of the time
	p := newPair(t)
	a, b := p.nodes["alpha"], p.nodes["beta"]
	var to *lossy
	a.bootAs(func(c *Config) { to = across(c) })
	to.complete.Store(ever)
	b.boot()
	for _, n := range []*simNode{a, b} {
		must(t, n.running().Command(t.Context(), appmodules.CmdStart, false))
	}
	p.until("all is on beta, which was not told so", func() bool { return to.completed.Load() > 0 })
	b.store.breaks(errors.New("no space left"))
	var c Complete
	a.inside(func(e *Engine) { c = Complete{Module: "web01", Epoch: e.rec.Epoch, Tickets: e.leading.tickets()} })
	if err := b.running().OnComplete(t.Context(), c); !strings.Contains(errorText(err), "the record cannot be saved") {
		t.Errorf("the confirmation: %v", err)
	}
	p.is(b, "WAIT", "NotReady")
	p.is(a, "ALONE", "Ready")
	if rec := b.running().State().Record; rec.IsComplete() {
		t.Errorf("beta counts as complete: %+v", rec)
	}
	b.store.breaks(nil)
	to.complete.Store(0)
	p.inStep(a, b)
	p.writes(20)
}

// TestVersionCannotBeKept: after a split brain the loser overwrites nothing before its version is kept. The winner
// says why they are apart.
func TestVersionCannotBeKept(t *testing.T) {
	t.Parallel() // it waits most of the time
	p := newPair(t)
	var bs *faulty
	a, b := p.formedAs(func(n *simNode, c *Config) {
		if n.name == "beta" {
			bs = onFaulty(c)
		}
	})
	p.apart.Store(true)
	p.cut.Store(true)
	p.sever()
	p.is(a, "ALONE", "Ready")
	p.is(b, "ALONE", "Ready")
	p.writes(20)
	bs.fail(nil, nil, errors.New("no space for it"))
	p.cut.Store(false)
	p.until("alpha says why they are apart", func() bool {
		return strings.Contains(a.running().State().Status.Volumes[0].Problem, "no space for it")
	})
	if b.kept() != 0 || b.running().State().Record.IsComplete() || strings.Contains(journal(b), "its version is kept") {
		t.Errorf("beta's version was given up:\n%s", journal(b))
	}
	p.is(b, "SECOND", "Transient")
	bs.fail(nil, nil, nil)
	p.inStep(a, b)
	p.writes(20)
	if n := b.kept(); n != 1 {
		t.Errorf("beta kept %d versions", n)
	}
}
