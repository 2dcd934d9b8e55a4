package sim

import (
	"context"
	"errors"
	"fmt"

	"duet/blockrepl"
)

// Flushes of the primary, and Hold.

// rounds are the flushes: one under way at a time, which covers all that waited when it began. A round that
// fails gives its requests and its blocks back: they wait for the next one, and for ever if there is none.
type rounds struct {
	waiting []*request
	running bool
	written [blocks]bool // on both sides, not flushed on both
}

// flush does a round on this side, and on the peer's if it is required. Blocks written since both sides flushed
// are the ones that a peer which is lost may lack; so written is cleared when a round begins, and what that
// round covered comes back if it fails. While a peer that may have lost writes catches up no round begins: a
// failover could take back what it promised (blockrepl/DESIGN.md, "Same epoch, again").
func (p *primary) flush() {
	if p.rounds.running || len(p.rounds.waiting) == 0 || p.failed != nil {
		return
	}
	both := p.required()
	switch {
	case p.state == blockrepl.Alone || p.state == blockrepl.Syncing:
	case both && (p.link.intact || p.catchup.left == 0):
	default:
		return
	}
	round := p.rounds.waiting
	p.rounds.waiting, p.rounds.running = nil, true
	seen, l := p.disk.now(), p.link
	covered := p.rounds.written
	p.rounds.written = [blocks]bool{}
	open := 1
	var bad error
	end := func(err error) {
		bad = errors.Join(bad, err)
		if open--; open == 0 {
			p.flushed(round, covered, both, bad)
		}
	}
	if both {
		open++
		p.ask(l, func(s *secondary, answer func(error)) { s.flush(answer) }, end)
	}
	p.local(access{blockrepl.OpFlush, 0, true}, diskTime, func(err error) {
		if err != nil {
			p.broken(fmt.Errorf("flush local copy: %w", err))
			end(err)
			return
		}
		p.disk.flushed(seen)
		end(nil)
	})
}

// flushed ends a round: bad or not, the next may begin.
func (p *primary) flushed(round []*request, covered [blocks]bool, both bool, err error) {
	p.rounds.running = false
	if err != nil {
		for b := range blocks {
			p.rounds.written[b] = p.rounds.written[b] || covered[b]
		}
		p.rounds.waiting = append(round, p.rounds.waiting...)
		p.pump()
		return
	}
	if both && p.link != nil && p.catchup.left == 0 && p.state == blockrepl.Connected {
		p.cool()
	}
	for _, r := range round {
		p.finish(r, nil)
	}
	p.pump()
}

// cool forgets the suspects that are on both sides for sure. What is in flight, marked or not flushed on both
// sides stays hot. It is looked at again when the commit is applied, as a write may have begun meanwhile.
func (p *primary) cool() {
	var keep [blocks]bool
	for b := range blocks {
		keep[b] = p.rounds.written[b] || p.marking[b]
	}
	for _, f := range p.flights {
		keep[f.block] = true
	}
	for _, r := range p.requests {
		keep[r.block] = keep[r.block] || r.op == blockrepl.OpWrite
	}
	if keep != p.log.suspects {
		p.store(func(l *dirtyLog) {
			for b := range blocks {
				l.suspects[b] = l.suspects[b] && (keep[b] || p.marking[b] || p.busy(b))
			}
		}, func() {})
	}
}

// hold is how far Hold is; the zero value is that of Release.
type hold struct{ begun, done bool }

// Hold stops writes and returns when everything is flushed on both sides. It is the first step of a planned swap
// (rule 9): reads go on, writes that come wait for Release or for Fence. The loss of the peer meanwhile ends it
// with ErrState, and the hold is released.
func (p *primary) Hold(ctx context.Context) error {
	if p.hold.begun || p.state == blockrepl.Closed {
		return blockrepl.ErrState
	}
	p.hold.begun = true
	l := p.link
	bad := func() bool {
		return p.failed != nil || p.state == blockrepl.Frozen || p.state == blockrepl.Closed || (l != nil && p.link != l)
	}
	flushed := false
	err := p.p.waitFor(ctx, func() bool { return bad() || p.writing() == 0 })
	if err == nil && !bad() {
		p.rounds.waiting = append(p.rounds.waiting,
			&request{op: blockrepl.OpFlush, done: func(err error) { flushed = err == nil }})
		p.flush()
		err = p.p.waitFor(ctx, func() bool { return bad() || flushed })
	}
	if err == nil && bad() {
		err = fmt.Errorf("volume is %v: %w", p.state, blockrepl.ErrState)
	}
	if err != nil {
		p.Release()
		return fmt.Errorf("hold writes: %w", err)
	}
	p.hold.done = true
	return nil
}

// writing counts writes of the guest that have begun; locks of a resync do not count.
func (p *primary) writing() (n int) {
	for _, f := range p.flights {
		if f.req != nil {
			n++
		}
	}
	return n
}

// Release ends Hold.
func (p *primary) Release() {
	p.hold = hold{}
	p.pump()
}
