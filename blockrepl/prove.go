package blockrepl

import (
	"fmt"
	"hash/maphash"
	"slices"
	"time"

	"duet/blockrepl/wire"
)

// The background proof: one extent at a time is compared with the peer's copy, at the pace
// of whoever calls Prove. Beside the answer it keeps what makes the next one better: what each
// grain held when it was last found equal. If the copies differ in one that no guest has
// written since, the side that still holds that is the right one, and the other has rotted.

// A grain is what is remembered of, 8 bytes each: 16 MiB of memory for a volume of 1 TiB. It is also
// what is locked and judged at once.
const (
	grainSize       = runRegions * RegionSize
	grainsPerExtent = ExtentSize / grainSize
)

// Side says which copy has changed since both were last found equal.
type Side uint8

// The sides. SideUnknown is the honest answer where a guest has written meanwhile, or nothing
// is remembered: this Primary has not found the place equal before.
const (
	SideUnknown Side = iota
	SideHere
	SidePeer
	SideBoth
)

// Difference is a run of regions in which the copies differ while no write is under way.
type Difference struct {
	Off, Len int64
	Regions  int // that differ; the run has them all
	// Changed is the copy that is not any more what it was when both were last found equal, or
	// that cannot be read.
	Changed  Side
	Lost     bool // the peer cannot read it, or part of it
	Repaired bool // the other copy was written over it, and both are equal now, durably
}

// Proof is what Prove found.
type Proof struct {
	Off, Len int64
	Differs  []Difference
	// Unreadable is how many bytes could not be read here, and could not be mended.
	Unreadable int64
	// Cost is for how long the busier of the two disks was kept at work, and a bound on it: the
	// time until the answer came, so sums and network count as well.
	Cost time.Duration
}

// Same reports that both copies are equal.
func (f Proof) Same() bool {
	for _, d := range f.Differs {
		if !d.Repaired {
			return false
		}
	}
	return f.Unreadable == 0
}

// Prove compares the extent that begins at off with the peer's copy while guests go on. With
// repair set a side that is known to have changed by itself is written over from the other; without it
// nothing that differs is changed. What cannot be read here is taken from the peer, as by Verify. The
// error wraps ErrState unless both copies are complete and connected and no verify runs. It
// returns when the disks have answered. One Prove runs at a time.
func (p *Primary) Prove(off int64, repair bool) (Proof, error) {
	if off < 0 || off%ExtentSize != 0 || off >= p.dev.Size() {
		return Proof{}, fmt.Errorf("prove at %d: %w", off, ErrRange)
	}
	p.mu.Lock()
	if p.stand.state != Connected || p.verify.running || p.memory.running {
		defer p.mu.Unlock()
		return Proof{}, fmt.Errorf("prove while %v: %w", p.stand.state, ErrState)
	}
	p.memory.begin(off, p.dev.Size())
	l := p.peer.link
	p.crew.wg.Add(1)
	p.mu.Unlock()
	defer p.crew.wg.Done()
	s := newSyncer(p, l)
	defer s.end()
	f, err := s.prove(uint32(off/ExtentSize), repair)
	p.mu.Lock()
	p.memory.running = false
	p.mu.Unlock()
	return f, err
}

// prove is the work of Prove.
func (s *syncer) prove(id uint32, repair bool) (Proof, error) {
	p, size := s.p, s.p.dev.Size()
	mask := wholeExtent(id, size)
	f := Proof{Off: int64(id) * ExtentSize, Len: min(ExtentSize, size-int64(id)*ExtentSize)}
	differs, bad, _, err := s.compare(id, mask)
	if err != nil {
		return f, err
	}
	f.Cost = time.Duration(max(s.here, s.there))
	sums := s.regionSums(mask &^ bad)
	p.mu.Lock()
	p.unreadable.healed(id, mask&^bad)
	for i := range grainsPerExtent {
		if g := grainMask(i) & mask; g != 0 && g&(differs|bad) == 0 {
			p.memory.keep(id, i, sums.grain(i))
		}
	}
	p.mu.Unlock()
	// A write in flight can make equal copies look different: look again under the lock.
	for i := range grainsPerExtent {
		g := grainMask(i) & mask
		if g&(differs|bad) == 0 {
			continue
		}
		if err := s.judge(id, i, g, repair, &f); err != nil {
			return f, err
		}
	}
	if slices.ContainsFunc(f.Differs, func(d Difference) bool { return d.Repaired }) {
		return f, p.flushBoth(s.l.ctx) // a loss of power would bring it back, and nobody would know
	}
	return f, nil
}

