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
