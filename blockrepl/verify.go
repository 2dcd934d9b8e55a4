package blockrepl

import (
	"fmt"
	"math/bits"
	"sync"
	"time"
)

// maxReported bounds the offsets in a VerifyDone.
const maxReported = 1000

// verifyState is the verify in progress; Primary.mu guards it.
type verifyState struct {
	running bool
	next    int64 // offset of the next extent to take
	checked int64 // bytes
	differs []int64
	count   int64
	repairs int64
	mended  int64
	unread  int64
	failed  error
	proven  time.Time // when one last found the copies identical; zero: never in this run
}

// Verify starts an online comparison of all data with the connected peer and
// reports it by VerifyDone. Nothing is changed unless repair is set; then a region
// that differs is overwritten on the peer, whichever copy is the right one: Prove tells where it can. ErrState
// unless both copies are complete and connected. One verify runs at a time. It ends with the link, and the report
// then has Err.
func (p *Primary) Verify(repair bool) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stand.state != Connected || p.verify.running {
		return fmt.Errorf("verify while %v: %w", p.stand.state, ErrState)
	}
	p.verify = verifyState{running: true, proven: p.verify.proven}
	p.crew.wg.Add(1)
	go p.runVerify(p.peer.link, repair)
	return nil
}

func (p *Primary) runVerify(l *link, repair bool) {
	defer p.crew.wg.Done()
	pace := newPacer(p.clock())
	var workers sync.WaitGroup
	for range syncWorkers {
		workers.Go(func() {
			if err := p.verifyExtents(l, pace, repair); err != nil {
				p.mu.Lock()
				p.verify.failed = err
				p.mu.Unlock()
			}
		})
	}
	workers.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	v := &p.verify
	if v.failed == nil && v.repairs > 0 {
		p.mu.Unlock()
		err := p.flushBoth(l.ctx) // a loss of power would bring the difference back, and nobody would know
		p.mu.Lock()
		v.failed = err
	}
	if v.failed != nil {
		v.repairs = 0 // none is known to be durable
	}
	v.running = false
	done := VerifyDone{
		Checked: v.checked, Differs: v.differs, Count: v.count, Repaired: v.repairs,
		Mended: v.mended, Unreadable: v.unread, At: time.Now(), Err: v.failed,
	}
	if done.Same() {
		v.proven = done.At
	}
	p.log.Info("verify ended", "checked", done.Checked, "differs", done.Count, "repaired", done.Repaired,
		"mended", done.Mended, "unreadable", done.Unreadable, "error", done.Err)
	p.emit(done)
}

// verifyExtents is one worker. Holes are compared too: the peer may have data there.
func (p *Primary) verifyExtents(l *link, pace *pacer, repair bool) error {
	s := newSyncer(p, l)
	defer s.end()
	size := p.dev.Size()
	for {
		p.mu.Lock()
		off := p.verify.next
		p.verify.next += ExtentSize
		p.mu.Unlock()
		if off >= size {
			return nil
		}
		id := uint32(off / ExtentSize)
		mask := wholeExtent(id, size)
		if !pace.wait(p, l, int64(ones(mask))*RegionSize/compareDiscount) {
			return errLinkLost
		}
		differs, bad, _, err := s.compare(id, mask)
		if err != nil {
			return err
		}
		p.mu.Lock()
		p.unreadable.healed(id, mask&^bad)
		p.mu.Unlock()
		// A write in flight can make equal copies look different: look again under the lock.
		err = runs(size, id, differs|bad, func(off, n int64) error { return s.examine(id, off, n, &p.verify, repair) })
		if err != nil {
			return err
		}
		p.mu.Lock()
		p.verify.checked += min(ExtentSize, size-off)
		p.mu.Unlock()
	}
}

// examine compares a run of regions with guests kept off, and reports or repairs. What
// cannot be read here is taken from the peer, which has every acknowledged write. A nil v
// is a probe, which is about nothing else.
func (s *syncer) examine(id uint32, off, n int64, v *verifyState, repair bool) error {
	unlock, err := s.lock(off, off+n)
	if err != nil {
		return err
	}
	defer unlock()
	differs, bad, cause, err := s.compare(id, regionMask(int64(id), off, off+n))
	if err != nil {
		return err
	}
	var mended int64
	err = regions(s.p.dev.Size(), id, bad, func(_ uint64, off, n int64) error {
		whole, err := s.mend(off, n, cause)
		if whole {
			mended++
		}
		return err
	})
	if v == nil || err != nil || differs|bad == 0 {
		return err
	}
	var repaired uint64
	if repair {
		err = runs(s.p.dev.Size(), id, differs, func(off, n int64) error {
			inStep, err := s.copy(id, off, n)
			repaired |= inStep
			return err
		})
	}
	s.p.mu.Lock()
	defer s.p.mu.Unlock()
	v.mended += mended
	v.unread += int64(ones(bad)) - mended
	v.count += int64(ones(differs))
	v.repairs += int64(ones(repaired))
	for m := differs; m != 0 && len(v.differs) < maxReported; m &= m - 1 {
		v.differs = append(v.differs, int64(id)*ExtentSize+int64(bits.TrailingZeros64(m))*RegionSize)
	}
	return err
}
