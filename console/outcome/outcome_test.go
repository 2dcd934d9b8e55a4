package outcome

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"duet/console/api"
)

// state is how a module stands on one node: "alpha PRIM/Ready 1", the number being since when; a "?" is stale.
func state(t *testing.T, text string) api.NodeState {
	t.Helper()
	n := api.NodeState{Why: "because"}
	var as string
	var since int
	if _, err := fmt.Sscanf(text, "%s %s %d", &n.Node, &as, &since); err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	as, n.Stale = strings.CutSuffix(as, "?")
	if as, n.Parted = strings.CutSuffix(as, "!"); n.Parted {
		n.Stale = true
	}
	n.Role, n.Status, _ = strings.Cut(as, "/")
	n.Since = time.Unix(1000+int64(since), 0)
	return n
}

func module(t *testing.T, text string) api.ModuleStatus {
	t.Helper()
	m := api.ModuleStatus{Name: "web"}
	for part := range strings.SplitSeq(text, ", ") {
		m.Nodes = append(m.Nodes, state(t, part))
	}
	return m
}

const (
	pair    = "alpha PRIM/Ready 0, beta SECOND/Ready 0"
	stopped = "alpha STOP/NotReady 0, beta STOP/NotReady 0"
)

// TestOutcome: what is said of an order, given to a module that stood as before, when the module stands as now. "…"
// is an order that is still on the way.
func TestOutcome(t *testing.T) {
	for _, c := range []struct {
		action        api.Action
		node          string
		before, after string
		want          string
	}{
		{api.Swap, "", pair, pair, "…"},
		{api.Swap, "", pair, "alpha PRIM/Transient 1, beta SECOND/Ready 0", "…"},
		{api.Swap, "", pair, "alpha SECOND/Transient 2, beta ALONE/Transient 2", "…"},
		{api.Swap, "", pair, "alpha SECOND/Ready 3, beta PRIM/Ready 3", "runs on beta"},
		{api.Swap, "", pair, "alpha PRIM/Ready? 0, beta ALONE/Ready 3", "runs on beta"},
		{api.Swap, "", pair, "alpha ALONE/Ready 3, beta WAIT/NotReady 2", "error: web runs on alpha again and has not moved"},
		{api.Swap, "", pair, "alpha WAIT/NotReady 3, beta STOP/NotReady 3", "error in the end: swap of web has come to"},

		{api.Start, "", stopped, stopped, "…"},
		{api.Start, "", stopped, "alpha WAIT/NotReady 1, beta STOP/NotReady 0", "error in the end: start of web has come"},
		{api.Start, "", stopped, "alpha ALONE/Transient 1, beta SECOND/Transient 1", "…"},
		{api.Start, "", stopped, "alpha SECOND/Transient 2, beta STOP/NotReady 3", "error soon: start of web has come"},
		{api.Start, "", stopped, "alpha PRIM/Ready 2, beta SECOND/Ready 2", "runs on alpha; beta has the second copy"},
		{api.Start, "", stopped, "alpha PRIM/Ready 2, beta SECOND/Transient 2", "runs on alpha; beta is getting its copy"},
		{api.Start, "", stopped, "alpha ALONE/Ready 2, beta STOP/NotReady? 0", "runs on alpha; beta does not answer"},
		{api.Start, "", stopped, "alpha STOP/NotReady 5, beta WAIT/NotReady 4", "error in the end: start of web has " +
			"come to nothing so far: alpha is STOP (NotReady): because; beta is WAIT (NotReady): because"},
		{api.Start, "", pair, pair, "runs on alpha; beta has the second copy"},
		{api.Start, "", stopped, "alpha ALONE/Ready 2, beta WAIT/NotReady 1",
			"soon: runs on alpha; beta is WAIT (NotReady): there is one copy: because"},
		{api.Start, "", stopped, "alpha ALONE/Ready 2, beta WAIT/Transient 1",
			"in the end: runs on alpha; beta is WAIT (Transient): there is one copy: because"},
		{api.Start, "beta", "alpha ALONE/Ready 0, beta STOP/NotReady 0", "alpha ALONE/Ready 0, beta WAIT/NotReady 1",
			"error in the end: start of web on beta has come to nothing so far: alpha is ALONE (Ready): because; beta is"},
		{api.Start, "beta", "alpha ALONE/Ready 0, beta STOP/NotReady 0", "alpha PRIM/Ready 1, beta SECOND/Ready 2",
			"runs on alpha; beta has the second copy"},
		{api.Start, "alpha", stopped, "alpha ALONE/Ready 2, beta STOP/NotReady 0",
			"runs on alpha; beta is STOP (NotReady): there is one copy"},

		{api.Stop, "", pair, "alpha PRIM/Transient 1, beta SECOND/Ready 0", "…"},
		{api.Stop, "", pair, "alpha STOP/NotReady 2, beta SECOND/Ready 0", "…"},
		{api.Stop, "", pair, "alpha STOP/NotReady 2, beta STOP/NotReady 2", "is stopped"},
		{api.Stop, "", "alpha ALONE/Ready 0, beta SECOND/Ready? 0", "alpha STOP/NotReady 2, beta SECOND/Ready? 0",
			"error: beta does not answer, so it is not known whether web has stopped there; on alpha it stays stopped until " +
				"`duet start web`"},
		{api.Stop, "beta", "alpha ALONE/Ready 0, beta SECOND/Ready? 0", "alpha ALONE/Ready 2, beta SECOND/Ready? 0",
			"error: beta does not answer, so it is not known whether web has stopped there"},
		{api.Stop, "", "alpha WAIT/NotReady 0, beta SECOND/Ready! 0", "alpha WAIT/Transient 1, beta SECOND/Ready! 0", "…"},
		{api.Stop, "", "alpha WAIT/NotReady 0, beta SECOND/Ready! 0", "alpha STOP/NotReady 2, beta SECOND/Ready! 0",
			"is stopped on alpha; beta takes it for no member of the cluster, and what runs there goes on"},
		{api.Stop, "alpha", pair, "alpha STOP/NotReady 2, beta ALONE/Transient 2", "…"},
		{api.Stop, "alpha", pair, "alpha STOP/NotReady 2, beta ALONE/Ready 3", "is stopped on alpha and runs on beta"},
		{api.Stop, "alpha", "alpha ALONE/Ready 0, beta WAIT/NotReady 0", "alpha STOP/NotReady 2, beta WAIT/NotReady 0",
			"is stopped on alpha and runs nowhere"},

		{api.Restart, "", pair, "alpha PRIM/Transient 1, beta SECOND/Ready 0", "…"},
		{api.Restart, "", pair, "alpha PRIM/Ready 2, beta SECOND/Ready 0", "runs on alpha again"},
		{api.Restart, "", pair, "alpha SECOND/Ready 2, beta PRIM/Ready 2", "error: web runs on beta now: because"},

		{api.Prim, "beta", "alpha PRIM/Ready? 0, beta WAIT/NotReady 0", "alpha PRIM/Ready? 0, beta ALONE/Ready 1",
			"runs on beta; alpha does not answer"},
		{api.Prim, "beta", "alpha PRIM/Ready? 0, beta WAIT/NotReady 0", "alpha PRIM/Ready? 0, beta ALONE/Transient 1", "…"},
		{api.Second, "beta", "alpha ALONE/Ready 0, beta STOP/NotReady 0", "alpha PRIM/Ready 1, beta SECOND/Transient 1",
			"runs on alpha; beta is getting its copy"},
		{api.Second, "alpha", pair, "alpha PRIM/Transient 1, beta SECOND/Ready 0", "…"},
		{api.Second, "alpha", pair, "alpha SECOND/Ready 2, beta PRIM/Ready 2", "runs on beta; alpha has the second copy"},
		{api.Second, "beta", stopped, "alpha STOP/NotReady 0, beta WAIT/NotReady 1", "error in the end: second of web"},
	} {
		o := New(module(t, c.before), c.action, c.node)
		now := time.Unix(2000, 0)
		after := module(t, c.after)
		look := o.At(after, now)
		got := outcome(look)
		if got == "…" {
			if look = o.At(after, now.Add(stillFor-1)); look.Done {
				t.Errorf("%s %s from %s to %s: no longer waited for before %v", c.action, c.node, c.before, c.after, stillFor)
			}
			if look = o.At(after, now.Add(stillFor)); strings.HasPrefix(c.want, "error soon") {
				got = strings.Replace(outcome(look), "error", "error soon", 1)
			}
			if strings.HasPrefix(c.want, "soon: ") {
				got = "soon: " + outcome(look)
			}
			runs := c.action == api.Start && c.node == "" && strings.Contains(c.after, "/Ready ")
			if look = o.At(after, now.Add(stuckFor)); !look.Done || look.Err == nil && !runs {
				t.Errorf("%s %s from %s to %s: waited for for ever", c.action, c.node, c.before, c.after)
			}
			if strings.HasPrefix(c.want, "in the end: ") {
				got = "in the end: " + outcome(look)
			}
			if strings.HasPrefix(c.want, "error in the end") {
				got = strings.Replace(outcome(look), "error", "error in the end", 1)
			}
		}
		if !strings.HasPrefix(got, c.want) {
			t.Errorf("%s %s from %s to %s:\n is said to: %s\n      wanted: %s", c.action, c.node, c.before, c.after, got, c.want)
		}
	}
}

