package blockrepl

import "time"

// catchup is what the peer's copy lacks, and how far bringing it in step has come.
//
// Invariant: the worklist belongs to one attachment. It is there from when the peer
// attached until all of it was sent, and stays when a required peer is lost: reads of what
// was suspect wait on, as a failover may take it back. Only going on alone drops it.
// The numbers of the last one that ended are kept for people. Primary.mu guards it.
type catchup struct {
	work     *worklist // nil: nothing is suspect
	began    int64     // clock at which the resync began
	compared int64     // bytes, of the last finished one
	moved    int64
}

// begin takes what differs from a peer that attaches, and ownership of it.
func (c *catchup) begin(suspects map[uint32]uint64, size, now int64) {
	c.work, c.began = newWorklist(suspects, size), now
}

// finish keeps the numbers: everything was sent.
func (c *catchup) finish() {
	c.compared, c.moved = c.work.checked, c.work.moved
	c.work = nil
}

// drop forgets it: this node alone decides what the data is.
func (c *catchup) drop() { c.work = nil }

// over says that nothing is suspect any more.
func (c *catchup) over() bool { return c.work == nil || c.work.left == 0 }

// tried says that all is in step but what cannot be read here, which waiting does not mend.
func (c *catchup) tried() bool { return c.work == nil || c.work.left == c.work.stuck }

// touches says that [off, end) holds something suspect.
func (c *catchup) touches(off, end int64) bool { return c.work != nil && c.work.touches(off, end) }

// defers says that [off, end) will be in step before long, and has it brought first.
func (c *catchup) defers(off, end int64) bool {
	if c.work == nil || !c.work.pending(off, end) {
		return false
	}
	c.work.demand(off, end)
	return true
}

// sent counts bytes that were sent.
func (c *catchup) sent(n int64) {
	if c.work != nil {
		c.work.moved += n
	}
}

// show fills in what people see.
func (c *catchup) show(g *Progress, now int64) {
	g.Compared, g.Moved = c.compared, c.moved
	if w := c.work; w != nil {
		g.ToCompare, g.Compared, g.Moved = w.left*RegionSize, w.checked, w.moved
		g.Rate, g.ETA = pacing(w.checked, g.ToCompare, time.Duration(now-c.began))
	}
}

// pacing returns the rate of work done in a time, and how long the rest takes at it.
func pacing(done, left int64, took time.Duration) (rate float64, eta time.Duration) {
	if done == 0 || took <= 0 {
		return 0, 0
	}
	rate = float64(done) / took.Seconds()
	return rate, time.Duration(float64(left) / rate * float64(time.Second))
}
