package blockrepl

import (
	"maps"
	"math/bits"
	"time"
)

// probeEvery is how often regions that could not be read are tried again.
const probeEvery = 5 * time.Second

// unreadable is the set of regions that could not be read here when they were last tried.
// It is for people, and for those who try again; what the peer lacks the worklist knows.
// Primary.mu guards it.
type unreadable struct {
	masks   map[uint32]uint64
	regions int64
	since   time.Time // when the first of them was met
	probed  int64     // clock of the last probe
	probing bool
}

func newUnreadable() unreadable { return unreadable{masks: make(map[uint32]uint64)} }

// note adds the regions of [off, end) and reports those that are new. The caller holds mu. It is called at each tick
// for a read that hangs, so what is known must be silent.
func (u *unreadable) note(p *Primary, off, end int64, cause error) {
	if p.stand.state == Closed {
		return
	}
	for id := off / ExtentSize; id*ExtentSize < end; id++ {
		x := uint32(id)
		fresh := regionMask(id, off, end) &^ u.masks[x]
		if fresh == 0 {
			continue
		}
		if u.regions == 0 {
			u.since = time.Now()
		}
		u.masks[x] |= fresh
		u.regions += int64(ones(fresh))
		at := id*ExtentSize + int64(bits.TrailingZeros64(fresh))*RegionSize
		to := id*ExtentSize + int64(bits.Len64(fresh))*RegionSize
		p.log.Error("local copy cannot be read", "offset", at, "length", min(to, p.dev.Size())-at, "error", cause)
		p.emit(RegionUnreadable{Off: at, Len: min(to, p.dev.Size()) - at, Err: cause})
	}
}

// healed takes off the regions of mask: they were read, or written anew.
func (u *unreadable) healed(id uint32, mask uint64) {
	if hit := u.masks[id] & mask; hit != 0 {
		u.regions -= int64(ones(hit))
		if u.masks[id] &^= hit; u.masks[id] == 0 {
			delete(u.masks, id)
		}
	}
}

// maybeProbe starts a probe if it is time for one; a resync or verify that runs tries for
// itself. The caller holds mu.
func (p *Primary) maybeProbe(now int64) {
	u := &p.unreadable
	if u.regions == 0 || u.probing || now-u.probed < int64(probeEvery) ||
		p.catchup.work != nil || p.verify.running || p.stand.state == Closed {
		return
	}
	u.probing = true
	p.crew.wg.Add(1)
	go p.probe(maps.Clone(u.masks), p.peer.link, p.stand.state == Connected)
}

// probe tries regions again that could not be read; those that still cannot are taken from
// the peer if both copies are complete.
func (p *Primary) probe(masks map[uint32]uint64, l *link, complete bool) {
	defer p.crew.wg.Done()
	s := newSyncer(p, l)
	defer s.end()
	for id, mask := range masks {
		if p.fence.down.Load() {
			break
		}
		_, bad, _ := appendSums(s.dev, id, mask, s.buf, nil)
		p.mu.Lock()
		p.unreadable.healed(id, mask&^bad)
		p.mu.Unlock()
		if !complete {
			continue
		}
		if runs(p.dev.Size(), id, bad, func(off, n int64) error { return s.examine(id, off, n, nil, false) }) != nil {
			complete = false // the peer is lost
		}
	}
	p.mu.Lock()
	p.unreadable.probing, p.unreadable.probed = false, p.clock()
	p.mu.Unlock()
}
