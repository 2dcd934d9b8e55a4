package blockrepl

// heat is where an extent stands between cold and hot.
type heat uint8

const (
	cold    heat = iota
	wanted       // a write waits for it to become hot
	heating      // Entry{Hot: true} is on its way to the log
	hot          // durably hot: writes may be sent
)

// extent is the tracker's memory of one extent. Bits are regions.
type extent struct {
	id         uint32
	heat       heat
	pins       int32  // writes in flight or waiting here
	written    uint64 // finished on both sides, not covered by a flush of both
	flushing   uint64 // as written, but covered by the flush in progress
	dirty      uint64 // may differ from the peer's copy
	forget     bool   // queued in tracker.changed: its entry is to be stored again, or forgotten
	prev, next *extent
}

// tracker decides what the DirtyLog must know before a write may be sent. It is
// pure memory: plan says what to commit, committed that it is durable. Callers
// hold the Primary's mutex.
//
// The law: at any instant, the regions that could differ from the peer's copy
// after a crash now are a subset of the durable entries (a hot entry means all
// its regions) and of the regions in flight, whose extents are hot.
type tracker struct {
	bound   int // of hot extents; exceeded only while all of them have writes in flight
	extents map[uint32]*extent
	lru     extent // ring of heating and hot extents, most recent first
	nhot    int

	wants     []*extent // in order of arrival
	changed   []*extent // extents whose entry in the log is out of date
	planned   []*extent // heating with the commit in progress
	fresh     []*extent // those with written regions, and some without
	covered   []*extent // those with flushing regions, and some without
	entries   []Entry   // of the commit in progress
	dirtyBits int64     // number of dirty regions

	// wantFlush asks for a flush of both sides, so that extents can cool; starved says that a write waits for its end.
	// Both are about the present peer.
	wantFlush, starved bool
}

// maxPlan bounds the entries of one commit.
const maxPlan = 4096

// newTracker starts from what the log remembers. A hot entry comes from a crash:
// writes may have been on their way to every one of its regions.
func newTracker(bound int, entries []Entry) *tracker {
	t := &tracker{bound: bound, extents: make(map[uint32]*extent, len(entries))}
	t.lru.prev, t.lru.next = &t.lru, &t.lru
	for _, e := range entries {
		mask := e.Dirty
		if e.Hot {
			mask = ^uint64(0)
		}
		t.setDirty(t.extent(e.Extent), mask)
	}
	return t
}

func (t *tracker) extent(id uint32) *extent {
	x := t.extents[id]
	if x == nil {
		x = &extent{id: id}
		t.extents[id] = x
	}
	return x
}

// enter counts a write to [off, end) in. It reports whether all extents are hot;
// otherwise the write waits, and asks isHot after each commit.
func (t *tracker) enter(off, end int64) bool {
	ready := true
	for id := off / ExtentSize; id*ExtentSize < end; id++ {
		x := t.extent(uint32(id))
		x.pins++
		switch x.heat {
		case hot:
			t.touch(x)
		case cold:
			x.heat = wanted
			t.wants = append(t.wants, x)
			ready = false
		default:
			ready = false
		}
	}
	return ready
}

// isHot reports whether an entered write may be sent.
func (t *tracker) isHot(off, end int64) bool {
	for id := off / ExtentSize; id*ExtentSize < end; id++ {
		if x := t.extents[uint32(id)]; x == nil || x.heat != hot {
			return false
		}
	}
	return true
}

// leave counts a write out. Both says that both sides have it; otherwise its
// regions are dirty. The dirt of a hot extent need not be stored at once: Hot says more.
func (t *tracker) leave(off, end int64, both bool) {
	for id := off / ExtentSize; id*ExtentSize < end; id++ {
		x := t.extents[uint32(id)]
		x.pins--
		if mask := regionMask(id, off, end); both {
			t.setWritten(x, mask)
		} else {
			t.setDirty(x, mask)
		}
	}
}

// peerLost makes dirty whatever the peer may lose: all that is not flushed on it. Cold extents have none of that:
// cool has made it dirty, or waited for a flush. So no flush is wanted any more: with the next peer there may be none
// before the resync has locked what a write that waits here has in the table.
func (t *tracker) peerLost() {
	for x := t.lru.next; x != &t.lru; x = x.next {
		t.setDirty(x, x.written|x.flushing)
		x.written, x.flushing = 0, 0
	}
	t.wantFlush, t.starved = false, false
}

// flushBegin is called before a flush of both sides starts: what is written from then on is not covered by it.
func (t *tracker) flushBegin() {
	for _, x := range t.fresh {
		x.flushing |= x.written
		x.written = 0
	}
	t.covered, t.fresh = t.fresh, t.covered[:0]
	t.wantFlush = false
}

// flushEnd says whether that flush succeeded on both sides.
func (t *tracker) flushEnd(ok bool) {
	for _, x := range t.covered {
		mask := x.flushing
		x.flushing = 0
		if !ok && mask != 0 {
			t.setWritten(x, mask)
		}
	}
	t.covered = t.covered[:0]
	t.starved = false
}

// setWritten adds to the regions of x that both sides have and may yet lose.
func (t *tracker) setWritten(x *extent, mask uint64) {
	if x.written == 0 {
		t.fresh = append(t.fresh, x)
	}
	x.written |= mask
}

// setDirty adds to the dirty regions of x.
func (t *tracker) setDirty(x *extent, mask uint64) {
	t.dirtyBits += int64(ones(mask &^ x.dirty))
	x.dirty |= mask
}

// clean forgets all dirty regions: the peer is durably complete. The log follows with the next commits; until then it
// remembers too much, which costs a comparison after a crash.
func (t *tracker) clean() {
	for _, x := range t.extents {
		if x.dirty != 0 {
			x.dirty = 0
			t.change(x)
		}
	}
	t.dirtyBits = 0
}

// dirty returns the dirty regions by extent.
func (t *tracker) dirty() map[uint32]uint64 {
	m := make(map[uint32]uint64)
	for id, x := range t.extents {
		if x.dirty != 0 {
			m[id] = x.dirty
		}
	}
	return m
}

// change queues x for the next plan.
func (t *tracker) change(x *extent) {
	if !x.forget {
		x.forget = true
		t.changed = append(t.changed, x)
	}
}

// touch makes x the most recently used.
func (t *tracker) touch(x *extent) {
	if t.lru.next != x {
		x.unlink()
		x.link(&t.lru)
	}
}

func (x *extent) link(after *extent) {
	x.prev, x.next = after, after.next
	after.next.prev = x
	after.next = x
}

func (x *extent) unlink() {
	x.prev.next, x.next.prev = x.next, x.prev
	x.prev, x.next = nil, nil
}
