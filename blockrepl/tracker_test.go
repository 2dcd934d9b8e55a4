package blockrepl

import (
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
)

// model is the truth the tracker must cover: which regions could differ from the
// peer's copy if this node crashed now, and how the log would look.
type model struct {
	t    *testing.T
	rng  *rand.Rand
	tr   *tracker
	log  map[uint32]Entry
	plan []Entry // in the log's hands

	both      bool // a peer is attached and required
	flying    map[int64]bool
	unflushed map[int64]bool // regions both have, that the peer could lose
	covered   map[int64]bool // by the flush in progress
	flushing  bool
	differs   map[int64]bool // regions that do differ
}

const modelExtents = 6

// After a crash at any moment, the regions the log reports hold all that differ.
func TestTrackerCoversCrashes(t *testing.T) {
	for seed := range uint64(300) {
		m := &model{t: t, rng: rand.New(rand.NewPCG(seed, 9)), tr: newTracker(2, nil), log: map[uint32]Entry{}}
		m.flying, m.unflushed, m.covered, m.differs = map[int64]bool{}, map[int64]bool{}, map[int64]bool{}, map[int64]bool{}
		for range 400 {
			m.step()
			m.check(seed)
		}
		m.calm()
	}
}

func (m *model) step() {
	region := m.rng.Int64N(modelExtents * RegionsPerExtent)
	off, end := region*RegionSize, (region+1)*RegionSize
	switch m.rng.IntN(12) {
	case 0, 1, 2, 3:
		if _, in := m.flying[region]; !in && len(m.flying) < 4 {
			// A write may be sent only when the tracker says so; until then it stays entered.
			m.flying[region] = m.tr.enter(off, end)
		}
	case 4, 5, 6:
		for _, r := range slices.Sorted(maps.Keys(m.flying)) {
			if m.flying[r] {
				m.land(r)
				return
			}
		}
	case 7:
		m.commit()
	case 8:
		if m.both && !m.flushing {
			m.flushing = true
			m.tr.flushBegin()
			m.covered, m.unflushed = m.unflushed, map[int64]bool{}
		}
	case 9:
		m.endFlush(true)
	case 10:
		if m.both {
			m.both = false
			m.tr.peerLost()
			maps.Copy(m.differs, m.unflushed)
			maps.Copy(m.differs, m.covered)
			clear(m.unflushed)
			clear(m.covered)
		}
	case 11:
		if !m.both && m.rng.IntN(3) == 0 { // resync ended, the peer is complete
			m.both = true
			clear(m.differs) // what is in flight was sent again
			m.tr.clean()
		} else if m.both {
			m.tr.clean() // late news that the peer is complete takes nothing away
		}
	}
}

// land ends a write.
func (m *model) land(region int64) {
	delete(m.flying, region)
	m.tr.leave(region*RegionSize, (region+1)*RegionSize, m.both)
	if m.both {
		m.unflushed[region] = true
	} else {
		m.differs[region] = true
	}
}

func (m *model) endFlush(ok bool) {
	if !m.flushing {
		return
	}
	m.flushing = false
	ok = ok && m.both
	m.tr.flushEnd(ok)
	if !ok && m.both {
		maps.Copy(m.unflushed, m.covered)
	}
	clear(m.covered)
}

// commit hands a plan to the log, or makes the one it has durable.
func (m *model) commit() {
	if m.plan == nil {
		m.plan = slices.Clone(m.tr.plan(m.both))
		if !m.both && len(m.tr.wants) > 0 && len(m.plan) == 0 {
			m.t.Fatal("a write waits for a flush of a peer that is not required")
		}
		return
	}
	for _, e := range m.plan {
		if !e.Hot && e.Dirty == 0 {
			delete(m.log, e.Extent)
		} else {
			m.log[e.Extent] = e
		}
	}
	m.plan = nil
	m.tr.committed()
	for region, sent := range m.flying {
		m.flying[region] = sent || m.tr.isHot(region*RegionSize, (region+1)*RegionSize)
	}
}

