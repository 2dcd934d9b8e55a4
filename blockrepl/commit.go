package blockrepl

import "fmt"

// commit starts a commit if there is something to store and none is in flight.
// The caller holds mu. Whoever has made something worth storing wakes runIssue or kicks, which come here; a commit
// that ends does so too.
func (p *Primary) commit() {
	if p.ledger.running || !p.stand.mayCommit() {
		return
	}
	entries, lineage := p.tracker.plan(p.coolsClean()), p.ledger.next(p.wantsGeneration())
	if entries == nil && lineage == nil {
		return
	}
	p.ledger.begin(lineage)
	p.cfg.Log.Commit(entries, lineage, p.committed)
}

// needGeneration says whether a write must not begin, or end, before Lineage.With this
// epoch is durable: as long as the peer is not required, this node alone decides what the
// data is.
func (p *Primary) needGeneration() bool {
	return !p.ledger.own && p.stand.state.decides()
}

// wantsGeneration says whether the generation has to become durable now: a write waits for
// it, or the copy was never written, or is Partial.
func (p *Primary) wantsGeneration() bool {
	return p.needGeneration() && (p.traffic.begun() || p.ledger.bare())
}

// beginning says that the lineage is about to change.
func (p *Primary) beginning() bool {
	return p.wantsGeneration() || p.ledger.coming != nil
}

// coolsClean says that extents may cool only when both sides are flushed.
func (p *Primary) coolsClean() bool {
	return p.stand.state.required() && p.catchup.over()
}

// committed is called by the log when a commit is durable, or failed. After a failure it is not known what the log
// has, so this copy has failed: to write on could leave a difference that nobody knows of.
func (p *Primary) committed(err error) {
	var done completions
	p.mu.Lock()
	lineage := p.ledger.end()
	switch {
	case p.stand.state == Closed:
	case err != nil:
		p.fail(fmt.Errorf("commit dirty log: %w", err))
	default:
		p.tracker.committed()
		if lineage != nil {
			p.ledger.adopt(*lineage)
			p.review(&done)
		}
		p.admitMarked()
	}
	p.changed.Broadcast()
	p.unlock(&done)
	wake(p.crew.wakeIssue) // it starts the next commit as well
}
