package engine

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"duet/appmodules"
	"duet/cluster"
)

// by gives a node witnesses.
func by(witnesses ...Witness) func(*simNode, *Config) {
	return func(_ *simNode, c *Config) { c.Witnesses = func() []Witness { return witnesses } }
}

// TestWitnessGrants: where a witness is configured its yes is what lets a node go on without its peer, and it
// remembers to whom: the copy that missed the writes since does not get the right when it is the only one left.
func TestWitnessGrants(t *testing.T) {
	p := newPair(t)
	w := &voter{name: "w"}
	a, b := p.formedAs(by(w), safe)
	b.halt()
	p.is(a, "ALONE", "Ready")
	p.writes(20)
	if log := journal(a); !strings.Contains(log, "the witness w agreed (rule 3b)") {
		t.Errorf("alpha does not say who agreed:\n%s", log)
	}
	a.die()
	b.bootAs(func(c *Config) { by(w)(b, c) }, safe)
	p.until("beta knows from the witness that alpha went on", func() bool {
		return strings.Contains(b.why(), "alpha holds epoch 2 and does not answer")
	})
	if b.running().State().Record.Holder != "alpha" || strings.Contains(journal(b), "was granted") {
		t.Errorf("a stale copy got the right:\n%s", journal(b))
	}
}

// TestWitnessIsAway: where the votes of two witnesses are needed, as while one takes the place of the other, one that
// is away keeps the writes waiting, is named, and is asked again until it is back.
func TestWitnessIsAway(t *testing.T) {
	p := newPair(t)
	w1, w2 := &voter{name: "w1"}, &voter{name: "w2"}
	a, b := p.formedAs(by(w1, w2), safe)
	w2.away.Store(true)
	b.die()
	p.until("alpha says whom it waits for", func() bool {
		return strings.Contains(a.why(), "neither the peer nor the witness w2 answers: the return of either or "+
			"`duet prim web01` ends this (rule 3b): the VM stands still until then")
	})
	if s := a.running().State().Status; s.Workload != "frozen" || s.Role != appmodules.Prim {
		t.Errorf("it is %s, and its VM %s", s.Role, s.Workload)
	}
	w2.away.Store(false)
	p.is(a, "ALONE", "Ready")
	p.writes(20)
}

// TestWitnessIsInformed: a holder tells each witness of an epoch that it got without it, also one that was away or
// was registered since; otherwise it would agree to a stale copy. One that knows better deposes nobody.
func TestWitnessIsInformed(t *testing.T) {
	p := newPair(t)
	w := &voter{name: "w"}
	w.away.Store(true)
	var witnesses atomic.Pointer[[]Witness]
	witnesses.Store(&[]Witness{w})
	a, b := p.formedAs(func(_ *simNode, c *Config) {
		c.Witnesses = func() []Witness { return *witnesses.Load() }
	}, safe)
	must(t, a.running().Command(t.Context(), appmodules.CmdSwap, false))
	p.inStep(b, a)
	w.away.Store(false)
	told := func(w *voter) {
		t.Helper()
		p.until("the witness knows of the swap", func() bool { r := w.knows(); return r.Epoch == 2 && r.Holder == "beta" })
	}
	told(w)
	anew := &voter{name: "w"}
	wise := &voter{name: "wise", rec: cluster.Record{Epoch: 9, Holder: "alpha", Promised: 9, To: "alpha"}}
	witnesses.Store(&[]Witness{anew, wise})
	told(anew)
	p.until("the witness that knows better was told", func() (done bool) {
		b.inside(func(e *Engine) { done = e.informed[wise] == 2 })
		return done
	})
	p.writes(20)
	p.inStep(b, a)
	if log := journal(b); strings.Contains(log, "newer epoch") {
		t.Errorf("a witness deposed a holder that is connected:\n%s", log)
	}
}

// TestFenceDecides: without a witness a fence agent that confirms the peer to be off lets the holder go on; until
// then writes wait, and the status says what the agent says. Nobody is fenced who shows a sign of life.
func TestFenceDecides(t *testing.T) {
	t.Parallel() // it waits most of the time
	p := newPair(t)
	var broken, there, can atomic.Bool
	var calls atomic.Int32
	broken.Store(true)
	a, b := p.formedAs(func(n *simNode, c *Config) {
		if n.name != "alpha" {
			return
		}
		view := c.View
		c.View = func() cluster.View {
			v := view()
			v.Peers["beta"] = cluster.PeerView{Paths: map[string]bool{"hb1": there.Load()}}
			return v
		}
		c.CanFence = can.Load
		c.Fence = func(context.Context) error {
			calls.Add(1)
			if broken.Load() {
				return errors.New("the power strip does not answer")
			}
			return nil
		}
	}, safe)
	says := func(what string) {
		t.Helper()
		p.until("alpha says: "+what, func() bool { return strings.Contains(a.why(), what) })
	}
	there.Store(true)
	b.die()
	says("there is no witness, and arbitration is safe: only the peer's return or `duet prim web01` ends this")
	can.Store(true)
	says("could not be fenced: it answers again: its return or `duet prim web01` ends this (rule 3c)")
	if n := calls.Load(); n != 0 {
		t.Errorf("a peer that shows a sign of life was fenced %d times", n)
	}
	there.Store(false)
	says("could not be fenced: the power strip does not answer: its return or `duet prim web01` ends this (rule 3c)")
	broken.Store(false)
	p.is(a, "ALONE", "Ready")
	p.writes(20)
	if log := journal(a); !strings.Contains(log, "a fence agent confirmed that the peer is off (rule 3c)") {
		t.Errorf("alpha does not say what let it go on:\n%s", log)
	}
}

