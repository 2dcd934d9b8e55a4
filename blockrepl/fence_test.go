package blockrepl

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"duet/blockrepl/wire"
)

// gated is a Device of which some calls wait until they are let go.
type gated struct {
	*disk
	mu      sync.Mutex
	hold    map[Op]chan struct{}
	entered chan Op
}

func newGated(size int64) *gated {
	return &gated{disk: newDisk(size), hold: map[Op]chan struct{}{}, entered: make(chan Op, 1000)}
}

// stick makes calls of op wait until the function it returns is called.
func (g *gated) stick(op Op) (free func()) {
	c := make(chan struct{})
	g.mu.Lock()
	defer g.mu.Unlock()
	g.hold[op] = c
	return sync.OnceFunc(func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		delete(g.hold, op)
		close(c)
	})
}

func (g *gated) wait(op Op) {
	g.mu.Lock()
	c := g.hold[op]
	g.mu.Unlock()
	if c != nil {
		g.entered <- op
		<-c
	}
}

func (g *gated) ReadAt(p []byte, off int64) (int, error) {
	g.wait(OpRead)
	return g.disk.ReadAt(p, off)
}

func (g *gated) WriteAt(p []byte, off int64) (int, error) {
	g.wait(OpWrite)
	return g.disk.WriteAt(p, off)
}

func (g *gated) Discard(off, n int64) error {
	g.wait(OpWrite)
	return g.disk.Discard(off, n)
}

func (g *gated) Flush() error {
	g.wait(OpFlush)
	return g.disk.Flush()
}

// upOn is up with a gated disk on each side, and a local budget.
func upOn(t *testing.T, budget time.Duration) (q *pair, a, b *gated) {
	q = newPair(t, 8<<20)
	a, b = newGated(8<<20), newGated(8<<20)
	q.a.dev, q.b.dev, q.local = a, b, budget
	return q.up(), a, b
}

// counter is a Completer that counts.
type counter struct {
	mu         sync.Mutex
	good, shut int
}

func (c *counter) Complete(_ *Request, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err == nil {
		c.good++
	} else if errors.Is(err, ErrClosed) {
		c.shut++
	}
}

func (c *counter) CompleteBatch() {}

func (c *counter) seen() (good, shut int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.good, c.shut
}

// Fence returns while a write is stuck in the device; nothing is acknowledged after it, no
// other write reaches the device, and every request ends once.
func TestFenceDoesNotWait(t *testing.T) {
	for name, op := range map[string]Op{"write": OpWrite, "flush": OpFlush, "read": OpRead} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				q, a, _ := upOn(t, 0)
				q.write(0, fill(1, 4096))
				free := a.stick(op)
				c := &counter{}
				var kick sync.WaitGroup
				stuck := &Request{Op: op, Off: 0, Len: 4096, Data: fill(2, 4096), By: c}
				kick.Go(func() { q.p.Submit(stuck); q.p.Kick() })
				<-a.entered
				later := write(1<<20, fill(3, 4096))
				later.By = c
				q.p.Submit(later) // and nobody kicks
				// A goroutine of the volume that runs for something else may take it along: it began before the fence then.
				synctest.Wait()
				began := a.bytes()[1<<20] != 0 || len(a.entered) > 0
				fenceAtOnce(t, q.p.Fence)
				good, _ := c.seen()
				closeWaits(t, q.p.Close, free)
				kick.Wait()
				if g, shut := c.seen(); g != good || g+shut != 2 {
					t.Errorf("%d acknowledged, %d of them after the fence; %d refused", g, g-good, shut)
				}
				if a.bytes()[1<<20] != 0 && !began {
					t.Error("a write began after the fence")
				}
				q.stop()
			})
		})
	}
}

// A fence while a batch is under way: what is behind the write that is stuck stays out.
func TestFenceEndsBatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q, a, _ := upOn(t, 0)
		q.write(0, fill(1, 512))
		free := a.stick(OpWrite)
		c := &counter{}
		for i := range int64(8) {
			r := write(i*512, fill(9, 512))
			r.By = c
			q.p.Submit(r)
		}
		var kick sync.WaitGroup
		kick.Go(q.p.Kick)
		<-a.entered
		q.p.Fence()
		free()
		kick.Wait()
		q.p.Close()
		if b := a.bytes(); b[0] != 9 || b[512] != 0 {
			t.Errorf("the first write ended with %d, the second with %d", b[0], b[512])
		}
		if good, shut := c.seen(); good != 0 || shut != 8 {
			t.Errorf("%d acknowledged, %d refused", good, shut)
		}
		q.stop()
	})
}

