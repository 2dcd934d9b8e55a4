package proof

import (
	"encoding/json"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"duet/blockrepl"
)

const week = 7 * 24 * time.Hour

// piece is one comparison that a test saw.
type piece struct {
	volume int
	began  time.Time
	cost   time.Duration
}

// run compares n volumes of size bytes until end, as their owners do: each piece takes cost.
func run(n int, ledgers []Ledger, paces []Pace, wish, cost time.Duration, end time.Time) (all []piece) {
	var mu sync.Mutex
	var workers sync.WaitGroup
	budget := NewBudget(Share)
	for i := range n {
		workers.Go(func() {
			for time.Now().Before(end) {
				if d := time.Until(ledgers[i].Due(wish)); d > 0 {
					time.Sleep(d)
				}
				asked := time.Now()
				<-budget.Turn
				time.Sleep(budget.Wait(time.Now()))
				began := time.Now()
				time.Sleep(cost)
				pause := budget.Spend(began, cost)
				budget.Done()
				mu.Lock()
				all = append(all, piece{i, began, cost})
				mu.Unlock()
				paces[i].Spent(began.Sub(asked), pause)
				ledgers[i].Looked(began, ledgers[i].At, nil)
			}
		})
	}
	workers.Wait()
	return all
}

// A pass that the budget suffices for takes as long as was wished, in even steps.
func TestEven(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const size = 100 * Step
		began := time.Now()
		ledgers, paces := []Ledger{New("v", size, began)}, make([]Pace, 1)
		all := run(1, ledgers, paces, week, 20*time.Millisecond, began.Add(3*week))
		if len(all) < 300 || len(all) > 302 {
			t.Errorf("%d pieces in three weeks", len(all))
		}
		for i := 1; i < len(all); i++ {
			if d := all[i].began.Sub(all[i-1].began); d < week/110 || d > week/90 {
				t.Fatalf("piece %d comes after %v", i, d)
			}
		}
		l := ledgers[0]
		if age := l.Age(time.Now()); age < week-week/10 || age > week+week/10 {
			t.Errorf("age %v after passes of a week", age)
		}
		if at, late := paces[0].Ends(l, time.Now(), week); late || at.After(time.UnixMilli(l.Began).Add(week+time.Minute)) {
			t.Errorf("it ends at %v, late: %v", at, late)
		}
	})
}

// All volumes together never use more than the share of the disks' time, all of them get on, and each says
// that and how late it will be.
func TestBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n, size, cost = 3, 1000 * Step, 40 * time.Millisecond
		began := time.Now()
		ledgers, paces := make([]Ledger, n), make([]Pace, n)
		for i := range ledgers {
			ledgers[i] = New("v", size, began)
		}
		all := run(n, ledgers, paces, time.Hour, cost, began.Add(time.Hour))
		for i := range all {
			for j := i + 1; j < len(all) && j < i+50; j++ { // any window that begins with a piece
				var used time.Duration
				for _, p := range all[i:j] {
					used += p.cost
				}
				if window := all[j].began.Sub(all[i].began); float64(used) > Share*float64(window)*1.001 {
					t.Fatalf("%v of %v", used, window)
				}
			}
		}
		counts := make([]int, n)
		for _, p := range all {
			counts[p.volume]++
		}
		if slices.Max(counts)-slices.Min(counts) > 2 || slices.Min(counts) < 250 {
			t.Errorf("pieces by volume: %v", counts)
		}
		now, left := time.Now(), float64(ledgers[0].left())
		at, late := paces[0].Ends(ledgers[0], now, time.Hour)
		want := time.Duration(left * n * float64(cost) / Share)
		if got := at.Sub(now); !late || got < want*8/10 || got > want*12/10 {
			t.Errorf("ends in %v (late: %v), want about %v", got, late, want)
		}
	})
}