// check is the law.
func (m *model) check(seed uint64) {
	m.t.Helper()
	covered := func(region int64) bool {
		e := m.log[uint32(region/RegionsPerExtent)]
		return e.Hot || e.Dirty&(1<<(region%RegionsPerExtent)) != 0
	}
	for _, set := range []map[int64]bool{m.differs, m.unflushed, m.covered} {
		for region := range set {
			if !covered(region) {
				m.t.Fatalf("seed %d: region %d may differ and the log does not know", seed, region)
			}
		}
	}
	for region, sent := range m.flying {
		if sent && !covered(region) {
			m.t.Fatalf("seed %d: a write to region %d was sent before its mark was durable", seed, region)
		}
	}
	if hot := m.tr.nhot; hot > m.tr.bound+4 {
		m.t.Fatalf("seed %d: %d hot extents", seed, hot)
	}
}

// calm ends everything: then writes proceed, and a clean volume leaves a clean log.
func (m *model) calm() {
	m.endFlush(true)
	m.both = true
	for range 40 {
		for region, sent := range maps.Clone(m.flying) {
			if sent {
				m.land(region)
			}
		}
		m.tr.flushBegin()
		m.tr.flushEnd(true)
		m.commit()
	}
	if len(m.flying) != 0 {
		m.t.Fatal("writes starve")
	}
	m.tr.clean()
	m.tr.coolAll(true)
	m.commit()
	m.commit()
	m.commit()
	if len(m.log) != 0 || len(m.tr.extents) != 0 || m.tr.dirtyBits != 0 {
		m.t.Fatalf("left over: %v, %d extents, %d dirty", m.log, len(m.tr.extents), m.tr.dirtyBits)
	}
}

// A hot entry in the log after a crash means that all its regions may differ.
func TestTrackerLoad(t *testing.T) {
	tr := newTracker(8, []Entry{{Extent: 3, Hot: true}, {Extent: 9, Dirty: 5}})
	if d := tr.dirty(); len(d) != 2 || d[3] != ^uint64(0) || d[9] != 5 || tr.dirtyBits != 66 {
		t.Fatal(d, tr.dirtyBits)
	}
}

func TestRegionMask(t *testing.T) {
	for _, c := range []struct {
		id, off, end int64
		want         uint64
	}{
		{0, 0, 512, 1},
		{0, RegionSize - 512, RegionSize + 512, 3},
		{0, 0, ExtentSize, ^uint64(0)},
		{1, 0, 3 * ExtentSize, ^uint64(0)},
		{1, ExtentSize + 63*RegionSize, 2 * ExtentSize, 1 << 63},
		{1, ExtentSize - 512, ExtentSize + 512, 1},
	} {
		if got := regionMask(c.id, c.off, c.end); got != c.want {
			t.Errorf("extent %d of [%d,%d): %x, want %x", c.id, c.off, c.end, got, c.want)
		}
	}
}

// The table never lets two overlapping flights be away together, unless both read,
// and keeps the order of insert.
func TestTableOrder(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 1))
	var tab table
	serial := map[*flight]int{}
	var running, waiting []*flight
	for n := range 20000 {
		if len(running)+len(waiting) < 24 && rng.IntN(2) == 0 {
			off := rng.Int64N(40)
			f := &flight{off: off, end: off + 1 + rng.Int64N(8), excl: rng.IntN(2) == 0}
			serial[f] = n
			if tab.insert(f) {
				running = append(running, f)
			} else {
				waiting = append(waiting, f)
			}
		} else if len(running) > 0 {
			i := rng.IntN(len(running))
			f := running[i]
			running = append(running[:i], running[i+1:]...)
			freed := tab.remove(f, nil)
			running = append(running, freed...)
			waiting = slices.DeleteFunc(waiting, func(w *flight) bool { return slices.Contains(freed, w) })
		}
		for i, a := range running {
			for _, b := range append(running[i+1:], waiting...) {
				overlap := a.off < b.end && b.off < a.end && (a.excl || b.excl)
				if overlap && (slices.Contains(running, b) || serial[b] < serial[a]) {
					t.Fatalf("flights %d and %d out of order", serial[a], serial[b])
				}
			}
		}
	}
}
