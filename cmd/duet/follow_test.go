package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"duet/console/api"
	"duet/console/api/apitest"
)

// until waits for cond and fails the test if it does not come true.
func until(t *testing.T, what string, cond func() bool) {
	t.Helper()
	deadline := time.After(10 * time.Second)
	for !cond() {
		select {
		case <-deadline:
			t.Fatalf("still not: %s", what)
		case <-time.After(time.Millisecond):
		}
	}
}

// background runs a command line until the returned stop, which gives its exit code.
func (b *bench) background(t *testing.T, line string) (stop func() int) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	code := make(chan int, 1)
	go func() { code <- b.run(ctx, strings.Fields(line)) }()
	return func() int {
		cancel()
		select {
		case c := <-code:
			return c
		case <-time.After(10 * time.Second):
			t.Fatal("it does not end at ctrl-C")
			return 0
		}
	}
}

// promoted is the sample after beta has taken over web01 and gamma came back.
func promoted() api.Status {
	st := apitest.Sample()
	st.Nodes[2].Alive, st.Nodes[2].Silent, st.Nodes[2].Paths = true, nil, map[string]bool{"hb1": true}
	n := &st.Modules[0].Nodes[1]
	n.Role, n.Status, n.VM, n.Why = "ALONE", "Ready", "running", "alpha was silent for 2 s"
	st.Modules = st.Modules[:2] // old was released
	return st
}

func TestWatchLines(t *testing.T) {
	b := newBench(t, false)
	stop := b.background(t, "status --watch")
	until(t, "first view", func() bool { return strings.Contains(b.out.String(), "old on gamma") })
	first := b.out.String()
	b.node.Set(promoted())
	until(t, "change", func() bool { return strings.Contains(b.out.String(), "old on gamma: gone") })
	if code := stop(); code != exitOK {
		t.Errorf("exit %d: %s", code, b.err.String())
	}
	want := `15:09:26 node gamma: down (hb1 silent) → up (hb1 ok)
15:09:26 web01 on beta: SECOND/Transient vm off → ALONE/Ready vm running: alpha was silent for 2 s
15:09:26 old on alpha: gone
15:09:26 old on gamma: gone
`
	if got := strings.TrimPrefix(b.out.String(), first); got != want {
		t.Errorf("changes:\n%s", got)
	}
}

func TestWatchPage(t *testing.T) {
	b := newBench(t, false)
	b.outTTY = true
	stop := b.background(t, "status --watch")
	until(t, "first view", func() bool { return strings.Contains(b.out.String(), "was PRIM") })
	b.node.Set(promoted())
	until(t, "new view", func() bool {
		return strings.Contains(b.out.String(), "web01") && strings.Count(b.out.String(), "ALONE") > 1
	})
	if code := stop(); code != exitOK {
		t.Errorf("exit %d: %s", code, b.err.String())
	}
	got := b.out.String()
	if !strings.HasPrefix(got, otherScreen+topLeft) || strings.Count(got, thisScreen) != 1 {
		t.Errorf("screens: %q", got[:60])
	}
	_, rest, _ := strings.Cut(got, thisScreen)
	if !strings.Contains(rest, "\nCluster office") {
		t.Errorf("the last view is not left behind: %q", rest)
	}
}

func TestWatchJSON(t *testing.T) {
	b := newBench(t, false)
	stop := b.background(t, "status --watch --json")
	until(t, "first", func() bool { return strings.Count(b.out.String(), "\n") == 1 })
	b.node.Set(promoted())
	until(t, "second", func() bool { return strings.Count(b.out.String(), "\n") == 2 })
	stop()
	for _, line := range strings.Split(strings.TrimSpace(b.out.String()), "\n") {
		var st api.Status
		if err := json.Unmarshal([]byte(line), &st); err != nil || st.Cluster != "office" {
			t.Errorf("%v: %s", err, line)
		}
	}
}

