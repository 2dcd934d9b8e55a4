package blockrepl

import (
	"context"
	"errors"
	"fmt"
	"time"

	"duet/blockrepl/wire"
)

// GoAlone lets writes go on without a peer, at an epoch that was granted to this
// node. Whatever was unacknowledged is acknowledged once the new generation is
// durable; a copy that was never written, or is Partial (an operator's decision),
// becomes a generation at once, any other at its first write. A peer that is still
// attached is dropped first: it was outvoted. The error of a local copy that has failed
// is returned: nothing is written any more.
func (p *Primary) GoAlone(epoch uint64) error {
	var done completions
	p.mu.Lock()
	for l := p.link; (l != nil || p.parting) && p.state != Closed; l = p.link {
		if p.parting {
			p.changed.Wait()
			continue
		}
		p.mu.Unlock()
		p.lost(l, errOutvoted)
		p.mu.Lock()
	}
	if p.state == Closed || epoch < p.epoch {
		defer p.mu.Unlock()
		return fmt.Errorf("go alone at epoch %d while %v at %d: %w", epoch, p.state, p.epoch, ErrState)
	}
	p.state, p.work = Alone, nil
	p.adopt(p.lineage, epoch)
	if p.failed != nil {
		defer p.mu.Unlock()
		return fmt.Errorf("go alone at epoch %d: %w", epoch, p.failed)
	}
	p.log.Info("volume goes on alone", "epoch", epoch)
	p.review(&done)
	p.reopen()
	p.unlock(&done)
	return nil
}

// errOutvoted is the cause of the loss of a peer that was dropped by GoAlone.
var errOutvoted = errors.New("the holder goes on without it")

// Ticket is what the peer's engine needs to make the peer complete, to be read after
// Drained. Without an attached peer it fits no attachment.
func (p *Primary) Ticket() Ticket {
	p.mu.Lock()
	defer p.mu.Unlock()
	t := Ticket{Epoch: p.epoch, Lineage: p.lineage}
	if p.link != nil && p.link.drained {
		t.Link = p.link.id
	}
	return t
}

// PeerComplete is called after Drained, when the peer has durably marked itself
// complete at this epoch: the dirty regions are forgotten.
func (p *Primary) PeerComplete() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.state != Required || !p.link.drained {
		return fmt.Errorf("peer complete while %v: %w", p.state, ErrState)
	}
	p.connected()
	return nil
}

// connected forgets what differed.
func (p *Primary) connected() {
	p.state = Connected
	p.link.intact = true // it has all of it now, whatever it lost before
	p.tracker.clean()
	p.common, _ = p.lineage.Newest()
	p.log.Info("both copies complete", "epoch", p.epoch)
	wake(p.wakeIssue)
}

// Hold stops new writes and returns when those in flight have ended, both sides are
// flushed and the log has no hot extents left: the moment to hand the volume over.
// Writes wait until Release or Close. If it fails, by ctx or the loss of the peer, the
// hold is released.
func (p *Primary) Hold(ctx context.Context) error {
	p.mu.Lock()
	if p.holding || p.state == Closed {
		defer p.mu.Unlock()
		return fmt.Errorf("hold while %v: %w", p.state, ErrState)
	}
	p.holding = true
	p.mu.Unlock()
	if err := p.quiesce(ctx); err != nil {
		p.Release()
		return fmt.Errorf("hold writes: %w", err)
	}
	return nil
}

// quiesce is the work of Hold.
func (p *Primary) quiesce(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	// A flush would wait for ever, and nothing wakes a wait for writes that will not end.
	defer context.AfterFunc(p.sound, func() { cancel(context.Cause(p.sound)) })()
	if err := p.await(ctx, func() bool { return p.issued == 0 }); err != nil {
		return err
	}
	p.mu.Lock()
	l := p.link
	p.mu.Unlock()
	if l != nil { // a flush would wait for a lost peer's successor
		defer context.AfterFunc(l.ctx, func() { cancel(errLinkLost) })()
	}
	if err := p.flushBoth(ctx); err != nil {
		return err
	}
	p.mu.Lock()
	p.tracker.coolAll(p.coolsClean())
	p.mu.Unlock()
	wake(p.wakeIssue)
	return p.await(ctx, func() bool { return len(p.tracker.changed) == 0 && !p.commits.running })
}

