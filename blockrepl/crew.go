package blockrepl

import (
	"context"
	"sync"
)

// crew is who works for a volume.
//
// Invariant: whoever may be in the device, or reads the data of a request, is counted: the
// goroutines of the volume, and those that came for a proof or for its holes, in wg, those that came with a Kick in
// active. So when both are done after Fence, nobody is; the ledger knows of a commit in the log. ctx ends with the
// volume; a goroutine is added only before that, or by one that is counted. The wake channels
// have capacity one and anybody may use them; Primary.mu guards the rest.
type crew struct {
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	wakeIssue, wakeFlush chan struct{}

	active  int      // goroutines between taking a batch and settling it
	batches []*batch // free list
	readers int      // goroutines that wait for the disk: only while there is something to read
}

// gather makes a crew of nobody yet.
func (c *crew) gather() {
	c.wakeIssue, c.wakeFlush = make(chan struct{}, 1), make(chan struct{}, 1)
	c.ctx, c.cancel = context.WithCancel(context.Background())
}

// idle says that nobody is in Kick any more.
func (c *crew) idle() bool { return c.active == 0 }

// join counts the caller in and gives it a batch, whose place in the device is watched by w.
func (c *crew) join(w *localWatch) *batch {
	c.active++
	if n := len(c.batches); n > 0 {
		b := c.batches[n-1]
		c.batches = c.batches[:n-1]
		return b
	}
	b := &batch{visit: visit{what: "write"}}
	w.add(&b.visit)
	return b
}

// leave takes the batch back.
func (c *crew) leave(b *batch) {
	c.active--
	c.batches = append(c.batches, b)
}

// hire reports whether one more reader is to be started, and counts it. The volume is not closed: after Fence
// nobody may be added to wg.
func (c *crew) hire() bool {
	if c.readers == maxReaders {
		return false
	}
	c.readers++
	c.wg.Add(1)
	return true
}

// retire counts a reader out that has found nothing to read.
func (c *crew) retire() { c.readers-- }
