package sim

import "testing"

// ill are the scenarios of testdata/disks that fail today, by byte path, with the fault's number in
// the issue. Each is tried: one that passes has to leave the list.
var ill = map[string]string{}

// TestDisks does the scenarios of faults of disks on both byte paths.
func TestDisks(t *testing.T) {
	all := scenarios(t, "testdata/disks/*.txt")
	if len(all) == 0 {
		t.Fatal("there are none")
	}
	for _, backend := range []string{"model", "production"} {
		for _, s := range all {
			t.Run(backend+"/"+s.name(), func(t *testing.T) {
				run := script.run
				if backend == "production" {
					run = func(s script, seed uint64, keep bool) (string, error) {
						return produce(t, s, seed, options{keep: keep})
					}
				}
				out, err := run(parse(s.text), s.seed, true)
				switch why := ill[backend+"/"+s.name()]; {
				case err != nil && why != "":
					t.Skipf("%s (%v)", why, err)
				case err != nil:
					t.Errorf("%v\n%s", err, out)
				case why != "":
					t.Errorf("it passes: take it off the list of those that fail because of %s", why)
				}
			})
		}
	}
}