// await waits until cond, evaluated with mu held, is true. A frozen, failed or closed
// volume ends the wait, as nothing will move.
func (p *Primary) await(ctx context.Context, cond func() bool) error {
	stop := context.AfterFunc(ctx, func() {
		p.mu.Lock()
		p.changed.Broadcast()
		p.mu.Unlock()
	})
	defer stop()
	p.mu.Lock()
	defer p.mu.Unlock()
	for !cond() {
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case p.failed != nil:
			return p.failed
		case p.state == Frozen || p.state == Closed:
			return fmt.Errorf("volume is %v: %w", p.state, ErrState)
		}
		p.changed.Wait()
	}
	return nil
}

// Release ends Hold: writes go on.
func (p *Primary) Release() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.holding {
		p.holding = false
		p.reopen()
	}
}

// watch is the memory of the stall clock.
type watch struct {
	ticked int64 // clock of the last tick
	thawed int64 // clock at which this process last came back from not running
	budget time.Duration
	wake   chan struct{} // has a token when budget has changed
}

// SetStallBudget changes how long a peer that owes an answer is waited for. Any goroutine may call it.
func (p *Primary) SetStallBudget(d time.Duration) {
	p.mu.Lock()
	p.watch.budget = d
	p.mu.Unlock()
	wake(p.watch.wake)
}

// SetLocalBudget changes how long a call of the device or log may last. Any goroutine may call it.
func (p *Primary) SetLocalBudget(d time.Duration) {
	p.mu.Lock()
	p.local.budget = d
	p.mu.Unlock()
	wake(p.watch.wake)
}

// every is how often the clocks are looked at.
func (p *Primary) every() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	every := p.watch.budget / 8
	if p.local.budget != 0 {
		every = min(every, max(p.local.budget/8, time.Millisecond))
	}
	return every
}

// runWatch looks at the age of what the peer has not answered.
func (p *Primary) runWatch() {
	defer p.wg.Done()
	every := p.every()
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		select {
		case <-p.ctx.Done():
			return
		case <-p.watch.wake:
			every = p.every()
			ticker.Reset(every)
		case <-ticker.C:
			p.tick(int64(every))
		}
	}
}

// hung is called for a call of the local device or log that does not return. If a guest
// waits for it, or may have to, this copy has failed; a region that a resync or verify
// cannot read for it is unreadable until it can.
func (p *Primary) hung(v *visit) {
	if v.patient && (v.lock == nil || len(v.lock.waiters) == 0) {
		p.unreadable.note(p, v.off, v.end, p.local.hung(v))
		return
	}
	p.fail(p.local.hung(v))
}

// tick loses a peer that is silent for longer than the budget, and pings an idle one.
// If the tick itself is late this process did not run, and the silence proves
// nothing: the peer gets a whole new budget.
func (p *Primary) tick(every int64) {
	p.mu.Lock()
	now, l := p.clock(), p.link
	if now-p.watch.ticked > 2*every {
		p.watch.thawed = now
	}
	p.watch.ticked = now
	p.local.overdue(now, p.watch.thawed, p.hung)
	p.maybeProbe(now)
	if l == nil {
		p.mu.Unlock()
		return
	}
	oldest, budget := l.window.oldest(), p.watch.budget
	silent := time.Duration(now - max(oldest, p.watch.thawed))
	ping := oldest == 0 && now-l.pinged >= int64(budget)/4
	if ping {
		l.pinged = now
	}
	p.mu.Unlock()
	switch {
	case oldest != 0 && silent > budget:
		p.lost(l, ErrStalled)
	case ping:
		p.ping(l)
	}
}

// ping asks for a sign of life, without waiting for it.
func (p *Primary) ping(l *link) {
	if p.post(l, wire.Header{Type: wire.Ping}, nil, nil, true) != nil {
		return
	}
	if err := l.conn.Flush(); err != nil {
		p.lost(l, err)
	}
}
