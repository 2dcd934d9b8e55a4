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
	if got := own.Next(b); got != 5 {
		t.Fatalf("next to hand over after a promise to itself = %d, want 5", got)
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
	if got := other.Learn(b, 4, "gamma"); got != other {
		t.Fatalf("a second holder of the same epoch replaced the first: %+v", got)
	}
	if both.Learn(b, 9, b) != both {
		t.Fatal("a node believed hearsay that it holds an epoch")
	}
	syncing := other
	syncing.Complete, syncing.Cold = 2, true
	for _, e := range []Epoch{0, 3, 5} {
		if got := syncing.Completed(e); got != syncing {
			t.Fatalf("the end of a resync of epoch %d changed a record of epoch 4: %+v", e, got)
		}
	}
	if got := syncing.Completed(4); !got.IsComplete() {
		t.Fatalf("the end of the resync leaves %+v", got)
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
	w1, w2 := []string{"w1"}, []string{"w1", "w2"}
	yes := func(names ...string) map[string]Said {
		said := make(map[string]Said)
		for _, n := range names {
			said[n] = Said{Yes: true}
		}
		return said
	}
	refused := map[string]Said{"w1": {Why: "promised to beta"}}
	for _, c := range []struct {
		name string
		m    Means
		ev   Evidence
		ok   bool
		why  string
	}{
		{"peer says yes", Means{}, Evidence{PeerYes: true}, true, "3a"},
		{"peer says yes, witness silent", Means{Witnesses: w1}, Evidence{PeerYes: true}, true, "3a"},
		{"peer says yes, so it is closed and needs no fence", Means{First: true}, Evidence{PeerYes: true, TakeOver: true},
			true, "3a"},
		{"peer says no, witness yes", Means{Witnesses: w1}, Evidence{PeerNo: "stale", Witnesses: yes("w1")}, false, "stale"},
		{"peer says no, all else says yes", Means{Arbitration: Available, Fence: true},
			Evidence{PeerNo: "stale", Ping: true, Met: true, Fenced: true}, false, "stale"},

		{"witness says yes", Means{Witnesses: w1}, Evidence{Witnesses: yes("w1")}, true, "w1 agreed"},
		{"witness says yes to a node that just started", Means{Witnesses: w1}, Evidence{Witnesses: yes("w1"), Met: false},
			true, "3b"},
		{"witness refuses", Means{Witnesses: w1}, Evidence{Witnesses: refused}, false, "promised to beta"},
		{"witness silent", Means{Witnesses: w1}, Evidence{}, false, "neither the peer nor the witness w1"},
		{"nothing replaces a silent witness", Means{Witnesses: w1, Arbitration: Available, Fence: true},
			Evidence{Fenced: true, Ping: true, Met: true}, false, "w1"},
		{"nothing replaces a witness that refused", Means{Witnesses: w1, Arbitration: Available, Fence: true},
			Evidence{Witnesses: refused, Fenced: true, Ping: true, Met: true}, false, "w1"},
		{"another's yes is no witness's", Means{Witnesses: w1}, Evidence{Witnesses: yes("w2")}, false, "w1"},
		{"during a change of witness both say yes", Means{Witnesses: w2}, Evidence{Witnesses: yes("w1", "w2")}, true, "3b"},
		{"during a change of witness the old one is silent", Means{Witnesses: w2}, Evidence{Witnesses: yes("w2")}, false,
			"witness w1"},
		{"during a change of witness the new one is silent", Means{Witnesses: w2}, Evidence{Witnesses: yes("w1")}, false,
			"witness w2"},

		{"fence before start, not confirmed", Means{Witnesses: w1, Fence: true, First: true},
			Evidence{Witnesses: yes("w1"), TakeOver: true}, false, "has not confirmed"},
		{"fence before start, failed", Means{Witnesses: w1, Fence: true, First: true},
			Evidence{Witnesses: yes("w1"), TakeOver: true, FenceWhy: "ipmi: no route"}, false, "ipmi: no route"},
		{"fence before start, confirmed", Means{Witnesses: w1, Fence: true, First: true},
			Evidence{Witnesses: yes("w1"), TakeOver: true, Fenced: true}, true, "3b"},
		{"fence before start, the holder goes on where it is", Means{Witnesses: w1, Fence: true, First: true},
			Evidence{Witnesses: yes("w1")}, true, "3b"},
		{"fence before start, witness refuses", Means{Witnesses: w1, Fence: true, First: true},
			Evidence{Witnesses: refused, TakeOver: true}, false, "refused"},
		{"fence before start, only a ping", Means{Arbitration: Available, Fence: true, First: true},
			Evidence{Ping: true, Met: true, TakeOver: true}, false, "fenced before"},

		{"just started, fenced", Means{Arbitration: Available, Fence: true}, Evidence{Fenced: true}, false, "rule 6"},
		{"just started, ping answers", Means{Arbitration: Available}, Evidence{Ping: true}, false, "rule 6"},
		{"fenced", Means{Arbitration: Safe, Fence: true}, Evidence{Fenced: true, Met: true}, true, "3c"},
		{"fenced, available, cut off", Means{Arbitration: Available, Fence: true}, Evidence{Fenced: true, Met: true}, true,
			"3c"},
		{"safe, fence not confirmed", Means{Arbitration: Safe, Fence: true}, Evidence{Ping: true, Met: true}, false,
			"has not confirmed"},
		{"safe, fence failed", Means{Arbitration: Safe, Fence: true},
			Evidence{Ping: true, Met: true, FenceWhy: "ipmi: no route"}, false, "ipmi: no route"},
		{"safe and silent", Means{Arbitration: Safe}, Evidence{Ping: true, Met: true}, false, "safe"},
		{"no policy is safe", Means{}, Evidence{Ping: true, Met: true}, false, "safe"},
		{"available, ping answers", Means{Arbitration: Available}, Evidence{Ping: true, Met: true}, true, "3d"},
		{"available, fence failed, ping answers", Means{Arbitration: Available, Fence: true},
			Evidence{Ping: true, Met: true, FenceWhy: "ipmi: no route"}, true, "3d"},
		{"available, cut off", Means{Arbitration: Available}, Evidence{Met: true}, false, "cut off"},
	} {
		if ok, why := Granted(c.m, c.ev); ok != c.ok || why == "" || !strings.Contains(why, c.why) {
			t.Errorf("%s: granted %v %q, want %v with %q", c.name, ok, why, c.ok, c.why)
		}
	}
}

// TestGrantedNeedsAVoice: no policy lets a node act when nobody and nothing answers.
func TestGrantedNeedsAVoice(t *testing.T) {
	for bits := range 1 << 6 {
		on := func(i int) bool { return bits>>i&1 == 1 }
		m := Means{Arbitration: Safe, Fence: on(1), First: on(2)}
		if on(0) {
			m.Arbitration = Available
		}
		if on(3) {
			m.Witnesses = []string{"w1"}
		}
		if ok, why := Granted(m, Evidence{Met: on(4), TakeOver: on(5)}); ok || why == "" {
			t.Errorf("%+v: granted %v %q", m, ok, why)
		}
	}
}

func TestTook(t *testing.T) {
	took := both.Won(b, 4, true)
	if !took.Took {
		t.Fatal("who goes on with what its peer held took it")
	}
	_, refused := took.Vote(b, Ask{Node: a, Epoch: 4, Complete: 3})
	outvoted, agreed := took.Vote(b, Ask{Node: a, Epoch: 5, Complete: 4})
	if refused.Yes || !agreed.Yes {
		t.Fatalf("no, yes wanted; got %v, %v", refused.Yes, agreed.Yes)
	}
	for _, c := range []struct {
		name string
		r    Record
		took bool
	}{
		{"the holder goes on alone", both.Won(a, 4, true), false},
		{"it was given by the peer", both.Won(b, 4, false), false},
		{"taken, and then gone on alone at a newer epoch", took.Won(b, 5, true), true},
		{"taken, and later given back by a swap", took.Won(b, 5, false), false},
		{"taken at the first epoch ever", Record{}.Won(b, 1, true), true},
		{"asks for the next epoch", took.Promise(b, 0), true},
		{"leads", took.Lead(), true},
		{"its data are complete", took.Completed(4), true},
		{"hears old news", took.Learn(b, 3, a), true},
		{"hears of a newer epoch", took.Learn(b, 5, a), false},
		{"says no", refused.Know, true},
		{"says yes", outvoted, false},
	} {
		if c.r.Took != c.took {
			t.Errorf("%s: took = %v", c.name, c.r.Took)
		}
	}
}

func TestSplit(t *testing.T) {
	goesOn, takes := both.Won(a, 4, true), both.Won(b, 4, true)
	for _, c := range []struct {
		name        string
		mine, peer  Record
		owner       NodeID
		split, stay bool
	}{
		{"the former holder goes on", goesOn, takes, a, true, true},
		{"the one that took it gives way", takes, goesOn, b, true, false},
		{"both took it: the first name stays", Record{Epoch: 4, Holder: a, Took: true}, takes, a, true, true},
		{"both took it: the second gives way", takes, Record{Epoch: 4, Holder: a, Took: true}, b, true, false},
		{"neither took it: the first name stays", goesOn, Record{Epoch: 4, Holder: b}, a, true, true},
		{"the peer's is newer", goesOn, takes.Won(b, 5, true), a, false, false},
		{"mine is newer", goesOn.Won(a, 5, true), takes, a, false, false},
		{"the peer knows the holder", goesOn, both.Learn(b, 4, a), a, false, false},
		{"this node knows the holder", both.Learn(a, 4, b), takes, a, false, false},
		{"nothing was ever granted", Record{}, Record{}, a, false, false},
	} {
		other := b
		if c.owner == b {
			other = a
		}
		if split, stays := c.mine.Split(c.owner, c.peer, other); split != c.split || stays != c.stay {
			t.Errorf("%s: split %v, stays %v", c.name, split, stays)
		}
	}
}

// TestSplitLaw: both nodes come to the same answer, and exactly one of them stays.
func TestSplitLaw(t *testing.T) {
	var all []Record
	for bits := range 1 << 5 {
		r := Record{Epoch: 4, Holder: a, Alone: bits&4 != 0, Took: bits&8 != 0, Cold: bits&16 != 0}
		if bits&1 != 0 {
			r.Epoch = 5
		}
		if bits&2 != 0 {
			r.Holder = b
		}
		all = append(all, r)
	}
	splits := 0
	for _, mine := range all {
		for _, peer := range all {
			split, stays := mine.Split(a, peer, b)
			mirrored, peerStays := peer.Split(b, mine, a)
			if split != mirrored || (split && stays == peerStays) || (!split && (stays || peerStays)) {
				t.Errorf("%+v and %+v: split %v and %v, stays %v and %v", mine, peer, split, mirrored, stays, peerStays)
			}
			if split {
				splits++
			}
		}
	}
	if splits == 0 {
		t.Fatal("no pair was split")
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
		{"this node was alone, whatever the peer believes", alone, both, false},
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
	mine := Record{Epoch: 4, Holder: b, Promised: 4, To: b, Complete: 3}
	for _, c := range []struct {
		name    string
		r       Record
		from, e Epoch
		ok      bool
	}{
		{"it holds a newer epoch itself", mine, 3, 5, false},
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

// TestOutdated: a copy that is given up counts as complete at no epoch, whatever it was.
func TestOutdated(t *testing.T) {
	cold := Record{Epoch: 3, Holder: "beta", Promised: 3, To: "beta", Complete: 3, Cold: true}
	if got := cold.Outdated(); got.Complete != 0 || got.Cold || got.Epoch != 3 || got.IsComplete() ||
		got.Valid("alpha") != nil {
		t.Errorf("given up: %+v", got)
	}
	warm := cold
	warm.Cold = false
	if warm.Outdated() != warm {
		t.Error("a copy that has everything was given up")
	}
}
