package blocktest

import (
	"bytes"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"duet/blockrepl"
)

// Queue runs the suite of blockrepl.Queue. open returns a running volume of
// DeviceSize bytes, all zeroes, and ends it when the test ends. The order of overlapping requests is tested within
// one submitter, as NBD promises none between two connections.
func Queue(t *testing.T, open func(t *testing.T) blockrepl.Queue) {
	for _, c := range []struct {
		name string
		test func(t *testing.T, q blockrepl.Queue)
	}{
		{"one of each", queueEach},
		{"overlapping requests keep their order", queueOrder},
		{"many submitters", queueMany},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(t, open(t)) })
	}
}

// Waiter is a Completer a test waits on. It never forgets a request, so it also sees one that is completed twice; a
// Request must not be submitted again with the same Waiter.
type Waiter struct {
	mu      sync.Mutex
	change  sync.Cond
	done    map[*blockrepl.Request]error
	unsent  int  // completions no CompleteBatch followed yet
	doubled bool // a request was completed twice
}

// NewWaiter returns a Waiter without completions.
func NewWaiter() *Waiter {
	w := &Waiter{done: make(map[*blockrepl.Request]error)}
	w.change.L = &w.mu
	return w
}

// Complete records the end of r.
func (w *Waiter) Complete(r *blockrepl.Request, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	_, again := w.done[r]
	w.doubled = w.doubled || again
	w.done[r] = err
	w.unsent++
}

// CompleteBatch wakes who waits: like a frontend, a Waiter passes nothing on before it.
func (w *Waiter) CompleteBatch() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.unsent = 0
	w.change.Broadcast()
}

// Wait returns the results of rs in order when all are complete and a CompleteBatch has followed the last: without it
// a frontend would keep the answers to itself. Only the goroutine of the test may call it.
func (w *Waiter) Wait(t *testing.T, rs ...*blockrepl.Request) []error {
	t.Helper()
	late := false
	timer := time.AfterFunc(patience, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		late = true
		w.change.Broadcast()
	})
	defer timer.Stop()
	w.mu.Lock()
	defer w.mu.Unlock()
	for {
		errs := make([]error, 0, len(rs))
		for _, r := range rs {
			if err, ok := w.done[r]; ok {
				errs = append(errs, err)
			}
		}
		switch {
		case len(errs) == len(rs) && w.unsent == 0:
			if w.doubled {
				t.Error("a request was completed twice")
			}
			return errs
		case late:
			t.Fatalf("%d of %d requests complete, %d completions not followed by CompleteBatch", len(errs), len(rs), w.unsent)
		}
		w.change.Wait()
	}
}

// Do submits rs in order, waits and fails the test if one failed. It sets their By. Only the goroutine of the test
// may call it; see submit.
func Do(t *testing.T, q blockrepl.Queue, rs ...*blockrepl.Request) {
	t.Helper()
	w := NewWaiter()
	for _, r := range rs {
		r.By = w
		q.Submit(r)
	}
	q.Kick()
	for i, err := range w.Wait(t, rs...) {
		if err != nil {
			t.Fatalf("request %d (op %d at %d+%d): %v", i, rs[i].Op, rs[i].Off, rs[i].Len, err)
		}
	}
}

// Write returns a request that writes n bytes of b at off.
func Write(b byte, off, n int64) *blockrepl.Request {
	return &blockrepl.Request{Op: blockrepl.OpWrite, Off: off, Len: n, Data: bytes.Repeat([]byte{b}, int(n))}
}

// Read returns a request that reads n bytes at off.
func Read(off, n int64) *blockrepl.Request {
	return &blockrepl.Request{Op: blockrepl.OpRead, Off: off, Len: n, Data: make([]byte, n)}
}

