package sim

import (
	"strings"
	"testing"
)

// TestProof does the scenarios of the proof in the background, which only the real byte path has.
func TestProof(t *testing.T) {
	all := scenarios(t, "testdata/proof/*.txt")
	if len(all) == 0 {
		t.Fatal("there are none")
	}
	for _, s := range all {
		t.Run(s.name(), func(t *testing.T) {
			if out, err := produce(t, parse(s.text), s.seed, options{keep: true}); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}

// TestProofOfSchedules: a proof that never rests, under random faults of everything but disks, raises no alarm and
// breaks nothing; under faults of disks none for a disk that did no wrong.
func TestProofOfSchedules(t *testing.T) {
	const each = 15
	for seed := *first; seed < *first+each; seed++ {
		for what, s := range map[string]script{"faults": random(seed), "disks": ailing(seed)} {
			s = append(script{"set proof 1s"}, s...)
			if out, err := produce(t, s, seed, options{keep: testing.Verbose()}); err != nil {
				t.Errorf("%s, seed %d: %v\n%s\n--- transcript\n%s", what, seed, err, strings.Join(s, "\n"), out)
			}
		}
	}
}