// A pass that stood still for a while spreads the rest over what is left of its time, and one
// whose time is over hurries.
func TestLate(t *testing.T) {
	began := time.UnixMilli(1e12)
	l := New("v", 100*Step, began)
	l.Looked(began, 0, nil)
	l.Last = began.Add(week / 2).UnixMilli() // nothing went on until then, but for one more
	gap := l.Due(week).Sub(time.UnixMilli(l.Last))
	if gap != week/2/99 {
		t.Errorf("next piece after %v, want %v", gap, week/2/99)
	}
	l.Last = began.Add(2 * week).UnixMilli()
	if due := l.Due(week); due.After(time.UnixMilli(l.Last)) {
		t.Errorf("a late pass waits until %v", due)
	}
}

// pass compares every extent from At to the end, a second each; bad are the places.
func pass(l *Ledger, now *time.Time, bad map[int64]Place) (news int) {
	for {
		*now = now.Add(time.Second)
		off := l.At
		var found *Place
		if p, ok := bad[off/Step]; ok {
			found = &p
		}
		if l.Looked(*now, off, found) {
			news++
		}
		if l.At == 0 {
			return news
		}
	}
}

// The age is that of the oldest part: what differs stays unproven, the rest does not.
func TestAge(t *testing.T) {
	began := time.UnixMilli(1e12)
	now := began
	l := New("v", 70*Step-512, began)
	if !l.Oldest().IsZero() || l.Age(began.Add(time.Minute)) != time.Minute {
		t.Error("nothing is proven yet")
	}
	if pass(&l, &now, nil); l.Age(now) != 69*time.Second {
		t.Errorf("age %v after a pass of 70 s", l.Age(now))
	}
	first := l.Oldest()
	bad := map[int64]Place{9: {Off: 9*Step + 4096, Len: 4096, Regions: 1, Changed: "beta"}}
	if news := pass(&l, &now, bad); news != 1 {
		t.Errorf("told %d times", news)
	}
	place := l.Open[0]
	if l.Age(now) != now.Sub(time.UnixMilli(place.Proven)) ||
		l.Oldest().Before(first) || l.Differs() != blockrepl.RegionSize {
		t.Errorf("%+v, age %v", l.Open, l.Age(now))
	}
	// After a restart the side is not known any more, but it was.
	bad[9] = Place{Off: 9*Step + 4096, Len: 4096, Regions: 1}
	if news := pass(&l, &now, bad); news != 0 || l.Open[0].Changed != "beta" ||
		l.Open[0].Proven != place.Proven || l.Open[0].Found != place.Found {
		t.Errorf("%d, %+v", news, l.Open)
	}
	// More of it is news, and of that nobody knows.
	bad[9] = Place{Off: 9 * Step, Len: 1 << 20, Regions: 3}
	if news := pass(&l, &now, bad); news != 1 || l.Open[0].Changed != "" {
		t.Errorf("%d, %+v", news, l.Open)
	}
	if off, yes := l.Again(now, time.Hour); yes {
		t.Errorf("again at %d", off)
	}
	now = now.Add(time.Hour)
	if off, yes := l.Again(now, time.Hour); !yes || off != 9*Step {
		t.Errorf("again at %d: %v", off, yes)
	}
	at := l.At
	if l.Looked(now, 9*Step, nil); len(l.Open) != 0 || l.At != at || l.Age(now) > time.Hour+70*time.Second {
		t.Errorf("healed: %+v", l)
	}
}

