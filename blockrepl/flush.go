package blockrepl

import (
	"context"
	"fmt"

	"duet/blockrepl/wire"
)

// runFlush does one flush round after the other. A round covers every flush that
// waited when it began. One at a time: a second one would not make the disk faster, and the tracker counts regions for
// one only.
func (p *Primary) runFlush() {
	defer p.crew.wg.Done()
	v := visit{what: "flush"}
	p.mu.Lock()
	p.watch.local.add(&v)
	p.mu.Unlock()
	for {
		select {
		case <-p.crew.ctx.Done():
			return
		case <-p.crew.wakeFlush:
			for p.flushRound(&v) {
			}
		}
	}
}

// wantsFlush says whether a round is wanted, by a guest or so that extents can cool.
func (p *Primary) wantsFlush() bool { return len(p.traffic.flushes) > 0 || p.tracker.wantFlush }

// mayFlush says whether a round would make durable all it claims. A required peer
// that may have lost writes it acknowledged must first catch up.
func (p *Primary) mayFlush() bool {
	switch {
	case p.stand.failed != nil || p.peer.parting:
		return false
	case p.stand.state.decides():
		return true
	case p.stand.state.required():
		// What cannot be read here is not made durable by waiting for it.
		return p.peer.link.intact || p.catchup.tried()
	}
	return false
}

// flushRound flushes this side, and the peer if it is required, and completes the
// flushes it covered. It reports whether there may be more to do. It waits for both disks, without mu.
//
// While this node decides alone the peer is not flushed: what it has is not needed for anything yet. Who moves the
// volume to Required flushes both sides anew.
func (p *Primary) flushRound(v *visit) bool {
	p.mu.Lock()
	if !p.wantsFlush() || !p.mayFlush() {
		p.mu.Unlock()
		return false
	}
	round := p.traffic.round()
	l, both := p.peer.link, p.stand.state.required()
	p.tracker.flushBegin()
	p.mu.Unlock()

	peer, remote := &call{done: make(chan error, 1)}, error(nil)
	if both {
		if remote = p.post(l, wire.Header{Type: wire.Flush}, nil, peer, len(round) > 0); remote == nil {
			if err := l.conn.Flush(); err != nil {
				p.lost(l, err)
			}
		}
	}
	v.enter()
	local := p.dev.Flush()
	v.leave()
	if both && remote == nil {
		remote = <-peer.done
	}
	return p.flushed(round, both && remote == nil, local, remote)
}

// flushed ends a round. Of a local flush that failed nothing is completed, ever; the flushes wait for the end of
// the volume.
func (p *Primary) flushed(round []*Request, both bool, local, remote error) bool {
	var done completions
	p.mu.Lock()
	p.tracker.flushEnd(both && local == nil)
	p.meter.stats.FlushRounds++
	switch {
	case p.stand.state == Closed:
		for _, r := range round {
			done.add(r, ErrClosed)
		}
	case local != nil:
		p.fail(fmt.Errorf("flush local copy: %w", local))
		p.traffic.unflushed(round)
	case remote != nil:
		p.traffic.unflushed(round) // the peer was lost: again, when the state allows
	default:
		for _, r := range round {
			if r.Op == OpFlush {
				p.meter.stats.Flushes++
			}
			done.add(r, nil)
		}
	}
	more := p.mayFlush()
	p.changed.Broadcast()
	p.unlock(&done)
	wake(p.crew.wakeIssue) // extents that could not cool before may now
	return more
}

// flushBoth waits until everything completed before is durable on every side that
// is required. An internal flush goes the way of a guest's. If ctx ends first, or the volume cannot write any more, the
// flush goes on for nobody.
func (p *Primary) flushBoth(ctx context.Context) error {
	o := &outcome{p: p}
	p.Submit(&Request{Op: OpFlush, By: o})
	wake(p.crew.wakeFlush)
	if err := p.await(ctx, func() bool { return o.over }); err != nil {
		return err
	}
	return o.err
}

// outcome is the Completer of an internal request, for await. Primary.mu guards it.
type outcome struct {
	p    *Primary
	over bool
	err  error // set before over
}

// Complete hands the result to whoever waits.
func (o *outcome) Complete(_ *Request, err error) {
	o.p.mu.Lock()
	defer o.p.mu.Unlock()
	o.over, o.err = true, err
	o.p.changed.Broadcast()
}

// CompleteBatch does nothing.
func (o *outcome) CompleteBatch() {}
