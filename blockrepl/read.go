package blockrepl

import (
	"fmt"

	"duet/blockrepl/wire"
)

// maxReaders bounds the goroutines that wait for the disk.
const maxReaders = 64

// admitRead lets a read go, unless it would see what the peer may not have.
//
// While a required peer catches up, or was lost doing so, a suspect region may hold
// a write that was never acknowledged; a guest that saw it could act on it, and a
// failover would take it back. Such a read leaves the table, so that resync can lock
// the region, and comes back when it is in step; a later write may overtake it, as
// one in flight at the same time may.
func (p *Primary) admitRead(f *flight) {
	if (p.stand.state.required() || p.stand.state == Frozen) && p.catchup.defers(f.off, f.end) {
		for _, w := range p.traffic.suspend(f, p.clock()) {
			p.admit(w)
		}
		return
	}
	p.traffic.pass(f)
}

// resume brings suspended reads back; those still suspect suspend again.
func (p *Primary) resume() {
	for _, f := range p.traffic.resumed() {
		p.enqueue(f)
	}
}

// queueRead hands a read that would wait for the disk to a reader. Readers exist
// only while there is something to read. The caller holds mu.
func (p *Primary) queueRead(f *flight) {
	p.traffic.queueRead(f)
	if p.crew.hire() {
		go p.runReader()
	}
}

func (p *Primary) runReader() {
	defer p.crew.wg.Done()
	var done completions
	v := visit{what: "read"}
	p.mu.Lock()
	p.watch.local.add(&v)
	for f := p.traffic.nextRead(); f != nil; f = p.traffic.nextRead() {
		f.busy++
		p.mu.Unlock()
		err := p.readSlow(f.req, &v)
		p.mu.Lock()
		f.busy--
		if p.stand.state == Closed {
			p.endIfIdle(f, &done)
		} else {
			p.end(f, err, p.clock(), &done)
		}
		more := p.traffic.moves()
		p.unlock(&done)
		if more {
			wake(p.crew.wakeIssue)
		}
		p.mu.Lock()
	}
	p.watch.local.remove(&v)
	p.crew.retire()
	p.mu.Unlock()
}

// readSlow reads from the disk, and from the peer if the disk fails. The peer stands in only where its copy cannot be
// older than what this guest has seen; without it the guest gets the error of the disk, which is no failure of this
// copy.
func (p *Primary) readSlow(r *Request, v *visit) error {
	v.enter()
	_, err := p.dev.ReadAt(r.Data, r.Off)
	v.leave()
	if err == nil {
		return nil
	}
	l := p.standIn(r.Off, r.Off+r.Len)
	if l == nil {
		p.mu.Lock()
		p.unreadable.note(p, r.Off, r.Off+r.Len, err)
		p.mu.Unlock()
		return fmt.Errorf("read local copy: %w", err)
	}
	data, remote := p.ask(l, wire.Header{Type: wire.Read, Offset: uint64(r.Off), Count: uint32(r.Len)}, nil, true)
	if remote == nil && len(data) != len(r.Data) {
		remote = errNotThere
	}
	if remote != nil {
		p.mu.Lock()
		p.unreadable.note(p, r.Off, r.Off+r.Len, err)
		p.mu.Unlock()
		return fmt.Errorf("read local copy: %w; read from peer: %w", err, remote)
	}
	copy(r.Data, data)
	// The range is locked against writes, so writing the same data back cannot undo one.
	repair := ErrClosed
	if !p.fence.down.Load() {
		v.enter()
		_, repair = p.dev.WriteAt(data, r.Off)
		v.leave()
	}
	p.mu.Lock()
	p.repaired(r.Off, r.Len, err, repair)
	p.mu.Unlock()
	return nil
}

// standIn returns the peer if what it has of [off, end) is what a guest may see: it is in
// step there, or complete and lost nothing.
func (p *Primary) standIn(off, end int64) *link {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.peer.link != nil && (p.peer.link.intact || !p.catchup.touches(off, end)) {
		return p.peer.link
	}
	return nil
}
