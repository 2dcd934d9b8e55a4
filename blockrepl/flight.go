package blockrepl

// flight is one I/O on its way through the Primary: a guest's Request, or a piece
// of resync that keeps guests off a range. A Primary's mutex guards it.
type flight struct {
	off, end int64
	excl     bool     // changes its range; a read does not
	req      *Request // nil for a resync lock
	granted  func()   // for a resync lock: called with the mutex held once the range is its own; nil: given up

	slot     int32     // place in the table, -1 when out of it
	blockers int32     // flights in the table that must end before this one starts
	waiters  []*flight // flights this one blocks

	step    step
	queued  bool  // in the ready list to be sent again
	here    bool  // the local device has it
	entered bool  // counted in by the tracker
	busy    int32 // goroutines that send it or do it here: its data is in use
	sent    *link // on which it was sent last; nil: on none
	acked   *link // whose peer has it; nil: no peer has said so
	started int64 // clock when first issued or held, for the latency
}

// step is how far a flight has come.
type step uint8

const (
	stepBlocked   step = iota // an overlapping flight is before it
	stepHeld                  // the volume does not admit it now
	stepSuspended             // a read of what the peer may not have
	stepMarking               // its extents are not yet durably hot
	stepReady                 // in the ready list
	stepIssued                // on its way to the device and the peer
)

// table is the range lock: every flight that was submitted and has not ended.
// Overlapping flights take effect in the order of insert, reads beside reads.
// It is a plain list, as a scan of the few dozen in flight is cheaper than a tree.
type table struct {
	reads, writes []span
}

type span struct {
	off, end int64
	f        *flight
}

// insert adds f and reports whether it may start at once; otherwise it starts when
// remove of its last blocker returns it.
func (t *table) insert(f *flight) bool {
	f.blockers = 0
	f.waiters = f.waiters[:0]
	block(t.writes, f)
	if f.excl {
		block(t.reads, f)
	}
	list := t.list(f)
	f.slot = int32(len(*list))
	*list = append(*list, span{f.off, f.end, f})
	return f.blockers == 0
}

// block makes f wait for everything in list that overlaps it.
func block(list []span, f *flight) {
	for i := range list {
		if s := &list[i]; s.off < f.end && f.off < s.end {
			s.f.waiters = append(s.f.waiters, f)
			f.blockers++
		}
	}
}

// remove takes f out and appends to free the flights that may start now, in order of insert. What they overlap
// otherwise has ended before.
func (t *table) remove(f *flight, free []*flight) []*flight {
	list := t.list(f)
	last := len(*list) - 1
	moved := (*list)[last]
	(*list)[f.slot] = moved
	moved.f.slot = f.slot
	(*list)[last] = span{}
	*list = (*list)[:last]
	f.slot = -1
	for _, w := range f.waiters {
		if w.blockers--; w.blockers == 0 {
			free = append(free, w)
		}
	}
	clear(f.waiters)
	f.waiters = f.waiters[:0]
	return free
}

func (t *table) list(f *flight) *[]span {
	if f.excl {
		return &t.writes
	}
	return &t.reads
}
