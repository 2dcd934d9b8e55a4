package scenario

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"testing"
	"time"

	"duet/console/api"
	"duet/testbed/testcluster"
)

// TestProtectedIsEdited: `duet config apply` under load costs no reconnect: nothing happens to the module, and
// nothing is compared or sent anew.
func TestProtectedIsEdited(t *testing.T) {
	l := start(t, 74)
	ctx := bounded(t, 2*time.Minute)
	a, b := l.Hosts[testcluster.Alpha], l.Hosts[testcluster.Beta]
	must(t, a.Protect(ctx, testcluster.VM{Name: "web01", Size: 64 << 20, Rate: -1}))
	waitAcks(ctx, t, l, "web01", 50)
	must(t, testcluster.Until(ctx, "the pair has said all", func() error {
		_, err := said(ctx, t, a, "PeerCompleted")
		return err
	}))
	before, err := said(ctx, t, a, "PeerCompleted")
	must(t, err)
	was, err := a.On(ctx, "web01")
	must(t, err)

	for _, change := range [][2]string{{"max: 3", "max: 7"}, {"stall_budget: 2s", "stall_budget: 5s"},
		{"frozen: wait", "frozen: kill after 1m0s"}} {
		apply(ctx, t, a, "web01", change[0], change[1])
		must(t, b.Configured(ctx, "web01", change[1]))
		waitAcks(ctx, t, l, "web01", 20)
	}

	after, err := said(ctx, t, a, "PeerCompleted")
	must(t, err)
	if !slices.EqualFunc(before, after, func(x, y api.LogEntry) bool { return x.Why == y.Why && x.Time.Equal(y.Time) }) {
		t.Errorf("the edits led to %+v", after[min(len(before), len(after)):])
	}
	now, err := a.On(ctx, "web01")
	must(t, err)
	if v, w := was.Volumes[0], now.Volumes[0]; now.Since != was.Since || v.Generation != w.Generation ||
		v.Compared != w.Compared || v.Moved != w.Moved {
		t.Errorf("the volume was connected anew: %+v, before %+v", w, v)
	}
	noErrors(t, read(t, l, "web01"))
}

// said is the log of web01, which has to hold an event.
func said(ctx context.Context, t *testing.T, h *testcluster.Host, on string) ([]api.LogEntry, error) {
	t.Helper()
	out, err := h.Duet(ctx, "log", "web01", "--json")
	if err != nil {
		return nil, err
	}
	var entries []api.LogEntry
	must(t, json.Unmarshal([]byte(out), &entries))
	if !slices.ContainsFunc(entries, func(e api.LogEntry) bool { return e.On == on }) {
		return nil, errors.New("it is not said yet")
	}
	return entries, nil
}
