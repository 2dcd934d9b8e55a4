package cluster

import (
	"strings"
	"testing"
)

const (
	a = NodeID("alpha")
	b = NodeID("beta")
)

// both is the record of two connected, complete nodes with alpha as holder of epoch 3.
var both = Record{Epoch: 3, Holder: a, Promised: 3, To: a, Complete: 3}

func TestVote(t *testing.T) {
	outdated := both
	outdated.Complete = 2
	promisedSelf := both
	promisedSelf.Promised, promisedSelf.To = 4, b
	for _, c := range []struct {
		name string
		r    Record
		ask  Ask
		yes  bool
		why  string
	}{
		{"holder goes on alone", both, Ask{Node: a, Epoch: 4, Complete: 3}, true, "outdated"},
		{"complete secondary takes over", both, Ask{Node: b, Epoch: 4, Complete: 3}, true, ""},
		{"stale copy", both, Ask{Node: b, Epoch: 4, Complete: 2}, false, "complete at epoch 2"},
		{"epoch already granted to another", both, Ask{Node: b, Epoch: 3, Complete: 3}, false, "promised to alpha"},
		{"old epoch", both, Ask{Node: a, Epoch: 2, Complete: 3}, false, "newer"},
		{"promised to itself", promisedSelf, Ask{Node: a, Epoch: 4, Complete: 3}, false, "promised to beta"},
		{"above its own promise", promisedSelf, Ask{Node: a, Epoch: 5, Complete: 3}, true, ""},
		{"the same node asks again", both, Ask{Node: a, Epoch: 3, Complete: 3}, true, ""},
		{"an outdated voter still votes", outdated, Ask{Node: a, Epoch: 4, Complete: 3}, true, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			voter := b
			if c.ask.Node == b {
				voter = a
			}
			after, ans := c.r.Vote(voter, c.ask)
			if ans.Yes != c.yes || !strings.Contains(ans.Why, c.why) {
				t.Fatalf("vote = %v %q, want %v with %q", ans.Yes, ans.Why, c.yes, c.why)
			}
			if !ans.Yes {
				if after != c.r {
					t.Fatalf("a no changed the record: %+v", after)
				}
				return
			}
			if after.Epoch != c.ask.Epoch || after.Holder != c.ask.Node || after.Promised != c.ask.Epoch {
				t.Fatalf("a yes is knowledge, but the record is %+v", after)
			}
			if after.IsComplete() && c.ask.Epoch > c.r.Epoch {
				t.Fatal("the voter is still complete at the new epoch")
			}
			if err := after.Valid(voter); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestVoterNeverSaysYesTwice(t *testing.T) {
	w := Record{}
	w, first := w.Vote("w", Ask{Node: a, Epoch: 1})
	_, second := w.Vote("w", Ask{Node: b, Epoch: 1})
	_, again := w.Vote("w", Ask{Node: a, Epoch: 1})
	if !first.Yes || second.Yes || !again.Yes {
		t.Fatalf("yes, no, yes wanted; got %v, %v, %v", first.Yes, second.Yes, again.Yes)
	}
}

func TestNext(t *testing.T) {
	if got := both.Next(a); got != 4 {
		t.Fatalf("next = %d, want 4", got)
	}
	own := both.Promise(a, 0)
	if own.Promised != 4 || own.Next(a) != 4 {
		t.Fatalf("an open promise of one's own is asked again, got %+v", own)
	}
	if own.Epoch != 3 || !own.Holds(a) {
		t.Fatal("a promise to oneself is no grant")
	}
	if got := own.Promise(a, 6); got.Promised != 7 {
		t.Fatalf("promise above 6 = %d, want 7", got.Promised)
	}
	gave, _ := both.Vote(b, Ask{Node: a, Epoch: 5, Complete: 3})
	if got := gave.Next(b); got != 6 {
		t.Fatalf("next after a promise to the other = %d, want 6", got)
	}
}

func TestWonAndLearn(t *testing.T) {
	won := both.Promise(a, 0).Won(a, 4, true)
	if !won.Holds(a) || !won.IsComplete() || !won.Alone {
		t.Fatalf("winner is %+v", won)
	}
	other := both.Learn(b, 4, a)
	if other.IsComplete() || other.Holder != a {
		t.Fatalf("a node that hears of a newer epoch is outdated, got %+v", other)
	}
	if other.Learn(b, 3, b) != other {
		t.Fatal("older news changed the record")
	}
	if both.Learn(b, 9, b) != both {
		t.Fatal("a node believed hearsay that it holds an epoch")
	}
	if got := other.Completed(3); got != other {
		t.Fatal("the late end of an old resync made the node complete")
	}
	if !other.Completed(4).IsComplete() {
		t.Fatal("the end of the resync does not count")
	}
	deposed := won.Learn(a, 5, b)
	if deposed.Holds(a) || deposed.Alone || deposed.IsComplete() {
		t.Fatalf("deposed holder is %+v", deposed)
	}
}

func TestGranted(t *testing.T) {
	for _, c := range []struct {
		name string
		p    Arbitration
		ev   Evidence
		ok   bool
	}{
		{"peer says yes", Safe, Evidence{PeerYes: true}, true},
		{"peer says no, ping answers", Available, Evidence{PeerNo: "stale", Ping: true, Met: true}, false},
		{"safe and silent", Safe, Evidence{Ping: true, Met: true}, false},
		{"available, ping answers", Available, Evidence{Ping: true, Met: true}, true},
		{"available, cut off", Available, Evidence{Met: true}, false},
		{"available, just started", Available, Evidence{Ping: true}, false},
		{"no policy is safe", "", Evidence{Ping: true, Met: true}, false},
	} {
		if ok, why := Granted(c.p, c.ev); ok != c.ok || why == "" {
			t.Errorf("%s: granted %v %q, want %v with a reason", c.name, ok, why, c.ok)
		}
	}
}

func TestPowerLoss(t *testing.T) {
	cold := both
	cold.Cold = true
	if cold.IsComplete() {
		t.Fatal("a copy that lost power counts as complete")
	}
	outdated, _ := both.Vote(b, Ask{Node: a, Epoch: 4, Complete: 3}) // its yes never reached alpha
	otherCold := both
	otherCold.Cold = true
	stale := both
	stale.Complete = 2
	alone := cold
	alone.Alone = true
	for _, c := range []struct {
		name       string
		mine, peer Record
		worse      bool
	}{
		{"peer kept power", cold, both, true},
		{"peer kept power and had agreed to be outdated", cold, outdated, true},
		{"both lost power", cold, otherCold, false},
		{"peer is not complete", cold, stale, false},
		{"this node was alone", alone, stale, false},
		{"nobody lost power", both, both, false},
	} {
		if got := c.mine.Worse(c.peer); got != c.worse {
			t.Errorf("%s: worse = %v", c.name, got)
		}
	}
	if got := cold.Lead(); got.Cold || !got.Alone || !got.IsComplete() {
		t.Errorf("the best copy there is leads, got %+v", got)
	}
}

func TestInherits(t *testing.T) {
	outdated, _ := both.Vote(b, Ask{Node: a, Epoch: 4, Complete: 3})
	own := both.Promise(b, 0)
	cold := both
	cold.Cold = true
	stale := both
	stale.Complete = 2
	for _, c := range []struct {
		name    string
		r       Record
		from, e Epoch
		ok      bool
	}{
		{"in step", both, 3, 4, true},
		{"it had asked for that epoch itself", own, 3, 4, true},
		{"it had asked for a newer one", own, 3, 3, false},
		{"it had agreed to an epoch the peer never used", outdated, 3, 5, true},
		{"that epoch was promised to the peer", outdated, 3, 4, false},
		{"not complete", stale, 3, 4, false},
		{"lost power", cold, 3, 4, false},
		{"another time", both, 2, 4, false},
	} {
		if got := c.r.Inherits(b, a, c.from, c.e); got != c.ok {
			t.Errorf("%s: inherits = %v", c.name, got)
		}
	}
}
