package blockrepl

import (
	"bytes"
	"context"
	"errors"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"duet/blockrepl/wire"
)

// Writes of every size reach both copies before they are acknowledged.
func TestReplicates(t *testing.T) {
	for name, dial := range transports(t) {
		t.Run(name, func(t *testing.T) {
			q := newPair(t, 16<<20)
			q.dial = dial
			q.up()
			for i, n := range []int{512, 4096, 64 << 10, 1 << 20, 3 << 20} {
				data := fill(byte(i+1), n)
				off := int64(i) << 20
				q.write(off, data)
				if got := q.b.dev.(*disk).bytes()[off : off+int64(n)]; !bytes.Equal(got, data) {
					t.Fatalf("write of %d bytes acknowledged and not on the peer", n)
				}
				if got := q.read(off, int64(n)); !bytes.Equal(got, data) {
					t.Fatalf("read of %d bytes differs", n)
				}
			}
			q.flush()
			if err := q.do(&Request{Op: OpDiscard, Off: 0, Len: 8 << 20}); err != nil {
				t.Fatal(err)
			}
			q.equal()
		})
	}
}

// A flush and a FUA write are acknowledged only when both copies survive a power loss.
func TestDurableOnBoth(t *testing.T) {
	q := newPair(t, 8<<20).up()
	data := fill(7, 4096)
	r := write(0, data)
	r.FUA = true
	if err := q.do(r); err != nil {
		t.Fatal(err)
	}
	q.write(4096, data)
	q.flush()
	for _, c := range []*copyOf{q.a, q.b} {
		d := c.dev.(*disk)
		if !bytes.Equal(d.durable[:8192], append(data, data...)) {
			t.Errorf("%s would lose flushed data", c.node)
		}
	}
}

// Requests outside the volume fail, empty ones succeed.
func TestRange(t *testing.T) {
	q := newPair(t, 8<<20).up()
	for _, r := range []*Request{
		{Op: OpRead, Off: -512, Len: 512}, {Op: OpWrite, Off: 8 << 20, Len: 512},
		{Op: OpZero, Off: 0, Len: 8<<20 + 512}, {Op: OpDiscard, Off: 512, Len: -512},
	} {
		if err := q.do(r); !errors.Is(err, ErrRange) {
			t.Errorf("op %d at %d+%d: %v", r.Op, r.Off, r.Len, err)
		}
	}
	if err := q.do(&Request{Op: OpWrite}); err != nil {
		t.Errorf("empty write: %v", err)
	}
}

// Nothing is answered before the volume is attached or alone.
func TestDetachedWaits(t *testing.T) {
	q := newPair(t, 8<<20)
	q.primary()
	w, r := q.start(write(0, fill(1, 512))), q.start(&Request{Op: OpRead, Off: 4096, Len: 512, Data: make([]byte, 512)})
	f := q.start(&Request{Op: OpFlush})
	if !w.pending() || !r.pending() || !f.pending() {
		t.Fatal("answered while detached")
	}
	if err := q.p.GoAlone(3); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(q.result(w), q.result(r), q.result(f)); err != nil {
		t.Fatal(err)
	}
}

// Losing a required peer freezes writes, and reads of what they touch; other reads
// go on. GoAlone lets the writes go once the new generation is durable.
func TestFreeze(t *testing.T) {
	q := newPair(t, 8<<20).up()
	q.write(0, fill(1, 4096))
	q.cut()
	if e := wantEvent[PeerLost](q); !e.Required {
		t.Fatal("peer was not required")
	}
	w := q.start(write(0, fill(2, 4096)))
	overlapping := q.start(&Request{Op: OpRead, Off: 0, Len: 512, Data: make([]byte, 512)})
	flush := q.start(&Request{Op: OpFlush})
	if got := q.read(1<<20, 512); !bytes.Equal(got, make([]byte, 512)) {
		t.Fatal("read of another region")
	}
	if !w.pending() || !overlapping.pending() || !flush.pending() {
		t.Fatal("frozen volume answered")
	}
	if got := q.p.Progress().State; got != Frozen {
		t.Fatal(got)
	}
	if err := q.p.GoAlone(2); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(q.result(w), q.result(overlapping), q.result(flush)); err != nil {
		t.Fatal(err)
	}
	_, lineage, _ := q.a.log.Load()
	if newest, _ := lineage.Newest(); !newest.Is(Generation{Epoch: 2, Holder: "alpha"}) {
		t.Fatalf("acknowledged alone, generation %v", newest)
	}
}

