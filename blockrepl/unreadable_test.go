package blockrepl

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"
)

// disks returns the disks of the two nodes.
func (q *pair) disks() (a, b *disk) { return q.a.dev.(*disk), q.b.dev.(*disk) }

// tryRead reads as a guest and returns the error.
func (q *pair) tryRead(off, n int64) error {
	q.t.Helper()
	return q.do(&Request{Op: OpRead, Off: off, Len: n, Data: make([]byte, n)})
}

// noFailure fails if the volume was called failed.
func (q *pair) noFailure() {
	q.t.Helper()
	if err := q.p.Progress().Failed; err != nil {
		q.t.Errorf("the volume failed: %v", err)
	}
	for len(q.events) > 0 {
		if e, failed := (<-q.events).(DeviceFailed); failed {
			q.t.Errorf("the volume failed: %v", e.Err)
		}
	}
}

// A sector that cannot be read here, met by the resync of a new peer, costs nothing but the
// end of the resync: everything else arrives, also the rest of its region, guests go on, and
// when a guest has written it anew the peer becomes complete.
func TestResyncSkipsUnreadable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newPair(t, 16<<20)
		q.primary()
		q.secondary()
		if err := q.p.GoAlone(1); err != nil {
			t.Fatal(err)
		}
		q.write(0, fill(7, 1<<20))
		a, b := q.disks()
		a.spoil(5*RegionSize + 8<<10)
		if err := q.attach(1, false); err != nil {
			t.Fatal(err)
		}
		e := wantEvent[RegionUnreadable](q)
		if e.Off != 5*RegionSize || e.Len != RegionSize || !errors.Is(e.Err, errBadSector) {
			t.Errorf("%+v", e)
		}
		time.Sleep(3 * probeEvery)
		g := q.p.Progress()
		if g.State != Syncing || g.Unreadable != RegionSize || g.UnreadableSince.IsZero() || g.ToCompare != RegionSize {
			t.Errorf("%+v", g)
		}
		have := b.bytes()
		copy(have[5*RegionSize+8<<10:], fill(7, salvageSize)) // nobody has that
		if !bytes.Equal(have[:1<<20], fill(7, 1<<20)) {
			t.Error("what can be read is not on the peer")
		}
		if _, lineage, _ := q.b.log.Load(); !lineage.Partial {
			t.Error("the peer passes for whole")
		}
		if err := q.tryRead(5*RegionSize+8<<10, 512); !errors.Is(err, errBadSector) {
			t.Errorf("read: %v", err)
		}
		q.flush()
		q.noFailure()
		q.write(5*RegionSize+8<<10, fill(8, 4096))
		q.connect(1)
		q.equal()
		if g := q.p.Progress(); g.Unreadable != 0 || g.State != Connected {
			t.Errorf("%+v", g)
		}
		q.stop()
	})
}

// A complete peer that lost nothing has what a suspect region needs, if it cannot be read here.
func TestResyncTakesFromIntactPeer(t *testing.T) {
	q := newPair(t, 16<<20).up()
	q.write(RegionSize, fill(3, RegionSize))
	q.lose()
	q.serve.Wait()
	a, _ := q.disks()
	a.spoil(RegionSize + 4096)
	if err := q.attach(1, true); err != nil {
		t.Fatal(err)
	}
	if e := wantEvent[ReadRepaired](q); e.Off != RegionSize || e.Repair != nil {
		t.Errorf("%+v", e)
	}
	wantEvent[Drained](q)
	q.equal()
	if got := q.read(RegionSize, RegionSize); !bytes.Equal(got, fill(3, RegionSize)) {
		t.Error("the region does not have what was written")
	}
	q.noFailure()
}

