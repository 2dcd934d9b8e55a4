package sim

import (
	"flag"
	"fmt"
	"hash/fnv"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// Only commit the change if you understand what caused it.
var update = flag.Bool("update", false, "write the transcripts of testdata anew")

var open = flag.Bool("open", false, "do the scenarios of testdata/open, which are known to fail")

// scenario is a file of testdata: what happened in an operator's words, a script, and
// after a line of dashes the transcript.
type scenario struct {
	path, text string // text: comment and script
	transcript string
	seed       uint64
}

// name is that of the file.
func (s scenario) name() string { return strings.TrimSuffix(filepath.Base(s.path), ".txt") }

func readScenario(path string) (s scenario, err error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return s, err
	}
	s.path = path
	s.text, s.transcript, _ = strings.Cut(string(b), "----\n")
	h := fnv.New32()
	_, _ = h.Write([]byte(filepath.Base(path))) // it never fails
	s.seed = uint64(h.Sum32())
	for _, line := range strings.Split(s.text, "\n") {
		_, _ = fmt.Sscanf(line, "# seed %d", &s.seed) // most have none
	}
	return s, nil
}

func scenarios(t *testing.T, pattern string) (all []scenario) {
	t.Helper()
	paths, err := filepath.Glob(pattern)
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		s, err := readScenario(path)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, s)
	}
	return all
}

// TestScenarios does every script of testdata and compares its transcript.
func TestScenarios(t *testing.T) {
	all := scenarios(t, "testdata/*.txt")
	if len(all) == 0 {
		t.Fatal("there are none")
	}
	for _, s := range all {
		t.Run(s.name(), func(t *testing.T) {
			t.Parallel()
			if !strings.HasPrefix(s.text, "# ") || strings.HasPrefix(s.text, "# seed") {
				t.Error("the first line must say what happened")
			}
			out, err := parse(s.text).run(s.seed, true)
			if err != nil {
				t.Errorf("%v\n%s", err, out)
			}
			switch {
			case *update:
				if err := os.WriteFile(s.path, []byte(s.text+"----\n"+out), 0o644); err != nil {
					t.Fatal(err)
				}
			case out != s.transcript:
				t.Errorf("the transcript has changed; -update writes it anew. "+
					"Only commit the change if you understand what caused it.\n%s", difference(s.transcript, out))
			}
		})
	}
}

// TestOpen does those that show a fault which is known. One that passes belongs to the others.
func TestOpen(t *testing.T) {
	if !*open {
		t.Skip("only with -open")
	}
	for _, s := range scenarios(t, "testdata/open/*.txt") {
		t.Run(s.name(), func(t *testing.T) {
			if out, err := parse(s.text).run(s.seed, true); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}

// difference shows the first lines that differ.
func difference(want, got string) string {
	w, g := strings.Split(want, "\n"), strings.Split(got, "\n")
	for i := 0; i < len(w) && i < len(g); i++ {
		if w[i] != g[i] {
			return fmt.Sprintf("line %d\nwant %s\ngot  %s", i+1, w[i], g[i])
		}
	}
	return fmt.Sprintf("%d lines instead of %d", len(g), len(w))
}

// checks are the words of which every scenario needs one, so that it can fail by itself.
var checks = []string{"expect ", "why ", "settle ", "pause ", "runs ", "writes ", "stalls ", "refused "}

// TestScenariosCheck: a scenario proves something without its transcript.
func TestScenariosCheck(t *testing.T) {
	for _, s := range scenarios(t, "testdata/*.txt") {
		n := 0
		for _, line := range parse(s.text) {
			for _, word := range checks {
				if strings.HasPrefix(line, word) {
					n++
				}
			}
		}
		if n == 0 {
			t.Errorf("%s expects nothing", s.path)
		}
	}
}

// TestSame: a run depends on its script and its seed only.
func TestSame(t *testing.T) {
	was := runtime.GOMAXPROCS(1)
	defer runtime.GOMAXPROCS(was)
	for seed := range uint64(20) {
		runtime.GOMAXPROCS(1)
		one, err1 := random(seed).run(seed, true)
		runtime.GOMAXPROCS(4)
		two, err2 := random(seed).run(seed, true)
		if one != two || fmt.Sprint(err1) != fmt.Sprint(err2) {
			t.Fatalf("seed %d: two runs differ\n%s", seed, difference(one, two))
		}
	}
}

// TestFewLinesInVain: a VM that starts on neither host costs each host at most ten lines of its log in any minute.
func TestFewLinesInVain(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("testdata", "start-fails-on-both.txt"))
	if err != nil {
		t.Fatal(err)
	}
	_, transcript, _ := strings.Cut(string(text), "\n----\n")
	_, transcript, _ = strings.Cut(transcript, "the VM does not start here")
	lines := map[string][]float64{}
	for line := range strings.Lines(transcript) {
		var at float64
		var who string
		if n, _ := fmt.Sscanf(line, "%fs %s", &at, &who); n == 2 && strings.Contains(line, "→") {
			lines[who] = append(lines[who], at)
		}
	}
	if len(lines["alpha:"]) == 0 || len(lines["beta:"]) == 0 {
		t.Fatalf("no lines of both hosts are found: %v", lines)
	}
	for who, at := range lines {
		for i := range at {
			if i >= 10 && at[i]-at[i-10] < 60 && at[i] < 150 {
				t.Errorf("%s 11 lines from %.1f to %.1f s", who, at[i-10], at[i])
			}
		}
	}
}
