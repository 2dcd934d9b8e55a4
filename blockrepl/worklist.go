package blockrepl

import (
	"maps"
	"slices"
)

// worklist is what one attachment has to bring in step: regions by extent, taken in
// order of offset so that disks read forward. It only shrinks, as every new write
// goes to both sides. Primary.mu guards it.
type worklist struct {
	order  []uint32          // extents of this round
	next   int               // in order
	todo   map[uint32]uint64 // regions not yet in step
	taken  map[uint32]bool   // extents that a worker has, or has had in this round
	urgent []uint32          // a read waits for these
	left   int64             // regions in todo
	tried  map[uint32]uint64 // of todo, what could not be read here in this round
	stuck  int64             // regions in tried
	size   int64             // of the device

	checked int64 // bytes found or brought in step
	moved   int64 // bytes sent
}

// newWorklist takes ownership of masks. Regions beyond the end, as of a hot extent that is the last, are left out.
func newWorklist(masks map[uint32]uint64, size int64) *worklist {
	w := &worklist{todo: masks, taken: make(map[uint32]bool), tried: make(map[uint32]uint64), size: size}
	for id, mask := range masks {
		mask &= wholeExtent(id, size)
		if mask == 0 {
			delete(masks, id)
			continue
		}
		masks[id] = mask
		w.left += int64(ones(mask))
	}
	w.order = slices.Sorted(maps.Keys(masks))
	return w
}

// everything is the mask of every region of a device.
func everything(size int64) map[uint32]uint64 {
	masks := make(map[uint32]uint64)
	for off := int64(0); off < size; off += ExtentSize {
		id := uint32(off / ExtentSize)
		masks[id] = wholeExtent(id, size)
	}
	return masks
}

// wholeExtent is the mask of the regions of extent id that exist.
func wholeExtent(id uint32, size int64) uint64 {
	base := int64(id) * ExtentSize
	if base >= size {
		return 0
	}
	return regionMask(int64(id), base, min(base+ExtentSize, size))
}

// take returns the next extent to work on and whether a read waits for it. Each extent is given out once in a
// round: what its worker does not bring in step it has given up, or the link is lost.
func (w *worklist) take() (id uint32, mask uint64, urgent, ok bool) {
	for len(w.urgent) > 0 || w.next < len(w.order) {
		urgent = len(w.urgent) > 0
		if urgent {
			id = w.urgent[0]
			w.urgent = w.urgent[1:]
		} else {
			id = w.order[w.next]
			w.next++
		}
		if mask = w.todo[id]; mask != 0 && !w.taken[id] {
			w.taken[id] = true
			return id, mask, urgent, true
		}
	}
	return 0, 0, false, false
}

// done takes regions off the list: they are in step.
func (w *worklist) done(id uint32, mask uint64) {
	n := int64(ones(w.todo[id] & mask))
	w.left -= n
	w.forget(id, mask)
	w.checked += n * RegionSize
	if w.todo[id] &^= mask; w.todo[id] == 0 {
		delete(w.todo, id)
		delete(w.taken, id)
	}
}

// touches reports whether [off, end) holds a region that is not in step.
func (w *worklist) touches(off, end int64) bool {
	for id := off / ExtentSize; id*ExtentSize < end; id++ {
		if w.todo[uint32(id)]&regionMask(id, off, end) != 0 {
			return true
		}
	}
	return false
}

// pending reports whether [off, end) holds a region that will be in step before long:
// one that could not be read here when it was tried may never be.
func (w *worklist) pending(off, end int64) bool {
	for id := off / ExtentSize; id*ExtentSize < end; id++ {
		x := uint32(id)
		if w.todo[x]&^w.tried[x]&regionMask(id, off, end) != 0 {
			return true
		}
	}
	return false
}

// giveUp notes that regions cannot be read here, until the next round.
func (w *worklist) giveUp(id uint32, mask uint64) {
	fresh := w.todo[id] & mask &^ w.tried[id]
	if fresh != 0 {
		w.tried[id] |= fresh
		w.stuck += int64(ones(fresh))
	}
}

func (w *worklist) forget(id uint32, mask uint64) {
	if hit := w.tried[id] & mask; hit != 0 {
		w.stuck -= int64(ones(hit))
		if w.tried[id] &^= hit; w.tried[id] == 0 {
			delete(w.tried, id)
		}
	}
}

// again begins a new round with what was given up. Reads do not wait for it: it stays
// given up until it is done.
func (w *worklist) again() {
	w.order, w.next = slices.Sorted(maps.Keys(w.tried)), 0
	for id := range w.tried {
		delete(w.taken, id)
	}
}

// demand puts the extents of [off, end) first. One that a worker has already is not given out twice.
func (w *worklist) demand(off, end int64) {
	for id := off / ExtentSize; id*ExtentSize < end; id++ {
		if x := uint32(id); w.todo[x] != 0 && !w.taken[x] {
			w.urgent = append(w.urgent, x)
		}
	}
}
