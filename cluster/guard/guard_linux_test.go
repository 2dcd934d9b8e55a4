package guard

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"duet/cluster"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// child is a process that stands for a QEMU.
func child(t *testing.T) (pid int, start uint64) {
	t.Helper()
	cmd := exec.Command("sleep", "600")
	must(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()
	})
	start, err := StartOf(cmd.Process.Pid)
	must(t, err)
	return cmd.Process.Pid, start
}

// state is a process's letter in the kernel's table; Z is one that has ended.
func letter(t *testing.T, pid int) byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("/proc", fmt.Sprint(pid), "stat"))
	must(t, err)
	return text[bytes.LastIndexByte(text, ')')+2]
}

// becomes waits until the letter of a process is one of those.
func becomes(t *testing.T, pid int, want string) {
	t.Helper()
	for late := time.After(10 * time.Second); ; {
		if now := letter(t, pid); bytes.IndexByte([]byte(want), now) >= 0 {
			return
		}
		select {
		case <-late:
			t.Fatalf("process %d is %c, want one of %s", pid, letter(t, pid), want)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// desk is a guard that runs.
type desk struct {
	t    *testing.T
	dir  string
	says atomic.Pointer[Standing] // nil: the peer does not answer
	end  func()
	link *Link
}

func newDesk(t *testing.T) *desk {
	t.Helper()
	dir, err := os.MkdirTemp("", "dg") // short: a unix socket lies in it
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	d := &desk{t: t, dir: dir}
	d.run()
	t.Cleanup(func() { d.end() })
	return d
}

func (d *desk) run() {
	ctx, cancel := context.WithCancel(d.t.Context())
	ended := make(chan error, 1)
	c := Config{Dir: d.dir, Met: func() {}, Logger: slog.New(slog.DiscardHandler),
		Ask: func(context.Context, cluster.NodeID, string) (Standing, error) {
			if s := d.says.Load(); s != nil {
				return *s, nil
			}
			return Standing{}, context.DeadlineExceeded
		}}
	go func() { ended <- Run(ctx, c) }()
	d.link = NewLink(Socket(d.dir), time.Second)
	d.end = func() {
		cancel()
		d.link.Close()
		if err := <-ended; err != nil {
			d.t.Error(err)
		}
		d.end = func() {}
	}
}

// say tells the guard of one guest, until it answers.
func (d *desk) say(g Guest) Report {
	d.t.Helper()
	for late := time.After(10 * time.Second); ; {
		r, err := d.link.Say(Word{At: Now(), Guests: []Guest{g}})
		if err == nil {
			return r
		}
		select {
		case <-late:
			d.t.Fatal(err)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// TestGuardPausesAndEnds a real process, and a second guard takes up where the first one left.
func TestGuardPausesAndEnds(t *testing.T) {
	d := newDesk(t)
	pid, start := child(t)
	g := Guest{Module: "web01", PID: pid, Start: start, Peer: "beta", Epoch: 1, Right: true, Limit: 100 * time.Millisecond}
	if r := d.say(g); len(r.Paused) != 0 {
		t.Errorf("paused at once: %v", r)
	}
	d.link.Close()
	becomes(t, pid, "T")
	g.Right = false
	if r := d.say(g); len(r.Paused) != 1 {
		t.Errorf("the report is %v", r)
	}
	g.Right, g.Limit = true, time.Minute
	d.say(g)
	becomes(t, pid, "S")
	g.Limit = 100 * time.Millisecond
	d.say(g)
	becomes(t, pid, "T")

	d.end()
	d.run()
	d.say(Guest{Module: "other"}) // it runs
	if letter(t, pid) != 'T' {
		t.Error("a guard that ended let a guest go on")
	}
	d.end()
	must(t, Continue(pid, start)) // by a daemon that has no guard, and dies
	becomes(t, pid, "S")
	d.run()
	becomes(t, pid, "T")
	d.says.Store(&Standing{Epoch: 2, Holder: "beta"})
	becomes(t, pid, "Z")
}

// TestGuardHitsNobodyElse: a process with the number of a guest that has ended.
func TestGuardHitsNobodyElse(t *testing.T) {
	d := newDesk(t)
	pid, start := child(t)
	d.say(Guest{Module: "web01", PID: pid, Start: start - 1, Limit: time.Nanosecond})
	d.say(Guest{Module: "other", PID: pid, Start: start, Limit: time.Minute, Right: true})
	if err := Continue(pid, start-1); err != nil {
		t.Error(err)
	}
	last := Now() + settle + 10*look
	other := Guest{Module: "other", PID: pid, Start: start, Limit: time.Minute, Right: true}
	for Now() < last {
		if r := d.say(other); len(r.Paused) != 0 || letter(t, pid) == 'T' {
			t.Fatalf("paused: %v", r)
		}
	}
}

// lines counts what is logged.
type lines struct {
	slog.Handler
	n int
}

func (*lines) Enabled(context.Context, slog.Level) bool { return true }

func (l *lines) Handle(context.Context, slog.Record) error { l.n++; return nil }

// TestSignalFails: what could not be done is tried again, does not count as done, and is logged once.
func TestSignalFails(t *testing.T) {
	pid, start := child(t)
	log := &lines{}
	g := &guard{Config: Config{Dir: t.TempDir(), Logger: slog.New(log)}, open: map[string]*process{},
		asked: map[string]time.Duration{"gone": 1}, faults: map[string]string{}, roster: newRoster(-time.Hour, nil)}
	say := func(right bool) []string {
		w := heard{Word{At: 0, Guests: []Guest{{Module: "web01", PID: pid, Start: start, Right: right,
			Limit: time.Second}}}, make(chan Report, 1)}
		g.hear(w)
		return (<-w.answer).Paused
	}
	say(true)
	p := g.open["web01"]
	defer p.close()
	fd := p.fd
	for _, c := range []struct {
		fd     int
		paused bool
		lines  int
	}{{-1, false, 1}, {-1, false, 1}, {fd, true, 2}} {
		p.fd = c.fd
		g.carryOut(g.roster.late(time.Hour))
		if got := len(g.roster.report().Paused) == 1; got != c.paused || log.n != c.lines {
			t.Errorf("paused by %d: %v, %d lines", c.fd, got, log.n)
		}
	}
	becomes(t, pid, "T")
	p.fd = -1
	if got := say(true); len(got) != 1 {
		t.Errorf("it was not let go, and %v are paused", got)
	}
	p.fd = fd
	if got := say(true); len(got) != 0 {
		t.Errorf("it was let go, and %v are paused", got)
	}
	becomes(t, pid, "S")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	g.Ask = func(context.Context, cluster.NodeID, string) (Standing, error) { return Standing{}, ctx.Err() }
	g.ask(ctx)
	g.others.Wait()
	if _, left := g.asked["gone"]; left {
		t.Errorf("of a module that is gone: %v", g.asked)
	}
	before := log.n
	for range 3 {
		g.failed("a guest is not guarded", "web01", errGone)
	}
	if log.n != before+1 {
		t.Errorf("one failure makes %d lines", log.n-before)
	}
}

func TestOneGuardInADirectory(t *testing.T) {
	d := newDesk(t)
	d.say(Guest{})
	err := Run(t.Context(), Config{Dir: d.dir, Logger: slog.New(slog.DiscardHandler)})
	if err == nil {
		t.Error("a second guard runs")
	}
}
