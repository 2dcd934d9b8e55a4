package registry

import (
	"errors"
	"math"
	"runtime"
	"strings"
	"sync"
	"testing"

	"duet/console/api"
)

// TestTwoAdminsEdit: two edits at the same time are two versions, of which the later one counts; none is called applied
// and is not.
func TestTwoAdminsEdit(t *testing.T) {
	n := newNode(t)
	n.begun("web01")
	before, err := n.Config(t.Context(), "web01")
	must(t, err)
	texts := []string{n.edited("stall_budget: 2s", "stall_budget: 7s"), n.edited("max: 3", "max: 9")}
	done, err := n.turns.take(t.Context(), "web01")
	must(t, err)
	var wg sync.WaitGroup
	errs := make([]error, len(texts))
	for i, text := range texts {
		wg.Go(func() { _, errs[i] = n.Apply(t.Context(), text, 0) })
	}
	for n.Calls("web01") < 1+len(texts) {
		runtime.Gosched()
	}
	done()
	wg.Wait()
	for _, err := range errs {
		must(t, err)
	}
	after, err := n.Config(t.Context(), "web01")
	must(t, err)
	if after.Version != before.Version+2 {
		t.Errorf("version %d, then two edits, then version %d", before.Version, after.Version)
	}
}

// TestEditOfAnOlderVersion: who edits what somebody else has edited meanwhile is told, and nothing is changed.
func TestEditOfAnOlderVersion(t *testing.T) {
	n := newNode(t)
	n.begun("web01")
	shown, err := n.Config(t.Context(), "web01")
	must(t, err)
	mine := n.edited("stall_budget: 2s", "stall_budget: 7s")
	other, err := n.Apply(t.Context(), n.edited("max: 3", "max: 9"), shown.Version)
	must(t, err)
	if _, err := n.Apply(t.Context(), mine, shown.Version); !errors.Is(err, api.ErrConflict) ||
		!strings.Contains(err.Error(), "this is an edit of version") {
		t.Errorf("the second edit of version %d: %v", shown.Version, err)
	}
	now, err := n.Config(t.Context(), "web01")
	must(t, err)
	if now.Version != other.Version || now.YAML != other.YAML {
		t.Errorf("it is %+v, and was %+v", now, other)
	}
	_, err = n.Apply(t.Context(), n.edited("max: 9", "max: 4"), other.Version)
	must(t, err)
}

// TestLastVersion: a peer cannot make a configuration that no edit can follow.
func TestLastVersion(t *testing.T) {
	s := web("web01").Stored
	s.Version = Version{Number: math.MaxUint64, By: "beta"}
	if s.Check() == nil {
		t.Error("it is taken")
	}
	s.Version.Number = 1 << 20
	must(t, s.Check())
}
