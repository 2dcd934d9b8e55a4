package blockrepl

import (
	"testing"
	"testing/synctest"
	"time"
)

// inFlight returns a pair whose log on the primary does not answer, with a write that is
// done here and was never answered by the peer, which is lost. The peer's disk works.
func inFlight(t *testing.T) (q *pair, w waiter, log func()) {
	q = newPair(t, 8<<20)
	b := newGated(8 << 20)
	q.b.dev = b
	q.up()
	q.write(0, fill(1, 512)) // its extent is hot from now on
	q.write(4<<20, fill(1, 512))
	synctest.Wait()
	free := b.stick(OpWrite)
	w = q.start(write(0, fill(2, 512)))
	<-b.entered
	q.cut()
	free()
	if e := wantEvent[PeerLost](q); !e.Required {
		t.Fatal("the peer was not required")
	}
	q.serve.Wait()
	return q, w, q.a.log.stick()
}

// Two decisions while one commit is under way: the write that waits for the generation is
// acknowledged although no other comes.
func TestTwoDecisionsWithinOneCommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q, w, free := inFlight(t)
		q.p.mu.Lock()
		q.p.tracker.coolAll(false) // something to store that is no generation
		q.p.commit()
		running := q.p.ledger.running
		q.p.mu.Unlock()
		if !running {
			t.Fatal("no commit is under way")
		}
		for _, epoch := range []uint64{2, 3} {
			if err := q.p.GoAlone(epoch); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Second)
		if !w.pending() {
			t.Error("acknowledged without a generation")
		}
		free()
		if err := q.result(w); err != nil {
			t.Error(err)
		}
		if newest, _ := q.p.Progress().Lineage.Newest(); newest.Epoch != 3 {
			t.Errorf("acknowledged in generation %v", newest)
		}
		q.stop()
	})
}

// A peer that is not complete attaches before the generation is durable: nothing is
// acknowledged, and the peer not required, before it is.
func TestAttachBeforeGeneration(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q, w, free := inFlight(t)
		if err := q.p.GoAlone(2); err != nil {
			t.Fatal(err)
		}
		if err := q.attach(2, false); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if !w.pending() {
			t.Error("acknowledged without a generation")
		}
		if st := q.p.Progress().State; st != Syncing {
			t.Errorf("the volume is %v", st)
		}
		free()
		if err := q.result(w); err != nil {
			t.Error(err)
		}
		q.connect(2)
		if _, lineage, _ := q.b.log.Load(); lineage.String() != "id@2/alpha" {
			t.Errorf("the peer took over %v", lineage)
		}
		q.equalBytes(q.a.dev.(*disk).bytes(), q.b.dev.(*gated).bytes())
		q.stop()
	})
}
