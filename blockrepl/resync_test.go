package blockrepl

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"

	"duet/blockrepl/wire"
)

// scatter writes data straight to a device, behind the tracker's back.
func scatter(d Device, rng *rand.Rand, regions ...int64) {
	for _, r := range regions {
		b := make([]byte, RegionSize)
		for i := range b {
			b[i] = byte(rng.Uint32())
		}
		_, _ = d.WriteAt(b, r*RegionSize)
	}
}

// A new copy gets everything that is not zero, and no more than that.
func TestFullResync(t *testing.T) {
	q := newPair(t, 32<<20+512)
	rng := rand.New(rand.NewPCG(1, 1))
	scatter(q.a.dev, rng, 0, 1, 2, 77, 200, 511)
	_, _ = q.a.dev.WriteAt(fill(9, 512), 32<<20) // the odd end
	scatter(q.b.dev, rng, 3, 300)                // garbage that must go
	q.up()
	q.equal()
	g := q.p.Progress()
	if want := int64(9 * RegionSize); g.Moved > want*11/10 {
		t.Errorf("moved %d bytes for %d that differ", g.Moved, want)
	}
	if g.State != Connected || g.Dirty != 0 {
		t.Errorf("%+v", g)
	}
}

// After a time alone only what changed is sent, while the guest goes on writing; a
// lost link in between costs nothing but comparing again.
func TestResyncOfDirty(t *testing.T) {
	q := newPair(t, 64<<20).up()
	rng := rand.New(rand.NewPCG(2, 2))
	q.lose()
	if err := q.p.GoAlone(2); err != nil {
		t.Fatal(err)
	}
	changed := map[int64]bool{}
	for range 100 {
		off := rng.Int64N(64<<20/4096) * 4096
		changed[off/RegionSize] = true
		q.write(off, fill(byte(rng.Uint32()|1), 4096))
	}
	if got := q.p.Progress().Dirty; got != int64(len(changed))*RegionSize {
		t.Fatalf("dirty %d bytes, changed %d regions", got, len(changed))
	}
	if err := q.attach(2, false); err != nil {
		t.Fatal(err)
	}
	for range 50 {
		q.write(rng.Int64N(64<<20/4096)*4096, fill(byte(rng.Uint32()), 4096))
	}
	q.connect(2)
	q.equal()
	if g := q.p.Progress(); g.Moved > int64(len(changed))*RegionSize*11/10 || g.Moved == 0 {
		t.Errorf("moved %d bytes, changed %d regions", g.Moved, len(changed))
	}
	if entries, lineage, _ := q.b.log.Load(); len(entries) != 0 || lineage.Partial || lineage.String() != "id@2/alpha" {
		t.Errorf("peer remembers %v, %v", entries, lineage)
	}
	eventually(t, "dirty regions forgotten", func() bool {
		entries, lineage, _ := q.a.log.Load()
		for _, e := range entries {
			if e.Dirty != 0 {
				return false
			}
		}
		return lineage.InStep.Is(Generation{Epoch: 2, Holder: "alpha"})
	})
}

// hung is a Device whose reads wait for a gate.
type hung struct {
	*disk
	gate chan struct{}
	once sync.Once
	seen chan struct{}
	open func() // lets reads go; more than once is fine
}

// hang returns d with reads that hang; the end of the test opens it.
func hang(t *testing.T, d Device) *hung {
	h := &hung{disk: d.(*disk), gate: make(chan struct{}), seen: make(chan struct{})}
	h.open = sync.OnceFunc(func() { close(h.gate) })
	t.Cleanup(h.open)
	return h
}

func (h *hung) ReadAt(p []byte, off int64) (int, error) {
	h.once.Do(func() { close(h.seen) })
	<-h.gate
	return h.disk.ReadAt(p, off)
}

// A copy that is being overwritten is durably partial before its first byte changes.
func TestPartialFirst(t *testing.T) {
	q := newPair(t, 8<<20)
	scatter(q.a.dev, rand.New(rand.NewPCG(3, 3)), 5)
	d, partial := q.b.dev.(*disk), make(chan bool, 16)
	d.gate = func() {
		_, lineage, _ := q.b.log.Load()
		partial <- lineage != nil && lineage.Partial
	}
	q.up()
	if !<-partial {
		t.Fatal("overwritten before it was marked partial")
	}
}