// A write that was admitted, but not yet begun, when the peer is lost or a hold comes is
// not begun: it would reach this copy alone and be acknowledged.
func TestAdmittedWaitsAgain(t *testing.T) {
	for name, c := range map[string]struct{ stop, proceed func(q *pair) error }{
		"peer lost": {
			func(q *pair) error { q.cut(); wantEvent[PeerLost](q); return nil },
			func(q *pair) error { return q.attach(1, true) },
		},
		"peer lost, then alone": {
			func(q *pair) error { q.cut(); wantEvent[PeerLost](q); return nil },
			func(q *pair) error { return q.p.GoAlone(2) },
		},
		"hold": {
			func(q *pair) error { return q.p.Hold(t.Context()) },
			func(q *pair) error { q.p.Release(); return nil },
		},
	} {
		t.Run(name, func(t *testing.T) {
			q := newPair(t, 8<<20).up()
			q.write(0, fill(1, 512)) // its extent is hot from now on
			w := make(waiter, 1)
			r := write(0, fill(2, 512))
			r.By = w
			q.p.Submit(r) // and no Kick
			if err := c.stop(q); err != nil {
				t.Fatal(err)
			}
			q.p.Kick()
			eventually(t, "nothing under way", func() bool {
				q.p.mu.Lock()
				defer q.p.mu.Unlock()
				return q.p.crew.active == 0 && len(q.p.traffic.ready) == 0
			})
			if a := q.a.dev.(*disk).bytes()[0]; !w.pending() || a != 1 {
				t.Fatalf("begun: local copy %d, unanswered %v", a, w.pending())
			}
			if err := errors.Join(c.proceed(q), q.result(w)); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// A write in flight when the peer is lost counts as the first write alone: it is not
// acknowledged while the generation is not durable.
func TestGenerationBeforeAcknowledgement(t *testing.T) {
	q := newPair(t, 8<<20).up()
	reached := make(chan struct{}, 8)
	block := make(chan struct{})
	q.b.dev.(*disk).gate = func() { reached <- struct{}{}; <-block }
	w := q.start(write(0, fill(1, 512)))
	<-reached
	q.cut()
	close(block)
	wantEvent[PeerLost](q)
	q.a.log.mu.Lock()
	q.a.log.fail = errors.New("no space")
	q.a.log.mu.Unlock()
	if err := q.p.GoAlone(2); err != nil {
		t.Fatal(err)
	}
	wantEvent[DeviceFailed](q)
	if !w.pending() {
		t.Fatal("acknowledged without a durable generation")
	}
	q.p.Close()
	if err := q.result(w); !errors.Is(err, ErrClosed) {
		t.Fatal(err)
	}
}

// No generation is made without a write.
func TestGenerationOnlyAtFirstWrite(t *testing.T) {
	q := newPair(t, 8<<20).up()
	q.lose()
	if err := q.p.GoAlone(2); err != nil {
		t.Fatal(err)
	}
	q.flush()
	if newest, _ := q.p.Progress().Lineage.Newest(); newest.Epoch != 1 {
		t.Fatalf("generation %v without a write", newest)
	}
	q.write(0, fill(1, 512))
	if newest, _ := q.p.Progress().Lineage.Newest(); newest.Epoch != 2 {
		t.Fatalf("generation %v after a write", newest)
	}
}

// Overlapping writes take effect in the order of Submit on both sides, and a read
// after a write sees it, only once it is acknowledged.
func TestOverlapOrder(t *testing.T) {
	q := newPair(t, 8<<20).up()
	reached := make(chan struct{}, 64)
	block := make(chan struct{})
	q.b.dev.(*disk).gate = func() { reached <- struct{}{}; <-block }
	var ws []waiter
	for i := range 8 {
		ws = append(ws, q.start(write(int64(i)*512, fill(byte(i+1), 4096))))
	}
	got := make([]byte, 512)
	r := q.start(&Request{Op: OpRead, Off: 0, Len: 512, Data: got})
	later := q.start(write(0, fill(99, 512)))
	<-reached
	if !r.pending() {
		t.Fatal("read saw an unacknowledged write")
	}
	close(block)
	for _, w := range append(ws, r, later) {
		if err := q.result(w); err != nil {
			t.Fatal(err)
		}
	}
	if got[0] != 1 {
		t.Fatalf("read %d, want the write before it", got[0])
	}
	for i := range 8 {
		want := byte(i + 1)
		if i == 0 {
			want = 99
		}
		if b := q.a.dev.(*disk).bytes()[i*512]; b != want {
			t.Fatalf("sector %d holds write %d", i, b)
		}
	}
	q.equal()
}

// A peer that takes bytes and answers nothing is lost after the stall budget, also
// when nothing is written.
func TestStall(t *testing.T) {
	for name, writes := range map[string]bool{"writing": true, "idle": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				q := newPair(t, 8<<20)
				q.budget = 2 * time.Second
				var dumb atomic.Bool
				q.dial = func() (net.Conn, net.Conn) {
					near, far := net.Pipe()
					return near, &mute{far, &dumb}
				}
				q.up()
				dumb.Store(true)
				if writes {
					q.start(write(0, fill(1, 512)))
				}
				began := time.Now()
				e := <-q.events
				if lost, ok := e.(PeerLost); !ok || !errors.Is(lost.Err, ErrStalled) {
					t.Fatalf("%#v", e)
				}
				if took := time.Since(began); took > 3*time.Second || took < 2*time.Second {
					t.Errorf("lost after %v", took)
				}
				q.stop()
			})
		})
	}
}