// TestWatchOutlives: the daemon may fail and come back under a watch.
func TestWatchOutlives(t *testing.T) {
	for _, tty := range []bool{false, true} {
		b := newBench(t, false)
		b.outTTY = tty
		fail := make(chan bool, 1)
		failing := false
		b.node.Fail = func(string) error {
			select {
			case failing = <-fail:
			default:
			}
			if failing {
				return fmt.Errorf("store is busy: %w", api.ErrConflict)
			}
			return nil
		}
		stop := b.background(t, "status --watch")
		until(t, "first", func() bool { return strings.Contains(b.out.String(), "web01") })
		fail <- true
		until(t, "error", func() bool { return strings.Contains(b.out.String(), "store is busy") })
		looks := len(b.node.Asked())
		until(t, "more looks", func() bool { return len(b.node.Asked()) > looks+3 })
		fail <- false
		after := len(b.out.String())
		until(t, "return", func() bool {
			return tty && len(b.out.String()) > after || strings.Contains(b.out.String(), "answers again")
		})
		if code := stop(); code != exitOK {
			t.Errorf("exit %d: %s", code, b.err.String())
		}
		if !tty && strings.Count(b.out.String(), "store is busy") != 1 {
			t.Errorf("the error is told again and again:\n%s", b.out.String())
		}
	}
}

// TestFollowInterrupted: ctrl-C leaves the work going on and says how to find it again.
func TestFollowInterrupted(t *testing.T) {
	b := newBench(t, false)
	b.node.Steps = b.node.Steps[:1] // it never ends
	stop := b.background(t, "vm protect web")
	until(t, "work", func() bool { return strings.Contains(b.out.String(), "making the volume") })
	if code := stop(); code != exitError {
		t.Errorf("exit %d", code)
	}
	if want := "duet: protect of web01 goes on without you: duet task t1 follows it again\n"; b.err.String() != want {
		t.Errorf("said %q, want %q", b.err.String(), want)
	}
}

// TestFollowPace: lines of progress are two seconds apart, but a new step is told at once.
func TestFollowPace(t *testing.T) {
	b := newBench(t, false)
	now := apitest.Now()
	b.now = func() time.Time { now = now.Add(time.Second / 2); return now } // two calls per look
	var steps []api.Task
	for i := range 8 {
		steps = append(steps, api.Task{ID: "t1", Kind: "verify", Module: "db", Step: "comparing",
			Sync: &api.Sync{Total: 8, Compared: int64(i), ETA: -1}})
	}
	steps = append(steps, api.Task{ID: "t1", Step: "writing down"}, api.Task{ID: "t1", Done: true, Result: "equal"})
	b.node.Steps = steps
	if code := b.run(t.Context(), strings.Fields("volume verify db/vda")); code != exitOK {
		t.Fatal(code, b.err.String())
	}
	golden(t, "follow_pace", b.out.String())
}

// TestFollowFails: the task's own failure is the command's.
func TestFollowFails(t *testing.T) {
	for _, line := range []string{"vm release web01", "vm release web01 --json"} {
		b := newBench(t, false)
		b.node.Steps = append(apitest.Work()[:1], api.Task{ID: "t1", Kind: "release", Module: "web01", Done: true,
			Error: "beta has no space left in /vm"})
		code := b.run(t.Context(), strings.Fields(line))
		if code != exitError || !strings.Contains(b.err.String(), "release of web01: beta has no space left in /vm") {
			t.Errorf("%s: exit %d, %q", line, code, b.err.String())
		}
		if strings.Contains(line, "json") && !(json.Valid([]byte(b.out.String())) && json.Valid([]byte(b.err.String()))) {
			t.Errorf("not JSON: %s%s", b.out.String(), b.err.String())
		}
	}
}

// TestFollowForgotten: a node that no longer knows the task ends the wait.
func TestFollowForgotten(t *testing.T) {
	b := newBench(t, false)
	b.node.Steps = []api.Task{{ID: "t9", Kind: "protect", Module: "web01", Step: "copying"}}
	code := b.run(t.Context(), strings.Fields("vm protect web"))
	if code != exitError || !strings.Contains(b.err.String(), "duet: ") || !strings.Contains(b.err.String(), "not found") {
		t.Errorf("exit %d, %q", code, b.err.String())
	}
}
