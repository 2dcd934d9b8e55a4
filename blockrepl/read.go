package blockrepl

import (
	"errors"
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
	if (p.state.required() || p.state == Frozen) && p.work != nil && p.work.touches(f.off, f.end) {
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
	p.mu.Lock()
	for len(p.readq) > 0 {
		f := p.readq[0]
		p.readq = p.readq[1:]
		p.mu.Unlock()
		err := p.readSlow(f.req)
		p.mu.Lock()
		p.end(f, err, p.clock(), &done)
		more := len(p.ready) > 0 || len(p.marking) > 0
		p.mu.Unlock()
		done.deliver()
		if more {
			wake(p.wakeIssue)
		}
		p.mu.Lock()
	}
	p.readers--
	p.mu.Unlock()
}

// readSlow reads from the disk, and from the peer if the disk fails.
func (p *Primary) readSlow(r *Request) error {
	_, err := p.dev.ReadAt(r.Data, r.Off)
	if err == nil {
		return nil
	}
	p.mu.Lock()
	l, usable := p.link, p.state.required()
	p.mu.Unlock()
	if l == nil || !usable {
		return fmt.Errorf("read local copy: %w", err)
	}
	data, remote := p.ask(l, wire.Header{Type: wire.Read, Offset: uint64(r.Off), Count: uint32(r.Len)}, nil, true)
	if remote == nil && len(data) != len(r.Data) {
		remote = errors.New("peer sent another length")
	}
	if remote != nil {
		return fmt.Errorf("read local copy: %w; read from peer: %w", err, remote)
	}
	copy(r.Data, data)
	// The range is locked against writes, so writing the same data back cannot undo one.
	_, repair := p.dev.WriteAt(data, r.Off)
	p.mu.Lock()
	p.stats.ReadRepairs++
	p.log.Warn("read served by peer", "offset", r.Off, "cause", err, "repair", repair)
	p.emit(ReadRepaired{Off: r.Off, Len: r.Len, Cause: err, Repair: repair})
	p.mu.Unlock()
	return nil
}
