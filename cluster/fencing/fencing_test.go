package fencing

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"duet/cluster"
	"duet/cluster/fence"
	"duet/cluster/membership"
	"duet/console/api"
)

// agents are devices in memory.
type agents struct {
	mu      sync.Mutex
	offs    int
	gate    chan struct{} // Off waits for it
	failing error
}

func (a *agents) Off(ctx context.Context, _ fence.Levels) error {
	a.mu.Lock()
	a.offs++
	a.mu.Unlock()
	select {
	case <-a.gate:
		return a.failing
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (a *agents) Inspect(_ context.Context, d fence.Device) error {
	if d.Options["ip"] == "" {
		return errors.New("no address")
	}
	return a.failing
}

func (a *agents) Check(context.Context, fence.Device) (bool, error) { return true, a.failing }

// desk is one of alpha, whose peer is beta.
func desk(t *testing.T, a *agents, call func(cluster.NodeID, Set) error) *Desk {
	t.Helper()
	dir := t.TempDir()
	if err := membership.Save(dir, cluster.Config{Name: "office", Self: "alpha", Port: 7420,
		Members: []cluster.Member{{Node: "alpha"}, {Node: "beta"}}}); err != nil {
		t.Fatal(err)
	}
	book, err := membership.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	t.Cleanup(wg.Wait)
	return New(Config{Book: book, Agents: a, Logger: slog.New(slog.DiscardHandler),
		Call:  func(_ context.Context, node cluster.NodeID, s Set) error { return call(node, s) },
		Spawn: func(fn func(context.Context)) { wg.Go(func() { fn(t.Context()) }) }})
}

// bmc is a device whose options hold a secret.
func bmc(ip string) [][]api.FenceDevice {
	return [][]api.FenceDevice{{{Name: "bmc", Agent: "fence_ipmilan",
		Options: map[string]string{"ip": ip, "username": "admin", "password": "secret"}}}}
}

// TestSetFence: devices are stored here, told to every other member, and shown without their secrets.
func TestSetFence(t *testing.T) {
	var told []Set
	away := errors.New("it does not answer")
	d := desk(t, &agents{}, func(node cluster.NodeID, s Set) error {
		if told = append(told, s); node != "beta" {
			t.Errorf("%s is told", node)
		}
		return away
	})
	ctx := t.Context()
	for what, c := range map[string]struct {
		node   string
		levels [][]api.FenceDevice
		want   error
	}{
		"a stranger":          {"gamma", bmc("10.0.0.9"), api.ErrNotFound},
		"no agent":            {"beta", [][]api.FenceDevice{{{Name: "x", Agent: "../x"}}}, api.ErrInvalid},
		"what an agent lacks": {"beta", bmc(""), api.ErrInvalid},
	} {
		if err := d.SetFence(ctx, c.node, c.levels); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", what, err, c.want)
		}
	}
	if len(told) > 0 || d.Can("beta") {
		t.Fatalf("what was refused is told or stored: %v", told)
	}
	if err := d.SetFence(ctx, "beta", bmc("10.0.0.9")); !errors.Is(err, away) || !strings.Contains(err.Error(), "repeat") {
		t.Errorf("a member that is away: %v", err)
	}
	if len(told) != 1 || told[0].Check() != nil || !d.Can("beta") || d.Can("alpha") {
		t.Errorf("told %v, beta %v, alpha %v", told, d.Can("beta"), d.Can("alpha"))
	}
	all, err := d.Fences(ctx)
	if err != nil || len(all) != 1 || all[0].Node != "beta" || all[0].Levels[0][0].Options["ip"] != "10.0.0.9" ||
		all[0].Levels[0][0].Options["password"] == "secret" {
		t.Errorf("it shows %+v, %v", all, err)
	}
	away = nil
	late := told[0]
	late.Node = "gamma"
	if err := d.Take(ctx, late); !errors.Is(err, api.ErrNotFound) || d.Can("gamma") {
		t.Errorf("devices of a node that was removed: %v, can %v", err, d.Can("gamma"))
	}
	if err := d.SetFence(ctx, "beta", nil); err != nil || d.Can("beta") {
		t.Errorf("no devices: %v, can %v", err, d.Can("beta"))
	}
	if err := d.Off(ctx, "beta"); !errors.Is(err, api.ErrNotFound) {
		t.Errorf("off without a device: %v", err)
	}
}

// TestTimeout: how long a device may take for a command is stored and shown; where nobody said so it is the default.
func TestTimeout(t *testing.T) {
	d := desk(t, &agents{}, func(cluster.NodeID, Set) error { return nil })
	for text, want := range map[string]time.Duration{"": 0, "45s": 45 * time.Second, "5m": 5 * time.Minute} {
		levels := bmc("10.0.0.9")
		levels[0][0].Timeout = text
		if err := d.SetFence(t.Context(), "beta", levels); err != nil {
			t.Fatal(err)
		}
		stored, err := d.levels("beta")
		if err != nil || stored[0][0].Timeout != want {
			t.Errorf("%q is stored as %v, %v", text, stored[0][0].Timeout, err)
		}
		all, err := d.Fences(t.Context())
		if shown, err2 := time.ParseDuration(all[0].Levels[0][0].Timeout); err != nil || err2 != nil ||
			shown != cmp.Or(want, fence.DefaultTimeout) {
			t.Errorf("%q is shown as %v, %v, %v", text, all, err, err2)
		}
	}
	for _, text := range []string{"soon", "0s", "-45s", "500ms", "1h", "45"} {
		levels := bmc("10.0.0.9")
		levels[0][0].Timeout = text
		if err := d.SetFence(t.Context(), "beta", levels); !errors.Is(err, api.ErrInvalid) ||
			!strings.Contains(err.Error(), "timeout") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// TestOffOnce: all who want a node off at once are one order, and the next one is another.
func TestOffOnce(t *testing.T) {
	a := &agents{gate: make(chan struct{})}
	d := desk(t, a, func(cluster.NodeID, Set) error { return nil })
	if err := d.SetFence(t.Context(), "beta", bmc("10.0.0.9")); err != nil {
		t.Fatal(err)
	}
	levels, err := d.levels("beta")
	if err != nil {
		t.Fatal(err)
	}
	first := d.join("beta", levels)
	if d.join("beta", levels) != first {
		t.Error("two orders at once")
	}
	impatient, cancel := context.WithCancel(t.Context())
	cancel()
	if err := d.Off(impatient, "beta"); !errors.Is(err, context.Canceled) {
		t.Errorf("who gives up is told %v", err)
	}
	a.failing = errors.New("the controller refuses")
	close(a.gate)
	if <-first.done; !errors.Is(first.err, a.failing) {
		t.Errorf("the order ends with %v", first.err)
	}
	a.failing = nil
	if err := d.Off(t.Context(), "beta"); err != nil || a.offs != 2 {
		t.Errorf("the next order: %v, %d in all", err, a.offs)
	}
}

// TestTestFence: a test says whether the node is on, or what is wrong with its devices.
func TestTestFence(t *testing.T) {
	a := &agents{}
	d := desk(t, a, func(cluster.NodeID, Set) error { return nil })
	if _, err := d.TestFence(t.Context(), "beta"); !errors.Is(err, api.ErrNotFound) {
		t.Errorf("without a device: %v", err)
	}
	if err := d.SetFence(t.Context(), "beta", bmc("10.0.0.9")); err != nil {
		t.Fatal(err)
	}
	if st, err := d.TestFence(t.Context(), "beta"); err != nil || st.Result != "bmc: on" {
		t.Errorf("%+v, %v", st, err)
	}
	a.failing = errors.New("unknown password")
	if _, err := d.TestFence(t.Context(), "beta"); !errors.Is(err, api.ErrConflict) {
		t.Errorf("with a device that refuses: %v", err)
	}
}

// TestTakeOwn: a node does not ask the agents of its own devices, which it never uses.
func TestTakeOwn(t *testing.T) {
	d := desk(t, &agents{failing: errors.New("not installed")}, nil)
	raw, err := encode(bmc("10.0.0.9"))
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Take(t.Context(), Set{"alpha", raw}); err != nil || !d.Can("alpha") {
		t.Errorf("its own: %v", err)
	}
	if err := d.Take(t.Context(), Set{"beta", raw}); !errors.Is(err, api.ErrInvalid) {
		t.Errorf("another's: %v", err)
	}
	for _, bad := range []Set{{Node: "../x"}, {Node: "beta", Levels: []byte(`[[{"agent":"../x"}]]`)}} {
		if bad.Check() == nil {
			t.Errorf("%+v makes sense", bad)
		}
	}
	if err := (Set{Node: "beta", Levels: []byte("null")}).Check(); err != nil {
		t.Errorf("no devices: %v", err)
	}
}
