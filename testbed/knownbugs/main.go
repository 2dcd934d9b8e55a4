// Command knownbugs puts one known bug after the other back into Duet and has the
// simulator find it again, on the model of the byte path or on the real one:
//
//	go run ./testbed/knownbugs [-only NAME,NAME] [-jobs N] [-table FILE]
//
// It prints a table: the bug, where it is known from, what it breaks, after how many
// schedules it was found and how long that took. Exit status: 0 all were found within
// the schedules that their row allows, 1 one was not, 2 it could not be tried.
//
// A bug is one small change of the source (bugs_*.go), made in a copy of the file that the compiler gets by
// -overlay: the tree itself is not touched. A change whose text is not in the tree any more, or is there twice,
// fails the test of this package. That test also tells whoever changes a line which an Edit names, a comment at
// its end included: then Before is to follow it.
//
// It needs the go command and takes long: each bug compiles the tests of its package anew. Everything is made in
// the temporary directory and removed, unless the program is killed.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

const (
	ok = iota
	missed
	unable
)

func run(ctx context.Context, args []string, out, errs io.Writer) int {
	flags := flag.NewFlagSet("knownbugs", flag.ContinueOnError)
	flags.SetOutput(errs)
	only := flags.String("only", "", "names of the bugs to try, with commas; all if empty")
	jobs := flags.Int("jobs", 2, "bugs tried at the same time")
	table := flags.String("table", "", "write the table to this file as well")
	if flags.Parse(args) != nil || flags.NArg() > 0 || *jobs < 1 {
		fmt.Fprintln(errs, "usage: knownbugs [-only NAME,NAME] [-jobs N] [-table FILE]")
		return unable
	}
	root, err := tree()
	if err != nil {
		fmt.Fprintln(errs, "knownbugs:", err)
		return unable
	}
	chosen, err := choose(*only)
	if err != nil {
		fmt.Fprintln(errs, "knownbugs:", err)
		return unable
	}
	results, err := tryAll(ctx, root, chosen, *jobs, errs)
	if err != nil {
		fmt.Fprintln(errs, "knownbugs:", err)
		return unable
	}
	text := render(results)
	fmt.Fprint(out, text)
	if *table != "" {
		if err := os.WriteFile(*table, []byte(text), 0o644); err != nil {
			fmt.Fprintln(errs, "knownbugs:", err)
			return unable
		}
	}
	if slices.ContainsFunc(results, func(r result) bool { return !r.found }) {
		return missed
	}
	return ok
}

// choose is the bugs of these names, in the order of the table; all of them without one.
func choose(names string) ([]Bug, error) {
	if names == "" {
		return all(), nil
	}
	wanted := strings.Split(names, ",")
	var chosen []Bug
	for _, b := range all() {
		if slices.Contains(wanted, b.Name) {
			chosen = append(chosen, b)
			wanted = slices.DeleteFunc(wanted, func(name string) bool { return name == b.Name })
		}
	}
	if len(wanted) > 0 {
		return nil, fmt.Errorf("there is no bug %q: bugs_*.go has their names", strings.Join(wanted, ","))
	}
	return chosen, nil
}

// tree is the root of the module this runs in. It is the nearest directory with a go.mod, from the working
// directory upwards.
func tree() (string, error) {
	dir, err := os.Getwd()
	for err == nil {
		if _, statErr := os.Stat(filepath.Join(dir, "go.mod")); statErr == nil {
			return dir, nil
		}
		up := filepath.Dir(dir)
		if up == dir {
			err = fmt.Errorf("no go.mod above the working directory")
		}
		dir = up
	}
	return "", err
}

// result is what became of one bug.
type result struct {
	bug   Bug
	found bool
	tried uint64 // schedules, or scenarios, until it was found; all of them if it was not
	seed  uint64 // of the one that failed, or the number of the scenario; 0: it has none
	where string // seed or scenario
	what  string // was broken, or kept the search from its end
	took  time.Duration
}

// tryAll tries jobs bugs at a time and tells each end. Bugs are tried to their end even if one could not be; the
// first such error is returned then, and no table is made.
func tryAll(ctx context.Context, root string, bugs []Bug, jobs int, progress io.Writer) ([]result, error) {
	dir, err := os.MkdirTemp("", "knownbugs-sound-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }() // what is left lies in the temporary directory
	h, err := newHunter(ctx, root, dir)
	if err != nil {
		return nil, err
	}
	results := make([]result, len(bugs))
	failed := make([]error, len(bugs))
	next := make(chan int)
	var workers sync.WaitGroup
	var mu sync.Mutex
	for range jobs {
		workers.Go(func() {
			for i := range next {
				results[i], failed[i] = h.try(ctx, bugs[i])
				mu.Lock()
				fmt.Fprintf(progress, "%-34s %s\n", bugs[i].Name, results[i].verdict())
				mu.Unlock()
			}
		})
	}
	for i := range bugs {
		next <- i
	}
	close(next)
	workers.Wait()
	for i, err := range failed {
		if err != nil {
			return nil, fmt.Errorf("%s: %w", bugs[i].Name, err)
		}
	}
	return results, nil
}

// verdict is one line.
func (r result) verdict() string {
	if !r.found {
		return strings.TrimSuffix(fmt.Sprintf("NOT FOUND in %d schedules: %s", r.tried, r.what), ": ")
	}
	return fmt.Sprintf("%s %d: %s (%s), %v", r.bug.By, r.tried, short(r.what), r.where, r.took.Round(time.Second))
}

// render makes the table. It is Markdown, in the order of the table of bugs.
func render(results []result) string {
	b := &strings.Builder{}
	fmt.Fprintln(b, "| bug | known from | what it breaks | found by | schedules (allowed) | seen as | time |")
	fmt.Fprintln(b, "| --- | --- | --- | --- | --- | --- | --- |")
	found := 0
	for _, r := range results {
		count, seen, within := "NOT FOUND", short(r.what), fmt.Sprint(r.bug.Within)
		if r.found {
			found++
			count, seen = fmt.Sprint(r.tried), short(r.what)+" ("+r.where+")"
		}
		if r.bug.Within == every {
			within = "all"
		}
		fmt.Fprintf(b, "| %s | %s | %s | %s | %s (%s) | %s | %v |\n", r.bug.Name, r.bug.Source, r.bug.Breaks, r.bug.By,
			count, within, strings.ReplaceAll(seen, "|", "/"), r.took.Round(time.Second))
	}
	fmt.Fprintf(b, "\n%d of %d bugs were found again.\n", found, len(results))
	return b.String()
}

// short cuts a long line.
func short(text string) string {
	const most = 120
	if len(text) > most {
		return text[:most] + "…"
	}
	return text
}
