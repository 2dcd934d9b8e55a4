package fence

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// sound is an agent that works: its device keeps its state in a file.
const sound = `state=$dir/state.$(basename $0)
case $action in
off) echo off > $state; echo Success: Powered OFF ;;
status) [ "$(cat $state 2>/dev/null)" = off ] && exit 2; exit 0 ;;
esac`

func TestOff(t *testing.T) {
	for name, c := range map[string]struct {
		script string
		want   string // part of the error; empty is confirmed
		done   string // what was asked
	}{
		"works":       {sound, "", "x off, x status"},
		"already off": {"[ $action = off ] && exit 0; exit 2", "", "x off, x status"},
		"off fails": {"echo Unable to connect/login to fencing device >&2; exit 1",
			"exit code 1: Unable to connect", "x off"},
		"off fails and says 2": {"exit 2", "exit code 2", "x off"},
		"says off, still on":   {"exit 0", "still on", "x off, x status"},
		"says off, unknown": {"[ $action = off ] && exit 0; echo plug is not available >&2; exit 1",
			"status: exit code 1: plug is not available", "x off, x status"},
		"status by another code": {"[ $action = off ] && exit 0; exit 3", "exit code 3", "x off, x status"},
		"status by a signal":     {"[ $action = off ] && exit 0; kill -9 $$", "ended by a signal", "x off, x status"},
		"dies":                   {"kill -SEGV $$", "ended by a signal", "x off"},
		"shows the password":     {`echo "login with $options failed: hunter2" >&2; exit 1`, "***", "x off"},
		"reason on standard out": {"echo no such plug; exit 1", "no such plug", "x off"},
		"garbage by the megabyte": {"head -c 30000000 /dev/zero | tr '\\0' x >&2; head -c 30000000 /dev/urandom; echo >&2; " +
			"echo the reason >&2; exit 1", "exit code 1: the reason", "x off"},
		"closes everything": {"exec 0<&- 1>&- 2>&-; exit 7", "exit code 7", "x off"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newShop(t)
			err := s.Off(t.Context(), Levels{{s.agent("x", c.script)}})
			if (err == nil) != (c.want == "") || (err != nil &&
				(!strings.Contains(err.Error(), c.want) || !errors.Is(err, ErrNotOff))) {
				t.Errorf("got %v, want %q", err, c.want)
			}
			if got := s.read("done"); got != c.done {
				t.Errorf("asked %q, want %q", got, c.done)
			}
			if shown := fmt.Sprint(err) + s.log.String(); strings.Contains(shown, "hunter2") {
				t.Errorf("the password is shown: %s", shown)
			}
		})
	}
}

// TestExitCodes: of 256 exit codes of status exactly one means off, and one on.
func TestExitCodes(t *testing.T) {
	s := newShop(t)
	for _, code := range []int{0, 1, 2, 3, 4, 5, 8, 11, 126, 127, 128, 137, 255} {
		d := s.agent("x", fmt.Sprintf("exit %d", code))
		on, err := s.Check(t.Context(), d)
		if (err == nil) != (code == 0 || code == 2) || on != (code == 0) {
			t.Errorf("exit code %d: on %t, %v", code, on, err)
		}
	}
}

func TestLevels(t *testing.T) {
	const fails = "exit 1"
	liar := "exit 0" // says off, is on
	for name, c := range map[string]struct {
		scripts [][]string
		ok      bool
		done    string
	}{
		"both supplies, asked when both are off": {[][]string{{sound, sound}}, true,
			"d00 off, d01 off, d00 status, d01 status"},
		"one supply of two is not off": {[][]string{{sound, liar}}, false,
			"d00 off, d01 off, d00 status, d01 status"},
		"one supply of two fails": {[][]string{{sound, fails}}, false, "d00 off, d01 off"},
		"second level":            {[][]string{{fails}, {sound}}, true, "d00 off, d10 off, d10 status"},
		"second level after a liar": {[][]string{{liar}, {sound, sound}}, true,
			"d00 off, d00 status, d10 off, d11 off, d10 status, d11 status"},
		"first level is enough": {[][]string{{sound}, {fails}}, true, "d00 off, d00 status"},
		"halves of two levels are no whole": {[][]string{{sound, fails}, {fails, sound}}, false,
			"d00 off, d01 off, d10 off"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newShop(t)
			levels := make(Levels, len(c.scripts))
			for i, level := range c.scripts {
				for j, script := range level {
					levels[i] = append(levels[i], s.agent(fmt.Sprintf("d%d%d", i, j), script))
				}
			}
			err := s.Off(t.Context(), levels)
			if (err == nil) != c.ok {
				t.Errorf("got %v", err)
			}
			if got := s.read("done"); got != c.done {
				t.Errorf("asked %q, want %q", got, c.done)
			}
			if second := strings.Contains(c.done, "d10 status"); c.ok &&
				second != strings.Contains(s.log.String(), "level 1: d00") {
				t.Errorf("why the first level failed is not logged: %s", s.log)
			}
		})
	}
}

// gone fails the test if a process whose id is in the file is left, or is a zombie.
func (s *shop) gone(file string) {
	s.t.Helper()
	for _, field := range strings.Split(s.read(file), ", ") {
		pid, err := strconv.Atoi(field)
		if err != nil {
			s.t.Fatalf("%s: %v", file, err)
		}
		// A grandchild that was killed is reaped by the system's first process, at its leisure.
		deadline := time.Now().Add(5 * time.Second)
		for tick := time.Tick(5 * time.Millisecond); !errors.Is(syscall.Kill(pid, 0), syscall.ESRCH); <-tick {
			stat, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
			if fields := strings.Fields(string(stat)); len(fields) > 3 && fields[2] == "Z" &&
				fields[3] != strconv.Itoa(os.Getpid()) {
				break
			}
			if time.Now().After(deadline) {
				s.t.Fatalf("process %d of %s is left: %s", pid, file, stat)
			}
		}
	}
}

