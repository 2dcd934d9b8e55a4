package blockrepl

import (
	"fmt"
	"time"
)

// commitState is the Primary's side of the DirtyLog: one commit in flight, which
// groups everything that waited while the one before it was.
type commitState struct {
	running bool
	wanted  bool     // the generation must become durable although no write waits for it
	synced  bool     // the peer is complete: Lineage.InStep is to be stored
	lineage *Lineage // of the commit in flight
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
	c.running, c.wanted, c.synced = true, false, false
	p.cfg.Log.Commit(entries, c.lineage, p.committed)
}

// nextLineage is the lineage to store with the next commit, nil if it is unchanged.
func (p *Primary) nextLineage() *Lineage {
	c := &p.commits
	begins := p.needGeneration && (c.wanted || len(p.marking) > 0)
	if !begins && !c.synced {
		return nil // the usual case, at every Kick
	}
	next := p.lineage
	if begins {
		next = next.With(Generation{Epoch: p.epoch, Holder: p.cfg.Node, Began: time.Now().UnixMilli()})
		next.Partial = false
	}
	if newest, ok := next.Newest(); c.synced && ok {
		next.InStep = newest
	}
	return &next
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
	c.running = false
	if err != nil {
		p.fail(fmt.Errorf("commit dirty log: %w", err))
	} else {
		p.tracker.committed()
		if c.lineage != nil {
			p.lineage = *c.lineage
			p.judgeGeneration()
		}
		if !p.needGeneration {
			p.releaseLogged(&done)
		}
		marking := p.marking
		p.marking = nil
		for _, f := range marking {
			p.admit(f)
		}
	}
	p.changed.Broadcast()
	p.mu.Unlock()
	done.deliver()
	wake(p.wakeIssue) // it starts the next commit as well
}

// judgeGeneration says whether writes need a new generation: as long as the peer is
// not required, this node alone decides what the data is.
func (p *Primary) judgeGeneration() {
	newest, ok := p.lineage.Newest()
	own := ok && newest.Is(Generation{Epoch: p.epoch, Holder: p.cfg.Node})
	p.needGeneration = (p.state == Alone || p.state == Syncing) && (!own || p.lineage.Partial)
}

// releaseLogged ends the writes that waited for the generation to be durable.
func (p *Primary) releaseLogged(done *completions) {
	var waiting []*flight
	for i := range p.table.writes {
		if f := p.table.writes[i].f; f.wait&waitLog != 0 {
			waiting = append(waiting, f)
		}
	}
	now := p.clock()
	for _, f := range waiting {
		p.waited(f, waitLog, now, done)
	}
}