// A write that waits for the log when the volume is fenced ends once, although the commit
// ends as well.
func TestFenceWithCommitUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q, w, free := inFlight(t)
		if err := q.p.GoAlone(2); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		q.p.Fence()
		if err := q.result(w); !errors.Is(err, ErrClosed) {
			t.Errorf("a write without a generation: %v", err)
		}
		free()
		q.p.Close()
		if len(w) != 0 {
			t.Errorf("completed again: %v", <-w)
		}
		q.stop()
	})
}

// Secondary.Fence returns while a write is stuck: no acknowledgement leaves after it, no
// session begins, and Close waits for the device.
func TestSecondaryFenceDoesNotWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q, _, b := upOn(t, 0)
		free := b.stick(OpWrite)
		w := q.start(write(0, fill(1, 512)))
		<-b.entered
		fenceAtOnce(t, q.s.Fence)
		near, far := net.Pipe()
		err := q.s.Serve(t.Context(), wire.NewConn(far), Hello{Node: "alpha", Epoch: 2, Size: 8 << 20}, true)
		if near.Close(); !errors.Is(err, ErrClosed) {
			t.Errorf("serve after the fence: %v", err)
		}
		closeWaits(t, q.s.Close, free)
		synctest.Wait()
		if !w.pending() {
			t.Error("acknowledged after the fence")
		}
		q.stop()
	})
}

// A local call older than the budget is a failed disk, told once. When it ends after all
// nothing comes of it but the acknowledgement, once.
func TestHungPrimary(t *testing.T) {
	for name, op := range map[string]Op{"write": OpWrite, "flush": OpFlush, "read": OpRead} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				q, a, _ := upOn(t, 10*time.Second)
				q.write(0, fill(1, 4096))
				free := a.stick(op)
				c := &counter{}
				var kick sync.WaitGroup
				began := time.Now()
				kick.Go(func() {
					q.p.Submit(&Request{Op: op, Off: 0, Len: 4096, Data: fill(2, 4096), By: c})
					q.p.Kick()
				})
				e := wantEvent[DeviceFailed](q)
				if took := time.Since(began); !errors.Is(e.Err, ErrHung) || took < 10*time.Second || took > 12*time.Second {
					t.Errorf("%v after %v", e.Err, took)
				}
				later := q.start(write(1<<20, fill(1, 512)))
				free()
				kick.Wait()
				synctest.Wait()
				for len(q.events) > 0 {
					if e, again := (<-q.events).(DeviceFailed); again {
						t.Errorf("told again: %v", e.Err)
					}
				}
				if good, _ := c.seen(); good > 1 || !later.pending() {
					t.Errorf("completed %d times; a later write is held: %v", good, later.pending())
				}
				q.p.Close()
				if good, shut := c.seen(); good+shut != 1 {
					t.Errorf("completed %d times", good+shut)
				}
				q.stop()
			})
		})
	}
}

// A log that does not answer is a failed disk as well.
func TestHungLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q, _, _ := upOn(t, time.Second)
		free := q.a.log.stick()
		w := q.start(write(4<<20, fill(1, 512)))
		if e := wantEvent[DeviceFailed](q); !errors.Is(e.Err, ErrHung) || !w.pending() {
			t.Error(e.Err)
		}
		free()
		q.stop()
	})
}

// A secondary that hangs says so: Serve returns although the call does not, no other
// session begins, and Close waits.
func TestHungSecondary(t *testing.T) {
	for name, op := range map[string]Op{"write": OpWrite, "flush": OpFlush} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				q, _, b := upOn(t, 2*time.Second)
				free := b.stick(op)
				began := time.Now()
				w := q.start(&Request{Op: op, Len: 512, Data: fill(1, 512)})
				<-b.entered
				err, took := <-q.served, time.Since(began)
				if !errors.Is(err, ErrHung) || !errors.Is(err, ErrLocalCopy) || took > 3*time.Second {
					t.Errorf("%v after %v", err, took)
				}
				near, far := net.Pipe()
				err = q.s.Serve(t.Context(), wire.NewConn(far), Hello{Node: "alpha", Epoch: 2, Size: 8 << 20}, true)
				if near.Close(); !errors.Is(err, ErrHung) {
					t.Errorf("serve again: %v", err)
				}
				q.s.Fence()
				closeWaits(t, q.s.Close, free)
				if !w.pending() {
					t.Error("acknowledged")
				}
				q.stop()
			})
		})
	}
}

