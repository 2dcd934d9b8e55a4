package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Search is how a bug is found again; see TestHunt of testbed/sim.
type Search string

// The ways.
const (
	Model               Search = "model"                // random schedules, the model of the byte path
	Production          Search = "production"           // random schedules, the real one
	ModelScenarios      Search = "model-scenarios"      // those of testbed/sim/testdata
	ProductionScenarios Search = "production-scenarios" // the same, over the real byte path
	Storage             Search = "storage"              // random faults of disks, the real byte path
	DiskScenarios       Search = "disk-scenarios"       // those of testdata/disks, the real byte path
)

// The searches of the packages themselves.
const (
	Rules   Search = "rules"   // every order of events of a small model over package cluster
	Crashes Search = "crashes" // random ends of nodes and links around the real Primary and Secondary, package blockrepl
)

// program is the test binary that does a search: its package, and its arguments for so many schedules.
func (s Search) program(schedules uint64) (pkg string, args []string) {
	n := strconv.FormatUint(schedules, 10)
	switch s {
	case Rules:
		return "cluster", []string{"-test.run", "^(TestAuthorityModel|TestNobodyIsStuck)$"}
	case Crashes:
		return "blockrepl", []string{"-test.run", "^TestCrashes$", "-sim.count", n}
	}
	return "testbed/sim", []string{"-test.run", "^TestHunt$", "-hunt", string(s), "-schedules", n}
}

// Bug is a bug that was there once, here or elsewhere.
type Bug struct {
	Name   string
	Source string // where it is known from
	Breaks string // what it breaks, in a few words
	By     Search
	Within uint64 // schedules in which it has to be found
	Edits  []Edit // the first that fits is made
}

// Edit is a change of one file. Before must be in it exactly once.
type Edit struct{ File, Before, After string }

// all is the table.
func all() []Bug { return slices.Concat(authority(), engines(), writePath(), copies()) }

// fit returns the file's text after the first edit whose Before is there once.
func (b Bug) fit(root string) (file, text string, err error) {
	var why []string
	for _, e := range b.Edits {
		src, err := os.ReadFile(filepath.Join(root, e.File))
		if errors.Is(err, fs.ErrNotExist) {
			why = append(why, e.File+" is not there")
			continue
		}
		if err != nil {
			return "", "", err
		}
		if n := strings.Count(string(src), e.Before); n != 1 {
			why = append(why, fmt.Sprintf("%s has %d of %q", e.File, n, e.Before))
			continue
		}
		return e.File, strings.Replace(string(src), e.Before, e.After, 1), nil
	}
	return "", "", fmt.Errorf("the bug does not fit the tree: %s", strings.Join(why, "; "))
}

// try builds the simulator with the bug and lets it search.
func try(ctx context.Context, root string, b Bug) (result, error) {
	r := result{bug: b}
	dir, err := os.MkdirTemp("", "knownbugs-")
	if err != nil {
		return r, err
	}
	defer func() { _ = os.RemoveAll(dir) }() // what is left lies in the temporary directory
	pkg, args := b.By.program(b.Within)
	bin, err := build(ctx, root, dir, pkg, b)
	if err != nil {
		return r, err
	}
	began := time.Now()
	cmd := exec.CommandContext(ctx, bin, append(args, "-test.timeout", "20m")...)
	cmd.Dir = filepath.Join(root, pkg)
	out, err := cmd.CombinedOutput()
	r.took, r.tried = time.Since(began), b.Within
	if pkg != "testbed/sim" {
		r.judge(out, err != nil)
		return r, nil
	}
	if hit := crashed(out); err != nil && hit != "" {
		r.found, r.where, r.what = true, "the schedule under way", hit
		return r, nil
	}
	if err != nil {
		return r, fmt.Errorf("search: %w\n%s", err, out)
	}
	return r, r.read(out)
}

// build compiles the tests of a package with the bug.
func build(ctx context.Context, root, dir, pkg string, b Bug) (string, error) {
	file, text, err := b.fit(root)
	if err != nil {
		return "", err
	}
	changed, overlay, bin := filepath.Join(dir, "changed.go"), filepath.Join(dir, "overlay.json"), filepath.Join(dir, "sim.test")
	replace, err := json.Marshal(map[string]any{"Replace": map[string]string{filepath.Join(root, file): changed}})
	if err != nil {
		return "", err
	}
	if err := os.WriteFile(changed, []byte(text), 0o600); err != nil {
		return "", err
	}
	if err := os.WriteFile(overlay, replace, 0o600); err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, "go", "test", "-c", "-vet=off", "-overlay", overlay, "-o", bin, "./"+pkg)
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build: %w\n%s", err, out)
	}
	return bin, nil
}

// crashed is the panic of a program that did not end as it should: a bug may do that, too.
func crashed(out []byte) string {
	for line := range strings.SplitSeq(string(out), "\n") {
		if strings.HasPrefix(line, "panic: ") || strings.HasPrefix(line, "fatal error: ") {
			return line
		}
	}
	return ""
}

// failing is where a test of a package says that it failed, and with what.
var failing = regexp.MustCompile(`(?m)^ *--- FAIL: (\S+).*\n((?: +\S+_test\.go:.*\n)?)`)

// judge reads what the tests of a package said. Of a search with numbered schedules it takes the number.
func (r *result) judge(out []byte, failed bool) {
	if !failed {
		return
	}
	r.found, r.tried, r.where, r.what = true, 1, string(r.bug.By), crashed(out)
	for _, m := range failing.FindAllStringSubmatch(string(out), -1) {
		r.where = m[1]
		if said := strings.TrimSpace(m[2]); said != "" {
			r.what = said
		}
		if _, number, ok := strings.Cut(m[1], "/"); ok {
			if n, err := strconv.ParseUint(number, 10, 64); err == nil {
				r.tried = n
			}
		}
	}
}

// read takes the line of what was found.
func (r *result) read(out []byte) error {
	lines := bufio.NewScanner(bytes.NewReader(out))
	for lines.Scan() {
		if lines.Text() == "nothing" {
			return nil
		}
		f := strings.SplitN(lines.Text(), "\t", 4)
		if f[0] != "found" || len(f) != 4 {
			continue
		}
		tried, err := strconv.ParseUint(f[1], 10, 64)
		if err != nil {
			return fmt.Errorf("read %q: %w", lines.Text(), err)
		}
		r.found, r.tried, r.where, r.what = true, tried, f[2], f[3]
		return nil
	}
	return fmt.Errorf("the search said nothing:\n%s", out)
}
