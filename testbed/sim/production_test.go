package sim

import (
	"flag"
	"fmt"
	"os"
	"runtime/pprof"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

var schedules = flag.Uint64("schedules", 100, "schedules of TestProduction and TestHunt")

// pending are the scenarios that today's byte path fails, with the fault's number in the
// issue. Each is tried: one that passes has to leave the list.
var pending = map[string]string{
	"metadata-disk-of-primary-full-while-alone": "no fault: the model's log has nothing to store here, " +
		"and this one has, as two extents of four are hot (hotExtents)",
}

// produce does a script with the real byte path.
func produce(t *testing.T, s script, seed uint64, opt options) (transcript string, err error) {
	t.Helper()
	watch := time.AfterFunc(2*time.Minute, func() {
		_ = pprof.Lookup("goroutine").WriteTo(os.Stderr, 2)
		panic(fmt.Sprintf("seed %d: virtual time stands still", seed))
	})
	defer watch.Stop()
	synctest.Test(t, func(*testing.T) {
		opt.live = newLive(synctest.Wait)
		transcript, err = s.with(seed, opt)
	})
	return transcript, err
}

// TestProduction tries random schedules of faults with the real byte path.
func TestProduction(t *testing.T) {
	for seed := *first; seed < *first+*schedules; seed++ {
		s := random(seed)
		if out, err := produce(t, s, seed, options{keep: testing.Verbose()}); err != nil {
			t.Errorf("seed %d: %v\n%s\n--- transcript\n%s", seed, err, strings.Join(s, "\n"), out)
		}
	}
}

// TestProductionScenarios does every script of testdata with the real byte path.
func TestProductionScenarios(t *testing.T) {
	for _, s := range scenarios(t, "testdata/*.txt") {
		t.Run(s.name(), func(t *testing.T) {
			out, err := produce(t, parse(s.text), s.seed, options{keep: true})
			switch why := pending[s.name()]; {
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
