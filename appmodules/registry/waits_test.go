package registry

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"duet/appmodules"
	"duet/appmodules/engine"
)

// slow is a runner whose goroutine waits for its metadata disk: an edit reaches it later.
type slow struct {
	*mirrored
	asked chan struct{}
}

func (s slow) Configure(ctx context.Context, m appmodules.Module) error {
	s.asked <- struct{}{}
	<-ctx.Done()
	return ctx.Err()
}

// Command waits as Configure does.
func (s slow) Command(ctx context.Context, _ appmodules.Event, _ bool) error {
	return s.Configure(ctx, s.module())
}

func (slow) module() appmodules.Module { return appmodules.Module{} }

// slowed puts a slow Runner in place of that of a module.
func (n *node) slowed(name string) slow {
	n.t.Helper()
	e, err := n.Find(name)
	must(n.t, err)
	with := *e
	run := slow{e.Run.(*mirrored), make(chan struct{}, 1)}
	with.Run = run
	n.list(&with)
	return run
}

// TestEditWhileTheDiskHangs: an edit whose engine takes it later counts here, and so it reaches the peer, too: else the
// peer would stay with the version before, and an edit there would make another one of the same number.
func TestEditWhileTheDiskHangs(t *testing.T) {
	n := newNode(t)
	n.begun("web01")
	run := n.slowed("web01")
	text := n.edited("stall_budget: 2s", "stall_budget: 7s")
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-run.asked; cancel() }()
	if _, err := n.Apply(ctx, text, 0); !errors.Is(err, context.Canceled) {
		t.Errorf("it was applied: %v", err)
	}
	n.wg.Wait()
	if got := n.said(); got != "beta gets web01 2" {
		t.Errorf("it did %q", got)
	}
}

// TestPlacesBesideAnEdit: a peer that was given a module has put its images elsewhere, and an admin has edited the
// policy meanwhile: both count, on both nodes.
func TestPlacesBesideAnEdit(t *testing.T) {
	for _, edited := range []bool{false, true} {
		for _, moved := range []bool{false, true} {
			t.Run(fmt.Sprintf("edited %v, moved %v", edited, moved), func(t *testing.T) {
				n := newNode(t)
				n.begun("web01")
				given := web("web01").Stored
				base := given.Version
				if moved {
					given.Version = Version{2, time.Unix(2000, 0).UTC(), "alpha"}
					given.Module.Volumes()[0].Paths["beta"] = "/b/vda-2.raw"
				}
				if edited {
					_, err := n.Apply(t.Context(), n.edited("stall_budget: 2s", "stall_budget: 7s"), 0)
					must(t, err)
					n.wg.Wait()
					n.said()
				}
				must(t, n.Given(t.Context(), base, given))
				n.wg.Wait()
				e, err := n.Find("web01")
				must(t, err)
				want := map[bool]string{true: "/b/vda-2.raw", false: "/b/vda.raw"}[moved]
				if path := e.Module.Volumes()[0].Paths["beta"]; path != want {
					t.Errorf("beta's image is %s, want %s", path, want)
				}
				if seven := time.Duration(e.Module.Policy.StallBudget) == 7*time.Second; seven != edited {
					t.Errorf("the policy is %+v", e.Module.Policy)
				}
				// What beta was given is 1, or 2 with the new place; of an edit it has heard nothing, or refused it.
				newest := 1
				for _, also := range []bool{edited, moved} {
					if also {
						newest++
					}
				}
				sent := strings.Contains(n.said(), fmt.Sprintf("beta gets web01 %d", newest))
				if int(e.Version.Number) != newest || sent != edited {
					t.Errorf("it is at version %d; sent %v", e.Version.Number, sent)
				}
			})
		}
	}
}

// TestHalfStored: where the log of a volume cannot be begun nothing of the module is left, also not the logs that were.
func TestHalfStored(t *testing.T) {
	n := newNode(t)
	f := web("web01")
	twice(&f.Stored.Module)
	other := f.Stored.Module.Volumes()[1].ID
	f.Stored.Module.Volumes()[1].ID = strings.Repeat("x", 1<<15) // of which no log can be
	if err := n.Store(t.Context(), f); err == nil {
		t.Fatalf("it was stored with %s", other)
	}
	if _, have, err := n.cfg.Store.Log("0123web01").Load(); have != nil || err != nil {
		t.Errorf("the log of the first volume is left: %v, %v", have, err)
	}
}

// TestOrderBesideAnEdit: a command waits neither for what another module is given, nor longer than its caller does.
func TestOrderBesideAnEdit(t *testing.T) {
	n := newNode(t)
	n.begun("web01", "db01")
	run := n.slowed("web01")
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		s := web("web01").Stored
		s.Version.Number = 2
		_ = n.Take(ctx, s)
	}()
	<-run.asked
	must(t, n.Order(t.Context(), "db01", appmodules.CmdSwap, false))
	cancel()
	<-ended
	// A Runner that is being exchanged has the other half.
	n.begun("app01")
	done, err := n.exchange.take(t.Context(), "app01")
	must(t, err)
	defer done()
	if err := n.Order(ctx, "app01", appmodules.CmdSwap, false); !errors.Is(err, context.Canceled) {
		t.Errorf("who gives up: %v", err)
	}
	must(t, n.Order(t.Context(), "db01", appmodules.CmdSwap, false))
}

var _ interface{ Core() *engine.Engine } = slow{}
