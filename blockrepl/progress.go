package blockrepl

import (
	"math/bits"
	"time"
)

// Progress is one peer as the primary sees it: a value without lock, clock or I/O.
type Progress struct {
	State   State
	Epoch   uint64
	Peer    string // name of the node; empty when none is attached
	Whole   bool   // its attachment began with a resync of everything: what was known of its copy before counts no more
	Lineage Lineage

	Dirty     int64 // bytes that may differ from the last complete peer, in whole regions
	ToCompare int64 // bytes this resync has still to look at
	Compared  int64 // bytes this resync found or brought in step
	Moved     int64 // bytes this resync sent
	// Rate is Compared per second since the resync began; ETA is when it ends at that
	// rate, 0 if unknown or not running.
	Rate float64
	ETA  time.Duration

	Lag       time.Duration // age of the oldest request the peer has not answered
	Writing   int           // writes in flight
	Waiting   int           // requests held, blocked or marked
	Hot       int           // hot extents
	Verifying bool
	Verified  int64     // bytes the running verify has compared
	Identical time.Time // when a verify last proved the copies identical; zero: never in this run
	Failed    error     // the local failure for which writes wait
	// Unreadable is how many bytes cannot be read here, in whole regions, as of the last
	// time they were tried; UnreadableSince is when the first of them was met.
	Unreadable      int64
	UnreadableSince time.Time
}

// progressState is what Progress needs beyond the parts of a Primary.
type progressState struct {
	began    int64 // clock at which the resync began
	compared int64 // of the last finished resync
	moved    int64
	proven   time.Time
}

// finished keeps the numbers of a worklist that is done.
func (s *progressState) finished(w *worklist) {
	s.compared, s.moved = w.checked, w.moved
}

// Progress returns the present state. It is cheap enough to call every second.
func (p *Primary) Progress() Progress {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.clock()
	g := Progress{
		State: p.state, Epoch: p.epoch, Lineage: p.lineage, Dirty: p.tracker.dirtyBits * RegionSize,
		Compared: p.progress.compared, Moved: p.progress.moved,
		Writing: p.issued, Waiting: len(p.held) + len(p.marking) + len(p.suspended), Hot: p.tracker.nhot,
		Verifying: p.verify.running, Verified: p.verify.checked, Identical: p.progress.proven, Failed: p.failed,
	}
	if u := &p.unreadable; u.regions > 0 {
		g.Unreadable, g.UnreadableSince = u.regions*RegionSize, u.since
	}
	if l := p.link; l != nil {
		g.Peer, g.Whole = l.peer, l.whole
		if oldest := l.window.oldest(); oldest != 0 {
			g.Lag = time.Duration(now - oldest)
		}
	}
	if w := p.work; w != nil {
		g.ToCompare, g.Compared, g.Moved = w.left*RegionSize, w.checked, w.moved
		g.Rate, g.ETA = pacing(w.checked, g.ToCompare, time.Duration(now-p.progress.began))
	}
	return g
}

// pacing returns the rate of work done in a time, and how long the rest takes at it.
func pacing(done, left int64, took time.Duration) (rate float64, eta time.Duration) {
	if done == 0 || took <= 0 {
		return 0, 0
	}
	rate = float64(done) / took.Seconds()
	return rate, time.Duration(float64(left) / rate * float64(time.Second))
}

// latencyBuckets is the number of buckets of a latency histogram.
const latencyBuckets = 24

// Stats counts what a Primary did since it was made.
type Stats struct {
	Reads, Writes, Flushes    int64 // requests; Writes has zeroes and discards too
	ReadBytes, WrittenBytes   int64
	ReadRepairs, FlushRounds  int64
	Mirrored                  int64                 // writes that were sent to a peer
	ReadLatency, WriteLatency [latencyBuckets]int64 // bucket i: below 2^i µs and not in i-1; the last one is open
	ReadNanos, WriteNanos     int64                 // sums of the latencies
}

// Stats returns the counters. They only grow.
func (p *Primary) Stats() Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.stats
}

// count adds one finished read or write.
func (s *Stats) count(r *Request, ns int64) {
	bucket := min(bits.Len64(uint64(ns/1000)), latencyBuckets-1)
	if r.Op == OpRead {
		s.Reads++
		s.ReadBytes += r.Len
		s.ReadLatency[bucket]++
		s.ReadNanos += ns
		return
	}
	s.Writes++
	s.WrittenBytes += r.Len
	s.WriteLatency[bucket]++
	s.WriteNanos += ns
}