// mute is a connection that can lose what is written to it.
type mute struct {
	net.Conn
	dumb *atomic.Bool
}

func (m *mute) Write(p []byte) (int, error) {
	if m.dumb.Load() {
		return len(p), nil
	}
	return m.Conn.Write(p)
}

// A process that did not run gives the peer a new budget instead of accusing it.
func TestStallClockFrozen(t *testing.T) {
	q := newPair(t, 8<<20)
	q.up()
	p := q.p
	p.mu.Lock()
	l := p.peer.link
	l.window.add(pending{sent: 1, counted: true}) // unanswered since the beginning of time
	budget := int64(p.cfg.StallBudget)
	p.watch.start = p.watch.start.Add(-10 * p.cfg.StallBudget) // this process wakes up much later
	p.mu.Unlock()
	p.tick(budget / 8)
	if p.Progress().State != Connected {
		t.Fatal("peer accused of our own absence")
	}
	p.mu.Lock()
	p.watch.pulse.thawed, p.watch.pulse.ticked = 1, p.clock()
	p.mu.Unlock()
	p.tick(budget / 8)
	if e := wantEvent[PeerLost](q); !errors.Is(e.Err, ErrStalled) {
		t.Fatal(e)
	}
}

// Hold waits for what is in flight, flushes both sides and leaves no hot extent;
// writes wait until Release.
func TestHold(t *testing.T) {
	q := newPair(t, 16<<20).up()
	reached, block := make(chan struct{}, 8), make(chan struct{})
	q.b.dev.(*disk).gate = func() { reached <- struct{}{}; <-block }
	first := q.start(write(0, fill(1, 4096)))
	<-reached
	held := make(chan error, 1)
	go func() { held <- q.p.Hold(context.Background()) }()
	eventually(t, "hold in force", func() bool { q.p.mu.Lock(); defer q.p.mu.Unlock(); return q.p.stand.holding })
	second := q.start(write(8<<20, fill(2, 4096)))
	select {
	case <-held:
		t.Fatal("hold before the write in flight ended")
	default:
	}
	close(block)
	if err := errors.Join(<-held, q.result(first)); err != nil {
		t.Fatal(err)
	}
	if entries, _, _ := q.a.log.Load(); len(entries) != 0 {
		t.Fatalf("log after hold: %v", entries)
	}
	if !second.pending() || !q.b.dev.(*disk).quiet() || !q.a.dev.(*disk).quiet() {
		t.Fatal("not quiet")
	}
	q.p.Release()
	if err := q.result(second); err != nil {
		t.Fatal(err)
	}
}

// A hold that cannot end is released.
func TestHoldAborts(t *testing.T) {
	q := newPair(t, 8<<20).up()
	block, reached := make(chan struct{}), make(chan struct{}, 8)
	q.b.dev.(*disk).gate = func() { reached <- struct{}{}; <-block }
	w := q.start(write(0, fill(1, 512)))
	<-reached
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := q.p.Hold(ctx); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	close(block)
	q.write(4096, fill(1, 512))
	if err := q.result(w); err != nil {
		t.Fatal(err)
	}
}

