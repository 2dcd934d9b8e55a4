package engine

import (
	"errors"
	"strings"
	"testing"
	"time"

	"duet/appmodules"
)

// errImage is why the VM of these tests does not start.
var errImage = errors.New("the machine type is not known here")

// brisk is a policy that tries again at once, twice.
func brisk(m *appmodules.Module) {
	m.Policy.Restart.Max, m.Policy.Restart.Pause = 2, appmodules.RestartPause(20*time.Millisecond)
}

// scriptedPair is formed with scripts.
func scriptedPair(p *pair, edit ...func(*appmodules.Module)) (a, b *simNode, as, bs *script) {
	p.t.Helper()
	a, b = p.formedAs(func(n *simNode, c *Config) {
		if n.name == "alpha" {
			as = scripted(c)
		} else {
			bs = scripted(c)
		}
	}, edit...)
	return a, b, as, bs
}

// TestDoesNotStartAlone: a VM that does not start and has nowhere to go is tried as often as the policy says, with its
// pause; then the module stops and says why. An operator who starts it has all tries anew.
func TestDoesNotStartAlone(t *testing.T) {
	t.Parallel() // it waits most of the time
	p := newPair(t)
	a, b, vm, _ := scriptedPair(p, brisk)
	b.die()
	p.is(a, "ALONE", "Ready")
	fail := func() {
		t.Helper()
		before, _ := vm.tried()
		vm.set(func(s *script) { s.start = errImage })
		must(t, a.hv.Crash("web01"))
		p.is(a, "STOP", "NotReady")
		if starts, _ := vm.tried(); starts-before != 2 {
			t.Errorf("it was started %d times, want 2", starts-before)
		}
		if why := a.why(); strings.Count(why, errImage.Error()) != 1 || !strings.Contains(why, "the peer cannot take over") ||
			!strings.HasSuffix(why, "; when that is mended, `duet start web01`") {
			t.Errorf("it says %q", why)
		}
		if !strings.Contains(journal(a), "it is tried again after policy.restart.pause: "+errImage.Error()) {
			t.Errorf("the journal says\n%s", journal(a))
		}
	}
	fail()
	vm.set(func(s *script) { s.start = nil })
	must(t, a.running().Command(t.Context(), appmodules.CmdStart, false))
	p.is(a, "ALONE", "Ready")
	if why := a.why(); strings.Contains(why, errImage.Error()) {
		t.Errorf("it runs and says %q", why)
	}
	fail() // as often as before
}

// TestDoesNotStartHere: a VM that does not start where it failed moves to the peer that is in step, without being
// tried again.
func TestDoesNotStartHere(t *testing.T) {
	p := newPair(t)
	a, b, vm, _ := scriptedPair(p, brisk)
	before, _ := vm.tried()
	vm.set(func(s *script) { s.start = errImage })
	must(t, a.hv.Crash("web01"))
	p.inStep(b, a)
	p.writes(20)
	if starts, _ := vm.tried(); starts != before+1 {
		t.Errorf("it was tried %d times more here", starts-before-1)
	}
	if log := journal(a); !strings.Contains(log, "the VM does not start here: move it to the peer: "+errImage.Error()) {
		t.Errorf("the journal says\n%s", log)
	}
	p.until("what came of it here is of another time", func() bool { return !a.running().State().Balked })
}

// TestDoesNotStartAnywhere: a VM that starts on neither node does not go to and fro for ever; it stops and
// says why, and one word of an operator lets it be tried again.
func TestDoesNotStartAnywhere(t *testing.T) {
	t.Parallel() // it waits most of the time
	p := newPair(t)
	a, b, as, bs := scriptedPair(p, brisk)
	for _, vm := range []*script{as, bs} {
		vm.set(func(s *script) { s.start = errImage })
	}
	must(t, a.hv.Crash("web01"))
	p.until("it was tried on both, and then no more", func() bool {
		last, other := a.running().State().Status, b.running().State().Status
		if last.Phase != appmodules.Stopped {
			a, b, last, other = b, a, other, last // a is the one that stopped
		}
		return last.Phase == appmodules.Stopped && other.Phase == appmodules.Following
	})
	if why := a.why(); !strings.Contains(why, "the peer cannot take over or it failed there too: "+errImage.Error()) {
		t.Errorf("it says %q", why)
	}
	p.until("the other knows of it", func() (yes bool) {
		b.inside(func(e *Engine) { yes = e.link.state.Balked && !e.link.state.Active })
		return yes
	})
	b.inside(func(e *Engine) {
		e.look()
		if e.m.Phase != appmodules.Following || !e.work.balked {
			t.Errorf("the other is in %s", e.m.Phase)
		}
	})
	for _, vm := range []*script{as, bs} {
		if starts, _ := vm.tried(); starts == 0 || starts > 8 {
			t.Errorf("it was started %d times on one node", starts)
		}
		vm.set(func(s *script) { s.start = nil })
	}
	must(t, a.running().Command(t.Context(), appmodules.CmdStart, false))
	p.settle([]*simNode{a, b})
	p.writes(20)
}

