package sim

import "testing"

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
