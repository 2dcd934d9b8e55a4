package sim

import (
	"testing"
)

// TestAiling tries random faults of disks on both byte paths.
func TestAiling(t *testing.T) {
	for _, backend := range []string{"model", "production"} {
		t.Run(backend, func(t *testing.T) {
			t.Parallel()
			for seed := *first; seed < *first+*schedules; seed++ {
				s := ailing(seed)
				run := func(s script, seed uint64, keep bool) (string, error) {
					if backend == "model" {
						return s.run(seed, keep)
					}
					return produce(t, s, seed, options{keep: keep})
				}
				if _, err := run(s, seed, false); err != nil {
					f := explainBy(run, s, seed, err)
					t.Error(f.Scenario())
				}
			}
		})
	}
}
