package engine

import (
	"context"
	"errors"
	"slices"
	"time"

	"duet/appmodules"
	"duet/vmmanager"
)

// guest is what the engine knows of its VM.
type guest struct {
	state   vmmanager.State
	reads   uint64    // counts the readings of its definition: the newest counts
	op      *vmCall   // the call under way or the last one; nil: there was none
	looked  time.Time // when the hypervisor was last asked
	missing int       // how often in a row it said that a VM that should run does not
}

// vmCall is one call that changes the VM.
type vmCall struct {
	cancel context.CancelFunc
	done   chan struct{} // closed when it has ended
}

// callVM runs fn as the only call that changes the VM: the one before is cancelled
// and has ended when fn begins, so that no late start follows a kill.
func (e *Engine) callVM(fn func(ctx context.Context)) {
	last := e.guest.op
	ctx, cancel := context.WithCancel(e.ctx)
	call := &vmCall{cancel: cancel, done: make(chan struct{})}
	e.guest.op = call
	e.spawn(func(context.Context) {
		defer close(call.done)
		defer cancel()
		if last != nil {
			last.cancel()
			_ = e.rt.Wait(context.Background(), last.done, nil) // it was cancelled
		}
		fn(ctx)
	})
}

// calling: a call that changes the VM is under way.
func (g guest) calling() bool {
	if g.op == nil {
		return false
	}
	select {
	case <-g.op.done:
		return false
	default:
		return true
	}
}

// up: the VM has a process, running or waiting for its disk.
func (g guest) up() bool {
	return g.state == vmmanager.Running || g.state == vmmanager.Paused || g.state == vmmanager.IOError
}

// hvTime bounds one call that should be quick.
const hvTime = 10 * time.Second

func (e *Engine) domain() string { return e.cfg.Module.VM.Domain }

// readVM asks the hypervisor for the present state.
func (e *Engine) readVM() {
	ctx, cancel := e.rt.WithTimeout(e.ctx, hvTime)
	defer cancel()
	s, err := e.cfg.Hypervisor.State(ctx, e.domain())
	if err != nil {
		e.cfg.Logger.Warn("cannot read the VM's state", "module", e.cfg.Module.Name, "err", err)
		return
	}
	e.guest.state = s
}

const (
	lookEvery  = 2 * time.Second // between two questions whether the VM runs
	missingFor = 2               // answers that it does not, until that is believed: the event that says why comes first
)

// reconcile finds a VM that ended without an event: one may be lost, or overtaken by the
// end of the call that started the VM.
func (e *Engine) reconcile() {
	if now := e.rt.Now(); e.m.Phase != appmodules.Running || e.guest.calling() || now.Sub(e.guest.looked) < lookEvery {
		return
	}
	e.guest.looked = e.rt.Now()
	e.readStrays() // its news may be lost too
	token := e.token
	e.spawn(func(ctx context.Context) {
		ctx, cancel := e.rt.WithTimeout(ctx, hvTime)
		defer cancel()
		s, err := e.cfg.Hypervisor.State(ctx, e.domain())
		if err != nil {
			return // an event tells when it answers again
		}
		e.post(func() {
			switch {
			case e.token != token:
			case s != vmmanager.Off && s != vmmanager.Absent:
				e.guest.missing = 0
			default:
				if e.guest.missing++; e.guest.missing >= missingFor {
					e.guest.missing, e.guest.state = 0, s
					e.guestEnded(e.cfg.Module.Policy.On.Crash, vmmanager.Event{VM: e.domain(), State: s, Cause: vmmanager.ByReconnect})
				}
			}
		})
	})
}

// startVM waits for its turn, brings the definition up to date and starts.
func (e *Engine) startVM() {
	token, policy := e.token, e.cfg.Module.Policy.Start
	define, start := e.reading(), e.starting()
	e.callVM(func(ctx context.Context) {
		leave, err := e.cfg.Gate.Enter(ctx, policy.Order)
		if err != nil {
			return
		}
		ctx, cancel := e.rt.WithTimeout(ctx, time.Minute)
		defer cancel()
		// A definition that cannot be read, as of a disk whose file is missing, is no reason
		// not to try: the hypervisor says what is wrong.
		if err := define(ctx); err != nil && ctx.Err() == nil {
			e.cfg.Logger.Warn("cannot read the VM's definition", "module", e.cfg.Module.Name, "err", err)
		}
		if err = ctx.Err(); err == nil {
			err = start(ctx, e.domain())
		}
		state := vmmanager.Running
		if now, err := e.cfg.Hypervisor.State(ctx, e.domain()); err == nil && now == vmmanager.Paused {
			state = now // somebody has paused it, and resumes it
		}
		if err != nil {
			leave(0)
			if context.Cause(e.ctx) == nil && errors.Is(err, context.Canceled) {
				return // another call took its place
			}
			e.eventOf(token, appmodules.VMFailed, err.Error())
			return
		}
		leave(time.Duration(policy.Delay))
		e.post(func() {
			e.guest.state = state
			e.setSaved(false)
			if e.token == token {
				e.step(appmodules.VMUp, "")
			}
			e.readStrays()
		})
	})
}

// starting is how the VM is started. Memory that was saved here fits its disks while nobody but this node has had the
// right to write since: then it goes on from there.
func (e *Engine) starting() func(context.Context, string) error {
	hv := e.cfg.Hypervisor
	if !e.keep.Saved {
		return hv.Start
	}
	return func(ctx context.Context, vm string) error {
		// An earlier run may have died after it woke the VM and before that was noted.
		if s, err := hv.State(ctx, vm); err == nil && s != vmmanager.Off {
			return hv.Start(ctx, vm)
		}
		return hv.Wake(ctx, vm)
	}
}

