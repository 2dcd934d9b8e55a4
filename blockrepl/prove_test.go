package blockrepl

import (
	"errors"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"
)

// rot changes one byte of a copy behind everybody's back, for good.
func rot(dev Device, off int64) {
	d := dev.(*disk)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.data[off] ^= 0x40
	d.durable[off] ^= 0x40
}

func (q *pair) prove(off int64, repair bool) Proof {
	q.t.Helper()
	f, err := q.p.Prove(off, repair)
	if err != nil {
		q.t.Fatal(err)
	}
	return f
}

// A difference is found, and the side that changed by itself is named, as long as no guest
// has written there since both were equal.
func TestProve(t *testing.T) {
	const at = ExtentSize + 3*RegionSize
	for name, c := range map[string]struct {
		first bool // it was proven before
		spoil func(q *pair)
		side  Side
	}{
		"peer":         {true, func(q *pair) { rot(q.b.dev, at) }, SidePeer},
		"here":         {true, func(q *pair) { rot(q.a.dev, at) }, SideHere},
		"both":         {true, func(q *pair) { rot(q.a.dev, at); rot(q.b.dev, at+1) }, SideBoth},
		"never proven": {false, func(q *pair) { rot(q.b.dev, at) }, SideUnknown},
		"written since": {true, func(q *pair) {
			q.write(at+4096, fill(7, 4096))
			rot(q.b.dev, at)
		}, SideUnknown},
		"written elsewhere": {true, func(q *pair) {
			q.write(at+grainSize, fill(7, 4096))
			q.write(0, fill(7, 4096))
			rot(q.b.dev, at)
		}, SidePeer},
		"peer cannot read": {false, func(q *pair) { q.b.dev.(*disk).spoil(at) }, SidePeer},
		"peer cannot read, and this changed": {true, func(q *pair) { rot(q.a.dev, at+600); q.b.dev.(*disk).spoil(at) },
			SideBoth},
	} {
		t.Run(name, func(t *testing.T) {
			q := newPair(t, 3*ExtentSize).up()
			q.write(at, fill(1, 8192))
			if f := q.prove(ExtentSize, false); c.first && !f.Same() || f.Cost <= 0 || f.Len != ExtentSize {
				t.Fatalf("%+v", f)
			}
			if !c.first { // as after a restart of the daemon
				q.p.mu.Lock()
				q.p.memory = memory{}
				q.p.mu.Unlock()
			}
			c.spoil(q)
			for range 2 { // what is known of it outlives being told
				f := q.prove(ExtentSize, false)
				if f.Same() || len(f.Differs) != 1 {
					t.Fatalf("%+v", f)
				}
				want := Difference{Off: at, Len: RegionSize, Regions: 1, Changed: c.side,
					Lost: strings.Contains(name, "cannot read")}
				if f.Differs[0] != want {
					t.Errorf("%+v, want %+v", f.Differs[0], want)
				}
			}
			if f := q.prove(0, false); !f.Same() {
				t.Errorf("elsewhere: %+v", f)
			}
		})
	}
}

// By rule the side that changed is written over, and no other.
func TestProveRepairs(t *testing.T) {
	const at = 5*grainSize + RegionSize
	for name, c := range map[string]struct {
		spoil func(q *pair)
		done  bool
	}{
		"peer":             {func(q *pair) { rot(q.b.dev, at); rot(q.b.dev, at+2*RegionSize) }, true},
		"here":             {func(q *pair) { rot(q.a.dev, at); rot(q.a.dev, at+2*RegionSize) }, true},
		"peer cannot read": {func(q *pair) { q.b.dev.(*disk).spoil(at) }, true},
		"both":             {func(q *pair) { rot(q.a.dev, at); rot(q.b.dev, at+9) }, false},
		"unknown":          {func(q *pair) { q.write(at, fill(3, 4096)); rot(q.a.dev, at) }, false},
	} {
		t.Run(name, func(t *testing.T) {
			q := newPair(t, ExtentSize+512).up()
			q.write(at, fill(1, 8192))
			q.prove(0, true)
			whole := q.a.dev.(*disk).bytes()
			c.spoil(q)
			f := q.prove(0, true)
			if len(f.Differs) != 1 || f.Differs[0].Repaired != c.done || f.Same() != c.done {
				t.Fatalf("%+v", f)
			}
			if c.done {
				q.equal()
				q.equalBytes(whole, q.a.dev.(*disk).bytes())
				if f := q.prove(0, false); len(f.Differs) != 0 {
					t.Errorf("again: %+v", f)
				}
			} else if f := q.prove(0, true); f.Same() {
				t.Errorf("it is not told any more: %+v", f)
			}
		})
	}
}