func outcome(l Look) string {
	switch {
	case l.Err != nil:
		return "error: " + l.Err.Error()
	case l.Done:
		return l.Said
	}
	return "…"
}

// TestOldFailureIsNotProgress: an order that is about to be carried out is not told the failure from before it; one
// that comes to nothing is told why.
func TestOldFailureIsNotProgress(t *testing.T) {
	const why = "it did not start here, nor on alpha"
	m := module(t, "alpha STOP/NotReady 0, beta STOP/NotReady 0")
	o := New(m, api.Start, "")
	m = module(t, "alpha STOP/NotReady 0, beta WAIT/NotReady 1")
	m.Nodes[1].Why = "started by an operator: " + why
	now := time.Unix(2000, 0)
	if look := o.At(m, now); look.Done || look.Said != "alpha is STOP (NotReady); beta is WAIT (NotReady)" {
		t.Errorf("at once: %+v", look)
	}
	if look := o.At(m, now.Add(stillFor)); !look.Done || look.Err == nil || !strings.Contains(look.Err.Error(), why) {
		t.Errorf("in the end: %+v", look)
	}
}

// TestGuestHasItsTime: a guest that shuts down slowly is waited for as long as it may take, and that is said.
func TestGuestHasItsTime(t *testing.T) {
	o := New(module(t, pair), api.Stop, "")
	m := module(t, "alpha PRIM/Transient 1, beta SECOND/Ready 0")
	for left := 600.0; left > 0; left -= 60 {
		m.Nodes[0].KillIn = left
		look := o.At(m, time.Unix(2600-int64(left), 0))
		if want := fmt.Sprintf("ended in %.0f s", left); look.Done || !strings.Contains(look.Said, want) {
			t.Fatalf("%.0f s before it is ended: %+v", left, look)
		}
	}
}

