package journal_test

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"duet/console/api"
)

// TestNobodyWaits: a disk that takes nothing more keeps neither who adds a line nor who closes the journal.
func TestNobodyWaits(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "web01.jsonl")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	reader, err := os.OpenFile(path, os.O_RDWR, 0) // who opens it to write waits for nobody, and nothing is read
	if err != nil {
		t.Fatal(err)
	}
	j := open(t, dir)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 10_000 {
			j.Add(api.LogEntry{Why: strings.Repeat("x", 1000)})
		}
		_ = j.Close() // what it could not write is lost
	}()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Error("somebody waits for the disk")
	}
	reader.Close() // the write that is under way ends
	<-done
}
