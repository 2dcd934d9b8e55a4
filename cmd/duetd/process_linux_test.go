package main

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
)

// TestRaise: the priority is that of every thread, not of the one that asked.
func TestRaise(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: it raises its priority")
	}
	var threads sync.WaitGroup
	ready, end := make(chan bool), make(chan bool)
	for range 8 {
		threads.Go(func() {
			runtime.LockOSThread() // and the thread ends with the goroutine
			ready <- true
			<-end
		})
		<-ready
	}
	defer threads.Wait()
	defer close(end)
	if err := raise(); err != nil {
		t.Skip("root may not raise a priority here: ", err)
	}
	stats, err := filepath.Glob("/proc/self/task/*/stat")
	if err != nil || len(stats) < 8 {
		t.Fatalf("%d threads: %v", len(stats), err)
	}
	for _, path := range stats {
		b, err := os.ReadFile(path)
		if os.IsNotExist(err) {
			continue // it has ended
		}
		if err != nil {
			t.Fatal(err)
		}
		_, rest, _ := strings.Cut(string(b), ") ") // the name may hold anything
		if nice := strings.Fields(rest)[16]; nice != "-10" {
			t.Errorf("%s: its niceness is %s", path, nice)
		}
	}
}
