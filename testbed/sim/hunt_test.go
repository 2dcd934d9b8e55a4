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

// quarry is what a hunt tries: a schedule by its seed, or a scenario by its place.
type quarry struct {
	where string
	s     script
	seed  uint64
}

// quarries gives those of a hunt by number, from 1 on; false: there is none of that number. A scenario that is known
// to fail is one without lines.
func quarries(t *testing.T, hunt string) func(number uint64) (quarry, bool) {
	chance := func(make func(uint64) script) func(uint64) (quarry, bool) {
		return func(n uint64) (quarry, bool) { return quarry{fmt.Sprintf("seed %d", n), make(n), n}, true }
	}
	var texts string
	switch hunt {
	case "storage":
		return chance(ailing)
	case "model", "production":
		return chance(random)
	case "model-scenarios", "production-scenarios":
		texts = "testdata/*.txt"
	case "disk-scenarios":
		texts = "testdata/disks/*.txt"
	case "proof-scenarios":
		texts = "testdata/proof/*.txt"
	default:
		t.Fatalf("no such hunt %q", hunt)
	}
	all := scenarios(t, texts)
	return func(n uint64) (quarry, bool) {
		if n > uint64(len(all)) {
			return quarry{}, false
		}
		s := all[n-1]
		if pending[s.name()] != "" || ill["production/"+s.name()] != "" {
			return quarry{where: s.name()}, true
		}
		return quarry{s.name(), parse(s.text), s.seed}, true
	}
}

// TestHunt tries one number after the other, from -seed on, until one fails, for testbed/knownbugs, and prints what
// it found in one line: the number, which schedule or scenario that is, and what was broken. Or that it found
// nothing, and how many it tried: -schedules, or fewer if there are no more scenarios.
func TestHunt(t *testing.T) {
	if *hunt == "" {
		t.Skip("only with -hunt: testbed/knownbugs calls it on a tree with a bug")
	}
	debug.SetGCPercent(400)
	at := quarries(t, *hunt)
	n := *first
	for ; n < *first+*schedules; n++ {
		q, more := at(n)
		if !more {
			break
		}
		var err error
		if *hunt == "model" || *hunt == "model-scenarios" {
			_, err = q.s.with(q.seed, options{})
		} else {
			_, err = produce(t, q.s, q.seed, options{})
		}
		if err != nil {
			fmt.Printf("found\t%d\t%s\t%v\n", n, q.where, err)
			return
		}
	}
	fmt.Printf("nothing\t%d\n", n-*first)
}

// TestQuarries: every scenario has a number, and there are no more.
func TestQuarries(t *testing.T) {
	at, all := quarries(t, "disk-scenarios"), scenarios(t, "testdata/disks/*.txt")
	for i, s := range all {
		if q, more := at(uint64(i + 1)); !more || q.where != s.name() || len(q.s) == 0 {
			t.Errorf("number %d is %+v, and not %s", i+1, q, s.name())
		}
	}
	if q, more := at(uint64(len(all) + 1)); more {
		t.Errorf("%+v is one more", q)
	}
	if q, more := quarries(t, "model")(1 << 40); !more || q.seed != 1<<40 {
		t.Errorf("%+v is not schedule %d", q, uint64(1)<<40)
	}
}