// judge compares a grain with guests kept off, and says what it finds.
func (s *syncer) judge(id uint32, i int, mask uint64, repair bool, f *Proof) error {
	p, size := s.p, s.p.dev.Size()
	off := int64(id)*ExtentSize + int64(i)*grainSize
	unlock, err := s.lock(off, min(off+grainSize, size))
	if err != nil {
		return err
	}
	defer unlock()
	began := p.clock()
	defer func() { f.Cost += time.Duration(p.clock() - began) }()
	differs, bad, cause, err := s.compare(id, mask)
	if err == nil && bad != 0 {
		err = regions(size, id, bad, func(_ uint64, off, n int64) error {
			_, err := s.mend(off, n, cause)
			return err
		})
		if err == nil {
			differs, bad, _, err = s.compare(id, mask)
		}
	}
	if err != nil {
		return err
	}
	f.Unreadable += int64(ones(bad)) * RegionSize
	ours := s.regionSums(mask &^ bad)
	if differs == 0 {
		if bad == 0 {
			p.remember(id, i, ours.grain(i))
		}
		return nil
	}
	peer, err := s.fetch(id, differs)
	if err != nil {
		return err
	}
	theirs := ours
	for _, d := range peer.data {
		copy(theirs[d.region][:], appendSum(nil, d.data))
	}
	p.mu.Lock()
	side := p.memory.judge(id, i, ours.grain(i), theirs.grain(i), bad != 0, peer.unread)
	p.mu.Unlock()
	d := difference(size, id, differs, side)
	d.Lost = peer.unread != 0
	if repair {
		if d.Repaired, err = s.settleBy(id, i, mask, differs, side, peer); err != nil {
			return err
		}
	}
	f.Differs = append(f.Differs, d)
	return nil
}

// difference describes the regions of a mask, which is not empty.
func difference(size int64, id uint32, differs uint64, side Side) Difference {
	d := Difference{Off: -1, Regions: ones(differs), Changed: side}
	_ = regions(size, id, differs, func(_ uint64, off, n int64) error { // it fails where the function does
		if d.Off < 0 {
			d.Off = off
		}
		d.Len = off + n - d.Off
		return nil
	})
	return d
}

// settleBy writes the copy that has not changed over the one that has, and reports whether both
// are equal then. The grain is locked.
func (s *syncer) settleBy(id uint32, i int, mask, differs uint64, side Side, peer fetched) (bool, error) {
	size := s.p.dev.Size()
	switch {
	case side == SidePeer:
		err := runs(size, id, differs, func(off, n int64) error { _, err := s.copy(id, off, n); return err })
		if err != nil {
			return false, err
		}
	case side == SideHere && peer.unread == 0:
		for _, d := range peer.data {
			if err := s.dev.writeAt(d.data, int64(id)*ExtentSize+int64(d.region)*RegionSize, &s.p.fence); err != nil {
				return false, nil // it is told as not repaired
			}
		}
	default:
		return false, nil
	}
	differs, bad, _, err := s.compare(id, mask)
	if err != nil || differs|bad != 0 {
		return false, err
	}
	sums := s.regionSums(mask)
	s.p.remember(id, i, sums.grain(i))
	return true, nil
}

// fetched are regions of the peer's copy.
type fetched struct {
	data   []fetchedRegion
	unread uint64 // regions that the peer cannot read
}

