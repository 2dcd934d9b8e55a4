package blockrepl

import "duet/blockrepl/wire"

// batch is what one goroutine takes from the ready list: it sends all of it to the
// peer with one system call, then does the local part while the peer does its own.
type batch struct {
	link  *link
	items []item
	done  completions
	visit visit // its place in the local device
}

type item struct {
	f     *flight
	seq   uint64 // of the frame to send; 0: none, as a read or without a peer
	local bool   // the local device is to do it too; false when it is only sent again
	slow  bool   // a read that would have to wait for the disk
	err   error
}

// Kick sends on what was submitted; see Queue. The local writes are done on the
// calling goroutine: they end in the page cache, and no goroutine is woken for them.
func (p *Primary) Kick() { p.issue() }

// runIssue issues what became ready outside of Kick: flights that were blocked,
// held or waited for a commit.
func (p *Primary) runIssue() {
	defer p.crew.wg.Done()
	for {
		select {
		case <-p.crew.ctx.Done():
			return
		case <-p.crew.wakeIssue:
			p.issue()
		}
	}
}

// issue works until the ready list is empty. Several goroutines may be in it, each with a batch of its own; what
// one takes overlaps nothing that another has, as the table let it go.
func (p *Primary) issue() {
	p.mu.Lock()
	b := p.crew.join(&p.watch.local)
	for {
		p.commit()
		if p.wantsFlush() {
			wake(p.crew.wakeFlush)
		}
		if len(p.traffic.ready) == 0 || p.stand.state == Closed {
			break
		}
		p.fill(b)
		p.mu.Unlock()
		p.send(b)
		p.doLocal(b)
		p.mu.Lock()
		p.settleLocal(b)
		p.unlock(&b.done)
		p.mu.Lock()
	}
	p.crew.leave(b)
	if p.stand.state == Closed {
		p.changed.Broadcast()
	}
	p.mu.Unlock()
}

// fill moves the ready list into b and numbers the frames. A write that may not begin
// any more, because the peer was lost or a hold came since it was admitted, waits again.
func (p *Primary) fill(b *batch) {
	now := p.clock()
	b.link, b.items = p.peer.link, b.items[:0]
	for _, f := range p.traffic.ready {
		if f.excl && f.step == stepReady && (!p.stand.writable() || p.needGeneration()) {
			p.admit(f)
			continue
		}
		it := item{f: f, local: p.traffic.issue(f, now)}
		f.busy++
		if f.excl && p.peer.link != nil {
			f.sent = p.peer.link
			it.seq = p.peer.link.window.add(pending{flight: f, sent: now, counted: true})
			p.meter.stats.Mirrored++
		}
		b.items = append(b.items, it)
	}
	p.traffic.taken()
}

// send appends the frames of b and flushes the connection; a failure loses the peer. It waits for no socket. Frames
// of two batches may be sent in another order than they were numbered: their ranges do not overlap.
func (p *Primary) send(b *batch) {
	l := b.link
	if l == nil {
		return
	}
	for i := range b.items {
		it := &b.items[i]
		if it.seq == 0 {
			continue
		}
		r := it.f.req
		h := wire.Header{Epoch: l.epoch, Seq: it.seq, Offset: uint64(r.Off)}
		switch r.Op {
		case OpWrite:
			h.Type = wire.Write
		case OpZero:
			h.Type, h.Count = wire.Zero, uint32(r.Len)
		case OpDiscard:
			h.Type, h.Count = wire.Discard, uint32(r.Len)
		}
		l.conn.Append(&h, r.Data)
	}
	if err := l.conn.Flush(); err != nil {
		p.lost(l, err)
	}
}

// doLocal does the local part of b, and no more of it once the volume is fenced. A write that hangs keeps the
// goroutine that kicked, as of a frontend; the watcher finds it.
func (p *Primary) doLocal(b *batch) {
	for i := range b.items {
		it := &b.items[i]
		if !it.local {
			continue
		}
		if p.fence.down.Load() {
			return
		}
		r := it.f.req
		b.visit.enter()
		switch r.Op {
		case OpRead:
			it.slow = !p.dev.tryRead(r.Data, r.Off)
		case OpWrite:
			_, it.err = p.dev.WriteAt(r.Data, r.Off)
		case OpZero:
			it.err = p.dev.Zero(r.Off, r.Len)
		case OpDiscard:
			it.err = p.dev.Discard(r.Off, r.Len)
		}
		b.visit.leave()
	}
}