// What was repaired stays so when a node loses power: nothing else remembers that it had differed.
func TestRepairsAreDurable(t *testing.T) {
	const at = 3*RegionSize + 5
	for name, repair := range map[string]func(q *pair){
		"proof": func(q *pair) {
			if f := q.prove(0, true); len(f.Differs) != 1 || !f.Differs[0].Repaired {
				q.t.Fatalf("%+v", f)
			}
		},
		"verify": func(q *pair) {
			if err := q.p.Verify(true); err != nil {
				q.t.Fatal(err)
			}
			if e := wantEvent[VerifyDone](q); e.Repaired != 1 || e.Err != nil {
				q.t.Fatalf("%+v", e)
			}
		},
	} {
		for _, side := range []string{"here", "peer"} {
			if name == "verify" && side == "here" {
				continue // it makes the peer's copy follow, right or wrong
			}
			t.Run(name+" "+side, func(t *testing.T) {
				q := newPair(t, ExtentSize).up()
				q.write(at-5, fill(1, 4096))
				q.flush()
				q.prove(0, false)
				dev := map[string]Device{"here": q.a.dev, "peer": q.b.dev}[side]
				rot(dev, at)
				repair(q)
				if !dev.(*disk).quiet() {
					t.Error("the repair is not durable")
				}
				dev.(*disk).crash(rand.New(rand.NewPCG(1, 1)))
				q.equal()
			})
		}
	}
}

// A sector that cannot be read here is taken from the peer.
func TestProveMends(t *testing.T) {
	q := newPair(t, 2*ExtentSize).up()
	q.write(0, fill(1, 8192))
	q.prove(0, false)
	q.a.dev.(*disk).spoil(4096)
	if f := q.prove(0, false); !f.Same() || f.Unreadable != 0 {
		t.Fatalf("%+v", f)
	}
	q.equal()
	q.a.dev.(*disk).spoil(4096)
	q.b.dev.(*disk).spoil(4096)
	f := q.prove(0, false)
	if f.Same() || f.Unreadable != RegionSize || len(f.Differs) != 0 {
		t.Fatalf("nobody has it: %+v", f)
	}
}

// What a guest writes meanwhile is no difference, and rot beside it is found and never laid on
// the wrong side.
func TestProveUnderLoad(t *testing.T) {
	q := newPair(t, 2*ExtentSize).up()
	stop := make(chan struct{})
	var guest sync.WaitGroup
	guest.Go(func() {
		rng := rand.New(rand.NewPCG(6, 6))
		for {
			select {
			case <-stop:
				return
			default: // not in the last grain
				_ = q.do(write(rng.Int64N((2*ExtentSize-grainSize)/4096)*4096, fill(byte(rng.Uint32()), 4096)))
			}
		}
	})
	for range 5 {
		for off := int64(0); off < 2*ExtentSize; off += ExtentSize {
			if f := q.prove(off, false); !f.Same() {
				t.Errorf("%+v", f)
			}
		}
	}
	rot(q.b.dev, 2*ExtentSize-100)
	if f := q.prove(ExtentSize, false); len(f.Differs) != 1 || f.Differs[0].Changed != SidePeer {
		t.Errorf("%+v", f)
	}
	close(stop)
	guest.Wait()
}

