package workload

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"duet/appmodules"
)

// stages are the parts of an application in memory, and what was asked of them.
type stages struct {
	mu  sync.Mutex
	did []string
}

func (s *stages) took() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := s.did
	s.did = nil
	return out
}

// part is one of them. Hooks run in the call, before it has an effect.
type part struct {
	*stages
	name      string
	up, whole bool
	lookErr   error
	onUp      func()
	onStart   func(ctx context.Context) error
	onStop    func() error
	onKill    func(ctx context.Context) error
}

func (p *part) note(what string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.did = append(p.did, what+" "+p.name)
}

func (p *part) is(up, whole bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.up, p.whole = up, whole
}

// fails has it answer nothing but an error; nil: no more.
func (p *part) fails(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lookErr = err
}

func (p *part) Label() string { return p.name }

func (p *part) Up(ctx context.Context) (bool, bool, error) {
	p.mu.Lock()
	up, whole, err := p.up, p.whole, p.lookErr
	p.mu.Unlock()
	if p.onUp != nil {
		p.onUp() // what was seen is old by then
	}
	return up, whole, err
}

func (p *part) Start(ctx context.Context) error {
	p.note("start")
	p.is(true, false)
	if p.onStart != nil {
		if err := p.onStart(ctx); err != nil {
			return err
		}
	}
	p.is(true, true)
	return nil
}

func (p *part) Stop(context.Context) error {
	p.note("stop")
	if p.onStop != nil {
		if err := p.onStop(); err != nil {
			return err
		}
	}
	p.is(false, false)
	return nil
}

func (p *part) Kill(ctx context.Context) error {
	p.note("kill")
	if p.onKill != nil {
		if err := p.onKill(ctx); err != nil {
			return err
		}
	}
	p.is(false, false)
	return nil
}

// app is an application of three parts that are down.
func app() (*Application, *stages, []*part) {
	s := &stages{}
	parts := []*part{{stages: s, name: "files"}, {stages: s, name: "address"}, {stages: s, name: "db"}}
	m := appmodules.Default()
	m.Name = "files01"
	return NewApplication(m, slog.New(slog.DiscardHandler), parts[0], parts[1], parts[2]), s, parts
}

func wantSteps(t *testing.T, s *stages, want string) {
	t.Helper()
	if got := strings.Join(s.took(), ", "); got != want {
		t.Errorf("it did %q, want %q", got, want)
	}
}

func starts(t *testing.T, a *Application) {
	t.Helper()
	if now, err := a.Start(t.Context(), false); err != nil || !now.Up || now.Word() != "running" {
		t.Fatalf("started: %+v, %v", now, err)
	}
}

// TestApplicationOrder: it comes up first to last and goes down last to first, and what is there already stays.
func TestApplicationOrder(t *testing.T) {
	a, s, parts := app()
	starts(t, a)
	wantSteps(t, s, "start files, start address, start db")
	starts(t, a)
	wantSteps(t, s, "")
	parts[1].is(false, false)
	starts(t, a)
	wantSteps(t, s, "start address")
	if err := a.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantSteps(t, s, "stop db, stop address, stop files")
	if err := a.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantSteps(t, s, "")
}

// TestApplicationState: whole it runs, with less it is partly up and says what is missing, with nothing it is off; what
// cannot be asked is an error.
func TestApplicationState(t *testing.T) {
	a, _, parts := app()
	a.SetPolicy(appmodules.Policy{On: appmodules.On{Crash: appmodules.ReactMove}})
	state := func(up bool, word, lost string) {
		t.Helper()
		now, err := a.State(t.Context())
		if err != nil || now.Up != up || now.Word() != word || now.Lost.Why != lost {
			t.Errorf("it stands %+v, %v", now, err)
		}
		if lost != "" && now.Lost.What != appmodules.HasToMove {
			t.Errorf("the policy is not in %+v", now.Lost)
		}
	}
	state(false, "off", "files, address, db is not up any more")
	starts(t, a)
	state(true, "running", "")
	parts[2].is(true, false)
	state(true, "partly up", "db is not up any more")
	parts[0].lookErr = errors.New("nobody answers")
	if now, err := a.State(t.Context()); err == nil || now.Up || !strings.Contains(err.Error(), "files: nobody answers") {
		t.Errorf("not known: %+v, %v", now, err)
	}
}

// TestStageThatDoesNotStart: the error says which and why, what was up is taken down, the last first, and later ones
// were never begun.
func TestStageThatDoesNotStart(t *testing.T) {
	a, s, parts := app()
	parts[1].onStart = func(context.Context) error { return errors.New("no such network") }
	_, err := a.Start(t.Context(), false)
	if err == nil || !strings.HasPrefix(err.Error(), "address: no such network") {
		t.Errorf("%v", err)
	}
	wantSteps(t, s, "start files, start address, kill db, kill address, kill files")
	parts[0].onKill = func(context.Context) error { return errors.New("in use") }
	if _, err = a.Start(t.Context(), false); err == nil || !strings.Contains(err.Error(), "files: in use") ||
		!strings.Contains(err.Error(), "no such network") {
		t.Errorf("what could not be taken back: %v", err)
	}
}