// A complete peer whose process is another one is trusted from when it has caught up, and was told so.
func TestPeerIsIntactAgain(t *testing.T) {
	q := newPair(t, 16<<20).up()
	q.write(RegionSize, fill(3, RegionSize))
	q.lose()
	q.serve.Wait()
	q.secondary()
	if err := q.attach(1, true); err != nil {
		t.Fatal(err)
	}
	wantEvent[Drained](q)
	commits := q.b.log.commits
	for range 2 { // the answer may have been lost
		if err := q.s.Complete(t.Context(), q.p.Ticket()); err != nil {
			t.Fatal(err)
		}
	}
	if n := q.b.log.commits - commits; n != 1 {
		t.Errorf("%d commits for what was complete the second time", n)
	}
	q.write(RegionSize, fill(4, RegionSize))
	q.lose()
	q.serve.Wait()
	a, _ := q.disks()
	a.spoil(RegionSize + 4096)
	if err := q.attach(1, true); err != nil {
		t.Fatal(err)
	}
	if e := wantEvent[ReadRepaired](q); e.Off != RegionSize || e.Repair != nil {
		t.Errorf("%+v", e)
	}
	wantEvent[Drained](q)
	q.equal()
}

// A Secondary that was closed and made again in one process still vouches for what it had; one that failed does not.
func TestReopenedPeerIsIntact(t *testing.T) {
	q := newPair(t, 16<<20).up()
	q.write(RegionSize, fill(3, RegionSize))
	q.lose()
	q.serve.Wait()
	q.s.Close()
	q.reopen(q.s.Intact())
	a, _ := q.disks()
	a.spoil(RegionSize + 4096)
	if err := q.attach(1, true); err != nil {
		t.Fatal(err)
	}
	if got := q.read(RegionSize, RegionSize); !bytes.Equal(got, fill(3, RegionSize)) {
		t.Error("the region does not have what was written")
	}
	q.s.mu.Lock()
	_ = q.s.fail(errors.New("broken"))
	q.s.intact = true // a Complete that was under way
	q.s.mu.Unlock()
	if q.s.Intact() {
		t.Error("a copy that failed is intact")
	}
}

// A complete peer that may have lost acknowledged writes does not stand in for what cannot
// be read here: the guest gets an error rather than old data, and everything else goes on.
func TestResyncDoesNotTrustLossyPeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newPair(t, 16<<20).up()
		q.write(RegionSize, fill(3, RegionSize))
		q.lose()
		q.serve.Wait()
		a, b := q.disks()
		copy(b.data[RegionSize:], make([]byte, RegionSize)) // lost with the power
		a.spoil(RegionSize + 4096)
		q.secondary()
		if err := q.attach(1, true); err != nil {
			t.Fatal(err)
		}
		wantEvent[RegionUnreadable](q)
		if err := q.tryRead(RegionSize+4096, 512); !errors.Is(err, errBadSector) {
			t.Errorf("read: %v", err)
		}
		if got := q.read(RegionSize, 4096); !bytes.Equal(got, fill(3, 4096)) {
			t.Error("what can be read differs")
		}
		q.flush()
		time.Sleep(2 * probeEvery)
		if g := q.p.Progress(); g.State != Required || g.Unreadable != RegionSize {
			t.Errorf("%+v", g)
		}
		q.noFailure()
		q.write(RegionSize+4096, fill(4, 4096))
		wantEvent[Drained](q)
		q.equal()
		q.stop()
	})
}

// Verify takes what cannot be read here from the peer and writes it here, unasked.
func TestVerifyMends(t *testing.T) {
	q := newPair(t, 16<<20).up()
	q.write(0, fill(6, 1<<20))
	a, _ := q.disks()
	a.spoil(3*RegionSize + 512)
	if err := q.p.Verify(false); err != nil {
		t.Fatal(err)
	}
	if e := wantEvent[VerifyDone](q); e.Err != nil || e.Count != 0 || e.Mended != 1 || e.Unreadable != 0 {
		t.Errorf("%+v", e)
	}
	if g := q.p.Progress(); g.Identical.IsZero() || g.State != Connected || g.Unreadable != 0 {
		t.Errorf("%+v", g)
	}
	q.equal()
	q.noFailure()
}

