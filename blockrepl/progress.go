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
	Holed
}

// Holed is what a copy has lost.
type Holed struct {
	// Unreadable is how many bytes cannot be read here, in whole regions, as of the last
	// time they were tried; UnreadableSince is when the first of them was met.
	Unreadable      int64
	UnreadableSince time.Time
}

// Progress returns the present state. It is cheap enough to call every second.
func (p *Primary) Progress() Progress {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.clock()
	g := Progress{
		State: p.stand.state, Epoch: p.ledger.epoch, Lineage: p.ledger.lineage, Dirty: p.tracker.dirtyBits * RegionSize,
		Writing: p.traffic.issued, Waiting: p.traffic.waiting(), Hot: p.tracker.nhot,
		Verifying: p.verify.running, Verified: p.verify.checked, Identical: p.verify.proven, Failed: p.stand.failed,
	}
	p.catchup.show(&g, now)
	if u := &p.unreadable; u.regions > 0 {
		g.Unreadable, g.UnreadableSince = u.regions*RegionSize, u.since
	}
	if l := p.peer.link; l != nil {
		g.Peer, g.Whole = l.peer, l.whole
		if oldest := l.window.oldest(); oldest != 0 {
			g.Lag = time.Duration(now - oldest)
		}
	}
	return g
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

// meter counts what ended: for people, and for whoever must not disturb guests. Primary.mu guards it.
type meter struct {
	stats Stats
	guest latencyMeter
}

// ended counts a read or write of a guest that took ns.
func (m *meter) ended(r *Request, ns int64) {
	m.stats.count(r, ns)
	m.guest.add(r.Op, ns)
}

// Stats returns the counters. They only grow.
func (p *Primary) Stats() Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.meter.stats
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
