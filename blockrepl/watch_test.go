package blockrepl

import (
	"testing"
	"time"
)

// The peer is pinged when it owes nothing, lost when it owes for too long, and gets its
// whole budget anew when this process did not run.
func TestWatchJudge(t *testing.T) {
	const budget = 1000
	w := newWatch(budget, 0)
	l := &link{}
	every := int64(w.every())
	judge := func(now int64, stalled, ping bool) {
		t.Helper()
		w.pulse.beat(now, every)
		if s, p := w.judge(l, now); s != stalled || p != ping {
			t.Errorf("at %d: stalled %v, ping %v", now, s, p)
		}
	}
	for now := every; now < budget/4; now += every {
		judge(now, false, false)
	}
	judge(budget/4, false, true)
	judge(budget/4+every, false, false) // one ping is enough
	sent := int64(budget/4 + every)
	l.window.add(pending{sent: sent, counted: true})
	now := sent
	for ; now+every-sent <= budget; now += every {
		judge(now+every, false, false)
	}
	now += 10 * budget // not run
	judge(now, false, false)
	thawed := now
	for ; now+every-thawed <= budget; now += every {
		judge(now+every, false, false)
	}
	judge(now+every, true, false)
}

// The smaller budget says how often ages are looked at; one that is not there says nothing.
func TestWatchEvery(t *testing.T) {
	for _, c := range []struct{ peer, local, every time.Duration }{
		{8 * time.Second, 0, time.Second},
		{8 * time.Second, 4 * time.Second, 500 * time.Millisecond},
		{8 * time.Second, 16 * time.Second, time.Second},
		{8 * time.Second, time.Microsecond, time.Millisecond},
	} {
		w := newWatch(c.peer, c.local)
		if got := w.every(); got != c.every {
			t.Errorf("%v, %v: every %v", c.peer, c.local, got)
		}
	}
	w := newWatch(time.Second, 0)
	if w.clock() <= 0 {
		t.Error("a clock that is 0 means never")
	}
}