// TestCopiesTakeTheirTime: a first copy is no reason to give up, however long it takes.
func TestCopiesTakeTheirTime(t *testing.T) {
	o := New(module(t, "alpha STOP/NotReady 0, beta WAIT/NotReady 0"), api.Prim, "alpha")
	m := module(t, "alpha PRIM/Transient 1, beta SECOND/Transient 1")
	for i := range 10 {
		m.Nodes[0].Volumes = []api.VolumeStatus{{Sync: &api.Sync{Compared: int64(i)}}}
		if look := o.At(m, time.Unix(2000+int64(i)*70, 0)); look.Done {
			t.Fatalf("given up after %d s: %+v", i*70, look)
		}
	}
}

// TestStandstill: a module whose writes wait for a peer that may never come back is not on its way.
func TestStandstill(t *testing.T) {
	m := module(t, "alpha PRIM/Transient 1, beta SECOND/Ready? 0")
	m.Nodes[0].VM = "frozen"
	o := New(m, api.Start, "")
	now := time.Unix(2000, 0)
	if look := o.At(m, now); look.Done {
		t.Errorf("given up at once: %+v", look)
	}
	look := o.At(m, now.Add(stillFor))
	if !look.Done || look.Err == nil || !strings.Contains(look.Err.Error(), "alpha is PRIM (Transient): because") {
		t.Errorf("after %v: %+v", stillFor, look)
	}
}

// TestReasonOfAMove: a VM that an order has brought to the other node runs there for a reason, which is how the right
// came there, and not how it runs. One that runs where it did has the reason of now.
func TestReasonOfAMove(t *testing.T) {
	before, at := module(t, pair), time.Unix(1500, 0)
	for _, c := range []struct {
		action api.Action
		after  string
		came   time.Time // to alpha, before the order; and to where it runs then
		want   string
	}{
		{api.Restart, "alpha SECOND/Ready 2, beta PRIM/Ready 2", at.Add(time.Second),
			"web runs on beta now: alpha handed over: the VM does not start: no kernel: `duet log web` has more"},
		{api.Restart, "alpha SECOND/Ready 2, beta PRIM/Ready 2", time.Time{},
			"web runs on beta now: because: `duet log web` has more"},
		{api.Swap, "alpha PRIM/Ready 3, beta SECOND/Ready 3", at.Add(time.Second),
			"web runs on alpha again and has not moved: alpha handed over: the VM does not start: no kernel: `duet log web` " +
				"has more"},
		{api.Swap, "alpha PRIM/Ready 3, beta SECOND/Ready 3", at,
			"web runs on alpha again and has not moved: because: `duet log web` has more"},
	} {
		before.Nodes[0].Came = &api.Arrival{At: &at, Why: "it was put under protection here"}
		o := New(before, c.action, "")
		after := module(t, c.after)
		for i := range after.Nodes {
			if n := &after.Nodes[i]; n.Role == "PRIM" && !c.came.IsZero() {
				n.Came = &api.Arrival{At: &c.came, Why: "alpha handed over: the VM does not start: no kernel"}
			}
		}
		if look := o.At(after, time.Unix(2000, 0)); !look.Done || look.Err == nil || look.Err.Error() != c.want {
			t.Errorf("%s to %s: %+v\nwant %s", c.action, c.after, look, c.want)
		}
	}
}
