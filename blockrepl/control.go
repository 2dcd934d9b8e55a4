package blockrepl

import (
	"context"
	"errors"
	"fmt"
)

// GoAlone lets writes go on without a peer, at an epoch that was granted to this
// node. Whatever was unacknowledged is acknowledged once the new generation is
// durable; a copy that was never written, or is Partial (an operator's decision),
// becomes a generation at once, any other at its first write. A peer that is still
// attached is dropped first: it was outvoted. The error of a local copy that has failed
// is returned: nothing is written any more. The epoch is taken over all the same.
//
// It waits for a lost connection to be closed, not for a disk; the generation may not be durable yet when it
// returns. An epoch below the present one, or a closed volume, is ErrState.
func (p *Primary) GoAlone(epoch uint64) error {
	var done completions
	p.mu.Lock()
	for l := p.peer.link; (l != nil || p.peer.parting) && p.stand.state != Closed; l = p.peer.link {
		if p.peer.parting {
			p.changed.Wait()
			continue
		}
		p.mu.Unlock()
		p.lost(l, errOutvoted)
		p.mu.Lock()
	}
	if p.stand.state == Closed || epoch < p.ledger.epoch {
		defer p.mu.Unlock()
		return fmt.Errorf("go alone at epoch %d while %v at %d: %w", epoch, p.stand.state, p.ledger.epoch, ErrState)
	}
	p.stand.move(Alone)
	p.catchup.drop()
	p.ledger.writesAt(epoch)
	if p.stand.failed != nil {
		defer p.mu.Unlock()
		return fmt.Errorf("go alone at epoch %d: %w", epoch, p.stand.failed)
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
	t := Ticket{Epoch: p.ledger.epoch, Lineage: p.ledger.lineage}
	if p.peer.link != nil && p.peer.link.drained {
		t.Link = p.peer.link.id
	}
	return t
}

// PeerComplete is called after Drained, when the peer has durably marked itself
// complete at this epoch: the dirty regions are forgotten. ErrState if the link that drained is gone, or nothing is
// to be forgotten. It must not be called earlier: what is forgotten here is all that says what the peer lacks.
func (p *Primary) PeerComplete() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stand.state != Required || !p.peer.link.drained {
		return fmt.Errorf("peer complete while %v: %w", p.stand.state, ErrState)
	}
	p.connected()
	return nil
}

// connected forgets what differed. Both sides were flushed after the last of it was sent, see drain.
func (p *Primary) connected() {
	p.stand.move(Connected)
	p.peer.link.intact = true // it has all of it now, whatever it lost before
	p.tracker.clean()
	p.ledger.met()
	p.log.Info("both copies complete", "epoch", p.ledger.epoch)
	wake(p.crew.wakeIssue)
}

// Hold stops new writes and returns when those in flight have ended, both sides are
// flushed and the log has no hot extents left: the moment to hand the volume over.
// Writes wait until Release or Close. If it fails, by ctx or the loss of the peer, the
// hold is released. An extent that a waiting write has made hot before the hold stays hot. Reads and flushes go on.
// A volume that cannot write, as it is detached, frozen, closed or failed, is not held: it is ErrState, or the failure.
func (p *Primary) Hold(ctx context.Context) error {
	p.mu.Lock()
	if !p.stand.hold() {
		defer p.mu.Unlock()
		return fmt.Errorf("hold while %v: %w", p.stand.state, ErrState)
	}
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
	var l *link
	if err := p.await(ctx, func() bool { l = p.peer.link; return p.traffic.issued == 0 }); err != nil {
		return err
	}
	if l != nil { // the next one may not have what this one was sent
		defer context.AfterFunc(l.ctx, func() { cancel(errLinkLost) })()
	}
	if err := p.flushBoth(ctx); err != nil {
		return err
	}
	p.mu.Lock()
	p.tracker.coolAll(p.coolsClean())
	p.mu.Unlock()
	wake(p.crew.wakeIssue)
	return p.await(ctx, func() bool { return len(p.tracker.changed) == 0 && !p.ledger.running })
}

// await waits until cond, evaluated with mu held, is true. A volume that cannot write ends the wait, as nothing will
// move, whatever cond says: that is about what moves.
func (p *Primary) await(ctx context.Context, cond func() bool) error {
	stop := context.AfterFunc(ctx, func() {
		p.mu.Lock()
		p.changed.Broadcast()
		p.mu.Unlock()
	})
	defer stop()
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		switch {
		case p.stand.failed != nil:
			return p.stand.failed
		case p.stand.state == Detached || p.stand.state == Frozen || p.stand.state == Closed:
			return fmt.Errorf("volume is %v: %w", p.stand.state, ErrState)
		case cond():
			return nil
		case ctx.Err() != nil:
			return context.Cause(ctx)
		}
		p.changed.Wait()
	}
}

// Release ends Hold: writes go on. Without a hold it does nothing.
func (p *Primary) Release() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stand.release() {
		p.reopen()
	}
}