// wantBytes is an error and not the end of the test, so that goroutines other than the test's may call it.
func wantBytes(t *testing.T, r *blockrepl.Request, b byte) {
	t.Helper()
	if !bytes.Equal(r.Data, bytes.Repeat([]byte{b}, len(r.Data))) {
		t.Errorf("read at %d+%d: %#x…, want all %#x", r.Off, r.Len, r.Data[:8], b)
	}
}

// queueEach looks at the bytes beside each range too: the first and last page of what was written must stay.
func queueEach(t *testing.T, q blockrepl.Queue) {
	if q.Size() != DeviceSize {
		t.Fatalf("size %d", q.Size())
	}
	fua := Write(2, 64<<10, 4096)
	fua.FUA = true
	Do(t, q, Write(1, 0, 128<<10), fua, &blockrepl.Request{Op: blockrepl.OpFlush})
	Do(t, q, &blockrepl.Request{Op: blockrepl.OpZero, Off: 0, Len: 4096},
		&blockrepl.Request{Op: blockrepl.OpDiscard, Off: 8192, Len: 4096, FUA: true})
	for _, c := range []struct {
		off  int64
		want byte
	}{{0, 0}, {4096, 1}, {8192, 0}, {12288, 1}, {64 << 10, 2}, {68 << 10, 1}, {128 << 10, 0}} {
		r := Read(c.off, 4096)
		Do(t, q, r)
		wantBytes(t, r, c.want)
	}
}

// queueOrder submits overlapping writes and reads without waiting between them: each read must see the write before
// it and not the one after, though all are in flight at once. Every second write is shifted, so that ranges overlap
// in part.
func queueOrder(t *testing.T, q blockrepl.Queue) {
	for round := range 20 {
		base := int64(round) * 64 << 10
		var rs, reads []*blockrepl.Request
		for i := byte(1); i <= 30; i++ {
			r := Read(base+4096, 4096)
			reads = append(reads, r)
			rs = append(rs, Write(i, base+int64(i%2)*2048, 16<<10), r)
		}
		Do(t, q, rs...)
		for i, r := range reads {
			wantBytes(t, r, byte(i+1))
		}
	}
}

// queueMany has several submitters with deep queues, each with a share of its own, so that each knows what its
// reads must return although nobody knows in which order the requests of all end.
func queueMany(t *testing.T, q blockrepl.Queue) {
	const submitters, share = 4, DeviceSize / 4
	var all sync.WaitGroup
	for s := range int64(submitters) {
		all.Go(func() {
			rng := rand.New(rand.NewPCG(1, uint64(s)))
			model := make([]byte, share/4096)
			for range 30 {
				var rs []*blockrepl.Request
				want := make(map[*blockrepl.Request]byte)
				for range 32 {
					page := rng.IntN(len(model))
					off := s*share + int64(page)*4096
					switch rng.IntN(5) {
					case 0, 1:
						model[page] = byte(rng.Uint32())
						rs = append(rs, Write(model[page], off, 4096))
					case 2:
						rs = append(rs, &blockrepl.Request{Op: blockrepl.OpFlush})
					default:
						r := Read(off, 4096)
						want[r] = model[page]
						rs = append(rs, r)
					}
				}
				submit(t, q, rs)
				for r, b := range want {
					wantBytes(t, r, b)
				}
			}
		})
	}
	wait(t, &all)
}

// submit is Do for goroutines other than the test's, which may not call Fatal. It has no patience: wait has.
func submit(t *testing.T, q blockrepl.Queue, rs []*blockrepl.Request) {
	var all sync.WaitGroup
	all.Add(len(rs))
	for _, r := range rs {
		r.By = completions{t, &all}
		q.Submit(r)
	}
	q.Kick()
	all.Wait()
}

// completions counts requests that ended.
type completions struct {
	t   *testing.T
	all *sync.WaitGroup
}

func (c completions) Complete(_ *blockrepl.Request, err error) {
	if err != nil {
		c.t.Errorf("request: %v", err)
	}
	c.all.Done()
}

func (completions) CompleteBatch() {}
