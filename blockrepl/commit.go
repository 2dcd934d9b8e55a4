package blockrepl

import (
	"fmt"
	"time"
)

// commitState is the Primary's side of the DirtyLog: one commit in flight, which
// groups everything that waited while the one before it was. What has to be stored is not
// noted anywhere: it is what the state wants and the log has not.
type commitState struct {
	running bool
	lineage *Lineage // of the commit in flight; nil: it has none
	visit   visit    // its place in the log
}

// commit starts a commit if there is something to store and none is in flight.
// The caller holds mu.
func (p *Primary) commit() {
	c := &p.commits
	if c.running || p.failed != nil || p.state == Closed {
		return
	}
	entries := p.tracker.plan(p.coolsClean())
	c.lineage = p.nextLineage()
	if entries == nil && c.lineage == nil {
		return
	}
	c.running = true
	c.visit.enter()
	p.cfg.Log.Commit(entries, c.lineage, p.committed)
}

// needGeneration says whether a write must not begin, or end, before Lineage.With this
// epoch is durable: as long as the peer is not required, this node alone decides what the
// data is.
func (p *Primary) needGeneration() bool {
	return !p.own && (p.state == Alone || p.state == Syncing)
}

// wantsGeneration says whether the generation has to become durable now: a write waits for
// it, or the copy was never written, or is Partial.
func (p *Primary) wantsGeneration() bool {
	return p.needGeneration() &&
		(len(p.marking) > 0 || p.issued > 0 || len(p.lineage.Line) == 0 || p.lineage.Partial)
}

// beginning says that the lineage is about to change.
func (p *Primary) beginning() bool {
	return p.wantsGeneration() || p.commits.running && p.commits.lineage != nil
}

// nextLineage is the lineage to store with the next commit, nil if it is unchanged.
func (p *Primary) nextLineage() *Lineage {
	begins := p.wantsGeneration()
	if !begins && p.common == p.lineage.InStep {
		return nil // the usual case, at every Kick
	}
	next := p.lineage
	if begins {
		next = next.With(Generation{Epoch: p.epoch, Holder: p.cfg.Node, Began: time.Now().UnixMilli()})
		next.Partial = false
	}
	next.InStep = p.common
	return &next
}

// adopt takes a lineage that is durable, and the epoch this node writes at.
func (p *Primary) adopt(l Lineage, epoch uint64) {
	p.lineage, p.epoch = l, epoch
	newest, ok := l.Newest()
	p.own = ok && !l.Partial && newest.Is(Generation{Epoch: epoch, Holder: p.cfg.Node})
}

// coolsClean says that extents may cool only when both sides are flushed.
func (p *Primary) coolsClean() bool {
	return p.state.required() && (p.work == nil || p.work.left == 0)
}

// committed is called by the log when a commit is durable, or failed.
func (p *Primary) committed(err error) {
	var done completions
	p.mu.Lock()
	c := &p.commits
	c.visit.leave()
	lineage := c.lineage
	c.running, c.lineage = false, nil
	switch {
	case p.state == Closed:
	case err != nil:
		p.fail(fmt.Errorf("commit dirty log: %w", err))
	default:
		p.tracker.committed()
		if lineage != nil {
			p.adopt(*lineage, p.epoch)
			p.review(&done)
		}
		marking := p.marking
		p.marking = nil
		for _, f := range marking {
			p.admit(f)
		}
	}
	p.changed.Broadcast()
	p.unlock(&done)
	wake(p.wakeIssue) // it starts the next commit as well
}
