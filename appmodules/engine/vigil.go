package engine

import (
	"sync"
	"time"
)

// vigil notices that this process stood still, or its whole computer, for so long that the peer may have taken over
// meanwhile, and may be gone again: then it has to be met anew, as after a start (rule 6). The owner and the goroutine
// of exchanges both show that they run: whichever comes first after a standstill notices it, and an owner that waits
// for its metadata disk makes none, as the heartbeats go on then too. A time in which this node took no part counts as
// one.
type vigil struct {
	limit time.Duration // longer than either goroutine is away for
	mu    sync.Mutex    // a leaf
	last  time.Time     // when one of them ran
	since time.Time     // when the last standstill ended, or this run began
	stood bool          // there was a standstill in this run
}

// begin is the start of a run.
func (v *vigil) begin(now time.Time, limit time.Duration) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.limit, v.last, v.since = limit, now, now
}

// show says that the caller runs. It returns for how long nobody did, if that was a standstill; else 0.
func (v *vigil) show(now time.Time) time.Duration {
	v.mu.Lock()
	defer v.mu.Unlock()
	gap := now.Sub(v.last)
	v.last = now
	if gap <= v.limit {
		return 0
	}
	v.since, v.stood = now, true
	return gap
}

// end is the end of a time in which this node took no part.
func (v *vigil) end(now time.Time) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.since = now
}

// dazed: a standstill has just ended, noticed or not: what this process knew then may be over, and the peer has had no
// time yet to say so.
func (v *vigil) dazed(now time.Time) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return now.Sub(v.last) > v.limit || v.stood && now.Sub(v.since) < dazedFor
}

// dazedFor is some exchanges.
const dazedFor = 1500 * time.Millisecond

// unbroken is since when nothing stood still.
func (v *vigil) unbroken() time.Time {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.since
}
