// Command campaign tries random schedules of faults on simulated clusters, as many as
// it is told, on all cores:
//
//	go run ./testbed/campaign -n 1000000 [-first SEED] [-workers N] [-keep DIR] [-all]
//
// It ends at the first schedule that breaks a promise, shrinks it and prints it as a scenario of testbed/sim;
// with -keep it writes it to DIR, with -all it goes on. Exit status: 0 nothing was found, 1 something was, 2 it
// could not run to its end. It tells every ten seconds how far it is.
//
// It uses the model of the byte path, needs no rights and leaves nothing but -keep. The other byte path and
// faults of disks are searched by TestCampaign of testbed/sim. SIGINT ends it after the schedules under way and
// their shrinking.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"time"

	"duet/testbed/sim"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// campaign is what was asked for.
type campaign struct {
	first, n uint64    // seed of the first schedule; how many
	workers  int       // at least one
	keep     string    // folder, made when it is needed; "" prints
	all      bool      // go on after a failure
	out      io.Writer // used by two goroutines
}

const (
	ok = iota
	broken
	unable
)

func run(ctx context.Context, args []string, out, errs io.Writer) int {
	c := campaign{out: out}
	flags := flag.NewFlagSet("campaign", flag.ContinueOnError)
	flags.SetOutput(errs)
	flags.Uint64Var(&c.n, "n", 100_000, "schedules")
	flags.Uint64Var(&c.first, "first", 1, "seed of the first")
	flags.IntVar(&c.workers, "workers", runtime.NumCPU(), "schedules at the same time")
	flags.StringVar(&c.keep, "keep", "", "directory for the scenarios of failures")
	flags.BoolVar(&c.all, "all", false, "go on after a failure")
	if flags.Parse(args) != nil || flags.NArg() > 0 || c.workers < 1 {
		fmt.Fprintln(errs, "usage: campaign [-n N] [-first SEED] [-workers N] [-keep DIR] [-all]")
		return unable
	}
	debug.SetGCPercent(400) // much garbage, little that lives
	failed, err := c.search(ctx)
	switch {
	case err != nil:
		fmt.Fprintln(errs, "campaign:", err)
		return unable
	case failed > 0:
		return broken
	}
	return ok
}

// search returns how many schedules failed. A scenario that cannot be kept ends it with that error.
func (c campaign) search(ctx context.Context) (failed uint64, err error) {
	var p sim.Progress
	began := time.Now()
	done := make(chan struct{})
	told := make(chan struct{})
	go func() {
		defer close(told)
		c.tell(&p, began, done)
	}()
	var keeping error
	err = sim.Search(ctx, c.first, c.n, c.workers, &p, func(f sim.Failure) bool {
		keeping = c.found(f)
		return c.all && keeping == nil
	})
	close(done)
	<-told
	fmt.Fprintln(c.out, c.line(&p, began))
	if keeping != nil {
		err = keeping
	}
	return p.Failed(), err
}

// tell prints a line every ten seconds until done.
func (c campaign) tell(p *sim.Progress, began time.Time, done <-chan struct{}) {
	tick := time.NewTicker(10 * time.Second)
	defer tick.Stop()
	for {
		select {
		case <-done:
			return
		case <-tick.C:
			fmt.Fprintln(c.out, c.line(p, began))
		}
	}
}

func (c campaign) line(p *sim.Progress, began time.Time) string {
	done, took := p.Done(), time.Since(began)
	rate := float64(done) / took.Seconds()
	left := time.Duration(0)
	if rate > 0 {
		left = time.Duration(float64(c.n-done) / rate * float64(time.Second))
	}
	return fmt.Sprintf("%d of %d schedules, %.0f a second, %d failed, %.3f simulated years, %.2f core-hours, %v left",
		done, c.n, rate, p.Failed(), p.Simulated().Hours()/24/365, took.Hours()*float64(c.workers),
		left.Round(time.Second))
}

// found prints or keeps a failure. It is called by one worker at a time. A file of the same name is written
// over.
func (c campaign) found(f sim.Failure) error {
	fmt.Fprintf(c.out, "schedule %d: %v\n", f.Schedule, f.Err)
	if c.keep == "" {
		_, err := io.WriteString(c.out, f.Scenario())
		return err
	}
	path := filepath.Join(c.keep, fmt.Sprintf("random-%d.txt", f.Schedule))
	err := os.MkdirAll(c.keep, 0o755)
	if err == nil {
		err = os.WriteFile(path, []byte(f.Scenario()), 0o644)
	}
	if err != nil {
		return fmt.Errorf("keep scenario: %w", err)
	}
	fmt.Fprintln(c.out, "kept as", path)
	return nil
}
