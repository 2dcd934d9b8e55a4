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
	if (p.state.required() || p.state == Frozen) && p.work != nil && p.work.pending(f.off, f.end) {
		p.work.demand(f.off, f.end)
		p.suspended = append(p.suspended, f)
		f.step = stepHeld
		if f.started == 0 {
			f.started = p.clock()
		}
		for _, w := range p.table.remove(f, nil) {
			p.admit(w)
		}
		return
	}
	f.step = stepReady
	p.ready = append(p.ready, f)
}

// resume brings suspended reads back; those still suspect suspend again.
func (p *Primary) resume() {
	if len(p.suspended) == 0 {
		return
	}
	suspended := p.suspended
	p.suspended = nil
	for _, f := range suspended {
		p.enqueue(f)
	}
}

// queueRead hands a read that would wait for the disk to a reader. Readers exist
// only while there is something to read. The caller holds mu.
func (p *Primary) queueRead(f *flight) {
	p.readq = append(p.readq, f)
	if p.readers < maxReaders {
		p.readers++
		p.wg.Add(1)
		go p.runReader()
	}
}

func (p *Primary) runReader() {
	defer p.wg.Done()
	var done completions
	v := visit{what: "read"}
	p.mu.Lock()
	p.local.add(&v)
	for len(p.readq) > 0 {
		f := p.readq[0]
		p.readq = p.readq[1:]
		f.busy++
		p.mu.Unlock()
		err := p.readSlow(f.req, &v)
		p.mu.Lock()
		f.busy--
		if p.state == Closed {
			p.endIfIdle(f, &done)
		} else {
			p.end(f, err, p.clock(), &done)
		}
		more := len(p.ready) > 0 || len(p.marking) > 0
		p.unlock(&done)
		if more {
			wake(p.wakeIssue)
		}
		p.mu.Lock()
	}
	p.local.remove(&v)
	p.readers--
	p.mu.Unlock()
}

// readSlow reads from the disk, and from the peer if the disk fails.
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
	if p.link != nil && (p.link.intact || p.work == nil || !p.work.touches(off, end)) {
		return p.link
	}
	return nil
}
