package main

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"duet/testbed/testcluster"
)

// TestAsk: what is typed comes to the desk, the program waits until it is done, and what went wrong is said.
func TestAsk(t *testing.T) {
	bin := t.TempDir()
	d := desk{cluster: &testcluster.Cluster{}, on: map[string]func(){}}
	dir, remove, err := d.install(bin)
	must(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var asked []string
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for len(asked) < 2 && ctx.Err() == nil {
			files, _ := filepath.Glob(filepath.Join(dir, "*.asked"))
			for _, file := range files {
				answer(file, func(what string) error {
					if asked = append(asked, what); what == "heal" {
						return nil
					}
					return d.do(ctx, what)
				})
			}
			time.Sleep(10 * time.Millisecond)
		}
	}()
	file := filepath.Join(bin, "hosts")
	if out, err := exec.CommandContext(ctx, file, "heal").CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("%v: %s", err, out)
	}
	out, err := exec.CommandContext(ctx, file, "kill", "gamma").CombinedOutput()
	var failed *exec.ExitError
	if !errors.As(err, &failed) || string(out) != usage+"\n" {
		t.Errorf("%v: %s", err, out)
	}
	<-ended
	if got := strings.Join(asked, ", "); got != "heal, kill gamma" {
		t.Errorf("asked is %s", got)
	}
	text, err := os.ReadFile(file)
	must(t, err)
	remove()
	late := exec.CommandContext(ctx, "sh", "-c", string(text))
	if out, err := late.CombinedOutput(); err == nil || string(out) != "the demo has ended\n" {
		t.Errorf("after the end: %v: %s", err, out)
	}
}

// TestPower: a host that is on is not booted, and one that is off not killed.
func TestPower(t *testing.T) {
	d := desk{cluster: &testcluster.Cluster{Hosts: map[string]*testcluster.Host{"alpha": {}, "beta": {}}},
		on: map[string]func(){"alpha": func() {}}}
	for what, want := range map[string]string{"boot alpha": "alpha is on already", "kill beta": "beta is off already",
		"": usage, "kill": usage, "stop alpha": usage} {
		if err := d.do(t.Context(), what); err == nil || err.Error() != want {
			t.Errorf("%q: %v", what, err)
		}
	}
}
