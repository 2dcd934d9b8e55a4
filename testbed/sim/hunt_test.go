package sim

import (
	"flag"
	"fmt"
	"runtime/debug"
	"testing"
)

var hunt = flag.String("hunt", "",
	"search for a failure with the model or production byte path, or storage: faults of disks, "+
		"or in the scenarios: model-scenarios, production-scenarios, disk-scenarios, proof-scenarios")

// TestHunt tries schedules until one fails, for testbed/knownbugs, and prints what it found in one line:
// how many it took, the seed or scenario, and what was broken.
func TestHunt(t *testing.T) {
	if *hunt == "" {
		t.Skip("only with -hunt: testbed/knownbugs calls it on a tree with a bug")
	}
	debug.SetGCPercent(400)
	found := func(tried uint64, where string, err error) { fmt.Printf("found\t%d\t%s\t%v\n", tried, where, err) }
	try := func(s script, seed uint64, strict bool) error {
		if *hunt == "model" || *hunt == "model-scenarios" {
			_, err := s.with(seed, options{strict: strict})
			return err
		}
		_, err := produce(t, s, seed, options{})
		return err
	}
	switch *hunt {
	case "storage":
		for seed := *first; seed < *first+*schedules; seed++ {
			if err := try(ailing(seed), seed, false); err != nil {
				found(seed-*first+1, fmt.Sprintf("seed %d", seed), err)
				return
			}
		}
	case "model", "production":
		for seed := *first; seed < *first+*schedules; seed++ {
			if err := try(random(seed), seed, false); err != nil {
				found(seed-*first+1, fmt.Sprintf("seed %d", seed), err)
				return
			}
		}
	case "model-scenarios", "production-scenarios", "disk-scenarios", "proof-scenarios":
		texts := "testdata/*.txt"
		if *hunt == "disk-scenarios" {
			texts = "testdata/disks/*.txt"
		} else if *hunt == "proof-scenarios" {
			texts = "testdata/proof/*.txt"
		}
		for i, s := range scenarios(t, texts) {
			if pending[s.name()] != "" || ill["production/"+s.name()] != "" {
				continue
			}
			if err := try(parse(s.text), s.seed, false); err != nil {
				found(uint64(i+1), s.name(), err)
				return
			}
		}
	default:
		t.Fatalf("no such hunt %q", *hunt)
	}
	fmt.Println("nothing")
}
