package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"duet/testbed/proc"
	"duet/testbed/testcluster"
)

// TestKeepWithoutDaemons: a demo that failed before it started a daemon is kept, and ends by ctrl-C.
func TestKeepWithoutDaemons(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	l := &testcluster.Cluster{Hosts: map[string]*testcluster.Host{}}
	for _, name := range []string{testcluster.Alpha, testcluster.Beta} {
		l.Hosts[name] = &testcluster.Host{Name: name, Node: proc.New(proc.Config{Name: name})}
	}
	(&show{}).keep(ctx, l)
}

// TestFailedStartSaysWhatItLeaves: one whose cluster cannot be made says where its directory is.
func TestFailedStartSaysWhatItLeaves(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, as the demo does")
	}
	t.Setenv("TMPDIR", t.TempDir())
	cache := filepath.Join(t.TempDir(), "cache")
	if err := os.WriteFile(cache, nil, 0o600); err != nil { // no directory
		t.Fatal(err)
	}
	err := run(t.Context(), t.TempDir(), cache, false)
	left, _ := filepath.Glob(filepath.Join(os.TempDir(), "duet-demo*"))
	if err == nil || len(left) != 1 || !strings.Contains(err.Error(), left[0]) {
		t.Errorf("left is %v: %v", left, err)
	}
}

// TestStartTakesAnyAnswer: the host's systemctl has started duetd once that answers, however the cluster stands, and
// not before.
func TestStartTakesAnyAnswer(t *testing.T) {
	for _, code := range []int{0, 10, 11} { // OK, degraded, down
		dir := t.TempDir()
		file := func(name, text string) {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		file("systemctl", fmt.Sprintf(systemctl, dir, stopFile, stoppedFile))
		file("duet", fmt.Sprintf("#!/bin/sh\necho >>asked\n[ $(wc -l <asked) -gt 1 ] && exit %d\nexit 1\n", code))
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		start := exec.CommandContext(ctx, filepath.Join(dir, "systemctl"), "start", "duetd")
		start.Env = append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"))
		out, err := start.CombinedOutput()
		cancel()
		asked, _ := os.ReadFile(filepath.Join(dir, "asked"))
		if err != nil || string(asked) != "\n\n" {
			t.Errorf("status %d: asked %d times: %v\n%s", code, len(asked), err, out)
		}
	}
}