// TestCancelledStartOfAnApplication: it ends at once, and takes back what it did although its time is over.
func TestCancelledStartOfAnApplication(t *testing.T) {
	a, s, parts := app()
	ctx, cancel := context.WithCancel(t.Context())
	parts[1].onStart = func(ctx context.Context) error { cancel(); <-ctx.Done(); return ctx.Err() }
	for i := range parts {
		parts[i].onKill = func(ctx context.Context) error { return ctx.Err() }
	}
	if _, err := a.Start(ctx, false); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	wantSteps(t, s, "start files, start address, kill db, kill address, kill files")
	if now, err := a.State(t.Context()); err != nil || now.Up {
		t.Errorf("it is %+v, %v", now, err)
	}
	parts[1].onStart = nil
	ctx, cancel = context.WithCancel(t.Context())
	parts[2].onStart = func(context.Context) error { cancel(); return nil } // too late to stop it
	if _, err := a.Start(ctx, false); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled at its end: %v", err)
	}
	if now, err := a.State(t.Context()); err != nil || now.Up {
		t.Errorf("cancelled at its end it is %+v, %v", now, err)
	}
}

// TestStageThatDoesNotStop: those before it stay, as they may be in use.
func TestStageThatDoesNotStop(t *testing.T) {
	a, s, parts := app()
	starts(t, a)
	s.took()
	parts[1].onStop = func() error { return errors.New("busy") }
	if err := a.Stop(t.Context()); err == nil || err.Error() != "address: busy" {
		t.Errorf("%v", err)
	}
	wantSteps(t, s, "stop db, stop address")
}

// TestKillGoesOn: past a stage that fails, and one that comes to no end keeps no time from those after it; what they
// made possible it does in its second turn.
func TestKillGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, s, parts := app()
		starts(t, a)
		s.took()
		shut := false
		parts[0].onKill = func(ctx context.Context) error { shut = ctx.Err() == nil; return ctx.Err() }
		parts[1].onKill = func(context.Context) error { return errors.New("no right") }
		parts[2].onKill = func(ctx context.Context) error { // waits for the volume, as a process in a write does
			if shut {
				return nil
			}
			<-ctx.Done()
			return ctx.Err()
		}
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		if err := a.Kill(ctx); err == nil || err.Error() != "address: no right" {
			t.Errorf("%v", err)
		}
		wantSteps(t, s, "kill db, kill address, kill files, kill db, kill address")
	})
}

// watched is an application that runs and is watched, in time that is not the world's.
func watched(t *testing.T, do func(t *testing.T, a *Application, parts []*part, heard *heard)) {
	synctest.Test(t, func(t *testing.T) {
		a, _, parts := app()
		h := &heard{}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		a.Watch(ctx, h.report)
		starts(t, a)
		time.Sleep(5 * lookEvery) // of the bubble
		if all := h.take(); all != nil {
			t.Errorf("of one that runs it said %+v", all)
		}
		do(t, a, parts, h)
		cancel()
		parts[0].is(false, false)
		time.Sleep(5 * lookEvery)
		if all := h.take(); all != nil {
			t.Errorf("after the end it said %+v", all)
		}
	})
}

// TestLossIsReportedOnce: what is missing, then what more is, then that it is whole again, each once.
func TestLossIsReportedOnce(t *testing.T) {
	watched(t, func(t *testing.T, a *Application, parts []*part, h *heard) {
		says := func(what appmodules.Happening, why, word string) {
			t.Helper()
			time.Sleep(5 * lookEvery)
			all := h.take()
			if len(all) != 1 || all[0].What != what || all[0].Why != why || all[0].Now.Word() != word {
				t.Errorf("it said %+v", all)
			}
		}
		parts[1].is(false, false)
		says(appmodules.HasFailed, "address is not up any more", "partly up")
		parts[2].fails(errors.New("nobody answers"))
		time.Sleep(5 * lookEvery)
		if all := h.take(); all != nil {
			t.Errorf("what cannot be asked: %+v", all)
		}
		parts[2].fails(nil)
		parts[2].is(false, false)
		says(appmodules.HasFailed, "address, db is not up any more", "partly up")
		parts[1].is(true, true)
		parts[2].is(true, true)
		says(appmodules.Changed, "", "running")
	})
}

// TestNothingIsReportedOfOrders: neither while it is started, again after a loss too, nor while and after it is
// stopped or killed.
func TestNothingIsReportedOfOrders(t *testing.T) {
	watched(t, func(t *testing.T, a *Application, parts []*part, h *heard) {
		nothing := func(when string) {
			t.Helper()
			time.Sleep(5 * lookEvery)
			if all := h.take(); all != nil {
				t.Errorf("%s it said %+v", when, all)
			}
		}
		parts[1].is(false, false)
		time.Sleep(5 * lookEvery)
		h.take()
		parts[2].is(true, false)
		parts[1].onStart = func(context.Context) error { nothing("while it starts again"); return nil }
		starts(t, a)
		nothing("started again")
		parts[1].onStop = func() error { nothing("while it stops"); return nil }
		if err := a.Stop(t.Context()); err != nil {
			t.Error(err)
		}
		nothing("stopped")
		starts(t, a)
		h.take()
		if err := a.Kill(t.Context()); err != nil {
			t.Error(err)
		}
		nothing("killed")
	})
}

