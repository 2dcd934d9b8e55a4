package blockrepl

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"duet/blockrepl/wire"
)

const (
	// syncWorkers is how many extents are compared or sent at the same time.
	syncWorkers = 4
	// settleBytes is how much the peer may hold unflushed of a resync, of all workers, so that the
	// flush at its end, or a guest's meanwhile, is short.
	settleBytes = 64 << 20
)

// resync brings the worklist of one link in step and then reports Drained.
//
// Comparing needs no lock. Every write of the guest goes to both sides, so if each
// byte of a region was equal at the two moments it was read, the copies are equal
// or will be when the writes in flight have arrived. Only a region that differs is
// locked, while it is read and sent.
//
// A region that cannot be read here holds up nothing but the end: it is tried again until
// it can, or a guest has written it anew.
func (p *Primary) resync(l *link) {
	defer p.crew.wg.Done()
	pace := newPacer(p.clock())
	for again := true; again; again = p.tryAgain(l) {
		var workers sync.WaitGroup
		for range syncWorkers {
			workers.Go(func() {
				if err := p.syncExtents(l, pace); err != nil {
					p.lost(l, fmt.Errorf("resync: %w", err))
				}
			})
		}
		workers.Wait()
	}
	p.drain(l)
}

// tryAgain waits a while and reports true if regions could not be read in this round; they
// are back on the list then.
func (p *Primary) tryAgain(l *link) bool {
	p.mu.Lock()
	stuck := p.peer.link == l && p.catchup.work.stuck > 0
	if stuck {
		p.log.Error("resync cannot end: regions cannot be read here", "bytes", p.catchup.work.stuck*RegionSize)
		wake(p.crew.wakeFlush)
	}
	p.mu.Unlock()
	if !stuck {
		return false
	}
	timer := time.NewTimer(probeEvery)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-l.ctx.Done():
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.peer.link != l {
		return false
	}
	p.catchup.work.again()
	return true
}