// A clock that was ahead, here or on the other node, neither stops the proof nor makes it look young for ever.
func TestClockSetBack(t *testing.T) {
	now := time.UnixMilli(1e12).Add(365 * 24 * time.Hour)
	l := New("v", 70*Step, now)
	pass(&l, &now, map[int64]Place{3: {Off: 3 * Step, Len: Step, Regions: 1}})
	l.Looked(now, 0, nil)
	kept := l
	l.Settle(now)
	if l.Moved(kept) {
		t.Error("nothing was to be settled")
	}
	real := time.UnixMilli(1e12)
	if l.Settle(real); l.Due(week).After(real.Add(week/69)) || l.Age(real.Add(time.Hour)) != time.Hour {
		t.Errorf("due at %v, age an hour later %v", l.Due(week), l.Age(real.Add(time.Hour)))
	}
	if off, yes := l.Again(real.Add(time.Hour), time.Hour); !yes || off != 3*Step {
		t.Error("the place is not looked at again")
	}
	if kept.Proven[0] == l.Proven[0] {
		t.Error("a copy of the ledger has changed")
	}
}

// More places than a ledger names leave their stretches unproven.
func TestManyPlaces(t *testing.T) {
	now := time.UnixMilli(1e12)
	l := New("v", 320*Step, now)
	bad := map[int64]Place{}
	for i := range int64(200) {
		bad[i] = Place{Off: i * Step, Len: Step, Regions: 64}
	}
	pass(&l, &now, bad)
	if len(l.Open) != maxPlaces || !l.Oldest().IsZero() {
		t.Errorf("%d places, oldest %v", len(l.Open), l.Oldest())
	}
	for i := range l.Proven { // 10 extents each: 0 to 5 are all named, 6 in part
		if torn := i >= 6 && i < 20; (l.Proven[i] == 0) != torn {
			t.Errorf("stretch %d: %d", i, l.Proven[i])
		}
	}
	if pass(&l, &now, nil); len(l.Open) != 0 || l.Oldest().IsZero() {
		t.Errorf("%+v", l.Open)
	}
}

// A ledger goes on after a restart where it was, and is worth nothing for another volume.
func TestKept(t *testing.T) {
	now := time.UnixMilli(1e12)
	l := New("v", 320*Step, now)
	for range 45 {
		now = now.Add(time.Second)
		l.Looked(now, l.At, nil)
	}
	text, err := json.Marshal(l)
	if err != nil || len(text) > 2000 {
		t.Fatal(len(text), err)
	}
	var kept Ledger
	if err := json.Unmarshal(text, &kept); err != nil || kept.At != 45*Step || !kept.Of("v", 320*Step) {
		t.Errorf("%+v %v", kept, err)
	}
	if kept.Of("w", 320*Step) || kept.Of("v", 321*Step) || (Ledger{Volume: "v", Size: 320 * Step}).Of("v", 320*Step) {
		t.Error("it is taken for that of another volume")
	}
	if l.Moved(kept) {
		t.Error("nothing to save")
	}
	for range 5 {
		now = now.Add(time.Second)
		l.Looked(now, l.At, nil)
	}
	if !l.Moved(kept) || kept.Proven[4] != 0 {
		t.Errorf("a stretch was proven: %+v", kept)
	}
	if l.Verified(now, now.Add(time.Minute)); !l.Oldest().Equal(now) || l.At != 0 {
		t.Errorf("%+v", l)
	}
}

// A volume smaller than an extent has a pass as well.
func TestSmall(t *testing.T) {
	now := time.UnixMilli(1e12)
	l := New("v", 512, now)
	if len(l.Proven) != 1 || l.Due(week) != now {
		t.Errorf("%+v", l)
	}
	if l.Looked(now, 0, nil); l.At != 0 || l.Ended != now.UnixMilli() || l.Oldest() != now {
		t.Errorf("%+v", l)
	}
}

// Whoever has more urgent work for the disks is asked.
func TestUrgent(t *testing.T) {
	b, busy := NewBudget(Share), false
	if b.Join("one", func() bool { return false }); b.Urgent() {
		t.Error("nobody has")
	}
	if b.Join("two", func() bool { return busy }); b.Urgent() {
		t.Error("nobody has")
	}
	if busy = true; !b.Urgent() {
		t.Error("one has")
	}
	if b.Join("two", nil); b.Urgent() {
		t.Error("it is gone")
	}
}
