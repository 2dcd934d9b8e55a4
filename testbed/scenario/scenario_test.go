package scenario

import (
	"context"
	"testing"
	"time"

	"duet/testbed/lab"
)

func TestCleanFailover(t *testing.T) {
	l := start(t, 10)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	a, b := l.Hosts[lab.Alpha], l.Hosts[lab.Beta]
	protect(ctx, t, a, lab.VM{Name: "web01", Size: 16 << 20})
	acked := waitAcks(ctx, t, l, "web01", 30)
	must(t, a.Kill())
	must(t, b.Is(ctx, "web01", "ALONE"))
	checkNothingLost(ctx, t, l, "web01", acked)
}