// TestHangs: an agent that does not end is ended in its time with all that it started, however it resists.
func TestHangs(t *testing.T) {
	for name, script := range map[string]string{
		"sleeps":                 "echo $$ > $dir/pids; echo stuck >&2; exec sleep 1000",
		"ignores SIGTERM":        `trap "" TERM; echo $$ > $dir/pids; echo stuck >&2; while :; do sleep 1000; done`,
		"with children":          `trap "" TERM; sleep 1000 & echo $! > $dir/pids; (trap "" TERM; sleep 1000) & echo $! >> $dir/pids; echo $$ >> $dir/pids; echo stuck >&2; wait; wait`,
		"ends with 0 on SIGTERM": `trap "exit 0" TERM; echo $$ > $dir/pids; echo stuck >&2; sleep 1000 & wait`,
		"stopped":                "echo $$ > $dir/pids; echo stuck >&2; kill -STOP $$",
		"never stops to talk":    "echo $$ > $dir/pids; while :; do echo stuck >&2; done",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newShop(t)
			d := s.agent("x", script)
			d.Timeout = time.Second
			begin := time.Now()
			err := s.Off(t.Context(), Levels{{d}})
			if err == nil || !strings.Contains(err.Error(), "no answer in 1s") || !strings.Contains(err.Error(), "stuck") {
				t.Errorf("got %v", err)
			}
			if took := time.Since(begin); took > d.Timeout+grace+leftover+5*time.Second {
				t.Errorf("took %s", took)
			}
			s.gone("pids")
		})
	}
}

// TestCancel: the end of the caller's context ends the agent, and no further level is tried.
func TestCancel(t *testing.T) {
	s := newShop(t)
	d := s.agent("x", "trap 'exit 0' TERM; echo $$ > $dir/pids; mkfifo $dir/ready; echo > $dir/ready; while :; do sleep "+
		"0.01; done")
	ctx, cancel := context.WithCancelCause(t.Context())
	reason := errors.New("the peer is back")
	opened := make(chan error, 1)
	go func() {
		fifo := filepath.Join(s.dir, "ready")
		for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); <-time.After(5 * time.Millisecond) {
			if f, err := os.Open(fifo); err == nil { // waits for the other end
				cancel(reason)
				opened <- f.Close()
				return
			}
		}
		cancel(reason)
		opened <- errors.New("the agent did not start")
	}()
	err := s.Off(ctx, Levels{{d}, {s.agent("y", sound)}})
	if e := <-opened; e != nil {
		t.Fatal(e)
	}
	if !errors.Is(err, reason) || !errors.Is(err, ErrNotOff) || strings.Contains(err.Error(), "level 2") {
		t.Errorf("got %v", err)
	}
	if got := s.read("done"); got != "x off" {
		t.Errorf("asked %q", got)
	}
	s.gone("pids")
}

// TestEscaped: a process that left the agent's group and holds its output open costs time but not the answer.
func TestEscaped(t *testing.T) {
	s := newShop(t)
	d := s.agent("x", "setsid sleep 8 & "+sound)
	begin := time.Now()
	if err := s.Off(t.Context(), Levels{{d}}); err != nil {
		t.Error(err)
	}
	if took := time.Since(begin); took > 7*time.Second {
		t.Errorf("took %s", took)
	}
}

// TestLeftBehind: a child that an agent forgets is ended with it.
func TestLeftBehind(t *testing.T) {
	s := newShop(t)
	d := s.agent("x", "sleep 1000 & echo $! >> $dir/pids\n"+sound)
	if err := s.Off(t.Context(), Levels{{d}}); err != nil {
		t.Error(err)
	}
	s.gone("pids")
}

// TestInput: the agent reads each option on a line of its own, and sees neither arguments nor our environment.
func TestInput(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "/nowhere")
	s := newShop(t)
	d := s.agent("x", `echo "$options" > $dir/options; echo "arguments: $*" > $dir/args; env > $dir/env; `+sound)
	d.Options = Options{"ip": "10.0.9.1", "password": `hunter2 = "x"`, "plug": " 4 ", "zone": `"quoted"`}
	if _, err := s.Check(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	if got, want := s.read("options"),
		`ip=10.0.9.1, password=hunter2 = "x", plug=" 4 ", zone=""quoted"", action=status`; got != want {
		t.Errorf("read %s, want %s", got, want)
	}
	if got := s.read("args"); got != "arguments:" {
		t.Errorf("%s", got)
	}
	if env := s.read("env"); strings.Contains(env, "NOTIFY_SOCKET") || !strings.Contains(env, "LC_ALL=C") {
		t.Errorf("environment: %s", env)
	}
}

func TestNoAgent(t *testing.T) {
	s := newShop(t)
	d := s.agent("x", "exit 0")
	if err := os.Chmod(filepath.Join(s.dir, "fence_x"), 0o644); err != nil {
		t.Fatal(err)
	}
	err := s.Off(t.Context(), Levels{{d}})
	if !errors.Is(err, ErrNoAgent) || !errors.Is(err, ErrNotOff) || !strings.Contains(err.Error(), "apt-get install") {
		t.Errorf("got %v", err)
	}
	if err := s.Off(t.Context(), nil); !errors.Is(err, ErrNotOff) {
		t.Errorf("no level: %v", err)
	}
}
