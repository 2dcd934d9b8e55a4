package sim

import (
	"flag"
	"runtime"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

var (
	seeds = flag.Uint64("seeds", 300, "schedules of TestRandom")
	first = flag.Uint64("seed", 1, "first of them")
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestRandom tries random schedules of faults, and lists the rows of the table that
// none of them took.
func TestRandom(t *testing.T) {
	cover := newCoverage()
	for seed := *first; seed < *first+*seeds; seed++ {
		s := random(seed)
		if _, err := s.with(seed, options{strict: true, cover: cover}); err != nil {
			f := explain(s, seed, err)
			t.Fatalf("seed %d: %v\n--- the schedule, shrunk (seed %d)\n%s\n--- transcript\n%s", seed, err, f.Seed,
				strings.Join(f.Script, "\n"), f.Transcript)
		}
	}
	never, visible := cover.never()
	t.Logf("%d of %d rows were taken", visible-len(never), visible)
	for _, r := range never {
		t.Logf("never taken: %v", r)
	}
}

// TestBroken: a cluster that does not keep its contracts is caught, soon.
func TestBroken(t *testing.T) {
	if raced {
		t.Skip("it takes thousands of schedules: run it without -race")
	}
	for b := nothing + 1; b < brokenKinds; b++ {
		t.Run(strings.ReplaceAll(b.String(), " ", "-"), func(t *testing.T) {
			t.Parallel()
			for seed := range uint64(3000) {
				s := random(seed)
				if _, err := s.with(seed, options{broken: b}); err != nil {
					if _, sound := s.run(seed, false); sound != nil {
						continue // it is not the breakage that is noticed
					}
					t.Logf("seed %d: %v", seed, err)
					return
				}
			}
			t.Error("nobody noticed")
		})
	}
}

// TestLeak: nothing of a simulated cluster is left behind, and no engine gathers tasks.
func TestLeak(t *testing.T) {
	before := runtime.NumGoroutine()
	for seed := range uint64(20) {
		s := random(seed)
		c := newCluster(seed, false, nil)
		for _, line := range s {
			if err := c.doLine(line); err != nil {
				t.Fatal(err)
			}
		}
		for _, n := range c.nodes {
			if tasks := len(n.proc.waiting); tasks > 12 {
				t.Errorf("seed %d: %d tasks wait on %s when nothing happens", seed, tasks, n.name)
			}
		}
		c.close()
	}
	if after := runtime.NumGoroutine(); after > before {
		t.Errorf("%d goroutines before, %d after", before, after)
	}
}
