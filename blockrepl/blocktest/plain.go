package blocktest

import (
	"sync"

	"duet/blockrepl"
)

// inline is how many writes a worker does before it lets their answers go: more would make the first one wait for the
// others, fewer would cost a system call each.
const inline = 16

// PlainQueue is a volume without a peer or a dirty log: a blockrepl.Queue over
// one Device, to test and measure a Frontend on its own.
//
// It promises what a Queue promises and no more: requests that overlap keep their order, others do not; a flush,
// and a write with FUA, flush the device. It has no bound on what is pending; a Frontend has. Errors of the device
// are the errors of requests, where a Primary holds failed writes back. A range is not checked: the device does.
type PlainQueue struct {
	dev  blockrepl.Device
	fast blockrepl.FastReader // nil if every read may wait

	mu      sync.Mutex
	wake    sync.Cond // signalled when ready grows or closed is set
	pending []*job    // submitted and not completed, in the order of Submit
	ready   []*job    // of these, those that may begin; a ring would be faster, tests do not care
	spare   []*job    // jobs to be used again
	closed  bool
	workers sync.WaitGroup
}

type job struct {
	r       *blockrepl.Request
	waitFor int // earlier pending jobs that overlap it; it is ready at 0
}

var _ blockrepl.Queue = (*PlainQueue)(nil)

// StartQueue serves dev with the given number of goroutines until Close. It does not own dev. As many requests as
// there are workers may be in the device at once, of which any may wait for the disk.
func StartQueue(dev blockrepl.Device, workers int) *PlainQueue {
	q := &PlainQueue{dev: dev}
	q.fast, _ = dev.(blockrepl.FastReader)
	q.wake.L = &q.mu
	for range workers {
		q.workers.Go(q.work)
	}
	return q
}

// Size is the size of the device.
func (q *PlainQueue) Size() int64 { return q.dev.Size() }

// Submit queues r; a read that need not wait completes at once, inside Submit. Nothing else begins before Kick,
// unless a worker is awake anyway.
func (q *PlainQueue) Submit(r *blockrepl.Request) {
	q.mu.Lock()
	// Reading outside the lock is right: what is submitted from now on may take effect before or after.
	if !q.closed && r.Op == blockrepl.OpRead && q.fast != nil && q.conflicts(r) == 0 {
		q.mu.Unlock()
		if q.fast.TryReadAt(r.Data, r.Off) {
			finish(r, nil)
			return
		}
		q.mu.Lock()
	}
	if q.closed { // perhaps only since it was read: no worker would come
		q.mu.Unlock()
		finish(r, blockrepl.ErrClosed)
		return
	}
	q.add(r)
	q.mu.Unlock()
}

// conflicts counts the pending requests r must wait for. Called with mu held.
func (q *PlainQueue) conflicts(r *blockrepl.Request) int {
	n := 0
	for _, j := range q.pending {
		if conflict(j.r, r) {
			n++
		}
	}
	return n
}

// add puts r behind what it conflicts with. Called with mu held.
func (q *PlainQueue) add(r *blockrepl.Request) {
	j := &job{}
	if n := len(q.spare); n > 0 {
		j, q.spare = q.spare[n-1], q.spare[:n-1]
	}
	j.r, j.waitFor = r, q.conflicts(r)
	q.pending = append(q.pending, j)
	if j.waitFor == 0 {
		q.ready = append(q.ready, j)
	}
}

// finish completes a request alone. It must not be called with mu held: a Completer may take locks of its own.
func finish(r *blockrepl.Request, err error) {
	by := r.By // r may be used again as soon as it is complete
	by.Complete(r, err)
	by.CompleteBatch()
}

// Kick wakes a worker; it wakes the next one if there is more that may wait for the disk.
func (q *PlainQueue) Kick() {
	q.mu.Lock()
	if len(q.ready) > 0 {
		q.wake.Signal()
	}
	q.mu.Unlock()
}

// Close completes with ErrClosed what has not begun, waits for the rest and ends the workers. It waits as long as the
// device does; a read that Submit does itself is not waited for.
func (q *PlainQueue) Close() error {
	q.mu.Lock()
	q.closed = true
	q.wake.Broadcast()
	q.mu.Unlock()
	q.workers.Wait()
	q.mu.Lock()
	left := q.pending
	q.pending, q.ready = nil, nil
	q.mu.Unlock()
	for _, j := range left {
		finish(j.r, blockrepl.ErrClosed)
	}
	return nil
}

// work is one worker. It gathers the answers of consecutive writes of one Completer and lets them go with one
// CompleteBatch; it always does before it may wait, as nobody else knows that it owes them.
func (q *PlainQueue) work() {
	var owed blockrepl.Completer // has answers that CompleteBatch did not send yet
	for done := 0; ; done++ {
		q.mu.Lock()
		if owed != nil &&
			(done >= inline || len(q.ready) == 0 || q.ready[0].r.By != owed || q.ready[0].r.Op != blockrepl.OpWrite) {
			q.mu.Unlock()
			owed.CompleteBatch()
			owed, done = nil, 0
			q.mu.Lock()
		}
		for len(q.ready) == 0 && !q.closed {
			q.wake.Wait()
		}
		if q.closed {
			q.mu.Unlock()
			if owed != nil {
				owed.CompleteBatch()
			}
			return
		}
		j := q.ready[0]
		q.ready = append(q.ready[:0], q.ready[1:]...)
		if len(q.ready) > 0 && (j.r.Op != blockrepl.OpWrite || j.r.FUA) {
			q.wake.Signal()
		}
		q.mu.Unlock()

		r := j.r // remove lets j be used again
		err := execute(q.dev, r)
		q.remove(j)
		owed = r.By
		owed.Complete(r, err)
	}
}

// remove takes a finished job out and makes ready what waited for it only. The jobs behind it in pending are exactly
// those that counted it, as order of Submit is kept.
func (q *PlainQueue) remove(done *job) {
	q.mu.Lock()
	defer q.mu.Unlock()
	at := 0
	for i, j := range q.pending {
		if j == done {
			at = i
			break
		}
	}
	q.pending = append(q.pending[:at], q.pending[at+1:]...)
	for _, j := range q.pending[at:] {
		if conflict(done.r, j.r) {
			if j.waitFor--; j.waitFor == 0 {
				q.ready = append(q.ready, j)
			}
		}
	}
	q.spare = append(q.spare, done)
}

// execute does r. FUA is a write and then a flush of everything, as at a Primary.
func execute(dev blockrepl.Device, r *blockrepl.Request) (err error) {
	switch r.Op {
	case blockrepl.OpRead:
		_, err = dev.ReadAt(r.Data, r.Off)
	case blockrepl.OpWrite:
		_, err = dev.WriteAt(r.Data, r.Off)
	case blockrepl.OpDiscard:
		err = dev.Discard(r.Off, r.Len)
	case blockrepl.OpZero:
		err = dev.Zero(r.Off, r.Len)
	}
	if err == nil && (r.FUA || r.Op == blockrepl.OpFlush) {
		err = dev.Flush()
	}
	return err
}

// conflict reports whether two requests must take effect in the order they came. A flush never must: it covers what
// was completed before it was submitted, and nothing that is pending.
func conflict(a, b *blockrepl.Request) bool {
	if a.Op == blockrepl.OpFlush || b.Op == blockrepl.OpFlush || (a.Op == blockrepl.OpRead && b.Op == blockrepl.OpRead) {
		return false
	}
	return a.Off < b.Off+b.Len && b.Off < a.Off+a.Len
}
