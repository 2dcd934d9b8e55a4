package sim

import (
	"flag"
	"fmt"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

var campaign = flag.String("campaign", "", "search with this byte path: production, disks-model or disks-production")

// TestCampaign tries many schedules on all cores and ends at the first that fails, which it shrinks. It tells
// how far it is every ten seconds. The real byte path needs a test around it, so this is no program.
func TestCampaign(t *testing.T) {
	if *campaign == "" {
		t.Skip("only with -campaign: make campaign-bytes and make campaign-disks call it")
	}
	debug.SetGCPercent(400)
	generate := ailing
	if *campaign == "production" {
		generate = random
	}
	var next, done atomic.Uint64
	var virtual atomic.Int64
	run := func(s script, seed uint64, keep bool) (string, error) {
		opt := options{keep: keep, spent: &virtual}
		if *campaign == "disks-model" {
			return s.with(seed, opt)
		}
		return produce(t, s, seed, opt)
	}
	began := time.Now()
	line := func() string {
		took := time.Since(began)
		return fmt.Sprintf("%d of %d schedules, %.0f a second, %.4f simulated years", done.Load(), *schedules,
			float64(done.Load())/took.Seconds(), time.Duration(virtual.Load()).Hours()/24/365)
	}
	var workers sync.WaitGroup
	over := make(chan struct{})
	for range runtime.GOMAXPROCS(0) {
		workers.Go(func() {
			for i := next.Add(1) - 1; i < *schedules && !t.Failed(); i = next.Add(1) - 1 {
				seed := *first + i
				s := generate(seed)
				_, err := run(s, seed, false)
				done.Add(1)
				if err != nil {
					f := explainBy(run, s, seed, err)
					t.Error(f.Scenario())
				}
			}
		})
	}
	go func() { workers.Wait(); close(over) }()
	tick := time.NewTicker(10 * time.Second)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			fmt.Println(line())
			continue
		case <-over:
		}
		fmt.Println(line())
		return
	}
}
