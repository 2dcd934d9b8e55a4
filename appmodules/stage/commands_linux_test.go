package stage

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"duet/appmodules"
)

// pair is a pair of commands whose files are in a directory, $D.
func pair(t *testing.T, start, stop string) *Commands {
	t.Helper()
	dir := t.TempDir()
	c := &Commands{Part: appmodules.Part{Name: "web", Start: start, Stop: stop}, Mark: "DUET_PART=" + filepath.Base(dir) +
		t.Name(), Env: []string{"D=" + dir}, Flag: filepath.Join(dir, "parts", "web"),
		Logger: slog.New(slog.DiscardHandler)}
	t.Cleanup(func() {
		if err := c.Kill(within(t, 5*time.Second)); err != nil {
			t.Error(err)
		}
	})
	return c
}

func (c *Commands) is(t *testing.T, up, whole bool) {
	t.Helper()
	if is, all, err := c.Up(t.Context()); is != up || all != whole || err != nil {
		t.Fatalf("up %v, whole %v, %v", is, all, err)
	}
}

// TestCommands: a pair is up from the end of its start to the end of its stop, also for another run of Duet, and what
// it has left in the background ends with it.
func TestCommands(t *testing.T) {
	c := pair(t, `setsid sleep 100 & echo "$DUET_PART" >"$D/said"`, "exit 0")
	c.is(t, false, false)
	if err := c.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	c.is(t, true, true)
	again := *c
	again.is(t, true, true)
	if left := c.processes(); len(left) != 1 {
		t.Errorf("processes %v", left)
	}
	if err := c.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	c.is(t, false, false)
	if left := c.processes(); len(left) != 0 {
		t.Errorf("processes %v are left", left)
	}
}

// TestCommandFails: the error has the command's own words, and where it failed it is up until it is killed.
func TestCommandFails(t *testing.T) {
	c := pair(t, "echo the port is taken >&2; setsid sleep 100 & exit 3", "echo no >&2; exit 1")
	err := c.Start(t.Context())
	if err == nil || !strings.Contains(err.Error(), "its start command failed: exit status 3: the port is taken") {
		t.Error(err)
	}
	c.is(t, true, false)
	if err := c.Stop(t.Context()); err == nil || !strings.Contains(err.Error(), "its stop command failed") {
		t.Error(err)
	}
	c.is(t, true, false)
	if err := c.Kill(t.Context()); err != nil {
		t.Error(err)
	}
	c.is(t, false, false)
}

// TestCommandThatNeverEnds: one that takes too long is ended with what it has begun, and that is said; so is one whose
// start is called off.
func TestCommandThatNeverEnds(t *testing.T) {
	c := pair(t, `echo x >"$D/began"; sleep 100; echo never >"$D/ended"`, "exit 0")
	c.Part.Timeout = appmodules.Duration(200 * time.Millisecond)
	if err := c.Start(t.Context()); err == nil || !strings.Contains(err.Error(), "it took longer than 200ms") {
		t.Error(err)
	}
	if left := c.processes(); len(left) != 0 {
		t.Errorf("processes %v are left", left)
	}
	c.Part.Timeout = 0
	ctx, cancel := context.WithCancel(t.Context())
	began := strings.TrimPrefix(c.Env[0], "D=") + "/began"
	if err := os.Remove(began); err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			if _, err := os.Stat(began); err == nil {
				cancel()
				return
			}
			time.Sleep(time.Millisecond)
		}
	}()
	if err := c.Start(ctx); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if left := c.processes(); len(left) != 0 {
		t.Errorf("processes %v are left", left)
	}
}

// TestOtherProcessesAreLeftAlone: a mark that begins like another one finds none of that one's processes.
func TestOtherProcessesAreLeftAlone(t *testing.T) {
	c, other := pair(t, "setsid sleep 100 &", "exit 0"), pair(t, "setsid sleep 100 &", "exit 0")
	other.Mark = c.Mark + "2"
	for _, p := range []*Commands{c, other} {
		if err := p.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	left := other.processes()
	if len(left) != 1 || unix.Kill(left[0], 0) != nil {
		t.Errorf("the other one has %v", left)
	}
}
