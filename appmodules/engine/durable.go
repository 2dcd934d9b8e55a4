package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"duet/appmodules"
	"duet/cluster"
)

// What an engine must remember: it acts on a record when that is durable, and not before.
//
// The goroutine waits for each save, so there is one at a time, in order. While the
// metadata disk does not answer it decides nothing, as if this process were frozen; who
// asks it something meanwhile is told so at once, see soon. A save that takes longer than
// any disk should counts as failed, but it may become durable later, so until another
// one has succeeded nothing counts as saved, not even what seems unchanged.

// saving is one save under way, or the last one. It does not change but for over, so any goroutine may look at it.
type saving struct {
	since time.Time
	limit time.Duration // that the goroutine waits
	over  chan struct{} // closed when the store has answered
}

// value is one thing to save.
type value struct {
	key string
	v   any
}

// errStoreHangs is why a save failed that may still be under way.
var errStoreHangs = errors.New("the metadata disk does not answer")

// errUnread is why nothing is saved: it would be made of what New has read, and the engine that this one
// replaces may have promised more since.
var errUnread = errors.New("what was kept cannot be read")

// put saves values in order. It returns nil when all are durable; after an error the first ones may be. It waits for
// the metadata disk, at most saveLimit. Only the owner calls it, or Stop when that is gone, as one save runs at a
// time. The values are encoded on another goroutine: they must not share memory with what the owner changes in place.
func (e *Engine) put(ctx context.Context, values ...value) error {
	if e.unread {
		return errUnread
	}
	if s := e.saving.Load(); s != nil && !isOver(s.over) {
		return errStoreHangs // nothing overtakes the one before
	}
	s := &saving{since: e.rt.Now(), limit: e.saveLimit(), over: make(chan struct{})}
	e.saving.Store(s)
	ctx, cancel := e.rt.WithTimeout(ctx, s.limit)
	defer cancel()
	err := beside(ctx, e.rt, func() error {
		defer close(s.over)
		for _, v := range values {
			if err := e.cfg.Store.Save(v.key, v.v); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil && ctx.Err() != nil && !isOver(s.over) {
		return errStoreHangs
	}
	return err
}

// saveLimit is how long a save may take. Where the workload is off already and the right is
// to go to the peer, that is not long: a peer that hears that this node takes no part any
// more gets the right without it. Nor is it before the first step, while other modules wait for their start.
func (e *Engine) saveLimit() time.Duration {
	if e.m.Phase == appmodules.Handing || !e.booted {
		return min(e.diskBudget(), briefSave)
	}
	return e.diskBudget()
}

// briefSave is many times what a save takes on a disk that is only busy.
const briefSave = 2 * time.Second

// diskBudget is how long a disk of this node may take for one operation. Of the goroutine.
func (e *Engine) diskBudget() time.Duration { return e.cfg.Module.Policy.Disk() }

// save makes rec durable. A node that cannot remember must not act: on failure the
// record stays as it was and the caller stops what it does; StorageFailed follows. On disk it may be rec all the
// same, see put. While impaired nothing is taken for saved, not even what is as it was. Only remembers and recall end
// that.
func (e *Engine) save(rec cluster.Record) bool {
	if rec == e.rec && !e.impaired {
		return true
	}
	keep := e.keep
	keep.Saved = keep.Saved && rec.Holds(e.self)
	values := []value{{recordKey, rec}}
	if keep.Saved != e.keep.Saved { // first: memory older than its disks must not be taken for fit
		values = []value{{keptKey, keep}, {recordKey, rec}}
	}
	if err := e.put(e.ctx, values...); err != nil {
		if !e.impaired { // once, and not for each thing that is learned meanwhile
			e.cfg.Logger.Error("cannot save the module's record", "module", e.cfg.Module.Name, "err", err)
		}
		e.impaired, e.probed = true, e.rt.Now()
		e.event(appmodules.StorageFailed, "metadata cannot be saved: "+err.Error())
		return false
	}
	e.rec, e.keep.Saved = rec, keep.Saved
	if !rec.Holds(e.self) {
		e.depart()
	}
	return true
}

// saveKept saves what is kept beside the record; false, and a line in the log, if it cannot: the caller decides
// whether it goes on. By itself this does not make the node impaired.
func (e *Engine) saveKept() bool {
	values := []value{{keptKey, e.keep}}
	if e.impaired { // it may say that what the record must say first is noted
		values = []value{{recordKey, e.rec}, {keptKey, e.keep}}
	}
	err := e.put(e.ctx, values...)
	if err != nil && !e.unkept {
		e.cfg.Logger.Error("cannot save the module's state", "module", e.cfg.Module.Name, "err", err)
	}
	if e.unkept = err != nil; e.unkept {
		e.probed = e.rt.Now()
	}
	e.lazy = e.lazy && e.unkept
	return err == nil
}

// keepAgain saves what could not be saved beside the record, trying once a second: an operator's stop was confirmed,
// and must not be forgotten by the next run. It also saves what nobody waited for.
func (e *Engine) keepAgain() {
	if (e.unkept || e.lazy) && e.rt.Now().Sub(e.probed) >= time.Second {
		e.saveKept()
	}
}

// remembers: this node can save what it decides. A waiting one that could not takes no
// part, so that its peer may go on, until a try succeeds, of which there is one a second. What it heard meanwhile it
// could not keep, so it has to meet its peer anew.
func (e *Engine) remembers() bool {
	if !e.impaired || e.m.Phase != appmodules.Waiting {
		return true
	}
	if now := e.rt.Now(); now.Sub(e.probed) >= time.Second {
		e.probed = now
		if e.impaired = e.put(e.ctx, value{recordKey, e.rec}, value{keptKey, e.keep}) != nil; !e.impaired {
			e.vigil.end(e.rt.Now())
		}
	}
	return !e.impaired
}

// recall accepts what was read again when this engine is started: one that it replaces has gone on since
// New. Until that can be read this node takes no part.
func (e *Engine) recall(rec cluster.Record, keep kept, err error) {
	if err != nil {
		if !e.unread {
			e.cfg.Logger.Error("the module's record cannot be read again", "module", e.cfg.Module.Name, "err", err)
		}
		e.unread, e.impaired, e.probed = true, true, e.rt.Now()
		return
	}
	e.rec, e.keep, e.unread, e.impaired = rec, keep, false, false
	e.vigil.end(e.rt.Now())
	e.noteBoot()
}

// noteBoot notices that power was lost since the last run, in which writes may have
// been acknowledged that never left this computer's memory. Until that is durable this
// node takes no part; the next start would notice it again. Of this run of the computer
// nothing is unflushed then, until the volumes are opened. Without volumes there are no writes. The record goes first:
// kept.Boot is empty durably only where the record says cold.
func (e *Engine) noteBoot() {
	if last := e.keep.Boot; last != "" && (last != e.cfg.Boot || e.cfg.Boot == "") {
		e.rec.Cold = e.rec.Cold || e.rec.Complete > 0 && len(e.cfg.Module.Volumes()) > 0
		e.keep.Boot = ""
	}
	if !e.rec.Holds(e.self) {
		e.keep.Came = Arrival{} // that the right had gone may not have been noted in that run
	}
	if err := e.put(e.ctx, value{recordKey, e.rec}, value{keptKey, e.keep}); err != nil {
		e.cfg.Logger.Error("cannot save the module's record", "module", e.cfg.Module.Name, "err", err)
		e.impaired, e.probed = true, e.rt.Now()
	}
}

// noteOpen makes durable, before the volumes are opened, that a loss of power from here on
// may lose writes. After false nothing may be opened, and StorageFailed follows. With an empty Config.Boot each start
// counts as one after a loss of power.
func (e *Engine) noteOpen() bool {
	if e.keep.Boot != "" {
		return true
	}
	e.keep.Boot = cmp.Or(e.cfg.Boot, "unknown")
	if e.saveKept() {
		return true
	}
	e.keep.Boot, e.impaired, e.probed = "", true, e.rt.Now()
	e.event(appmodules.StorageFailed, "metadata cannot be saved")
	return false
}

// noteSettled makes durable that the volumes are closed and everything acknowledged is on
// disk: power may go now.
func (e *Engine) noteSettled(ctx context.Context) {
	if e.keep.Boot == "" {
		return
	}
	before := e.keep.Boot
	e.keep.Boot = ""
	if err := e.put(ctx, value{keptKey, e.keep}); err != nil {
		e.keep.Boot = before // the next start takes a loss of power for one, which is safe
	}
}

// answerTime is within what a question is answered that somebody waits for with a guest.
const answerTime = 200 * time.Millisecond

// soon is call for such questions: where the goroutine waits for the metadata disk the
// answer is that it does, which wraps errStoreHangs, and a node that asks counts on nothing. fn may have begun by then
// and goes on, unless it stops when claim, which it calls before it does what only a
// caller that hears of it can undo, returns false.
func (e *Engine) soon(ctx context.Context, fn func(claim func() bool)) error {
	var taken atomic.Bool // by claim, or by who gives up
	claim := func() bool { return taken.CompareAndSwap(false, true) }
	var gone atomic.Bool
	done := make(chan struct{})
	e.post(func() {
		if gone.Load() {
			return
		}
		fn(claim)
		close(done)
	})
	for patience := answerTime; ; patience = answerTime / 4 {
		short, cancel := e.rt.WithTimeout(ctx, patience)
		err := e.rt.Wait(short, done, e.loop)
		cancel()
		since, paused := e.pausedSince()
		switch {
		case err == nil || errors.Is(err, ErrStopped):
			return err
		case ctx.Err() == nil && !paused:
			continue // this computer is busy, no more
		}
		if gone.Store(true); !claim() {
			return e.rt.Wait(context.Background(), done, e.loop) // it is past what takes long
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return fmt.Errorf("%w on %s, for %v by now: it can neither decide nor promise", errStoreHangs, e.self,
			e.rt.Now().Sub(since).Round(100*time.Millisecond))
	}
}

// pausedSince: the goroutine waits for the metadata disk, and since when. A save that is under way for more than
// twice its limit does not pause it any more. Any goroutine.
func (e *Engine) pausedSince() (time.Time, bool) {
	s := e.saving.Load()
	if s == nil || isOver(s.over) {
		return time.Time{}, false
	}
	return s.since, e.rt.Now().Sub(s.since) < 2*s.limit
}

// Alive returns nil when the engine's goroutine answers, or waits for its metadata disk,
// which it does for a limited time; nothing else keeps it. After an error the watchdog may reset this computer.
func (e *Engine) Alive(ctx context.Context) error {
	err := e.soon(ctx, func(func() bool) {})
	if errors.Is(err, errStoreHangs) {
		return nil
	}
	return err
}