// It gives way to a verify, and does not begin unless both copies are complete and linked.
func TestProveRefuses(t *testing.T) {
	q := newPair(t, 2*ExtentSize)
	q.primary()
	q.secondary()
	refused := func(what string) {
		t.Helper()
		if _, err := q.p.Prove(0, false); !errors.Is(err, ErrState) {
			t.Errorf("%s: %v", what, err)
		}
	}
	refused("detached")
	if err := q.p.GoAlone(1); err != nil {
		t.Fatal(err)
	}
	refused("alone")
	if err := q.attach(1, false); err != nil {
		t.Fatal(err)
	}
	wantEvent[Drained](q)
	refused("not complete")
	q.connect2(t)
	if !q.p.Progress().Whole {
		t.Error("a copy that was never written was not resynced whole")
	}
	if f := q.prove(0, false); !f.Same() {
		t.Fatalf("%+v", f)
	}
	for _, off := range []int64{-ExtentSize, 512, 2 * ExtentSize} {
		if _, err := q.p.Prove(off, false); !errors.Is(err, ErrRange) {
			t.Errorf("at %d: %v", off, err)
		}
	}
	q.p.mu.Lock()
	q.p.verify.running = true
	q.p.mu.Unlock()
	refused("a verify runs")
	q.p.mu.Lock()
	q.p.verify.running = false
	q.p.mu.Unlock()
	q.cut()
	wantEvent[PeerLost](q)
	refused("lost")
	// The peer was complete: it is brought in step, and what was proven counts on.
	if err := q.attach(1, true); err != nil {
		t.Fatal(err)
	}
	q.connect(1)
	if q.p.Progress().Whole {
		t.Error("a resync of regions counts as one of everything")
	}
	rot(q.a.dev, 17)
	if f := q.prove(0, false); len(f.Differs) != 1 || f.Differs[0].Changed != SideHere {
		t.Errorf("%+v", f)
	}
}

// connect2 is the second half of connect.
func (q *pair) connect2(t *testing.T) {
	t.Helper()
	if err := q.s.Complete(t.Context(), q.p.Ticket()); err != nil {
		t.Fatal(err)
	}
	if err := q.p.PeerComplete(); err != nil {
		t.Fatal(err)
	}
}

// A write that is under way while its grain is read and ends later leaves nothing to go by.
func TestProveDuringWrite(t *testing.T) {
	q := newPair(t, ExtentSize).up()
	hold, entered := make(chan struct{}), make(chan struct{}, 8)
	free := sync.OnceFunc(func() { close(hold) })
	t.Cleanup(free)
	q.a.dev.(*disk).gate = func() { entered <- struct{}{}; <-hold }
	w := make(chan error, 1)
	go func() { w <- q.do(write(0, fill(9, 4096))) }()
	select {
	case <-entered:
	case <-time.After(20 * time.Second):
		t.Fatal("it does not write")
	}
	type result struct {
		f   Proof
		err error
	}
	done := make(chan result, 1)
	go func() {
		f, err := q.p.Prove(0, false)
		done <- result{f, err}
	}()
	eventually(t, "the proof waits for the write", func() bool {
		q.p.mu.Lock()
		defer q.p.mu.Unlock()
		for _, s := range q.p.traffic.table.writes {
			if s.f.req == nil {
				return true
			}
		}
		return false
	})
	free()
	if err := <-w; err != nil {
		t.Fatal(err)
	}
	if r := <-done; r.err != nil || !r.f.Same() {
		t.Fatalf("%+v", r)
	}
	rot(q.b.dev, 100)
	if f := q.prove(0, false); len(f.Differs) != 1 || f.Differs[0].Changed != SidePeer {
		t.Fatalf("it was equal under the lock: %+v", f)
	}
}