// TestHolderShootsFirst: of two nodes that are cut off from each other and can both fence, the one that has the right
// does so first, so that they do not switch each other off.
func TestHolderShootsFirst(t *testing.T) {
	p := newPair(t)
	var shots, early atomic.Int32
	a, b := p.formedAs(func(n *simNode, c *Config) {
		c.Times.Detection = 400 * time.Millisecond // three halves of it are what the standby leaves the holder
		if n.name == "beta" {
			c.Fence = func(context.Context) error { early.Add(1); return errors.New("it shot first") }
			return
		}
		c.Fence = func(ctx context.Context) error {
			beta, asks := p.nodes["beta"].running(), false
			for !asks && sleep(ctx, Real{}, time.Millisecond) == nil { // it takes a moment to switch beta off
				_ = beta.call(ctx, func() {
					asks = beta.asking != nil && beta.rt.Now().Sub(beta.entered) > c.Times.Detection/8
				})
			}
			shots.Add(1)
			p.nodes["beta"].die()
			return nil
		}
	}, safe)
	p.cut.Store(true)
	p.sever()
	p.is(a, "ALONE", "Ready")
	p.writes(20)
	if first, second := shots.Load(), early.Load(); first != 1 || second != 0 {
		t.Errorf("alpha fenced %d times and beta %d times:\n%s", first, second, journal(b))
	}
}

// TestFenceBeforeStart: a policy that wants the peer fenced before a VM starts elsewhere is kept to, also where a
// witness grants the right; a holder whose VM runs already fences nobody.
func TestFenceBeforeStart(t *testing.T) {
	t.Parallel() // it waits most of the time
	first := func(m *appmodules.Module) { safe(m); m.Policy.Fence = appmodules.FenceBeforeStart }
	p := newPair(t)
	w := &voter{name: "w"}
	var broken atomic.Bool
	var calls atomic.Int32
	a, b := p.formedAs(func(n *simNode, c *Config) {
		by(w)(n, c)
		c.Fence = func(context.Context) error {
			calls.Add(1)
			if broken.Load() {
				return errors.New("the power strip is busy")
			}
			return nil
		}
	}, first)
	broken.Store(true)
	w.away.Store(true)
	a.die()
	p.until("beta was not granted the right", func() bool {
		return strings.Contains(b.why(), "neither the peer nor the witness w answers")
	})
	if n := calls.Load(); n != 0 {
		t.Errorf("fenced %d times for a right that nobody granted", n)
	}
	w.away.Store(false)
	p.until("beta says what it waits for", func() bool {
		return strings.Contains(b.why(), "the policy asks for the peer to be fenced before a VM starts here: "+
			"the power strip is busy")
	})
	broken.Store(false)
	p.is(b, "ALONE", "Ready")
	p.writes(20)
	if calls.Load() == 0 {
		t.Error("the VM was started without a fence")
	}
	a.bootAs(func(c *Config) { by(w)(a, c) }, first)
	p.inStep(b, a)
	calls.Store(0)
	a.die()
	p.is(b, "ALONE", "Ready")
	if n := calls.Load(); n != 0 {
		t.Errorf("the holder, whose VM ran, fenced %d times", n)
	}
}

// TestColdStart: a node that comes up alone says for how long it waits for its peer, and then goes on by itself where
// the policy lets it, although its copy lost power.
func TestColdStart(t *testing.T) {
	t.Parallel() // it waits most of the time
	p := newPair(t)
	a, b := p.formed()
	b.die()
	p.is(a, "ALONE", "Ready")
	b.boot()
	p.inStep(a, b) // nobody is alone: each has what the other has
	a.die()
	b.halt()
	p.apart.Store(true) // what was never flushed is lost: that is the risk of this policy
	a.boot(func(m *appmodules.Module) { m.Policy.ColdStart = appmodules.ColdStart(time.Second) })
	p.until("alpha says how long it waits", func() bool {
		return strings.Contains(a.why(), "or may have writes that were not on disk when this node lost power; its return or "+
			"`duet prim web01` ends this, or cold_start in 1s")
	})
	p.is(a, "ALONE", "Ready")
	p.writes(20)
}
