package engine

import (
	"time"

	"duet/appmodules"
)

// step lets the table decide on ev and carries the row out. text adds what the row
// cannot know to its reason. An event without a row changes nothing but what StartFailed notes. It is not called from
// within an action: a row is done before the next event, so actions report by event, which posts.
func (e *Engine) step(ev appmodules.Event, text string) {
	before := e.m
	if ev == appmodules.StartFailed { // before the facts: the row asks whether it balked and gave up
		e.work.balked = true
		if e.left(e.keep.Restarts) <= 0 {
			e.failure = text
		}
	}
	next, row := e.m.Step(ev, e.facts())
	if row == nil {
		return
	}
	e.m = next
	if ev == appmodules.Ended {
		e.keep.Ended = text // saved with what follows from it
	}
	e.work.balked = e.work.balked && ev != appmodules.Up
	if ev == appmodules.Up || next.Phase == appmodules.Following {
		e.failure = "" // it runs, or it is the peer's turn
	}
	if ev == appmodules.Failed || ev == appmodules.Move || ev == appmodules.StartFailed ||
		before.Phase == appmodules.Starting && next.Phase == appmodules.Leaving {
		e.countFailure(next.Phase)
	}
	e.noteStorage(ev, before.Phase)
	why := e.work.words.Fill(row.Why)
	if text != "" {
		why += ": " + text
	}
	if next != before || ev != appmodules.Look {
		e.record(before, ev, why)
	}
	if next.Phase != before.Phase {
		e.noteCause(before.Phase, why)
		e.enter(next.Phase)
	}
	e.denied = e.denied || ev == appmodules.Denied
	for _, a := range row.Do {
		if !e.act(a) { // what follows must not be done on what was not made durable; StorageFailed is posted
			break
		}
	}
	if next.Phase == appmodules.Stopped || next.Phase == appmodules.Killing {
		e.withdraw() // a guest of an earlier run may wait although nothing was opened since
	}
	e.publish()
	e.tellSoon()
	// What was not true before may be now: a waiting phase looks again at once. What was
	// refused just now is tried again a moment later.
	if next.Phase != before.Phase && ev != appmodules.Denied && ev != appmodules.StorageFailed {
		e.lookIn(e.token)
	}
}

// noteCause remembers why the module stops, leaves, or asks for the right: that its workload is off in the end is not
// the reason, nor that nobody said no.
func (e *Engine) noteCause(from appmodules.Phase, why string) {
	switch e.m.Phase {
	case appmodules.Stopping, appmodules.Leaving, appmodules.Asking:
		e.cause = why
	case appmodules.Stopped:
		if from != appmodules.Stopping {
			e.cause = ""
		}
	case appmodules.Handing:
	default:
		e.cause = ""
	}
}

// lookIn looks soon, if the phase of token still lasts. The Look is posted, not stepped: what is in the mailbox by now
// comes first.
func (e *Engine) lookIn(token uint64) {
	e.post(func() {
		if e.token == token {
			e.look()
		}
	})
}

// enter begins a phase: the timers, starts and asks of the one before count no more. A call of the workload that is
// under way goes on; only another change ends it.
func (e *Engine) enter(p appmodules.Phase) {
	e.token++
	e.entered, e.denied = e.rt.Now(), false
	e.work.hush()
	e.cancelAsk()
	if p == appmodules.Stopped && e.failure != "" { // it is brought back for the peer's sake, but not without pause
		e.patience = e.rt.Now().Add(heirAgain)
	}
	e.clock()
}

// limit is how long the present phase may take; 0: as long as it likes.
func (e *Engine) limit() time.Duration {
	switch e.m.Phase {
	case appmodules.Opening:
		if !e.leading.isOpen() {
			return 0 // a disk is waited for, and the clock begins when it has answered
		}
		return e.cfg.Times.Open
	case appmodules.Frozen:
		return time.Duration(e.cfg.Module.Policy.Frozen)
	case appmodules.Handing:
		return handTime
	case appmodules.Leaving, appmodules.Restarting, appmodules.Stopping:
		return time.Duration(e.cfg.Module.Policy.Shutdown)
	}
	return 0
}

// clock starts the clock of the phase, which began at entered. It may be called again within a phase, as after an
// edit of the policy: the time that has passed counts. A phase that has none ends by other events only.
func (e *Engine) clock() {
	e.untime()
	e.untime = func() {}
	if limit := e.limit(); limit > 0 {
		token, left := e.token, max(limit-e.rt.Now().Sub(e.entered), 0)
		e.untime = e.rt.After(left, func() { e.eventOf(token, appmodules.Timeout, "") })
	}
}

// look has the table see what is true now: after each exchange of states, when the view of the cluster changes, and
// in a new phase. Here a waiting node that could not save tries again (remembers).
func (e *Engine) look() {
	e.keepAgain()
	if e.booted && !e.retiring && !e.rt.Now().Before(e.patience) && e.remembers() {
		e.step(appmodules.Look, "")
	}
	e.leading.watch()
}
