package blockrepl

import (
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"
)

// ErrHung is wrapped when a call of the local device or log did not return within the
// local budget: it may still do so, at any time.
var ErrHung = errors.New("local storage does not answer")

// visit is the place of one goroutine in the local device or log. It costs the visitor two
// additions per call and no look at the clock: whoever watches sees that the turn is odd
// and stays the same.
type visit struct {
	turn atomic.Uint64 // odd: inside

	// Of the watcher:
	seen  uint64
	since int64 // clock at which turn was first seen as it is

	// Guarded by what guards the watch; unset for a guest's own requests.
	what     string  // for people
	off, end int64   // what a resync or verify reads
	lock     *flight // the range it keeps guests off meanwhile
	patient  bool    // no guest waits for it
}

func (v *visit) enter() { v.turn.Add(1) }
func (v *visit) leave() { v.turn.Add(1) }

// localWatch finds calls of the local device and log that are older than the budget. Its
// owner's mutex guards it. An age is counted from when the watcher first saw the call, so it is found out a look or
// two late, never early.
type localWatch struct {
	budget time.Duration // 0: any age is fine
	visits []*visit
}

func (w *localWatch) add(v *visit) { w.visits = append(w.visits, v) }

func (w *localWatch) remove(v *visit) {
	w.visits = slices.DeleteFunc(w.visits, func(have *visit) bool { return have == v })
}

// overdue calls found for each call that is older than the budget now; thawed is when this
// process last came back from not running, which proves nothing against the disk.
func (w *localWatch) overdue(now, thawed int64, found func(*visit)) {
	if w.budget == 0 {
		return
	}
	for _, v := range w.visits {
		turn := v.turn.Load()
		switch {
		case turn%2 == 0 || turn != v.seen:
			v.seen, v.since = turn, now
		case now-max(v.since, thawed) >= int64(w.budget):
			found(v)
		}
	}
}

// hung is the error of an overdue visit; it wraps ErrHung.
func (w *localWatch) hung(v *visit) error {
	return fmt.Errorf("%s: %w within %v", v.what, ErrHung, w.budget)
}
