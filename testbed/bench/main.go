// Command bench measures the block path beside QEMU's own on this computer:
//
//	replicated-tls  our volume, primary and secondary process over loopback TCP with mutual TLS
//	replicated      the same without TLS
//	sleepy          replicated-tls without duetd's hold on idle CPUs (package cpuidle)
//	alone           our volume without a peer
//	mirror          QEMU's synchronous mirror (write-blocking) to qemu-nbd over loopback TCP
//	qemu-nbd        qemu-nbd alone, unreplicated
//
// All serve NBD on a unix socket over raw files of one file system, through the
// page cache, and are driven by the same fio jobs in turns, so that only the
// ratios of the medians mean something. The bench ends every process it starts.
//
// Images are filled in steps of 4 KiB. With large steps the kernel caches them in
// large folios, in which a 4 KiB write is so slow that all setups look alike; -fill
// shows that case too.
//
// What the comparison hides is in favour of QEMU: our replicated volumes make a
// flush durable on both copies and keep a durable dirty log; the mirror flushes
// its source only and keeps its bitmap in memory.
//
// It needs fio with the nbd engine, qemu-nbd and qemu-storage-daemon, and room for an image of each copy; root
// only where idle CPUs are to be held awake. It removes its folder when it ends, also by SIGINT and SIGTERM. If
// it is killed the children end with their standard input, but QEMU's programs and the folder stay.
//
// Exit status: 0 every target that was measured is met, 2 one is not, 1 it could not be measured.
//
//	setups.go   what is compared, and how each is brought up
//	process.go  the programs that are started; child.go is what ours does
//	qmp.go      QEMU's mirror job; keys.go our certificates
//	jobs.go     the loads; report.go medians and targets
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"duet/blockrepl/host/cpuidle"
)

// options are what the flags say.
type options struct {
	rounds  int      // of all jobs on all setups
	seconds int      // of each run
	size    int64    // bytes of each image
	fill    int64    // bytes per write when it is filled
	awake   bool     // idle CPUs stay awake for every setup
	json    string   // file for the results; "" keeps none
	dir     string   // where the folder of images is made; "" is the temporary directory
	only    []string // setups
	jobs    []string
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == childArg {
		if err := child(os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, "bench child:", err)
			os.Exit(1)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	met, err := bench(ctx, parseFlags())
	switch {
	case err != nil:
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	case !met:
		os.Exit(2)
	}
}

func parseFlags() options {
	var o options
	var only, jobs string
	mib := flag.Int64("size", 256, "size of each image in MiB")
	fill := flag.Int64("fill", 4, "KiB per write when images are filled; 1024 gives large folios")
	flag.IntVar(&o.rounds, "rounds", 5, "how often each job runs on each setup")
	flag.IntVar(&o.seconds, "seconds", 3, "length of one run")
	flag.StringVar(&o.json, "json", "", "file to save the results in")
	flag.StringVar(&o.dir, "dir", "", "where images live (default: a temporary directory)")
	flag.BoolVar(&o.awake, "awake", false,
		"keep idle CPUs awake for every setup, as tuned's latency-performance profile does")
	flag.StringVar(&only, "only", "", "setups to measure, separated by commas (default: all)")
	flag.StringVar(&jobs, "jobs", "", "jobs to run, separated by commas (default: all)")
	flag.Parse()
	o.size, o.fill = *mib<<20, *fill<<10
	o.only, o.jobs = split(only), split(jobs)
	return o
}

func split(list string) []string {
	if list == "" {
		return nil
	}
	return strings.Split(list, ",")
}

// known tells of names that are not there, before anything is measured.
func known(what string, asked, there []string) error {
	for _, name := range asked {
		if !slices.Contains(there, name) {
			return fmt.Errorf("there is no %s %q: there are %s", what, name, strings.Join(there, ", "))
		}
	}
	return nil
}

func chosen(list []string, name string) bool { return len(list) == 0 || slices.Contains(list, name) }

// bench runs everything and reports whether every target that was measured is met. Setups are all up before the
// first job, as each is measured in turns with the others; those that are not measured are idle. An error of one
// job ends the bench: no table is made of a part.
func bench(ctx context.Context, o options) (met bool, err error) {
	if o.rounds < 1 || o.seconds < 1 || o.size < 1<<20 || o.fill < 1 {
		return false, errors.New("rounds, seconds, size and fill must be positive")
	}
	var things, loads []string
	for _, s := range setups {
		things = append(things, s.name)
	}
	for _, j := range jobs {
		loads = append(loads, j.Name)
	}
	if err := errors.Join(known("setup", o.only, things), known("job", o.jobs, loads)); err != nil {
		return false, err
	}
	dir, err := os.MkdirTemp(o.dir, "bench")
	if err != nil {
		return false, err
	}
	defer os.RemoveAll(dir)
	if o.awake {
		held, err := cpuidle.Hold()
		if err != nil {
			return false, err
		}
		defer held.Close()
	}
	running, stop, err := startAll(ctx, dir, o)
	defer stop()
	if err != nil {
		return false, err
	}
	r := results{Started: time.Now().UTC(), Rounds: o.rounds, Seconds: o.seconds, Size: o.size, Fill: o.fill,
		Runs: make(map[string]map[string][]float64)}
	for round := range o.rounds {
		for _, j := range jobs {
			if !chosen(o.jobs, j.Name) {
				continue
			}
			// Each round begins with another setup, so that none always runs in the wake of the same one.
			for i := range running {
				s := running[(i+round)%len(running)]
				v, err := j.run(ctx, s, o)
				if err != nil {
					return false, fmt.Errorf("%s on %s: %w", j.Name, s.name, err)
				}
				r.add(j.Name, s.name, v)
			}
		}
		fmt.Fprintf(os.Stderr, "round %d of %d done\n", round+1, o.rounds)
	}
	met = r.print(os.Stdout)
	if o.json == "" {
		return met, nil
	}
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return false, err
	}
	return met, os.WriteFile(o.json, append(b, '\n'), 0o644)
}
