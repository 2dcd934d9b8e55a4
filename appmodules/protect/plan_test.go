package protect

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
)

var errCut = errors.New("the daemon dies")

// site is a world with one switch for each step of a plan, and a store.
type site struct {
	done  map[string]bool
	mark  Mark
	calls int
	dieAt int // call of do, undo or save that fails, with everything after it; 0: none
	half  bool
}

// call counts one change and tells whether the daemon still lives to make it. A daemon that dies in the midst of a
// change may have made it.
func (s *site) call(change func()) error {
	s.calls++
	if s.dieAt > 0 && s.calls >= s.dieAt {
		if s.half && s.calls == s.dieAt {
			change()
		}
		return errCut
	}
	change()
	return nil
}

func (s *site) plan() *plan {
	p := &plan{noReturn: "c", mark: s.mark}
	p.save = func(m Mark) error { return s.call(func() { s.mark = m }) }
	for _, name := range []string{"a", "b", "c", "d"} {
		one := step{name: name,
			do:   func(context.Context) error { return s.call(func() { s.done[name] = true }) },
			undo: func(context.Context) error { return s.call(func() { delete(s.done, name) }) },
		}
		if name == "c" { // it can be seen from outside whether it got through
			one.through = func(context.Context) (bool, error) { return s.done["c"], nil }
		}
		p.steps = append(p.steps, one)
	}
	return p
}

// TestPlanIsCutAnywhere: wherever the daemon dies, in going forward and once more in undoing or going on, the run after
// it leaves everything done or nothing, and never undoes what was beyond return.
func TestPlanIsCutAnywhere(t *testing.T) {
	ctx := t.Context()
	ends := map[string]int{}
	for first := 1; ; first++ {
		whole := &site{done: map[string]bool{}, dieAt: first}
		if whole.plan().forward(ctx) == nil {
			break // it died nowhere
		}
		for second := range 12 {
			for half := range 4 {
				s := &site{done: map[string]bool{}, dieAt: first, half: half&1 != 0}
				if err := s.plan().forward(ctx); !errors.Is(err, errCut) {
					t.Fatalf("%d: %v", first, err)
				}
				beyond := s.done["c"]
				s.calls, s.dieAt, s.half = 0, second, half&2 != 0
				_ = s.resume(ctx) // dies, or does not
				s.dieAt = 0
				if err := s.resume(ctx); err != nil {
					t.Fatalf("%d %d: %v", first, second, err)
				}
				var left []string
				for name := range s.done {
					left = append(left, name)
				}
				slices.Sort(left)
				end := fmt.Sprint(left)
				if want := map[bool]string{true: "[a b c d]", false: "[]"}[beyond]; end != want {
					t.Fatalf("cut at %d and %d: it ends with %s, want %s", first, second, end, want)
				}
				ends[end]++
			}
		}
	}
	if len(ends) != 2 {
		t.Errorf("it always ends one way: %v", ends)
	}
}

// resume is what the next run does.
func (s *site) resume(ctx context.Context) error {
	p := s.plan()
	on, err := p.committed(ctx)
	switch {
	case err != nil:
		return err
	case on:
		return p.forward(ctx)
	}
	return p.back(ctx)
}

// TestPlanOfAnotherVersion: nothing is done or undone of a step that this version does not know.
func TestPlanOfAnotherVersion(t *testing.T) {
	s := &site{done: map[string]bool{"a": true}, mark: Mark{At: "z"}}
	p := s.plan()
	if _, err := p.committed(t.Context()); !errors.Is(err, errUnknownStep) {
		t.Errorf("committed: %v", err)
	}
	if err := errors.Join(p.back(t.Context()), p.forward(t.Context())); !errors.Is(err, errUnknownStep) ||
		len(s.done) != 1 || s.calls > 0 {
		t.Errorf("%v; %v after %d calls", err, s.done, s.calls)
	}
}
