package registry

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"duet/appmodules"
	"duet/cluster"
)

// TestTurns: one at a time has a name; who gives up waiting leaves nothing behind, and other names are free.
func TestTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var all turns
		first, err := all.take(t.Context(), "web01")
		must(t, err)
		other, err := all.take(t.Context(), "db01")
		must(t, err)
		other()
		got := make(chan func(), 1)
		go func() {
			done, err := all.take(t.Context(), "web01")
			if err != nil {
				t.Error(err)
			}
			got <- done
		}()
		impatient, cancel := context.WithCancel(t.Context())
		cancel()
		synctest.Wait()
		if _, err := all.take(impatient, "web01"); !errors.Is(err, context.Canceled) {
			t.Errorf("who gives up: %v", err)
		}
		if n := all.wanted("web01"); n != 2 || len(got) != 0 {
			t.Errorf("%d want it, %d more have it", n, len(got))
		}
		first()
		(<-got)()
		if len(all.of) != 0 || all.wanted("web01") != 0 {
			t.Errorf("%v is left", all.of)
		}
	})
}

// TestRemoveIf: whether a module may be removed is asked, and what follows is done, in its turn.
func TestRemoveIf(t *testing.T) {
	n := newNode(t)
	n.begun("web01")
	held := errors.New("it has data")
	try := func(name string, may bool, why error) error {
		return n.RemoveIf(t.Context(), name, func(e *Entry) (bool, error) {
			if n.Calls("web01") != 1 {
				t.Error("it is not its turn")
			}
			return may, why
		}, func(m appmodules.Module, removed error) error {
			n.say("after " + m.Name)
			return removed
		})
	}
	if err := try("web01", true, held); !errors.Is(err, held) || len(n.All()) != 1 {
		t.Errorf("it may not: %v", err)
	}
	must(t, errors.Join(try("web01", false, nil), try("nobody", true, held)))
	if got := n.said(); got != "" || len(n.All()) != 1 {
		t.Errorf("what may not be removed did %q", got)
	}
	must(t, try("web01", true, nil))
	if got := n.said(); got != "stop, gone web01, closed web01, after web01" {
		t.Errorf("it did %q", got)
	}
	n.begun("web01")
	e, err := n.Find("web01")
	must(t, err)
	farm := *e
	farm.Engine = nil
	n.list(&farm)
	if err := try("web01", true, nil); err == nil {
		t.Error("what is no mirror has no peer that may ask for that")
	}
}

// TestLateCalls: a call that comes when the node ends waits for nobody.
func TestLateCalls(t *testing.T) {
	n := newNode(t)
	done, err := n.turns.take(t.Context(), "web01")
	must(t, err)
	defer done()
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	f := web("web01")
	f.Source = "beta"
	made := func(appmodules.Module, appmodules.Volume) (bool, error) { return true, nil }
	for what, err := range map[string]error{"create": n.Create(gone, cluster.NodeID("beta"), f, made),
		"store": n.Store(gone, f), "take": n.Take(gone, f.Stored), "remove": n.Remove(gone, "web01")} {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", what, err)
		}
	}
}
