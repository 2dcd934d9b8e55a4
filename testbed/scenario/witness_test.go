package scenario

import (
	"context"
	"strings"
	"testing"
	"time"

	"duet/testbed/netns"
	"duet/testbed/testcluster"
)

// withWitness makes a cluster with a witness and one VM whose arbitration is safe.
func withWitness(ctx context.Context, t *testing.T, subnet int) *testcluster.Cluster {
	t.Helper()
	l := start(t, subnet)
	must(t, l.StartWitness(ctx))
	must(t, l.AddWitness(ctx))
	a := l.Hosts[testcluster.Alpha]
	must(t, a.Define(ctx, testcluster.VM{Name: "web01", Size: 64 << 20, Rate: 200}))
	duet(ctx, t, a, "vm", "protect", "web01", "--primary", testcluster.Alpha)
	duet(ctx, t, a, "start", "web01")
	must(t, a.Whole(ctx, "web01"))
	must(t, l.Hosts[testcluster.Beta].Is(ctx, "web01", "SECOND"))
	return l
}

// longestPause watches the guest's acknowledgements for d and returns the longest
// time without one.
func longestPause(ctx context.Context, t *testing.T, l *testcluster.Cluster, vm string, d time.Duration) time.Duration {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	end := time.After(d)
	acked, since, longest := read(t, l, vm).Acked(), time.Now(), time.Duration(0)
	for {
		select {
		case <-tick.C:
		case <-end:
			return max(longest, time.Since(since))
		case <-ctx.Done():
			t.Fatal(ctx.Err())
		}
		if now := read(t, l, vm).Acked(); now > acked {
			longest = max(longest, time.Since(since))
			acked, since = now, time.Now()
		}
	}
}

// TestHostsLoseEachOther: the witness lets the holder go on within a second and a half,
// and the other node, which is cut off from its peer only, does not take over.
func TestHostsLoseEachOther(t *testing.T) {
	ctx := bounded(t, 2*time.Minute)
	l := withWitness(ctx, t, 34)
	a, b := l.Hosts[testcluster.Alpha], l.Hosts[testcluster.Beta]
	before := waitAcks(ctx, t, l, "web01", 50)
	must(t, l.LAN.Cut(netns.Between(testcluster.Alpha, testcluster.Beta, "")...))
	pause := longestPause(ctx, t, l, "web01", 6*time.Second)
	t.Logf("the guest waited for %v", pause.Round(time.Millisecond))
	if pause > 1500*time.Millisecond {
		t.Errorf("the guest waited for %v, wanted at most 1.5s", pause)
	}
	must(t, a.Is(ctx, "web01", "ALONE"))
	must(t, testcluster.Until(ctx, "beta says why it does not take over", func() error {
		st, err := b.On(ctx, "web01")
		if err == nil && (st.Role != "WAIT" || !strings.Contains(st.Why, "epoch 2")) {
			return errorf("it is %s: %s", st.Role, st.Why)
		}
		return err
	}))
	must(t, l.LAN.RestoreAll())
	must(t, a.Whole(ctx, "web01"))
	must(t, b.Is(ctx, "web01", "SECOND"))
	log := waitAcks(ctx, t, l, "web01", 50)
	if len(log.Boots) != len(before.Boots) {
		t.Error("the guest booted again")
	}
	noErrors(t, log)
	identical(ctx, t, a, "web01")
}

// TestWitnessDies: nothing happens to a connected pair; and when the witness is back it
// remembers, so that the standby takes over when its peer dies.
func TestWitnessDies(t *testing.T) {
	ctx := bounded(t, 2*time.Minute)
	l := withWitness(ctx, t, 36)
	a, b := l.Hosts[testcluster.Alpha], l.Hosts[testcluster.Beta]
	waitAcks(ctx, t, l, "web01", 50)
	must(t, l.KillWitness(ctx))
	if pause := longestPause(ctx, t, l, "web01", 8*time.Second); pause > 500*time.Millisecond {
		t.Errorf("the guest waited for %v although only the witness died", pause)
	}
	must(t, testcluster.Until(ctx, "the status warns", func() error {
		s, err := a.Status(ctx)
		if err == nil && (len(s.Witnesses) != 1 || s.Witnesses[0].Alive ||
			!strings.Contains(s.Witnesses[0].Why, "nothing stops")) {
			return errorf("%+v", s.Witnesses)
		}
		return err
	}))
	must(t, l.StartWitness(ctx))
	before := waitAcks(ctx, t, l, "web01", 20)
	must(t, a.Kill())
	must(t, b.Is(ctx, "web01", "ALONE"))
	rebooted(ctx, t, l, "web01", before)
}
