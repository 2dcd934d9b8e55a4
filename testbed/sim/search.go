package sim

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Failure is a schedule that breaks a promise. Script is what is left after shrinking: it fails in the same way,
// perhaps with other numbers, so Err and the transcript need not agree to the letter.
type Failure struct {
	Seed       uint64   // to run Script with
	Schedule   uint64   // whose random schedule it was, before it was shrunk
	Err        error    // what was broken, by the whole schedule
	Script     []string // the lines that are left of it
	Transcript string
}

// Scenario is f as a file of testdata: comment, seed, script, transcript.
func (f Failure) Scenario() string {
	return fmt.Sprintf("# Found by random schedule %d: %v\n# seed %d\n%s\n----\n%s", f.Schedule, f.Err, f.Seed,
		strings.Join(f.Script, "\n"), f.Transcript)
}

// Progress is how far a Search is. Its methods may be called by any goroutine.
type Progress struct {
	done, failed atomic.Uint64
	virtual      atomic.Int64
}

// Done is the number of schedules that have ended.
func (p *Progress) Done() uint64 { return p.done.Load() }

// Failed is the number of those that broke a promise.
func (p *Progress) Failed() uint64 { return p.failed.Load() }

// Simulated is how much time has passed on the virtual clocks of those that have ended.
func (p *Progress) Simulated() time.Duration { return time.Duration(p.virtual.Load()) }

// Search runs the random schedules first to first+n-1 on so many workers and gives each failure to found,
// shrunk; calls do not overlap. It ends early when found returns false, or with the error of ctx. It returns
// when no worker runs any more. It uses the model, whose runs are the same each time, and not the real byte
// path, which needs a test around it. Without workers it returns at once. A schedule under way when ctx ends is
// finished.
func Search(ctx context.Context, first, n uint64, workers int, p *Progress, found func(Failure) bool) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var (
		next    atomic.Uint64
		mu      sync.Mutex // over calls of found
		enough  bool
		running sync.WaitGroup
	)
	for range workers {
		running.Go(func() {
			for i := next.Add(1) - 1; i < n && ctx.Err() == nil; i = next.Add(1) - 1 {
				seed := first + i
				s := random(seed)
				_, err := s.with(seed, options{spent: &p.virtual})
				p.done.Add(1)
				if err == nil {
					continue
				}
				p.failed.Add(1)
				f := explain(s, seed, err)
				mu.Lock()
				if !enough && !found(f) {
					enough = true
					cancel()
				}
				mu.Unlock()
			}
		})
	}
	running.Wait()
	if enough {
		return nil
	}
	return ctx.Err()
}

// runner does a script on one of the byte paths.
type runner func(s script, seed uint64, keep bool) (transcript string, err error)

// explain makes the most of a failure of the model.
func explain(s script, seed uint64, err error) Failure { return explainBy(script.run, s, seed, err) }

func explainBy(run runner, s script, seed uint64, err error) Failure {
	f := Failure{Schedule: seed, Err: err}
	small, with := shrink(run, s, seed, err.Error())
	f.Seed, f.Script = with, small
	f.Transcript, _ = run(small, with, true) // it fails as err says
	return f
}

// shrink removes faults from a failing script as long as it fails in the same way: what is before the start and
// what ends all faults stays. A script without a line often fails by another chance only, so each candidate is
// tried with eight seeds. It ends when no line can be spared.
func shrink(run runner, s script, seed uint64, failure string) (script, uint64) {
	fails := func(s script) (uint64, bool) {
		for try := range uint64(8) {
			if _, err := run(s, seed+try<<32, false); err != nil && kind(err.Error()) == kind(failure) {
				return seed + try<<32, true
			}
		}
		return 0, false
	}
	last := len(s) - 1
	for i, line := range s {
		if line == ends {
			last = i
		}
	}
	head, tail := slices.Index(s, "start")+1, len(s)-last
	for progress := true; progress; {
		progress = false
		for size := len(s) / 2; size > 0; size /= 2 {
			for i := head; i+size <= len(s)-tail; {
				less := slices.Delete(slices.Clone(s), i, i+size)
				if found, ok := fails(less); ok {
					s, seed, progress = less, found, true
					continue
				}
				i++
			}
		}
	}
	return s, seed
}

// kind is what a failure is about, without its numbers. Node names count as one, as the mirror image of a
// failure is the same failure.
func kind(failure string) string {
	return strings.Map(func(r rune) rune {
		if r >= '0' && r <= '9' {
			return -1
		}
		return r
	}, strings.ReplaceAll(strings.ReplaceAll(failure, "alpha", "N"), "beta", "N"))
}