// While a complete peer that may have lost writes catches up, a guest's flush and
// reads of suspect regions wait; other reads and all writes go on.
func TestSuspectsWait(t *testing.T) {
	q := newPair(t, 32<<20).up()
	q.write(0, fill(1, 4096))
	q.lose()
	q.serve.Wait()
	h := hang(t, q.b.dev)
	q.b.dev = h
	q.secondary() // its process restarted: not intact
	if err := q.attach(1, true); err != nil {
		t.Fatal(err)
	}
	<-h.seen
	if got := q.p.Progress().State; got != Required {
		t.Fatal(got)
	}
	flush := q.start(&Request{Op: OpFlush})
	suspect := q.start(&Request{Op: OpRead, Off: 0, Len: 512, Data: make([]byte, 512)})
	q.write(0, fill(2, 4096))   // overtakes the suspended read
	for i := range int64(100) { // plenty of time for a flush that does not wait
		q.write(16<<20, fill(byte(i), 4096))
	}
	q.read(8<<20, 512)
	if !flush.pending() || !suspect.pending() {
		t.Fatal("answered from a suspect region")
	}
	h.open()
	q.b.dev = h.disk
	if err := errors.Join(q.result(flush), q.result(suspect)); err != nil {
		t.Fatal(err)
	}
	wantEvent[Drained](q)
	if got := q.p.Progress().State; got != Connected {
		t.Fatal(got)
	}
	q.equal()
}

// An intact peer (a short link loss) holds up no flush.
func TestIntactFlushes(t *testing.T) {
	q := newPair(t, 32<<20).up()
	q.write(0, fill(1, 4096))
	q.lose()
	q.serve.Wait()
	h := hang(t, q.b.dev)
	q.s.dev = h
	if err := q.attach(1, true); err != nil {
		t.Fatal(err)
	}
	<-h.seen
	q.flush()
	h.open()
	wantEvent[Drained](q)
	q.equal()
}

// A frozen volume takes back only a complete peer.
func TestFrozenNeedsComplete(t *testing.T) {
	q := newPair(t, 8<<20).up()
	q.lose()
	q.serve.Wait()
	if err := q.attach(1, false); !errors.Is(err, ErrPeerIncomplete) {
		t.Fatal(err)
	}
}

// A daemon restart: the new process attaches at the same epoch, compares the hot
// extents and goes on connected; nothing is acknowledged in between.
func TestPrimaryRestart(t *testing.T) {
	q := newPair(t, 32<<20).up()
	q.write(4<<20, fill(1, 8192))
	q.p.Close()
	q.serve.Wait()
	scatter(q.a.dev, rand.New(rand.NewPCG(4, 4)), 64, 65) // written and never acknowledged
	q.primary()
	w := q.start(write(0, fill(2, 512)))
	if err := q.attach(1, true); err != nil {
		t.Fatal(err)
	}
	if err := q.result(w); err != nil {
		t.Fatal(err)
	}
	wantEvent[Drained](q)
	q.equal()
	if g := q.p.Progress(); g.State != Connected || g.Lineage.String() != "id@1/alpha" {
		t.Fatalf("%+v", g)
	}
}

// Close fences: nothing is applied or acknowledged after it.
func TestCloseFences(t *testing.T) {
	q := newPair(t, 8<<20).up()
	var stop sync.WaitGroup
	for i := range 200 {
		q.start(write(int64(i)*4096, fill(byte(i), 4096)))
	}
	stop.Go(q.s.Close)
	stop.Wait()
	after := q.b.dev.(*disk).bytes()
	acknowledged := q.p.Stats().Writes
	q.start(write(0, fill(255, 4096)))
	if e := wantEvent[PeerLost](q); !e.Required {
		t.Fatalf("%+v", e)
	}
	if !bytes.Equal(after, q.b.dev.(*disk).bytes()) {
		t.Fatal("applied after Stop")
	}
	if got := q.p.Progress(); got.State != Frozen {
		t.Fatalf("%v after %d writes", got.State, acknowledged)
	}
}

// The refusal of a newer epoch is reported before the loss.
func TestRefused(t *testing.T) {
	q := newPair(t, 8<<20)
	q.dial = func() (net.Conn, net.Conn) { return loopback(t) }
	q.up()
	if err := Refuse(q.s.session.conn, Refusal{Epoch: 7, Holder: "beta", Reason: "promised to beta"}); err != nil &&
		!errors.Is(err, net.ErrClosed) { // the session may end first
		t.Error(err)
	}
	if e := wantEvent[Refused](q); e.Epoch != 7 || e.Holder != "beta" {
		t.Fatalf("%+v", e)
	}
	wantEvent[PeerLost](q)
}