type fetchedRegion struct {
	region int
	data   []byte
}

// fetch reads regions of the peer's copy; the error is that of the link.
func (s *syncer) fetch(id uint32, mask uint64) (f fetched, err error) {
	err = regions(s.p.dev.Size(), id, mask, func(bit uint64, off, n int64) error {
		data, err := s.p.ask(s.l, wire.Header{Type: wire.Read, Offset: uint64(off), Count: uint32(n)}, nil, false)
		switch {
		case err != nil:
			return err
		case int64(len(data)) != n:
			f.unread |= bit
		default:
			f.data = append(f.data, fetchedRegion{int((off - int64(id)*ExtentSize) / RegionSize), data})
		}
		return nil
	})
	return f, err
}

// regionSums are the hashes of the regions of an extent.
type regionSums [RegionsPerExtent][sumSize]byte

// regionSums spreads the hashes of the last compare, of the regions of mask.
func (s *syncer) regionSums(mask uint64) (out regionSums) {
	at := s.payload[8:]
	for i := range out {
		if mask&(1<<i) != 0 {
			at = at[copy(out[i][:], at):]
		}
	}
	return out
}

// seed makes the sums of this process unlike those of another: they are kept in memory only.
var seed = maphash.MakeSeed()

// grain is the sum of grain i, never 0.
func (r *regionSums) grain(i int) uint64 {
	var h maphash.Hash
	h.SetSeed(seed)
	for _, sum := range r[i*runRegions : (i+1)*runRegions] {
		_, _ = h.Write(sum[:]) // it never fails
	}
	return max(h.Sum64(), 1)
}

// grainMask is the regions of grain i of an extent.
func grainMask(i int) uint64 { return (1<<runRegions - 1) << (i * runRegions) }

// memory is what each grain held when both copies were last found equal there. Primary.mu
// guards it.
type memory struct {
	sums    []uint64 // by grain; 0: not known, or written since. nil before the first Prove
	running bool
	first   int64 // grain at which the running Prove begins
	touched uint8 // grains of that extent in which a write has ended since it began
}

// begin starts a Prove.
func (m *memory) begin(off, size int64) {
	if m.sums == nil {
		m.sums = make([]uint64, (size+grainSize-1)/grainSize)
	}
	m.running, m.first, m.touched = true, off/grainSize, 0
}

// wrote notes that a write to [off, end) has ended. One that is under way while a grain is
// read ends later than that, and forgets then what was kept of it. So a sum that is there is of content that no
// guest has written since; without that rot could not be told from a write.
func (m *memory) wrote(off, end int64) {
	if m.sums == nil {
		return
	}
	for g := off / grainSize; g*grainSize < end; g++ {
		m.sums[g] = 0
		if at := g - m.first; at >= 0 && at < grainsPerExtent {
			m.touched |= 1 << at
		}
	}
}

// keep takes the sum of a grain that was found equal while guests went on.
func (m *memory) keep(id uint32, i int, sum uint64) {
	if m.touched&(1<<i) == 0 {
		m.sums[int64(id)*grainsPerExtent+int64(i)] = sum
	}
}

// remember is keep for a grain that is locked.
func (p *Primary) remember(id uint32, i int, sum uint64) {
	p.mu.Lock()
	p.memory.sums[int64(id)*grainsPerExtent+int64(i)] = sum
	p.mu.Unlock()
}

// judge says which side of a locked grain has changed, and keeps what is known of it. Blind: part
// of it cannot be read here; gone: the peer cannot read these regions.
func (m *memory) judge(id uint32, i int, ours, theirs uint64, blind bool, gone uint64) Side {
	last := m.sums[int64(id)*grainsPerExtent+int64(i)]
	known := last != 0 && !blind
	switch {
	case gone != 0 && known && ours != last:
		return SideBoth
	case gone != 0:
		return SidePeer
	case !known:
		return SideUnknown
	case ours == last:
		return SidePeer
	case theirs == last:
		return SideHere
	}
	return SideBoth
}
