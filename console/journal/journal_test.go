package journal_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"duet/console/api"
	"duet/console/journal"
)

func open(t *testing.T, dir string) *journal.Journal {
	t.Helper()
	j, err := journal.Open(dir, "web01")
	if err != nil {
		t.Fatal(err)
	}
	return j
}

// TestJournal: the newest lines are found again in order, across a turn-over and a torn line.
func TestJournal(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "log")
	j := open(t, dir)
	long := strings.Repeat("x", 1000)
	const count = 1500 // more than fits one file
	for i := range count {
		j.Add(api.LogEntry{Module: "web01", Why: fmt.Sprintf("%d %s", i, long)})
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	j.Add(api.LogEntry{Why: "too late"})
	f, err := os.OpenFile(filepath.Join(dir, "web01.jsonl"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(`{"why":"torn`); err != nil {
		t.Fatal(err)
	}
	f.Close()
	if _, err := os.Stat(filepath.Join(dir, "web01.jsonl.1")); err != nil {
		t.Error(err)
	}
	j = open(t, dir)
	defer j.Close()
	got, err := j.Last(1200)
	if err != nil || len(got) != 1200 {
		t.Fatalf("%d lines, %v", len(got), err)
	}
	for i, e := range got {
		if !strings.HasPrefix(e.Why, fmt.Sprintf("%d ", count-1200+i)) {
			t.Fatalf("line %d is %.10q", i, e.Why)
		}
	}
}

// TestTornTail: what a loss of power or a full disk leaves at the end of a journal costs no line but its own.
func TestTornTail(t *testing.T) {
	for name, tail := range map[string]string{
		"torn line":       `{"why":"torn`,
		"some zeroes":     strings.Repeat("\x00", 100),
		"many zeroes":     strings.Repeat("\x00", 100<<10),
		"a line too long": `{"why":"` + strings.Repeat("x", 300<<10) + "\"}\n",
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			whole := `{"why":"before"}` + "\n"
			if err := os.WriteFile(filepath.Join(dir, "web01.jsonl"), []byte(whole+tail), 0o600); err != nil {
				t.Fatal(err)
			}
			for _, why := range []string{"first", "second"} { // each by a journal of its own
				j := open(t, dir)
				j.Add(api.LogEntry{Why: why})
				if err := j.Close(); err != nil {
					t.Fatal(err)
				}
			}
			j := open(t, dir)
			defer j.Close()
			if got := whys(t, j); got != "before first second" {
				t.Errorf("it has %s", got)
			}
		})
	}
}

// whys are those of all that is in a journal.
func whys(t *testing.T, j *journal.Journal) string {
	t.Helper()
	all, err := j.Last(10_000)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range all {
		out = append(out, e.Why)
	}
	return strings.Join(out, " ")
}

// TestTurnOverFails: a journal that cannot be turned over loses lines until it can, and then goes on.
func TestTurnOverFails(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "web01.jsonl")
	big := `{"why":"big"}` + strings.Repeat(" ", 1<<20) + "\n"
	if err := os.WriteFile(path, []byte(big), 0o600); err != nil {
		t.Fatal(err)
	}
	inTheWay := path + ".1" // a directory: nothing can take its place
	if err := os.MkdirAll(filepath.Join(inTheWay, "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	j := open(t, dir)
	defer j.Close()
	j.Add(api.LogEntry{Why: "lost"})
	if _, err := j.Last(1); err == nil { // it waits for the line
		t.Error("a directory was read as a journal")
	}
	if err := os.RemoveAll(inTheWay); err != nil {
		t.Fatal(err)
	}
	j.Add(api.LogEntry{Why: "kept"})
	if got := whys(t, j); got != "kept" {
		t.Errorf("it has %s, want what was added when it could be turned over", got)
	}
}