// drain requires the peer for every write from now on, makes both sides durable, and
// reports. A generation that is about to begin comes first: the peer takes over a lineage
// that does not change any more.
//
// The order is rule 7 (cluster/DESIGN.md): first Required, so that no write is acknowledged any more that the peer
// lacks; then the flush, which covers all that was sent before; then Drained, by which the engine lets the peer
// become complete.
func (p *Primary) drain(l *link) {
	p.mu.Lock()
	for p.peer.link == l && p.beginning() && p.stand.failed == nil {
		p.changed.Wait()
	}
	if p.peer.link != l || p.stand.failed != nil {
		p.mu.Unlock()
		return
	}
	p.stand.move(Required)
	p.catchup.finish()
	p.reopen()
	p.mu.Unlock()

	if p.flushBoth(l.ctx) != nil {
		return // the link was lost, or the volume closed
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.peer.link != l {
		return
	}
	l.drained = true
	if l.complete {
		p.connected()
	}
	p.emit(Drained{})
}

// syncExtents is one worker.
func (p *Primary) syncExtents(l *link, pace *pacer) error {
	s := newSyncer(p, l)
	defer s.end()
	for {
		p.mu.Lock()
		if p.peer.link != l {
			p.mu.Unlock()
			return errLinkLost
		}
		id, mask, urgent, ok := p.catchup.work.take()
		p.mu.Unlock()
		if !ok {
			return nil
		}
		if !urgent && !pace.wait(p, l, int64(ones(mask))*RegionSize/compareDiscount) {
			return errLinkLost
		}
		differs, bad, _, err := s.compare(id, mask)
		if err != nil {
			return err
		}
		p.inStep(l, id, mask&^differs&^bad)
		err = runs(p.dev.Size(), id, differs|bad, func(off, n int64) error {
			if !urgent && !pace.wait(p, l, n) {
				return errLinkLost
			}
			return s.push(id, off, n)
		})
		if err != nil {
			return err
		}
	}
}

// inStep takes regions off the worklist and lets reads go that waited for them.
func (p *Primary) inStep(l *link, id uint32, mask uint64) {
	p.mu.Lock()
	p.unreadable.healed(id, mask)
	if p.peer.link == l && mask != 0 {
		p.catchup.work.done(id, mask)
		if len(p.traffic.suspended) > 0 {
			p.resume()
			wake(p.crew.wakeIssue)
		}
		if p.catchup.over() {
			wake(p.crew.wakeFlush)
		}
	}
	p.mu.Unlock()
}

// syncer is the private memory of one worker of a resync or verify. All of it is used by one goroutine at a time; the
// errors of its methods are those of the link, and end the worker.
type syncer struct {
	p        *Primary
	l        *link
	dev      *observed
	buf      []byte // one run
	payload  []byte // of a compare: the mask, then a sum of each region of it
	unforced int64  // bytes sent since the peer was last flushed
	// How long the last compare took here, and until the peer had answered, in ns.
	here, there int64
}

// newSyncer makes one; it is ended with end.
func newSyncer(p *Primary, l *link) *syncer {
	s := &syncer{p: p, l: l, buf: make([]byte, runRegions*RegionSize), dev: newObserved(p.dev.Device, "read for the peer")}
	s.dev.visit.patient = true
	s.dev.about = func(off, end int64) {
		p.mu.Lock()
		s.dev.visit.off, s.dev.visit.end = off, end
		p.mu.Unlock()
	}
	p.mu.Lock()
	p.watch.local.add(&s.dev.visit)
	p.mu.Unlock()
	return s
}

func (s *syncer) end() {
	s.p.mu.Lock()
	s.p.watch.local.remove(&s.dev.visit)
	s.p.mu.Unlock()
}

// compare returns which regions of mask differ on the peer, which cannot be read here, and
// why; the error is that of the link. Without a lock on the range differs may name regions that a write was under way
// in, never leave out one that stays different.
func (s *syncer) compare(id uint32, mask uint64) (differs, bad uint64, cause, err error) {
	s.payload = append(s.payload[:0], make([]byte, 8)...)
	began := s.p.clock()
	s.payload, bad, cause = appendSums(s.dev, id, mask, s.buf, s.payload)
	s.here, s.there = s.p.clock()-began, 0
	if mask &^= bad; mask == 0 {
		return 0, bad, cause, nil
	}
	binary.LittleEndian.PutUint64(s.payload, mask)
	off := int64(id) * ExtentSize
	h := wire.Header{Type: wire.Compare, Offset: uint64(off), Count: uint32(min(ExtentSize, s.p.dev.Size()-off))}
	asked := s.p.clock()
	reply, err := s.p.ask(s.l, h, s.payload, false)
	s.there = s.p.clock() - asked
	if err != nil {
		return 0, bad, cause, err
	}
	if len(reply) != 8 {
		return 0, bad, cause, errors.New("malformed answer to compare")
	}
	return binary.LittleEndian.Uint64(reply) & mask, bad, cause, nil
}

// push locks a run of regions, sends it, and takes it off the worklist.
func (s *syncer) push(id uint32, off, n int64) error {
	unlock, err := s.lock(off, off+n)
	if err != nil {
		return err
	}
	inStep, err := s.copy(id, off, n)
	unlock()
	if err != nil {
		return err
	}
	s.p.inStep(s.l, id, inStep)
	return s.settle(n)
}

// lock is lockRange, known to whoever watches the device.
func (s *syncer) lock(off, end int64) (unlock func(), err error) {
	f, release, err := s.p.lockRange(s.l, off, end)
	if err != nil {
		return nil, err
	}
	s.holds(f)
	return func() { s.holds(nil); release() }, nil
}

func (s *syncer) holds(f *flight) {
	s.p.mu.Lock()
	s.dev.visit.lock = f
	s.p.mu.Unlock()
}

// copy copies a locked run to the peer and returns the regions that are in step then.
func (s *syncer) copy(id uint32, off, n int64) (inStep uint64, err error) {
	data := s.buf[:n]
	bad, cause := s.dev.readRun(data, off)
	good := regionMask(int64(id), off, off+n) &^ bad
	err = runs(s.p.dev.Size(), id, good, func(at, n int64) error { return s.send(data[at-off:at-off+n], at) })
	if err != nil || bad == 0 {
		return good, err
	}
	rescued, err := s.rescue(id, bad, cause)
	return good | rescued, err
}

// send writes data on the peer; zeroes go as a hole. It returns when the peer has it, so that data may be used
// again. The range is locked by the caller: a guest's write that was sent before this could otherwise be undone
// there.
func (s *syncer) send(data []byte, off int64) error {
	n := int64(len(data))
	var calls []*call
	for at := int64(0); at < n; {
		isZero := zero(data[at:min(at+RegionSize, n)])
		end := at
		for end < n && zero(data[end:min(end+RegionSize, n)]) == isZero {
			end = min(end+RegionSize, n)
		}
		h := wire.Header{Type: wire.Write, Offset: uint64(off + at)}
		payload := data[at:end]
		if isZero {
			h.Type, h.Count, payload = wire.Discard, uint32(end-at), nil
		}
		c := &call{done: make(chan error, 1)}
		if err := s.p.post(s.l, h, payload, c, false); err != nil {
			return errors.Join(err, finish(calls))
		}
		calls = append(calls, c)
		at = end
	}
	if err := s.l.conn.Flush(); err != nil {
		s.p.lost(s.l, err)
	}
	return finish(calls)
}

// finish waits for all calls, also after one failed: they refer to the caller's memory.
func finish(calls []*call) error {
	var errs []error
	for _, c := range calls {
		errs = append(errs, <-c.done)
	}
	return errors.Join(errs...)
}

// settle counts what was sent, and now and then has the peer flush it.
func (s *syncer) settle(n int64) error {
	s.p.mu.Lock()
	s.p.catchup.sent(n)
	s.p.mu.Unlock()
	if s.unforced += n; s.unforced < settleBytes/syncWorkers {
		return nil
	}
	s.unforced = 0
	_, err := s.p.ask(s.l, wire.Header{Type: wire.Flush}, nil, false)
	return err
}

// lockRange keeps guests off [off, end) until unlock is called; reads wait as well. It waits for what is under way
// there, which may be for ever in a frozen volume: so the end of the link ends the wait. It is exclusive among
// resync, verify and proof too.
func (p *Primary) lockRange(l *link, off, end int64) (f *flight, unlock func(), err error) {
	granted := make(chan struct{})
	f = &flight{off: off, end: end, excl: true, granted: func() { close(granted) }}
	p.mu.Lock()
	p.enqueue(f)
	p.mu.Unlock()
	select {
	case <-granted:
		return f, func() { p.unlockRange(f) }, nil
	case <-l.ctx.Done():
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if f.step == stepIssued {
		p.dropLock(f)
	}
	f.granted = nil // if it comes later it goes at once
	return nil, nil, errLinkLost
}

// grant gives a resync lock its range.
func (p *Primary) grant(f *flight) {
	if f.granted == nil {
		p.dropLock(f)
		return
	}
	p.traffic.granted(f)
	f.granted()
}

func (p *Primary) unlockRange(f *flight) {
	p.mu.Lock()
	p.dropLock(f)
	p.mu.Unlock()
	wake(p.crew.wakeIssue)
}

// dropLock takes a lock out of the table and lets go what it blocked.
func (p *Primary) dropLock(f *flight) {
	if p.stand.state == Closed {
		return // the table is not used any more
	}
	for _, w := range p.traffic.unlock(f) {
		p.admit(w)
	}
	wake(p.crew.wakeIssue)
}

// pacer spreads the work of all workers over time.
type pacer struct {
	mu       sync.Mutex
	throttle throttle
	next     int64 // clock at which the next piece may start
	judged   int64 // clock at which the throttle last looked
}

func newPacer(now int64) *pacer {
	return &pacer{throttle: newThrottle(), next: now, judged: now}
}

// wait returns when n more bytes may be handled; false if the link ended first. What a read waits for is not paced:
// its guest stands still.
func (c *pacer) wait(p *Primary, l *link, n int64) bool {
	c.mu.Lock()
	now := p.clock()
	if now-c.judged >= int64(judgeEvery) {
		p.mu.Lock()
		mean, count := p.meter.guest.take()
		p.mu.Unlock()
		c.throttle.judge(mean, count)
		c.judged = now
	}
	at := max(c.next, now)
	c.next = at + int64(float64(n)/c.throttle.rate*float64(time.Second))
	c.mu.Unlock()
	if at-now < int64(time.Millisecond) {
		return l.ctx.Err() == nil
	}
	timer := time.NewTimer(time.Duration(at - now))
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-l.ctx.Done():
		return false
	}
}