// Complete whose time is over: no session begins before the log has ended the commit, and
// then the copy knows what is durable. A resync that is torn afterwards does not pass for whole.
func TestCompleteOutlivesItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newPair(t, 8<<20)
		q.primary()
		q.secondary()
		if err := errors.Join(q.p.GoAlone(1), q.attach(1, false)); err != nil {
			t.Fatal(err)
		}
		q.write(0, fill(1, 512))
		wantEvent[Drained](q)
		free := q.b.log.stick()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if err := q.s.Complete(ctx, q.p.Ticket()); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
		q.lose()
		if err := q.p.GoAlone(2); err != nil {
			t.Fatal(err)
		}
		q.write(4096, fill(2, 512))
		attached := make(chan error, 1)
		go func() { attached <- q.attach(2, false) }()
		synctest.Wait()
		select {
		case err := <-attached:
			t.Errorf("a session began while the lineage was changing: %v", err)
		default:
		}
		free()
		if err := <-attached; err != nil {
			t.Fatal(err)
		}
		wantEvent[Drained](q)
		if _, lineage, _ := q.b.log.Load(); !lineage.Partial {
			t.Error("overwritten and not durably partial")
		}
		q.stop()
	})
}

// A copy whose disk or log fails while it is made complete has failed as one whose flush fails in a session: the
// session ends and says why, and no other begins.
func TestCompleteFails(t *testing.T) {
	full := errors.New("no space left")
	for what, fail := range map[string]func(*pair){
		"log": func(q *pair) {
			q.b.log.mu.Lock()
			defer q.b.log.mu.Unlock()
			q.b.log.fail = full
		},
		"flush": func(q *pair) {
			_, b := q.disks()
			b.mu.Lock()
			defer b.mu.Unlock()
			b.fail = full
		},
	} {
		for _, late := range []bool{false, true} { // whether who has called for it is gone by then
			t.Run(fmt.Sprintf("%s, late %v", what, late), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					q := newPair(t, 8<<20)
					q.primary()
					q.secondary()
					if err := errors.Join(q.p.GoAlone(1), q.attach(1, false)); err != nil {
						t.Fatal(err)
					}
					q.write(0, fill(1, 512))
					wantEvent[Drained](q)
					ctx, cancel := context.WithCancel(t.Context())
					defer cancel()
					free := q.b.log.stick()
					if !late {
						free()
					}
					fail(q)
					told := make(chan error, 1)
					go func() { told <- q.s.Complete(ctx, q.p.Ticket()) }()
					synctest.Wait()
					cancel()
					synctest.Wait()
					free()
					if err := <-told; !errors.Is(err, ErrLocalCopy) && !(late && errors.Is(err, context.Canceled)) {
						t.Errorf("complete: %v", err)
					}
					if err := <-q.served; !errors.Is(err, ErrLocalCopy) || !errors.Is(err, full) {
						t.Errorf("the session ended: %v", err)
					}
					wantEvent[PeerLost](q)
					near, far := net.Pipe()
					err := q.s.Serve(t.Context(), wire.NewConn(far), Hello{Node: "alpha", Epoch: 1, Size: 8 << 20}, false)
					if near.Close(); !errors.Is(err, ErrLocalCopy) {
						t.Errorf("serve again: %v", err)
					}
					q.stop()
				})
			})
		}
	}
}

// Rejoin after Close would change a log that has another user.
func TestRejoinAfterClose(t *testing.T) {
	q := newPair(t, 8<<20)
	own := line("id", "ab")
	q.b.log.lineage = &own
	s := q.secondary()
	s.Close()
	if err := s.Rejoin(t.Context(), line("id", "ac")); !errors.Is(err, ErrClosed) {
		t.Fatalf("rejoin after close: %v", err)
	}
	if _, lineage, _ := q.b.log.Load(); lineage.Compare(own) != Same {
		t.Fatalf("the log says %v", lineage)
	}
}

// fenceAtOnce checks, inside a synctest bubble, that a fence waits for nothing.
func fenceAtOnce(t *testing.T, fence func()) {
	t.Helper()
	began := time.Now()
	fence()
	if took := time.Since(began); took != 0 {
		t.Errorf("fence took %v", took)
	}
}

// closeWaits checks, inside a synctest bubble, that a close waits for the device until free lets it go.
func closeWaits(t *testing.T, closes, free func()) {
	t.Helper()
	closed := make(chan struct{})
	go func() { closes(); close(closed) }()
	synctest.Wait()
	select {
	case <-closed:
		t.Error("closed while the device was in use")
	default:
	}
	free()
	<-closed
}