// What neither side can read is an error for the guest that reads it, and reported by a
// verify; the link stays.
func TestUnreadableOnBoth(t *testing.T) {
	q := newPair(t, 16<<20).up()
	q.write(0, fill(6, 1<<20))
	a, b := q.disks()
	a.spoil(3 * RegionSize)
	b.spoil(3 * RegionSize)
	if q.tryRead(3*RegionSize, 512) == nil {
		t.Error("read what nobody has")
	}
	wantEvent[RegionUnreadable](q)
	if err := q.p.Verify(true); err != nil {
		t.Fatal(err)
	}
	if e := wantEvent[VerifyDone](q); e.Err != nil || e.Mended != 0 || e.Unreadable != 1 {
		t.Errorf("%+v", e)
	}
	if g := q.p.Progress(); !g.Identical.IsZero() || g.State != Connected || g.Unreadable != RegionSize {
		t.Errorf("%+v", g)
	}
	q.noFailure()
}

// A region that cannot be read on the standby differs, and is written.
func TestStandbyUnreadableIsWritten(t *testing.T) {
	q := newPair(t, 16<<20)
	scatter(q.a.dev, rand.New(rand.NewPCG(7, 7)), 1, 2, 3, 80)
	_, b := q.disks()
	b.spoil(2*RegionSize + 512)
	b.spoil(10 * RegionSize) // a hole on the primary
	q.up()
	q.equal()
	q.write(0, fill(1, 4096))
	b.spoil(80 * RegionSize)
	if err := q.p.Verify(true); err != nil {
		t.Fatal(err)
	}
	if e := wantEvent[VerifyDone](q); e.Err != nil || e.Repaired != 1 {
		t.Errorf("%+v", e)
	}
	q.equal()
	if len(q.served) != 0 {
		t.Errorf("the session ended: %v", <-q.served)
	}
}

// What could not be read while alone is tried again, and forgotten when it can be.
func TestUnreadableAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newPair(t, 16<<20)
		q.primary()
		if err := q.p.GoAlone(1); err != nil {
			t.Fatal(err)
		}
		q.write(0, fill(1, 4096))
		a, _ := q.disks()
		a.spoil(512)
		if q.tryRead(0, 256<<10) == nil {
			t.Error("read what nobody has")
		}
		if g := q.p.Progress(); g.Unreadable != 256<<10 {
			t.Errorf("%+v", g)
		}
		time.Sleep(2 * probeEvery)
		if g := q.p.Progress(); g.Unreadable != RegionSize {
			t.Errorf("%+v", g)
		}
		q.write(0, fill(1, 4096))
		time.Sleep(2 * probeEvery)
		if g := q.p.Progress(); g.Unreadable != 0 {
			t.Errorf("%+v", g)
		}
		q.noFailure()
		q.stop()
	})
}

// A read of a resync that hangs is no failed disk, unless a guest waits behind it.
func TestHungResyncRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newPair(t, 8<<20)
		a := newGated(8 << 20)
		q.a.dev, q.local = a, 10*time.Second
		q.primary()
		q.secondary()
		if err := q.p.GoAlone(1); err != nil {
			t.Fatal(err)
		}
		q.write(0, fill(1, 4096))
		free := a.stick(OpRead)
		if err := q.attach(1, false); err != nil {
			t.Fatal(err)
		}
		if e := wantEvent[RegionUnreadable](q); !errors.Is(e.Err, ErrHung) {
			t.Errorf("%+v", e)
		}
		q.write(0, fill(2, 4096))
		q.noFailure()
		free()
		q.connect(1)
		q.equalBytes(a.bytes(), q.b.dev.(*disk).bytes())
		if g := q.p.Progress(); g.Unreadable != 0 {
			t.Errorf("%+v", g)
		}
		q.stop()
	})
}