// A frame of another epoch ends the session and changes nothing.
func TestSessionEpoch(t *testing.T) {
	q := newPair(t, 8<<20)
	q.secondary()
	near, far := q.dial()
	done := make(chan error, 1)
	go func() { done <- q.s.Serve(context.Background(), wire.NewConn(far), Hello{Node: "x", Epoch: 5}, true) }()
	c := wire.NewConn(near)
	defer c.Close()
	if _, err := readWelcome(c); err != nil {
		t.Fatal(err)
	}
	c.Append(&wire.Header{Type: wire.Write, Epoch: 4, Seq: 1}, fill(1, 512))
	_ = c.Flush()
	if h, _, err := c.Next(); err != nil || h.Type != wire.Refuse {
		t.Fatal(h.Type, err)
	}
	if err := <-done; err == nil || q.b.dev.(*disk).bytes()[0] != 0 {
		t.Fatal("a stale frame was applied", err)
	}
}

// A secondary whose disk fails says so, and the primary freezes.
func TestSecondaryDeviceFails(t *testing.T) {
	q := newPair(t, 8<<20).up()
	d := q.b.dev.(*disk)
	d.mu.Lock()
	d.fail = errors.New("medium error")
	d.mu.Unlock()
	w := q.start(write(0, fill(1, 512)))
	if e := wantEvent[PeerLost](q); !e.Required {
		t.Fatalf("%+v", e)
	}
	if !w.pending() {
		t.Fatal("acknowledged")
	}
}

// Verify finds what differs, repairs it only when asked, and then calls the copies identical.
func TestVerify(t *testing.T) {
	q := newPair(t, 32<<20).up()
	rng := rand.New(rand.NewPCG(5, 5))
	q.write(1<<20, fill(1, 8192))
	scatter(q.b.dev, rng, 100, 101, 400)
	for _, repair := range []bool{false, true} {
		if err := q.p.Verify(repair); err != nil {
			t.Fatal(err)
		}
		e := wantEvent[VerifyDone](q)
		if e.Err != nil || e.Count != 3 || e.Checked != 32<<20 || len(e.Differs) != 3 {
			t.Fatalf("%+v", e)
		}
		if identical := !q.p.Progress().Identical.IsZero(); identical != repair {
			t.Fatalf("proven identical: %v", identical)
		}
	}
	q.equal()
	if err := q.p.Verify(false); err != nil {
		t.Fatal(err)
	}
	if e := wantEvent[VerifyDone](q); e.Count != 0 {
		t.Fatalf("%+v", e)
	}
}

// Guests that write all the time are never reported as differences.
func TestVerifyUnderLoad(t *testing.T) {
	q := newPair(t, 16<<20).up()
	stop := make(chan struct{})
	var guest sync.WaitGroup
	guest.Go(func() {
		rng := rand.New(rand.NewPCG(6, 6))
		for {
			select {
			case <-stop:
				return
			default:
				_ = q.do(write(rng.Int64N(16<<20/4096)*4096, fill(byte(rng.Uint32()), 4096)))
			}
		}
	})
	for range 3 {
		if err := q.p.Verify(false); err != nil {
			t.Fatal(err)
		}
		if e := wantEvent[VerifyDone](q); e.Count != 0 || e.Err != nil {
			t.Errorf("%+v", e)
		}
	}
	close(stop)
	guest.Wait()
}

// The throttle yields to guests, never below the floor, and recovers.
func TestThrottle(t *testing.T) {
	th := newThrottle()
	th.judge(200*time.Microsecond, 10)
	for range 100 {
		th.judge(50*time.Millisecond, 10)
	}
	if th.rate > rateStart/2 || th.rate < rateFloor {
		t.Errorf("rate %v under a suffering guest", th.rate)
	}
	for range 100 {
		th.judge(0, 0)
	}
	if th.rate != rateCeiling {
		t.Errorf("rate %v without a guest", th.rate)
	}
}

// pacing is plain arithmetic.
func TestPacing(t *testing.T) {
	if rate, eta := pacing(100, 300, 2*time.Second); rate != 50 || eta != 6*time.Second {
		t.Error(rate, eta)
	}
	if rate, eta := pacing(0, 300, time.Second); rate != 0 || eta != 0 {
		t.Error(rate, eta)
	}
}
