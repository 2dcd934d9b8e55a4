package blockrepl

import "math/bits"

// plan returns the entries to commit next, valid until the next plan, nil if there is nothing to do: extents
// that become hot, in order of arrival, those that cool to make room for them, and
// those whose dirty regions changed. One plan at a time; committed ends it.
//
// With clean set, only extents without unflushed writes may cool (the peer is
// required). Otherwise an extent cools with its unflushed regions as dirty ones.
func (t *tracker) plan(clean bool) []Entry {
	t.entries = t.entries[:0]
	n := 0
	for _, x := range t.wants {
		if len(t.entries) >= maxPlan || !t.makeRoom(clean) {
			break
		}
		n++
		x.heat = heating
		x.link(&t.lru)
		t.nhot++
		t.planned = append(t.planned, x)
		t.entries = append(t.entries, Entry{Extent: x.id, Hot: true, Dirty: x.dirty})
	}
	t.wants = append(t.wants[:0], t.wants[n:]...)

	n = 0
	for _, x := range t.changed {
		if len(t.entries) >= maxPlan {
			break
		}
		n++
		x.forget = false
		t.entries = append(t.entries, Entry{Extent: x.id, Hot: x.heat >= heating, Dirty: x.dirty})
		t.drop(x)
	}
	t.changed = append(t.changed[:0], t.changed[n:]...)
	if len(t.entries) == 0 {
		return nil
	}
	return t.entries
}

// committed ends the plan: what was heating is hot.
func (t *tracker) committed() {
	for _, x := range t.planned {
		x.heat = hot
	}
	t.planned = t.planned[:0]
}

// makeRoom cools extents until the bound is met, and reports whether one more may heat.
func (t *tracker) makeRoom(clean bool) bool {
	if t.nhot < t.bound {
		return true
	}
	if t.starved {
		return false
	}
	unclean, cooled := 0, false
	for x := t.lru.prev; x != &t.lru && t.nhot >= t.bound; {
		prev := x.prev
		switch {
		case x.pins > 0 || x.heat != hot:
		case clean && x.written|x.flushing != 0:
			unclean++
		default:
			t.cool(x)
			cooled = true
		}
		x = prev
	}
	// Ask early, so that the next writer rarely has to wait for the flush.
	t.wantFlush = t.wantFlush || unclean > t.bound/2
	if cooled || unclean == 0 {
		return true // without a cool one all have writes in flight: the bound yields, or nothing would move
	}
	t.wantFlush, t.starved = true, true
	return false
}

// coolAll cools every extent that can; used before an orderly end.
func (t *tracker) coolAll(clean bool) {
	for x := t.lru.prev; x != &t.lru; {
		prev := x.prev
		if x.pins == 0 && x.heat == hot && !(clean && x.written|x.flushing != 0) {
			t.cool(x)
		}
		x = prev
	}
}

// cool makes x cold; a write after this heats it again by a later commit. No write may be in flight there: from the
// next commit on the log says that only its dirty regions may differ.
func (t *tracker) cool(x *extent) {
	t.setDirty(x, x.written|x.flushing)
	x.written, x.flushing = 0, 0
	x.heat = cold
	x.unlink()
	t.nhot--
	t.change(x)
}

// drop frees the memory of an extent that nothing needs.
func (t *tracker) drop(x *extent) {
	if x.heat == cold && x.pins == 0 && x.dirty == 0 {
		delete(t.extents, x.id)
	}
}

// regionMask is the set of regions of extent id that [off, end) touches.
func regionMask(id, off, end int64) uint64 {
	base := id * ExtentSize
	first := max(off-base, 0) / RegionSize
	last := (min(end-base, ExtentSize) - 1) / RegionSize
	return (^uint64(0) >> (63 - uint(last-first))) << uint(first)
}

func ones(mask uint64) int { return bits.OnesCount64(mask) }