// TestMovesAreLimited: a VM that fails on one node after the other moves as often as the policy says, within its
// window; then it is restarted where it is, and then it stops.
func TestMovesAreLimited(t *testing.T) {
	p := newPair(t)
	a, b, _, _ := scriptedPair(p, func(m *appmodules.Module) {
		m.Policy.On.Crash, m.Policy.Restart.Max = appmodules.ReactMove, 1
	})
	must(t, a.hv.Crash("web01"))
	p.inStep(b, a)
	must(t, b.hv.Crash("web01"))
	p.inStep(a, b)
	for n := range 2 { // each has moved it once
		ready := strings.Count(journal(a), "\nthe VM runs\n")
		must(t, a.hv.Crash("web01"))
		if n == 0 {
			p.until("it is restarted", func() bool { return strings.Count(journal(a), "\nthe VM runs\n") > ready })
			p.inStep(a, b)
		}
	}
	p.until("alpha gives up", func() bool {
		return strings.Contains(journal(a), "the guest failed too often and the peer cannot take over")
	})
	if log := journal(a); strings.Count(log, "the guest failed: move it to the peer") != 1 ||
		strings.Count(log, "the guest failed and the peer cannot take over: restart it here") != 1 {
		t.Errorf("alpha did\n%s", log)
	}
}

// TestCannotBeEnded: nothing follows a VM that cannot be ended. It is tried until it is gone, and only then the peer
// gets the right.
func TestCannotBeEnded(t *testing.T) {
	t.Parallel() // it waits most of the time
	p := newPair(t)
	a, b, vm, _ := scriptedPair(p)
	vm.set(func(s *script) { s.start, s.kill = errImage, errors.New("the process does not end") })
	must(t, a.hv.Crash("web01"))
	p.until("it was tried again", func() bool { _, kills := vm.tried(); return kills >= 2 })
	if s := a.running().State().Status; s.Phase != appmodules.Leaving {
		t.Errorf("alpha is in %s", s.Phase)
	}
	if rec := b.running().State().Record; rec.Epoch != 1 || rec.Holder != "alpha" {
		t.Errorf("beta got the right beside a VM that may run: %+v", rec)
	}
	vm.set(func(s *script) { s.kill = nil })
	p.inStep(b, a)
	p.writes(20)
}

// TestVolumeCannotBeOpened: a volume that cannot be opened is no reason to try for ever: who leads stops and says
// which, and who follows tries again after a rest, or at once when an operator says so.
func TestVolumeCannotBeOpened(t *testing.T) {
	p := newPair(t)
	a, b := p.nodes["alpha"], p.nodes["beta"]
	var as, bs *faulty
	a.bootAs(func(c *Config) { as = onFaulty(c) })
	b.bootAs(func(c *Config) { bs = onFaulty(c); c.Times.Rest = time.Hour })
	as.fail(errors.New("no such file"), nil, nil)
	must(t, a.running().Command(t.Context(), appmodules.CmdStart, false))
	p.until("alpha says which", func() bool {
		return strings.Contains(a.why(), "a volume could not be opened: volume vda: no such file")
	})
	p.is(a, "STOP", "NotReady")
	as.fail(nil, nil, nil)
	bs.fail(nil, errors.New("permission denied"), nil)
	for _, n := range []*simNode{a, b} {
		must(t, n.running().Command(t.Context(), appmodules.CmdStart, false))
	}
	p.is(a, "ALONE", "Ready")
	p.until("beta says which, and when it tries again", func() bool {
		return strings.Contains(journal(b), "the storage here failed: volume vda: permission denied") &&
			strings.Contains(b.why(), "it is tried again in 1h0m0s, or at once with `duet start web01`")
	})
	p.is(b, "WAIT", "NotReady")
	bs.fail(nil, nil, nil)
	must(t, b.running().Command(t.Context(), appmodules.CmdStart, false))
	p.inStep(a, b)
	p.writes(20)
}

// TestNeverStarted: a module that nobody has started since it was protected says so, on each node what is true there,
// and with the command; so does one whose daemon began anew since it was stopped.
func TestNeverStarted(t *testing.T) {
	p := newPair(t)
	a, b := p.nodes["alpha"], p.nodes["beta"]
	says := func(n *simNode, want string) {
		t.Helper()
		p.until(want, func() bool { return n.why() == want })
	}
	a.boot()
	b.boot()
	says(a, "it was put under protection here and is not started: `duet start web01`")
	says(b, "it was put under protection on alpha, and its second copy comes here when it is started: `duet start web01`")
	for _, n := range []*simNode{a, b} {
		must(t, n.running().Command(t.Context(), appmodules.CmdStart, false))
	}
	p.inStep(a, b)
	must(t, a.running().Command(t.Context(), appmodules.CmdStopAll, false))
	for _, n := range []*simNode{a, b} {
		p.is(n, "STOP", "NotReady")
		n.halt()
		n.boot()
		says(n, "it is stopped: `duet start web01`")
	}
}

// TestOnce: what is said more than once is said the first time only.
func TestOnce(t *testing.T) {
	for text, want := range map[string]string{"a: no": "a: no", "a: no: b: no: no": "a: no: b", "no: b: no": "no: b"} {
		if got := once(text, "no"); got != want {
			t.Errorf("%q became %q, want %q", text, got, want)
		}
	}
}
