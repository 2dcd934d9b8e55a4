package fencing

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"duet/cluster"
	"duet/cluster/fence"
	"duet/console/api"
)

// supplies are devices of which a test says how they stand.
type supplies struct {
	agents
	broken map[string]error // by device
	asked  int
	busy   int           // are asked now
	both   bool          // an order came while one was asked
	slow   chan struct{} // Check waits for it; nil: it does not
}

func (s *supplies) Off(ctx context.Context, l fence.Levels) error {
	s.mu.Lock()
	s.both = s.both || s.busy > 0
	s.mu.Unlock()
	return s.agents.Off(ctx, l)
}

func (s *supplies) Check(ctx context.Context, d fence.Device) (bool, error) {
	add := func(asked, busy int) error {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.asked, s.busy = s.asked+asked, s.busy+busy
		return s.broken[d.Name]
	}
	err := add(1, 1)
	if s.slow != nil {
		select {
		case <-s.slow:
		case <-ctx.Done():
			err = ctx.Err()
		}
	}
	_ = add(0, -1)
	return true, err
}

// breaks has these refuse, and no others.
func (s *supplies) breaks(names ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.broken = make(map[string]error)
	for _, name := range names {
		s.broken[name] = errors.New("unknown password")
	}
}

// TestWatch: devices are tried now and then, and at once when they are new; what keeps this node from switching the
// other one off is known before that is needed.
func TestWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &supplies{}
		d := desk(t, &s.agents, func(cluster.NodeID, Set) error { return nil })
		d.cfg.Agents = s
		go d.Watch(t.Context())
		dev := func(name string) api.FenceDevice {
			return api.FenceDevice{Name: name, Agent: "fence_apc", Options: map[string]string{"ip": "10.0.0.9"}}
		}
		if err := d.SetFence(t.Context(), "beta", [][]api.FenceDevice{{dev("bmc")}, {dev("psu1"), dev("psu2")}}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if s.asked != 3 || len(d.Failing("beta")) != 0 {
			t.Errorf("new ones: %d were asked, %q fail", s.asked, d.Failing("beta"))
		}
		for _, c := range []struct {
			broken, failing []string
		}{
			{[]string{"bmc"}, nil}, // the second level is left
			{[]string{"bmc", "psu2"}, []string{"bmc", "psu2"}},
			{[]string{"psu1", "psu2"}, nil},
			{nil, nil},
		} {
			s.breaks(c.broken...)
			time.Sleep(checkEvery)
			synctest.Wait()
			if got := d.Failing("beta"); !slices.Equal(got, c.failing) {
				t.Errorf("%q are broken: %q keep this node from it", c.broken, got)
			}
			for _, f := range d.Look(t.Context()) {
				if want := slices.Contains(c.broken, f.Device); f.Node != "beta" || f.Unknown || (f.Problem != "") != want {
					t.Errorf("%q are broken: %+v", c.broken, f)
				}
			}
		}
		s.breaks("bmc")
		if err := d.SetFence(t.Context(), "beta", [][]api.FenceDevice{{dev("bmc")}}); err != nil {
			t.Fatal(err)
		}
		if synctest.Wait(); !slices.Equal(d.Failing("beta"), []string{"bmc"}) {
			t.Errorf("a new one that is broken: %q", d.Failing("beta"))
		}
	})
}

// TestLookGivesWay: a device that does not answer holds up neither who looks nor the order to switch its node off.
func TestLookGivesWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &supplies{slow: make(chan struct{})}
		s.gate = make(chan struct{})
		d := desk(t, &s.agents, func(cluster.NodeID, Set) error { return nil })
		d.cfg.Agents = s
		if err := d.SetFence(t.Context(), "beta", bmc("10.0.0.9")); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if got := d.Look(ctx); len(got) != 1 || !got[0].Unknown {
			t.Errorf("before it answers: %+v", got)
		}
		close(s.gate)
		if err := d.Off(t.Context(), "beta"); err != nil || s.offs != 1 || s.both {
			t.Errorf("the order behind a look: %v, %d, both at once %v", err, s.offs, s.both)
		}
		if len(d.Failing("beta")) > 0 {
			t.Error("a look that gave way found a fault")
		}
		close(s.slow)
		if got := d.Look(t.Context()); len(got) != 1 || got[0].Unknown || got[0].Problem != "" {
			t.Errorf("once it answers: %+v", got)
		}
	})
}
