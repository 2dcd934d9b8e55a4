package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// hunter has the tests of the tree as it is, to tell a bug's failure from one that is there without it.
type hunter struct {
	root  string
	sound map[string]string // binaries by package
}

// newHunter compiles them below dir.
func newHunter(ctx context.Context, root, dir string) (*hunter, error) {
	h := &hunter{root: root, sound: map[string]string{}}
	for _, pkg := range []string{"testbed/sim", "blockrepl", "cluster"} {
		bin := filepath.Join(dir, filepath.Base(pkg)+".test")
		if err := compile(ctx, root, pkg, bin); err != nil {
			return nil, err
		}
		h.sound[pkg] = bin
	}
	return h, nil
}

// pkg is where the tests of a search are.
func (s Search) pkg() string {
	switch s {
	case Rules:
		return "cluster"
	case Crashes:
		return "blockrepl"
	}
	return "testbed/sim"
}

// args are the arguments for n schedules or scenarios from first on. Of Crashes n schedules from the first one on are
// done, or the single one of a number.
func (s Search) args(first, n uint64) []string {
	switch s {
	case Rules:
		return []string{"-test.run", "^(TestAuthorityModel|TestNobodyIsStuck)$"}
	case Crashes:
		if n == 1 {
			return []string{"-test.run", "^TestCrashes$", "-sim.seed", strconv.FormatUint(first, 10)}
		}
		return []string{"-test.run", "^TestCrashes$", "-sim.count", strconv.FormatUint(n, 10)}
	}
	return []string{"-test.run", "^TestHunt$", "-hunt", string(s), "-seed", strconv.FormatUint(first, 10),
		"-schedules", strconv.FormatUint(n, 10)}
}

// try compiles the tests with the bug and lets them search.
func (h *hunter) try(ctx context.Context, b Bug) (result, error) {
	r := result{bug: b}
	dir, err := os.MkdirTemp("", "knownbugs-")
	if err != nil {
		return r, err
	}
	defer func() { _ = os.RemoveAll(dir) }() // what is left lies in the temporary directory
	bin, err := h.infect(ctx, dir, b)
	if err != nil {
		return r, err
	}
	began := time.Now()
	r, err = h.hunt(ctx, bin, b.By, b.Within)
	r.bug, r.took = b, time.Since(began)
	return r, err
}

// hunt searches with the tests of a tree with a bug. A schedule or scenario that fails without the bug too proves
// nothing: the search goes on after it. It ends there where it cannot begin at a number: of Crashes, of Rules, and
// after a panic.
func (h *hunter) hunt(ctx context.Context, bin string, by Search, within uint64) (result, error) {
	tried := uint64(0)
	for tried < within {
		r, err := h.search(ctx, bin, by, tried+1, within-tried)
		if err != nil || !r.found {
			r.tried += tried
			return r, err
		}
		from, n := cmp.Or(r.seed, tried+1), uint64(1)
		if r.seed == 0 {
			n = within - tried // which of them it was is not known
		}
		alone, err := h.search(ctx, h.sound[by.pkg()], by, from, n)
		if err != nil {
			return r, err
		}
		r.tried += tried
		if !alone.found {
			return r, nil
		}
		if tried = r.tried; r.seed == 0 || by == Crashes {
			break
		}
	}
	return result{tried: tried, what: "what fails there fails without the bug too"}, nil
}

// patience is how long a search may take. One that takes longer has found nothing: the machine may be slow.
const patience = 30 * time.Minute

// search runs a test binary for n schedules from first on. It runs in the directory of the package, where the
// testdata is. A panic of the program counts as found. Tried counts from first.
func (h *hunter) search(ctx context.Context, bin string, by Search, first, n uint64) (result, error) {
	r := result{tried: n}
	cmd := exec.CommandContext(ctx, bin, append(by.args(first, n), "-test.timeout", patience.String())...)
	cmd.Dir = filepath.Join(h.root, by.pkg())
	out, err := cmd.CombinedOutput()
	switch hit := crashed(out); {
	case ctx.Err() != nil:
		return r, ctx.Err()
	case strings.HasPrefix(hit, "panic: test timed out"):
		r.tried, r.what = 0, fmt.Sprintf("the search did not end within %v", patience)
	case by.pkg() != "testbed/sim" && err == nil:
	case by.pkg() != "testbed/sim" && (hit != "" || failing.Match(out)):
		r.judge(string(by), out)
	case err != nil && hit != "":
		r.found, r.tried, r.where, r.what = true, 1, "a schedule under way", hit
	case err != nil:
		return r, fmt.Errorf("search: %w\n%s", err, out)
	default:
		return r, r.read(out, first)
	}
	return r, nil
}

// infect compiles the tests with the bug. -overlay has the compiler read the changed copy in the place of the
// file, which is left alone; so several bugs can be tried at a time.
func (h *hunter) infect(ctx context.Context, dir string, b Bug) (string, error) {
	files, overlay := map[string]string{}, filepath.Join(dir, "overlay.json")
	for i, e := range b.edits() {
		text, err := e.fit(h.root)
		if err != nil {
			return "", err
		}
		changed := filepath.Join(dir, fmt.Sprintf("changed%d.go", i))
		if err := os.WriteFile(changed, []byte(text), 0o600); err != nil {
			return "", err
		}
		files[filepath.Join(h.root, e.File)] = changed
	}
	replace, err := json.Marshal(map[string]any{"Replace": files})
	if err != nil {
		return "", err
	}
	if err := os.WriteFile(overlay, replace, 0o600); err != nil {
		return "", err
	}
	bin := filepath.Join(dir, "infected.test")
	return bin, compile(ctx, h.root, b.By.pkg(), bin, "-overlay", overlay)
}

// compile: vet is left out, as a bug put back need not please it.
func compile(ctx context.Context, root, pkg, bin string, flags ...string) error {
	cmd := exec.CommandContext(ctx, "go",
		append(append([]string{"test", "-c", "-vet=off", "-o", bin}, flags...), "./"+pkg)...)
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("compile the tests of %s: %w\n%s", pkg, err, out)
	}
	return nil
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

// judge reads what the tests of a package said that failed. Of a search with numbered schedules it takes the number.
// The last failure in the output counts.
func (r *result) judge(by string, out []byte) {
	r.found, r.tried, r.where, r.what = true, 1, by, crashed(out)
	for _, m := range failing.FindAllStringSubmatch(string(out), -1) {
		r.where = m[1]
		if said := strings.TrimSpace(m[2]); said != "" {
			r.what = said
		}
		if _, number, ok := strings.Cut(m[1], "/"); ok {
			if n, err := strconv.ParseUint(number, 10, 64); err == nil {
				r.tried, r.seed = n, n
			}
		}
	}
}

// read takes the line of what was found, or how many were tried in vain. A search that says neither is an error: the
// output is of something else.
func (r *result) read(out []byte, first uint64) (err error) {
	lines := bufio.NewScanner(bytes.NewReader(out))
	for lines.Scan() {
		f := strings.SplitN(lines.Text(), "\t", 4)
		switch {
		case f[0] == "nothing" && len(f) == 2:
			r.tried, err = strconv.ParseUint(f[1], 10, 64)
		case f[0] == "found" && len(f) == 4:
			r.found, r.where, r.what = true, f[2], f[3]
			r.seed, err = strconv.ParseUint(f[1], 10, 64)
			r.tried = r.seed - first + 1
		default:
			continue
		}
		if err != nil {
			return fmt.Errorf("read %q: %w", lines.Text(), err)
		}
		return nil
	}
	return fmt.Errorf("the search said nothing:\n%s", out)
}