// setSaved notes whether memory that is saved here is of the disks as they are.
func (e *Engine) setSaved(yes bool) {
	if e.keep.Saved != yes {
		e.keep.Saved = yes
		e.saveKept()
	}
}

// shutdownVM asks the guest; the phase's timer decides how long.
func (e *Engine) shutdownVM() {
	token := e.token
	e.callVM(func(ctx context.Context) {
		ctx, cancel := e.rt.WithTimeout(ctx, time.Duration(e.cfg.Module.Policy.Shutdown)+time.Second)
		defer cancel()
		if err := e.cfg.Hypervisor.Shutdown(ctx, e.domain()); err == nil {
			e.down(token)
		}
	})
}

// killVM tries until the VM is gone: nothing may follow before that.
func (e *Engine) killVM() {
	token := e.token
	e.callVM(func(ctx context.Context) {
		for {
			callCtx, cancel := e.rt.WithTimeout(ctx, hvTime)
			err := e.cfg.Hypervisor.Kill(callCtx, e.domain())
			cancel()
			if err == nil || errors.Is(err, vmmanager.ErrNotFound) {
				e.down(token)
				return
			}
			e.cfg.Logger.Error("cannot end the VM, trying again", "module", e.cfg.Module.Name, "err", err)
			if sleep(ctx, e.rt, 500*time.Millisecond) != nil {
				return
			}
		}
	})
}

func (e *Engine) down(token uint64) {
	e.post(func() {
		e.guest.state = vmmanager.Off
		// A guest that was asked to go down for a move does so although the move was given up.
		if e.token == token || e.m.Phase == appmodules.Running {
			e.step(appmodules.VMDown, "")
		}
	})
}

// onVM handles what the hypervisor reports.
func (e *Engine) onVM(ev vmmanager.Event) {
	before := e.guest.state
	e.guest.state = ev.State
	defer e.publish()
	switch ev.Cause {
	case vmmanager.ByCrash:
		e.guestEnded(e.cfg.Module.Policy.On.Crash, ev)
	case vmmanager.ByPanic:
		e.guestEnded(e.cfg.Module.Policy.On.Panic, ev)
	case vmmanager.ByGuest:
		e.guestEnded(e.cfg.Module.Policy.On.Shutdown, ev)
	case vmmanager.ByAdmin:
		if ev.State == vmmanager.Off {
			e.guestEnded(e.cfg.Module.Policy.On.Admin, ev)
		}
	case vmmanager.ByReconnect:
		if before == vmmanager.Running && !e.guest.up() {
			e.guestEnded(e.cfg.Module.Policy.On.Crash, ev)
		}
		e.resume()
	case vmmanager.ByIOError:
		e.resume()
	case vmmanager.ByEdit:
		e.readDefinition()
	case vmmanager.BySave:
		if e.rec.Holds(e.self) && e.primary() {
			e.setSaved(true)
		}
		e.guestEnded(e.cfg.Module.Policy.On.Admin, ev)
	case vmmanager.ByDisk:
		e.readStrays()
	}
}

func (e *Engine) guestEnded(r appmodules.Reaction, ev vmmanager.Event) {
	event := appmodules.GuestFailed
	switch r {
	case appmodules.ReactMove:
		event = appmodules.GuestMove
	case appmodules.ReactStop:
		event = appmodules.GuestStopped
	}
	e.step(event, ev.Cause.String())
}

// resume lets a VM go on that was paused because its disk did not answer, as soon
// as the disk is served again. Where writes wait, resuming is harmless: they wait.
func (e *Engine) resume() {
	if e.guest.state != vmmanager.IOError || !e.vols.serving() || e.guest.calling() {
		return
	}
	e.callVM(func(ctx context.Context) {
		ctx, cancel := e.rt.WithTimeout(ctx, time.Minute)
		defer cancel()
		err := e.cfg.Hypervisor.Start(ctx, e.domain())
		if errors.Is(err, context.Canceled) {
			return // another call took its place
		}
		e.post(func() {
			if err != nil {
				e.cfg.Logger.Warn("cannot resume the VM after its disk came back", "module", e.cfg.Module.Name, "err", err)
				return
			}
			e.guest.state = vmmanager.Running
			e.publish()
		})
	})
}

// left counts how often policy.restart still allows what happened at times.
func (e *Engine) left(times []time.Time) int {
	return e.cfg.Module.Policy.Restart.Max - len(e.recent(times))
}

// recent are the times within the window of policy.restart.
func (e *Engine) recent(times []time.Time) []time.Time {
	since := e.rt.Now().Add(-time.Duration(e.cfg.Module.Policy.Restart.Window))
	return slices.DeleteFunc(slices.Clone(times), func(t time.Time) bool { return t.Before(since) })
}

// countFailure notes an automatic restart or move; an operator's command forgets them all.
func (e *Engine) countFailure(p appmodules.Phase) {
	switch p {
	case appmodules.Starting:
		e.keep.Restarts = append(e.recent(e.keep.Restarts), e.rt.Now())
	case appmodules.Leaving:
		e.keep.Moves = append(e.recent(e.keep.Moves), e.rt.Now())
	default:
		return
	}
	e.saveKept()
}
