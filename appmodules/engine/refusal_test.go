package engine

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"duet/appmodules"
	"duet/blockrepl"
	"duet/cluster"
)

// refuses checks that a command is refused with a text that has all of these parts.
func (n *simNode) refuses(ev appmodules.Event, parts ...string) {
	n.p.t.Helper()
	err := n.running().Command(n.p.t.Context(), ev, false)
	if !errors.Is(err, ErrRefused) {
		n.p.t.Errorf("%s on %s: %v, want a refusal", ev, n.name, err)
		return
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			n.p.t.Errorf("%s on %s: no %q in %q", ev, n.name, part, err)
		}
	}
}

// TestRefusals: a command that does not fit is refused with how the module stands and what to do instead, and changes
// nothing; one that asks for what is so already is no error.
func TestRefusals(t *testing.T) {
	p := newPair(t)
	a, b := p.formed()
	a.refuses(appmodules.CmdSecond, "the module is PRIM (Ready) on alpha", "use `duet swap web01`")
	b.refuses(appmodules.CmdRestart, "the module is SECOND (Ready) on beta", "a restart needs PRIM or ALONE (Ready)")
	b.refuses(appmodules.CmdSwap, "SECOND (Ready) on beta", "a swap needs PRIM (Ready) here and SECOND (Ready) there")
	must(t, a.running().Command(t.Context(), appmodules.CmdPrim, false))
	must(t, a.running().Command(t.Context(), appmodules.CmdStart, false))
	must(t, b.running().Command(t.Context(), appmodules.CmdSecond, false))
	p.inStep(a, b)

	b.die()
	p.is(a, "ALONE", "Ready")
	a.refuses(appmodules.CmdSwap, "the module is ALONE (Ready) on alpha and its peer is not in step")
	must(t, a.running().Command(t.Context(), appmodules.CmdStopAll, false))
	p.is(a, "STOP", "NotReady")
	a.refuses(appmodules.CmdRestart, "the module is STOP (NotReady) on alpha")
	a.refuses(appmodules.CmdSwap, "the module is STOP (NotReady) on alpha")
	must(t, a.running().Command(t.Context(), appmodules.CmdStop, false))

	must(t, a.running().Command(t.Context(), appmodules.CmdStart, false))
	p.is(a, "ALONE", "Ready")
	must(t, a.hv.AdminPause("web01"))
	if n := p.says(a, "paused"); n.Text != "VM web01 is paused" || n.Remedy != "virsh resume web01" || n.Alarm {
		t.Errorf("the notice is %+v", n)
	}
	a.refuses(appmodules.CmdSwap, "is paused and cannot shut down: `virsh resume web01` first")
	a.refuses(appmodules.CmdRestart, "is paused and cannot shut down")
	must(t, a.hv.AdminResume("web01"))
	p.until("that is no notice any more", func() bool { return len(a.running().State().Status.Notices) == 0 })
	a.hv.SetAway(true) // one that cannot be asked is no reason to refuse
	must(t, a.running().fits(t.Context(), appmodules.CmdSwap, false))
	a.hv.SetAway(false)
}

// TestSwapAwayFromHome: a module that would be moved back at once is not moved at all: that costs its guest two
// restarts for nothing. The other way, and with failback manual, it moves.
func TestSwapAwayFromHome(t *testing.T) {
	p := newPair(t)
	a, b := p.formedAs(func(*simNode, *Config) {}, func(m *appmodules.Module) {
		m.Policy.Failback, m.Policy.Primary = "auto", "alpha"
	})
	a.refuses(appmodules.CmdSwap, "policy.failback is auto and policy.primary is alpha",
		"`duet config set web01 policy.failback=manual` first")
	p.inStep(a, b)
	m := module()
	m.Policy.Failback, m.Policy.Primary = "manual", "alpha"
	for _, n := range []*simNode{a, b} {
		must(t, n.running().Configure(t.Context(), m))
	}
	must(t, a.running().Command(t.Context(), appmodules.CmdSwap, false))
	p.inStep(b, a)
	m.Policy.Failback, m.Policy.Primary = "auto", "beta"
	for _, n := range []*simNode{a, b} {
		must(t, n.running().Configure(t.Context(), m))
	}
	b.refuses(appmodules.CmdSwap, "policy.primary is beta")
}

// TestStoppingGuest: while a guest is asked to shut down the status says how long it still may; a start is refused
// with what goes on, and a guest that does not hear is ended then.
func TestStoppingGuest(t *testing.T) {
	t.Parallel() // it waits most of the time
	p := newPair(t)
	a, _ := p.formedAs(func(*simNode, *Config) {}, func(m *appmodules.Module) {
		m.Policy.Shutdown = appmodules.Duration(400 * time.Millisecond)
	})
	must(t, a.hv.Deafen("web01"))
	must(t, a.running().Command(t.Context(), appmodules.CmdStopAll, false))
	a.refuses(appmodules.CmdStart, "the module is WAIT (Transient) on alpha: stopped by an operator")
	if left := a.running().State().Status.KillIn; left <= 0 || left > 400*time.Millisecond {
		t.Errorf("the guest is ended in %v", left)
	}
	must(t, a.running().Command(t.Context(), appmodules.CmdStopAll, false)) // it is stopping already
	p.is(a, "STOP", "NotReady")
	if log := journal(a); !strings.Contains(log, "did not shut down in time: end it") {
		t.Errorf("the guest was not ended:\n%s", log)
	}
	if s := a.running().State().Status; s.KillIn != 0 || s.Workload != "off" || !s.Stopped {
		t.Errorf("after the end: %+v", s)
	}
	if why := a.why(); !strings.HasPrefix(why, "stopped by an operator: ") {
		t.Errorf("it says %q", why)
	}
}

