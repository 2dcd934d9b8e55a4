package scenario

import (
	"testing"
	"time"

	"duet/testbed/testcluster"
)

// TestHungDisk: the whole disk of a host, with the images and the daemon's own state, does not
// answer any more: no write to it ends, and none fails. That of the standby costs the guest a
// stall budget, that of the primary moves it.
func TestHungDisk(t *testing.T) {
	ctx := bounded(t, 4*time.Minute)
	l := startWith(t, testcluster.Config{Subnet: 94, DiskMiB: 200})
	must(t, l.StartWitness(ctx))
	must(t, l.AddWitness(ctx))
	a, b := l.Hosts[testcluster.Alpha], l.Hosts[testcluster.Beta]
	must(t, a.Define(ctx, testcluster.VM{Name: "web01", Size: 64 << 20, Rate: 200}))
	duet(ctx, t, a, "vm", "protect", "web01", "--primary", testcluster.Alpha)
	duet(ctx, t, a, "start", "web01")
	must(t, a.Whole(ctx, "web01"))
	must(t, b.Is(ctx, "web01", "SECOND"))
	waitAcks(ctx, t, l, "web01", 50)
	hang := func(h *testcluster.Host) {
		t.Helper()
		must(t, h.HangDisk())
		t.Cleanup(func() { _ = h.ThawDisk() }) // fails where it was thawed in the test
	}

	hang(b)
	pause := longestPause(ctx, t, l, "web01", 8*time.Second)
	t.Logf("beta's disk hangs: the guest waited for %v", pause.Round(time.Millisecond))
	if pause > 4*time.Second {
		t.Errorf("the guest waited for %v, wanted at most the stall budget and an election", pause)
	}
	must(t, a.Is(ctx, "web01", "ALONE"))
	must(t, b.ThawDisk())
	must(t, b.Is(ctx, "web01", "SECOND"))
	must(t, a.Whole(ctx, "web01"))

	hang(a)
	began := time.Now()
	must(t, b.Is(ctx, "web01", "ALONE"))
	t.Logf("alpha's disk hangs: beta took over after %v", time.Since(began).Round(100*time.Millisecond))
	if took := time.Since(began); took > 25*time.Second {
		t.Errorf("beta took over after %v", took)
	}
	waitAcks(ctx, t, l, "web01", 50)
	must(t, a.ThawDisk())
	must(t, a.Is(ctx, "web01", "SECOND"))
	must(t, b.Whole(ctx, "web01"))
	noErrors(t, waitAcks(ctx, t, l, "web01", 50))
	identical(ctx, t, b, "web01")
}
