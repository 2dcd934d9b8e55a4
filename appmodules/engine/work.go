package engine

import (
	"context"
	"errors"
	"slices"
	"time"

	"duet/appmodules"
)

// work is what the engine knows of its workload.
type work struct {
	now     appmodules.Condition
	words   appmodules.Words
	reads   uint64    // counts the readings of its definition: the newest counts
	op      *workCall // the newest call, which may wait for the one before; nil: there was none
	later   func()    // calls a start off that comes after a pause; nil: none does
	asked   bool      // it was asked to end, and nobody has ended it
	looked  time.Time // when it was last asked how it stands
	missing int       // how often in a row reconcile found it down although it should run
	unfit   error     // why the peer must not get the present definition
	sends   sends     // how the definition goes to the peer
	edits   edits     // of the definition, by an admin on this node
	balked  bool      // it did not start when it was tried last, and nobody has had a word since
	strays  strays    // disks of the running workload that are not on their volumes
}

// workCall is one call that changes the workload.
type workCall struct {
	cancel context.CancelFunc
	done   chan struct{} // closed when it has ended
}

// change runs fn as the only call that changes the workload: the one before is cancelled
// and has ended when fn begins, so that no late start follows a kill. It keeps to the contract of appmodules.Workload,
// whose calls return soon after their ctx ends. fn may begin with a ctx that is over: another change came meanwhile.
func (e *Engine) change(fn func(ctx context.Context)) {
	e.work.hush()
	last := e.work.op
	ctx, cancel := context.WithCancel(e.ctx)
	call := &workCall{cancel: cancel, done: make(chan struct{})}
	e.work.op = call
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

// changing: a call that changes the workload is under way.
func (w *work) changing() bool {
	if w.op == nil {
		return false
	}
	select {
	case <-w.op.done:
		return false
	default:
		return true
	}
}

const (
	// quickTime bounds one call that should be quick: of a hypervisor, of the peer, or for the disks of a completion.
	quickTime = 10 * time.Second
	// startTime bounds one start, from when the Gate has let it through.
	startTime = time.Minute
)

const (
	lookEvery  = 2 * time.Second // between two questions whether it runs
	missingFor = 2               // answers that it does not, until that is believed: the report that says why comes first
)

// reconcile finds a workload that ended, or whose disk gave it an error, without a report: one may be
// lost, or overtaken by the end of the call that started it.
func (e *Engine) reconcile() {
	if now := e.rt.Now(); e.m.Phase != appmodules.Running || e.work.changing() || now.Sub(e.work.looked) < lookEvery {
		return
	}
	e.work.looked = e.rt.Now()
	e.readStrays() // its news may be lost too
	token := e.token
	e.spawn(func(ctx context.Context) {
		ctx, cancel := e.rt.WithTimeout(ctx, quickTime)
		defer cancel()
		now, err := e.cfg.Workload.State(ctx)
		if err != nil {
			return // a report tells when it answers again
		}
		e.post(func() {
			ev, lost := now.Lost.What.Event()
			switch {
			case e.token != token:
			case e.work.changing(): // what it leads to is told by its end
			case !lost:
				e.work.missing = 0
				e.condition(now)
			default:
				if e.work.missing++; e.work.missing >= missingFor {
					e.work.missing, e.work.now = 0, now
					e.step(ev, now.Lost.Why)
				}
			}
		})
	})
}

// startLater starts after a pause, if the phase still lasts and no call has begun before: a pause may be long, and
// what is not the phase's any more must not come after it.
func (e *Engine) startLater(pause time.Duration) {
	token := e.token
	e.work.hush()
	e.work.later = e.rt.After(pause, func() {
		e.post(func() {
			if e.token == token {
				e.start()
			}
		})
	})
}

// hush calls a start off that was to come later.
func (w *work) hush() {
	if w.later != nil {
		w.later()
		w.later = nil
	}
}

// start waits for its turn, brings the definition up to date and starts. It ends in Up or StartFailed, of this phase
// only: a workload that comes up in another phase is noted and left to the rows of that. The record says durably by
// now that the right is here. kept.Saved is taken back only when the workload is up: one that is told to resume sees
// for itself whether it runs already.
func (e *Engine) start() {
	token, turn := e.token, e.cfg.Module.Policy.Start
	define, resume := e.reading(), e.keep.Saved
	e.change(func(ctx context.Context) {
		leave, err := e.cfg.Gate.Enter(ctx, turn.Order)
		if err != nil {
			return
		}
		ctx, cancel := e.rt.WithTimeout(ctx, startTime)
		defer cancel()
		// A definition that cannot be read, as of a disk whose file is missing, is no reason
		// not to try: the start says what is wrong.
		if err := define(ctx); err != nil && ctx.Err() == nil {
			e.cfg.Logger.Warn("cannot read the definition", "module", e.cfg.Module.Name, "err", err)
		}
		var now appmodules.Condition
		if err = ctx.Err(); err == nil {
			now, err = e.cfg.Workload.Start(ctx, resume)
		}
		if err != nil {
			leave(0)
			if context.Cause(e.ctx) == nil && errors.Is(err, context.Canceled) {
				return // another call took its place
			}
			e.eventOf(token, appmodules.StartFailed, err.Error())
			return
		}
		leave(time.Duration(turn.Delay))
		e.post(func() {
			e.setSaved(false)
			e.condition(now)
			if e.token == token {
				e.step(appmodules.Up, "")
			}
			e.readStrays()
		})
	})
}

// setSaved notes whether what the workload has left here is fit to go on from.
func (e *Engine) setSaved(yes bool) {
	if e.keep.Saved != yes {
		e.keep.Saved = yes
		e.saveKept()
	}
}

// shutDown asks the workload to end; the phase's timer decides how long. It ends in Down, or in the Timeout of the
// phase, whose rows kill.
func (e *Engine) shutDown() {
	e.work.asked = true
	token, patience := e.token, time.Duration(e.cfg.Module.Policy.Shutdown)+time.Second
	e.change(func(ctx context.Context) {
		ctx, cancel := e.rt.WithTimeout(ctx, patience)
		defer cancel()
		if err := e.cfg.Workload.Stop(ctx); err == nil {
			e.down(token)
		}
	})
}

// kill tries until the workload is gone: nothing may follow before that. It ends in Down, only after Kill returned
// nil: a guest that might still write must not be started elsewhere. Without end where the hypervisor does not
// answer; the volumes may be closed meanwhile.
func (e *Engine) kill() {
	e.work.asked = false
	token := e.token
	e.change(func(ctx context.Context) {
		for {
			callCtx, cancel := e.rt.WithTimeout(ctx, quickTime)
			err := e.cfg.Workload.Kill(callCtx)
			cancel()
			if err == nil {
				e.down(token)
				return
			}
			e.cfg.Logger.Error("cannot end the "+e.work.words.Noun+", trying again", "module", e.cfg.Module.Name, "err", err)
			if sleep(ctx, e.rt, 500*time.Millisecond) != nil {
				return
			}
		}
	})
}

// down posts that the workload has gone, as was asked in the phase of token.
func (e *Engine) down(token uint64) {
	e.post(func() {
		e.work.now = appmodules.Condition{}
		// A workload that was asked to go down for a move does so although the move was given up.
		if e.token == token || e.m.Phase == appmodules.Running {
			e.step(appmodules.Down, "")
		}
	})
}

// condition notes how the workload stands.
func (e *Engine) condition(now appmodules.Condition) {
	if now.Stuck {
		e.resumes.failed(e.rt.Now())
	}
	e.work.now = now
	e.resume()
	e.publish()
}

// onReport handles what the workload reports.
func (e *Engine) onReport(r appmodules.Report) {
	if r.Now.Stuck {
		e.resumes.failed(e.rt.Now())
	}
	gone := e.work.now.Up && !r.Now.Up
	e.work.now = r.Now
	if ev, ended := r.What.Event(); ended {
		e.step(ev, r.Why)
	}
	switch r.What {
	case appmodules.IsEdited:
		e.readDefinition()
	case appmodules.IsSaved:
		if e.rec.Holds(e.self) && e.primary() {
			e.setSaved(true)
		}
	case appmodules.IsStrayed:
		e.readStrays()
	}
	if gone && !e.primary() {
		e.readIdle() // of a guest that was up here without the right nothing was read
	}
	e.resume()
	e.publish()
}

// resume lets a workload go on whose storage did not answer, as soon as it is served
// again. Where writes wait, resuming is harmless: they wait. It is called after every exchange and report; resumes
// says whether one more try is due. It does not disturb a call that is under way.
func (e *Engine) resume() {
	now := e.rt.Now()
	if !e.work.now.Stuck || !e.leading.isOpen() || e.work.changing() || !e.resumes.due(now) {
		return
	}
	e.resumes.tried(now)
	e.change(func(ctx context.Context) {
		ctx, cancel := e.rt.WithTimeout(ctx, startTime)
		defer cancel()
		now, err := e.cfg.Workload.Start(ctx, false)
		if errors.Is(err, context.Canceled) {
			return // another call took its place
		}
		e.post(func() {
			if err != nil {
				e.cfg.Logger.Warn("cannot resume the "+e.work.words.Noun+" after its disk came back", "module", e.cfg.Module.Name,
					"err", err)
				return
			}
			e.condition(now)
		})
	})
}

// left counts how often policy.restart still allows what happened at times; an edit of the policy counts at once. By
// this node's clock: one that is set back keeps old failures in the window for longer.
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