// settleLocal notes what doLocal did. A flight whose local write failed stays where
// it is: not acknowledged, not answered with an error, until Fence.
func (p *Primary) settleLocal(b *batch) {
	now := p.clock()
	for i := range b.items {
		it := &b.items[i]
		f := it.f
		f.busy--
		switch {
		case p.stand.state == Closed:
			p.endIfIdle(f, &b.done)
		case it.slow:
			p.queueRead(f)
		case !f.excl:
			p.end(f, nil, now, &b.done)
		case it.err != nil:
			p.fail(it.err)
		default:
			f.here = f.here || it.local
			p.tryEnd(f, now, &b.done)
		}
		*it = item{}
	}
	b.link = nil
}

// endIfIdle ends a request of a volume that was fenced while goroutines were working on it.
func (p *Primary) endIfIdle(f *flight, done *completions) {
	if f.busy == 0 {
		done.add(f.req, ErrClosed)
	}
}

// settled is the whole rule when a write that was issued may end: the local device has it
// and the present peer too; without one, the peer that was lost, or this node alone
// decides. Before it does so for the first time, its generation is durable. One that is to
// be sent again ends when fill has taken it: until then the ready list refers to it.
func (p *Primary) settled(f *flight) bool {
	return f.busy == 0 && !f.queued && f.here && !p.needGeneration() && p.peer.has(f, p.stand.state == Alone)
}

// tryEnd ends an issued write if it may.
func (p *Primary) tryEnd(f *flight, now int64, done *completions) {
	if p.settled(f) {
		p.end(f, nil, now, done)
	}
}

// review looks at every issued write again, after a change of the link, the state or the
// generation: what the present peer was not sent is sent, what may end ends. Sending the
// same bytes twice is harmless, as the range is locked.
func (p *Primary) review(done *completions) {
	var over []*flight
	p.traffic.issuedWrites(func(f *flight) {
		switch {
		case p.peer.lacks(f):
			p.traffic.sendAgain(f)
		case p.settled(f):
			over = append(over, f)
		}
	})
	now := p.clock()
	for _, f := range over {
		p.end(f, nil, now, done)
	}
}

// end takes a flight out of the table and hands its request back, or to the next
// flush round if it must be durable. What it blocked may start. The volume is not fenced.
func (p *Primary) end(f *flight, err error, now int64, done *completions) {
	r := f.req
	free := p.traffic.leave(f)
	if f.excl {
		p.tracker.leave(f.off, f.end, p.peer.link != nil)
		p.memory.wrote(f.off, f.end)
		if p.traffic.issued == 0 {
			p.changed.Broadcast()
		}
	}
	for _, w := range free {
		p.admit(w)
	}
	p.meter.ended(r, now-f.started)
	if r.FUA && err == nil && f.excl {
		p.traffic.flush(r)
		wake(p.crew.wakeFlush)
		return
	}
	done.add(r, err)
}

// fail notes a local failure: no write starts any more, none that it is about ends.
func (p *Primary) fail(err error) {
	if !p.stand.fail(err) {
		return
	}
	p.changed.Broadcast() // who waits for an end that will not come
	p.log.Error("local copy failed, writes wait", "error", err)
	p.emit(DeviceFailed{Err: err})
}

// completions collects finished requests, to hand them over without the mutex. It belongs to one goroutine; what is
// in it when mu is given up has to be delivered before Fence may return, see unlock.
type completions struct {
	list []completion
	by   []Completer
}

type completion struct {
	r   *Request
	err error
}

func (c *completions) add(r *Request, err error) { c.list = append(c.list, completion{r, err}) }

// deliver completes the requests, then calls CompleteBatch once per Completer.
func (c *completions) deliver() {
	if len(c.list) == 0 {
		return
	}
	for _, d := range c.list {
		by := d.r.By // read before Complete: then r is the submitter's again
		by.Complete(d.r, d.err)
		c.note(by)
	}
	for _, by := range c.by {
		by.CompleteBatch()
	}
	clear(c.list)
	clear(c.by)
	c.list, c.by = c.list[:0], c.by[:0]
}

func (c *completions) note(by Completer) {
	for _, have := range c.by {
		if have == by {
			return
		}
	}
	c.by = append(c.by, by)
}