// TestJustStarted: before it is known how the VM stands no command is taken, and the refusal says so.
func TestJustStarted(t *testing.T) {
	p := newPair(t)
	a := p.nodes["alpha"]
	hold := make(chan struct{})
	a.slow = hold
	a.boot()
	a.inside(func(e *Engine) {
		err := e.command(appmodules.CmdStart, false)
		if !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "not known yet how the VM stands") {
			t.Errorf("a start before the boot: %v", err)
		}
		if !e.almost(appmodules.CmdStart) {
			t.Error("a command that comes a moment too early is not waited with")
		}
	})
	short, cancel := context.WithCancel(t.Context())
	cancel()
	if err := a.running().Command(short, appmodules.CmdStart, false); err == nil {
		t.Error("a command whose caller is gone was taken")
	}
	taken := make(chan error, 1)
	go func() { taken <- a.running().Command(t.Context(), appmodules.CmdStart, false) }()
	close(hold)
	must(t, <-taken)
	p.is(a, "ALONE", "Ready")
}

// TestSavedMemory: to start a VM whose memory somebody saved, and whose disks may have gone on since, drops that
// memory, which wants a yes.
func TestSavedMemory(t *testing.T) {
	p := newPair(t)
	a := p.nodes["alpha"]
	must(t, a.hv.Start(t.Context(), "web01")) // past Duet
	must(t, a.hv.AdminSave("web01"))
	a.boot()
	for _, ev := range []appmodules.Event{appmodules.CmdStart, appmodules.CmdPrim} {
		err := a.running().Command(t.Context(), ev, false)
		if !errors.Is(err, ErrConfirm) || !strings.Contains(err.Error(), "the memory of VM web01 is saved on alpha") ||
			!strings.Contains(err.Error(), "starting it drops that memory") {
			t.Errorf("%s: %v", ev, err)
		}
	}
	if a.running().State().Status.Role != appmodules.Stop {
		t.Error("it was started without a yes")
	}
	must(t, a.running().Command(t.Context(), appmodules.CmdStart, true))
	p.is(a, "ALONE", "Ready")
	p.writes(20)
}

// TestSavedMemoryOfOldDisks: memory that was saved while this node had the right is fit, until the right has been
// elsewhere; that is noted before the right is, so that it is never woken on other disks.
func TestSavedMemoryOfOldDisks(t *testing.T) {
	p := newPair(t)
	a, b := p.formed()
	must(t, a.hv.AdminSave("web01"))
	for _, n := range []*simNode{a, b} {
		p.is(n, "STOP", "NotReady")
	}
	saved := func() (yes bool) {
		a.inside(func(e *Engine) { yes = e.keep.Saved })
		return yes
	}
	if !saved() {
		t.Fatal("what was saved is not noted")
	}
	must(t, b.running().Command(t.Context(), appmodules.CmdPrim, true))
	p.is(b, "ALONE", "Ready")
	p.until("alpha knows of beta's right", func() (yes bool) {
		a.inside(func(e *Engine) { yes = e.rec.Holder == "beta" })
		return yes
	})
	var k kept
	_, err := a.store.Load(keptKey, &k)
	must(t, err)
	if saved() || k.Saved {
		t.Error("memory of old disks counts as fit")
	}
	p.apart.Store(true)
	if err := a.running().Command(t.Context(), appmodules.CmdStart, false); !errors.Is(err, ErrConfirm) {
		t.Errorf("a start that drops the memory: %v", err)
	}
}

// TestClosedEngine: an engine that has stopped says so to whoever calls it, and answers nobody for long.
func TestClosedEngine(t *testing.T) {
	p := newPair(t)
	a, b := p.formed()
	e, ctx := b.running(), t.Context()
	e.Stop(ctx)
	_, verify := e.Verify(ctx, "vda", false)
	_, standing := e.Standing(ctx)
	_, definition := e.Definition(ctx)
	_, ask := e.OnAsk(ctx, cluster.Ask{Module: "web01", Node: "alpha", Epoch: 2, Complete: 1})
	for call, err := range map[string]error{
		"Command": e.Command(ctx, appmodules.CmdStop, false), "Verify": verify, "Standing": standing,
		"Definition": definition, "OnAsk": ask, "OnComplete": e.OnComplete(ctx, Complete{Epoch: 1}),
		"OnHandover": e.OnHandover(ctx, Handover{From: 1, Epoch: 2}),
		"OnDefine":   e.OnDefine(ctx, Definition{Version: 9}), "Configure": e.Configure(ctx, module()),
		"Booted": e.Booted(ctx), "Alive": e.Alive(ctx), "Part": e.Part(ctx, "a test"),
	} {
		if !errors.Is(err, ErrStopped) {
			t.Errorf("%s of a stopped engine: %v", call, err)
		}
	}
	in := asked{blockrepl.Hello{Node: "alpha", Epoch: 1, Lineage: blockrepl.Lineage{Volume: "vol"}},
		make(chan blockrepl.Refusal, 1)}
	must(t, e.OnAttach(ctx, in))
	if r := <-in.refused; r.Reason != ErrStopped.Error() || r.Epoch != 2 || r.Holder != "alpha" {
		t.Errorf("the primary was told %+v", r)
	}
	e.Evacuate(ctx)
	e.Rejoin()
	e.ViewChanged()
	if got := e.OnTell(a.running().State()); got.Module != "web01" {
		t.Errorf("it tells %+v", got)
	}
	p.is(a, "ALONE", "Ready") // beta has agreed before it stopped
	p.writes(20)
}
