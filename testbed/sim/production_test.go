package sim

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime/pprof"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

var real1 = flag.Uint64("schedules", 100, "schedules of TestProduction")

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
	for seed := *first; seed < *first+*real1; seed++ {
		s := random(seed)
		if out, err := produce(t, s, seed, options{keep: testing.Verbose()}); err != nil {
			t.Errorf("seed %d: %v\n%s\n--- transcript\n%s", seed, err, strings.Join(s, "\n"), out)
		}
	}
}

// TestProductionScenarios does every script of testdata with the real byte path.
func TestProductionScenarios(t *testing.T) {
	for _, s := range scenarios(t, "testdata/*.txt") {
		t.Run(strings.TrimSuffix(filepath.Base(s.path), ".txt"), func(t *testing.T) {
			if out, err := produce(t, parse(s.text), s.seed, options{keep: true}); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}
