package scenario

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"duet/testbed/guest"
	"duet/testbed/previous"
	"duet/testbed/testcluster"
)

// TestPreviousRelease: a cluster of the release before this tree is upgraded one node after the other while its VM
// runs, and meanwhile each of the two versions does for the other whatever nodes do for each other: protect, copy,
// vote, move, take over, follow, exchange a policy, compare, release. The witness is an old one all the time.
func TestPreviousRelease(t *testing.T) {
	ctx := bounded(t, 6*time.Minute)
	old, err := previous.Build(ctx, ".", filepath.Join(cache(), "previous"))
	if errors.Is(err, previous.ErrNoHistory) {
		t.Skip(err)
	}
	must(t, err)
	l := startWith(t, testcluster.Config{Subnet: 96, Bin: old})
	a, b := l.Hosts[testcluster.Alpha], l.Hosts[testcluster.Beta]
	must(t, l.StartWitness(ctx))
	must(t, l.AddWitness(ctx))
	must(t, a.Protect(ctx, testcluster.VM{Name: "web01", Size: 64 << 20, Rate: 200}))
	before := waitAcks(ctx, t, l, "web01", 50)

	upgrade(ctx, t, b)
	must(t, b.Is(ctx, "web01", "SECOND"))
	undisturbed(ctx, t, l, "web01", before)
	identical(ctx, t, a, "web01")
	apply(ctx, t, b, "web01", "disk_budget: 10s", "disk_budget: 12s")
	if seen := duet(ctx, t, a, "config", "show", "web01"); !strings.Contains(seen, "disk_budget: 12s") {
		t.Errorf("a policy applied on the new node is on the old one:\n%s", seen)
	}

	before = read(t, l, "web01") // the old node asks for a move to the new one
	duet(ctx, t, a, "swap", "web01")
	must(t, b.Whole(ctx, "web01"))
	must(t, a.Is(ctx, "web01", "SECOND"))
	rebooted(ctx, t, l, "web01", before)
	identical(ctx, t, b, "web01")
	// the new node has the old one keep a copy
	must(t, b.Protect(ctx, testcluster.VM{Name: "web02", Size: 32 << 20, Rate: 50}))
	waitAcks(ctx, t, l, "web02", 20)
	must(t, a.Is(ctx, "web02", "SECOND"))

	before = read(t, l, "web01") // the old one takes over from the new one
	must(t, b.Kill())
	must(t, a.Is(ctx, "web01", "ALONE"))
	rebooted(ctx, t, l, "web01", before)
	must(t, b.Boot(ctx))
	must(t, b.StartDuetd(ctx))
	must(t, b.Is(ctx, "web01", "SECOND"))
	must(t, b.Is(ctx, "web02", "SECOND"))
	identical(ctx, t, a, "web01")

	before = read(t, l, "web01") // the new one from the old one
	must(t, a.Kill())
	must(t, b.Is(ctx, "web01", "ALONE"))
	rebooted(ctx, t, l, "web01", before)
	must(t, a.Boot(ctx))
	must(t, a.StartDuetd(ctx))
	must(t, a.Is(ctx, "web01", "SECOND"))
	identical(ctx, t, b, "web01")
	for _, h := range []*testcluster.Host{a, b} {
		for _, f := range doctor(ctx, t, h).Findings {
			if strings.Contains(f.Fact, "does not answer") {
				t.Errorf("the doctor asked on %s says: %s", h.Name, f.Fact)
			}
		}
	}
	duet(ctx, t, b, "vm", "release", "web02")

	before = read(t, l, "web01")
	upgrade(ctx, t, a)
	must(t, a.Is(ctx, "web01", "SECOND"))
	must(t, b.Whole(ctx, "web01"))
	undisturbed(ctx, t, l, "web01", before)
	identical(ctx, t, b, "web01")
}

// upgrade replaces the programs of a host by today's, as its package does: the daemon in order, then its guard.
func upgrade(ctx context.Context, t *testing.T, h *testcluster.Host) {
	t.Helper()
	must(t, h.StopDuetd(ctx))
	must(t, h.KillGuard(ctx))
	h.Bin = binaries(t)
	must(t, h.StartDuetd(ctx))
}

// undisturbed waits for more writes and fails if the guest booted again or saw an error.
func undisturbed(ctx context.Context, t *testing.T, l *testcluster.Cluster, vm string, before guest.Log) {
	t.Helper()
	log := waitAcks(ctx, t, l, vm, 50)
	if len(log.Boots) != len(before.Boots) {
		t.Fatalf("the guest of %s booted again", vm)
	}
	noErrors(t, log)
}