// TestLookIsOlderThanTheOrder: what a look or State has seen before a stop says nothing after it: an application that
// was stopped on purpose has not failed.
func TestLookIsOlderThanTheOrder(t *testing.T) {
	for what, look := range map[string]func(a *Application, h *heard){
		"State": func(a *Application, _ *heard) { _, _ = a.State(context.Background()) },
		"a look": func(a *Application, h *heard) {
			if r, is := a.incident(context.Background()); is {
				h.report(r)
			}
		},
	} {
		for name, order := range map[string]func(a *Application) error{
			"stop": func(a *Application) error { return a.Stop(context.Background()) },
			"kill": func(a *Application) error { return a.Kill(context.Background()) },
			"stop and start": func(a *Application) error {
				err := a.Stop(context.Background())
				_, startErr := a.Start(context.Background(), false)
				return errors.Join(err, startErr)
			},
		} {
			for _, whole := range []bool{true, false} {
				a, _, parts := app()
				h := &heard{}
				starts(t, a)
				given := false
				parts[0].is(whole, whole)
				parts[2].onUp = func() { // the order comes after it has seen all
					if given {
						return
					}
					given = true
					if err := order(a); err != nil {
						t.Error(err)
					}
				}
				look(a, h)
				if r, is := a.incident(t.Context()); is {
					h.report(r)
				}
				if all := h.take(); all != nil {
					t.Errorf("%s during %s (whole: %v): it said %+v", name, what, whole, all)
				}
			}
		}
	}
}

// TestApplicationOfAnEarlierRun: a daemon that starts anew finds it whole, and reports from then on what fails; what it
// finds broken is for State to tell, and it stays silent until it was whole.
func TestApplicationOfAnEarlierRun(t *testing.T) {
	a, _, parts := app()
	for _, p := range parts {
		p.is(true, true)
	}
	parts[1].is(false, false)
	if now, err := a.State(t.Context()); err != nil || !now.Up || now.Lost.What != appmodules.HasFailed {
		t.Errorf("partly up: %+v, %v", now, err)
	}
	if r, is := a.incident(t.Context()); is {
		t.Errorf("State had told: %+v", r)
	}
	parts[1].is(true, true)
	if now, err := a.State(t.Context()); err != nil || now.Word() != "running" {
		t.Errorf("%+v, %v", now, err)
	}
	parts[2].is(false, false)
	if r, is := a.incident(t.Context()); !is || r.What != appmodules.HasFailed || r.Why != "db is not up any more" {
		t.Errorf("it was whole and is not: %v %+v", is, r)
	}
}

// TestBrokenStage: a part of which only something is up is ended with what stands on it, and all of that comes up anew;
// one that is only missing comes up beside the others.
func TestBrokenStage(t *testing.T) {
	a, s, parts := app()
	starts(t, a)
	s.took()
	parts[1].is(false, false)
	starts(t, a)
	wantSteps(t, s, "start address")
	parts[0].is(true, false)
	starts(t, a)
	wantSteps(t, s, "kill db, kill address, kill files, start files, start address, start db")
	parts[0].is(true, false)
	parts[0].onKill = func(context.Context) error { return errors.New("it does not end") }
	if _, err := a.Start(t.Context(), false); err == nil || !strings.Contains(err.Error(), "it does not end") {
		t.Errorf("on what is broken: %v", err)
	}
	for _, step := range s.took() {
		if strings.HasPrefix(step, "start") {
			t.Errorf("it did %s", step)
		}
	}
}

// TestStateThatCouldNotBeSaid: an application of which nothing could be said when the daemon came back is taken for
// down until it is known how it stands; then that is reported, so that a node without the right ends it.
func TestStateThatCouldNotBeSaid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, _, parts := app()
		for _, p := range parts {
			p.is(true, true)
		}
		parts[0].fails(errors.New("nobody answers"))
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var got []appmodules.Report
		a.Watch(ctx, func(r appmodules.Report) { got = append(got, r) })
		if _, err := a.State(ctx); err == nil {
			t.Error("it says how it stands")
		}
		wait := func(want int) {
			t.Helper()
			time.Sleep(3 * lookEvery)
			synctest.Wait()
			if len(got) != want {
				t.Fatalf("reports: %+v", got)
			}
		}
		wait(0)
		parts[0].fails(nil)
		wait(1)
		if r := got[0]; !r.Now.Up || r.What != appmodules.Changed {
			t.Errorf("%+v", r)
		}
		parts[1].is(false, false)
		wait(2)
		if r := got[1]; r.What != appmodules.HasFailed {
			t.Errorf("%+v", r)
		}
	})
}
