package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

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