// A read error is served from the peer and the local copy repaired.
func TestReadRepair(t *testing.T) {
	q := newPair(t, 8<<20).up()
	q.write(0, fill(5, 8192))
	d := q.a.dev.(*disk)
	d.mu.Lock()
	d.badReads = true
	clear(d.data[:8192])
	d.mu.Unlock()
	if got := q.read(0, 8192); !bytes.Equal(got, fill(5, 8192)) {
		t.Fatal("read from peer differs")
	}
	if e := wantEvent[ReadRepaired](q); e.Repair != nil || e.Len != 8192 {
		t.Fatalf("%+v", e)
	}
	q.equal()
	if q.p.Stats().ReadRepairs != 1 {
		t.Fatal("not counted")
	}
}

// A local write or flush failure is not an error for the guest: it waits.
func TestDeviceFailed(t *testing.T) {
	for name, r := range map[string]*Request{"write": write(0, fill(1, 512)), "flush": {Op: OpFlush}} {
		t.Run(name, func(t *testing.T) {
			q := newPair(t, 8<<20).up()
			d := q.a.dev.(*disk)
			d.mu.Lock()
			d.fail = errors.New("medium error")
			d.mu.Unlock()
			w := q.start(r)
			wantEvent[DeviceFailed](q)
			later := q.start(write(1<<20, fill(1, 512)))
			if !w.pending() || !later.pending() {
				t.Fatal("answered after a local failure")
			}
			q.p.Close()
			if a, b := q.result(w), q.result(later); !errors.Is(a, ErrClosed) || !errors.Is(b, ErrClosed) {
				t.Fatal(a, b)
			}
		})
	}
}

// Calls that do not fit the state are refused.
func TestStates(t *testing.T) {
	q := newPair(t, 8<<20).up()
	if err := q.p.PeerComplete(); !errors.Is(err, ErrState) {
		t.Errorf("peer complete twice: %v", err)
	}
	if err := q.attach(1, true); !errors.Is(err, ErrState) {
		t.Errorf("second attach: %v", err)
	}
	if err := q.p.GoAlone(0); !errors.Is(err, ErrState) {
		t.Errorf("go alone at an older epoch: %v", err)
	}
	if err := q.p.GoAlone(2); err != nil || q.p.Progress().State != Alone {
		t.Errorf("go alone without a peer that is outvoted: %v, %v", err, q.p.Progress().State)
	}
	if err := q.do(write(0, fill(2, 512))); err != nil {
		t.Errorf("write after that: %v", err)
	}
	q.p.Close()
	q.p.Close()
	if err := q.do(write(0, fill(1, 512))); !errors.Is(err, ErrClosed) {
		t.Errorf("write after close: %v", err)
	}
	if err := q.p.Verify(false); !errors.Is(err, ErrState) {
		t.Errorf("verify after close: %v", err)
	}
}

// A session that was accepted just before the node promised another epoch must not
// begin afterwards.
func TestClosedSecondaryServesNobody(t *testing.T) {
	sec := newPair(t, 1<<20).up().s
	near, far := net.Pipe()
	defer near.Close()
	sec.Close()
	hello := Hello{Node: "alpha", Epoch: 1, Size: 1 << 20}
	if err := sec.Serve(t.Context(), wire.NewConn(far), hello, true); !errors.Is(err, ErrClosed) {
		t.Fatalf("serve after close: %v", err)
	}
	if _, err := near.Read(make([]byte, 1)); err == nil {
		t.Fatal("a closed secondary answered")
	}
}

// A ticket of an attachment that is over must not make the copy complete: the primary
// may have written alone since.
func TestTicketIsForOneAttachment(t *testing.T) {
	q := newPair(t, 8<<20)
	q.primary()
	q.secondary()
	if err := q.p.GoAlone(1); err != nil {
		t.Fatal(err)
	}
	if err := q.attach(1, false); err != nil {
		t.Fatal(err)
	}
	wantEvent[Drained](q)
	old := q.p.Ticket()
	q.cut()
	if err := q.p.GoAlone(1); err != nil {
		t.Fatal(err)
	}
	if err := q.do(write(0, fill(7, 512))); err != nil {
		t.Fatal(err)
	}
	if err := q.attach(1, false); err != nil {
		t.Fatal(err)
	}
	if err := q.s.Complete(t.Context(), old); !errors.Is(err, ErrState) {
		t.Fatalf("a late ticket was taken: %v", err)
	}
}
