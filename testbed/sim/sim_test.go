package sim

import (
	"flag"
	"strings"
	"testing"
)

var (
	seeds = flag.Uint64("seeds", 300, "schedules of TestRandom")
	first = flag.Uint64("seed", 1, "first of them")
)

// TestRandom tries random schedules of faults.
func TestRandom(t *testing.T) {
	for seed := *first; seed < *first+*seeds; seed++ {
		s := random(seed)
		_, err := s.run(seed, false)
		if err == nil {
			continue
		}
		small, smallSeed := shrink(s, seed, err.Error())
		out, err2 := small.run(smallSeed, true)
		t.Fatalf("seed %d: %v\n--- the schedule, shrunk (seed %d: %v)\n%s\n--- transcript\n%s", seed, err, smallSeed, err2, strings.Join(small, "\n"), out)
	}
}
