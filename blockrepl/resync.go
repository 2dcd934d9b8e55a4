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
	// settleBytes is how much the peer may hold unflushed of a resync, so that the
	// flush at its end, or a guest's meanwhile, is short.
	settleBytes = 64 << 20
)

// resync brings the worklist of one link in step and then reports Drained.
//
// Comparing needs no lock. Every write of the guest goes to both sides, so if each
// byte of a region was equal at the two moments it was read, the copies are equal
// or will be when the writes in flight have arrived. Only a region that differs is
// locked, while it is read and sent.
func (p *Primary) resync(l *link, complete bool) {
	defer p.wg.Done()
	pace := newPacer(p.clock())
	var workers sync.WaitGroup
	for range syncWorkers {
		workers.Go(func() {
			if err := p.syncExtents(l, pace); err != nil {
				p.lost(l, fmt.Errorf("resync: %w", err))
			}
		})
	}
	workers.Wait()
	p.drain(l, complete)
}

// drain requires the peer for every write from now on, makes both sides durable, and
// reports.
func (p *Primary) drain(l *link, complete bool) {
	p.mu.Lock()
	if p.link != l {
		p.mu.Unlock()
		return
	}
	p.state = Required
	p.progress.finished(p.work)
	p.work = nil
	p.judgeGeneration()
	p.reopen()
	p.mu.Unlock()

	if p.flushBoth(l.ctx) != nil {
		return // the link was lost, or the volume closed
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.link != l {
		return
	}
	l.drained = true
	if complete {
		p.connected()
	}
	p.emit(Drained{})
}

// syncExtents is one worker.
func (p *Primary) syncExtents(l *link, pace *pacer) error {
	s := newSyncer(p, l)
	for {
		p.mu.Lock()
		if p.link != l {
			p.mu.Unlock()
			return errLinkLost
		}
		id, mask, urgent, ok := p.work.take()
		p.mu.Unlock()
		if !ok {
			return nil
		}
		if !urgent && !pace.wait(p, l, int64(ones(mask))*RegionSize/compareDiscount) {
			return errLinkLost
		}
		differs, err := s.compare(id, mask)
		if err != nil {
			return err
		}
		p.inStep(l, id, mask&^differs)
		err = runs(p.dev.Size(), id, differs, func(off, n int64) error {
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
	if p.link == l && mask != 0 {
		p.work.done(id, mask)
		if len(p.suspended) > 0 {
			p.resume()
			wake(p.wakeIssue)
		}
		if p.work.left == 0 {
			wake(p.wakeFlush)
		}
	}
	p.mu.Unlock()
}

// syncer is the private memory of one worker of a resync or verify.
type syncer struct {
	p        *Primary
	l        *link
	buf      []byte // one run
	payload  []byte // of a compare
	unforced int64  // bytes sent since the peer was last flushed
}

func newSyncer(p *Primary, l *link) *syncer {
	return &syncer{p: p, l: l, buf: make([]byte, runRegions*RegionSize)}
}

// compare returns which regions of mask differ on the peer.
func (s *syncer) compare(id uint32, mask uint64) (uint64, error) {
	payload, err := appendSums(s.p.dev, id, mask, s.buf, binary.LittleEndian.AppendUint64(s.payload[:0], mask))
	s.payload = payload
	if err != nil {
		s.p.localFailed(err)
		return 0, err
	}
	off := int64(id) * ExtentSize
	h := wire.Header{Type: wire.Compare, Offset: uint64(off), Count: uint32(min(ExtentSize, s.p.dev.Size()-off))}
	reply, err := s.p.ask(s.l, h, payload, false)
	if err != nil {
		return 0, err
	}
	if len(reply) != 8 {
		return 0, errors.New("malformed answer to compare")
	}
	return binary.LittleEndian.Uint64(reply) & mask, nil
}

// push locks a run of regions, sends it, and takes it off the worklist.
func (s *syncer) push(id uint32, off, n int64) error {
	unlock, err := s.p.lockRange(s.l, off, off+n)
	if err != nil {
		return err
	}
	err = s.send(off, n)
	unlock()
	if err != nil {
		return err
	}
	s.p.inStep(s.l, id, regionMask(int64(id), off, off+n))
	return s.settle(n)
}

// send copies a locked run to the peer; zeroes go as a hole.
func (s *syncer) send(off, n int64) error {
	data := s.buf[:n]
	if _, err := s.p.dev.ReadAt(data, off); err != nil {
		s.p.localFailed(err)
		return err
	}
	var calls []*call
	for at := int64(0); at < n; {
		isZero := zero(data[at:min(at+RegionSize, n)])
		end := at
		for end < n && zero(data[end:min(end+RegionSize, n)]) == isZero {
			end = min(end+RegionSize, n)
		}
		h := wire.Header{Type: wire.Write, Flags: wire.FlagResync, Offset: uint64(off + at)}
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
	if s.p.work != nil {
		s.p.work.moved += n
	}
	s.p.mu.Unlock()
	if s.unforced += n; s.unforced < settleBytes/syncWorkers {
		return nil
	}
	s.unforced = 0
	_, err := s.p.ask(s.l, wire.Header{Type: wire.Flush}, nil, false)
	return err
}

// localFailed reports that the local copy cannot be read for a resync or verify.
func (p *Primary) localFailed(err error) {
	p.mu.Lock()
	p.log.Error("local copy cannot be read", "error", err)
	p.emit(DeviceFailed{Err: err})
	p.mu.Unlock()
}

// lockRange keeps guests off [off, end) until unlock is called; reads wait as well.
func (p *Primary) lockRange(l *link, off, end int64) (unlock func(), err error) {
	granted := make(chan struct{})
	f := &flight{off: off, end: end, excl: true, granted: func() { close(granted) }}
	p.mu.Lock()
	p.enqueue(f)
	p.mu.Unlock()
	select {
	case <-granted:
		return func() { p.unlockRange(f) }, nil
	case <-l.ctx.Done():
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if f.step == stepIssued {
		p.dropLock(f)
	}
	f.granted = nil // if it comes later it goes at once
	return nil, errLinkLost
}

// grant gives a resync lock its range.
func (p *Primary) grant(f *flight) {
	if f.granted == nil {
		p.dropLock(f)
		return
	}
	f.step = stepIssued
	f.granted()
}

func (p *Primary) unlockRange(f *flight) {
	p.mu.Lock()
	p.dropLock(f)
	p.mu.Unlock()
	wake(p.wakeIssue)
}

// dropLock takes a lock out of the table and lets go what it blocked.
func (p *Primary) dropLock(f *flight) {
	if p.state == Closed {
		return // the table is not used any more
	}
	for _, w := range p.table.remove(f, nil) {
		p.admit(w)
	}
	wake(p.wakeIssue)
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

// wait returns when n more bytes may be handled; false if the link ended first.
func (c *pacer) wait(p *Primary, l *link, n int64) bool {
	c.mu.Lock()
	now := p.clock()
	if now-c.judged >= int64(judgeEvery) {
		p.mu.Lock()
		mean, count := p.guest.take()
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
