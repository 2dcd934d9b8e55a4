package stage

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"duet/appmodules"
)

// commands are a pair of commands with a mark and a flag of their own, of which nothing is left after the test.
func commands(t *testing.T, start, stop string) *Commands {
	t.Helper()
	dir := t.TempDir()
	c := &Commands{Part: appmodules.Part{Name: "db", Start: start, Stop: stop}, Mark: "DUET_PART=dva" + dir,
		Env: []string{"DIR=" + dir}, Flag: filepath.Join(dir, "parts", "db"), Logger: slog.New(slog.DiscardHandler)}
	t.Cleanup(func() { ends(t, c.Kill) })
	return c
}

// ends does something that has to come to an end.
func ends(t *testing.T, do func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := do(ctx); err != nil {
		t.Error(err)
	}
}

func isUp(t *testing.T, c *Commands, up, whole bool) {
	t.Helper()
	if haveUp, haveWhole, err := c.Up(t.Context()); err != nil || haveUp != up || haveWhole != whole {
		t.Errorf("up %v, whole %v, %v; want %v, %v", haveUp, haveWhole, err, up, whole)
	}
}

// until waits for a condition.
func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal(what, " did not come")
		}
	}
}

func has(path string) func() bool { return func() bool { _, err := os.Stat(path); return err == nil } }

// TestCommandsStartAndStop: each runs to its end with the environment it was given, and may be run again; what goes on
// in the background is found by its mark, and is ended with the stop.
func TestCommandsStartAndStop(t *testing.T) {
	c := commands(t, `pwd >$DIR/at; setsid sleep 60 & echo began`, `echo stopped >$DIR/stopped`)
	isUp(t, c, false, false)
	for range 2 {
		ends(t, c.Start)
		isUp(t, c, true, true)
	}
	if at, err := os.ReadFile(filepath.Join(filepath.Dir(c.Flag), "..", "at")); err != nil || string(at) != "/\n" {
		t.Errorf("it ran in %q, %v", at, err)
	}
	until(t, "the background", func() bool { return len(c.processes()) == 2 })
	other := *c
	other.Mark = c.Mark[:len(c.Mark)-1]
	if found := other.processes(); found != nil {
		t.Errorf("half a mark finds %v", found)
	}
	for range 2 {
		ends(t, c.Stop)
		isUp(t, c, false, false)
	}
	if left := c.processes(); left != nil || !has(filepath.Dir(c.Flag)+"/../stopped")() {
		t.Errorf("left are %v", left)
	}
}

// TestCommandsThatFail: the error has which it was, why, and what it said; what failed to start is partly up, and what
// failed to stop stays up.
func TestCommandsThatFail(t *testing.T) {
	c := commands(t, "echo no such database >&2; exit 3", "true")
	err := c.Start(t.Context())
	if err == nil || err.Error() != "its start command failed: exit status 3: no such database" {
		t.Errorf("%v", err)
	}
	isUp(t, c, true, false)
	c.Part.Start, c.Part.Stop = "setsid sleep 60 &", "head -c 9000 /dev/zero | tr '\\0' x; echo; printf 'end\\377'; exit 1"
	ends(t, c.Start)
	err = c.Stop(t.Context())
	if err == nil || !strings.HasSuffix(err.Error(), "x\nend?") || len(err.Error()) > said+100 {
		t.Errorf("%v", err)
	}
	isUp(t, c, true, true)
	ends(t, c.Kill)
	isUp(t, c, false, false)
}

// TestCommandThatTakesTooLong: it is ended within its time, with what it began, and the error says so.
func TestCommandThatTakesTooLong(t *testing.T) {
	c := commands(t, "sleep 60", "true")
	c.Part.Timeout = appmodules.Duration(50 * time.Millisecond)
	if err := c.Start(t.Context()); err == nil || !strings.Contains(err.Error(), "it took longer than 50ms") {
		t.Errorf("%v", err)
	}
	until(t, "the end of all", func() bool { return c.processes() == nil })
	isUp(t, c, true, false)
}

// TestCancelledStartOfACommand: it returns at once and nothing of it comes up later; one that was cancelled before
// begins nothing.
func TestCancelledStartOfACommand(t *testing.T) {
	c := commands(t, "touch $DIR/began; setsid sleep 60 & sleep 60; touch $DIR/late", "true")
	dir := filepath.Dir(filepath.Dir(c.Flag))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- c.Start(ctx) }()
	until(t, "the start", has(dir+"/began"))
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	ends(t, c.Kill)
	if left := c.processes(); left != nil || has(dir+"/late")() {
		t.Errorf("left are %v", left)
	}
	isUp(t, c, false, false)
	os.Remove(dir + "/began")
	if err := c.Start(ctx); !errors.Is(err, context.Canceled) || has(dir+"/began")() {
		t.Errorf("one that was over before it began: %v", err)
	}
}

// apps is duetd apps on a socket of the test's own, and a module of one part.
func apps(t *testing.T, start string) (*Remote, appmodules.Module, string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "dva")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	cfg := Config{Dir: dir, Volumes: dir, Program: []string{"false"}, Logger: slog.New(slog.DiscardHandler)}
	go func() { served <- Serve(ctx, cfg) }()
	t.Cleanup(func() {
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
		os.RemoveAll(dir)
	})
	until(t, "the socket", func() bool {
		c, err := net.Dial("unix", filepath.Join(dir, SocketName))
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	m := appmodules.Default()
	m.Name, m.ID, m.Kind, m.Nodes = "dva01", "abcdefghijklmnopqrst", appmodules.KindMirror, []string{"alpha", "beta"}
	m.Spec = appmodules.Application{FileSystem: "ext4", Run: []appmodules.Part{{Name: "db",
		Start: "D=" + dir + "; " + start, Stop: "exit 7"}}}
	t.Cleanup(func() { ends(t, Dial(dir, nil).Of(m)[0].Kill) })
	return Dial(dir, nil), m, dir
}

// TestRemoteOrders: every order is carried out in the other process, and an error is told as it was there.
func TestRemoteOrders(t *testing.T) {
	r, m, dir := apps(t, "setsid sleep 60 &")
	s := r.Of(m)[0]
	state := func(up bool) {
		t.Helper()
		if haveUp, whole, err := s.Up(t.Context()); err != nil || haveUp != up || whole != up {
			t.Errorf("up %v, whole %v, %v", haveUp, whole, err)
		}
	}
	state(false)
	ends(t, s.Start)
	state(true)
	if err := s.Stop(t.Context()); err == nil || err.Error() != "its stop command failed: exit status 7" {
		t.Errorf("%v", err)
	}
	ends(t, s.Kill)
	state(false)
	if err := r.Make(t.Context(), m, filepath.Join(dir, "none")); err == nil {
		t.Error("a file system was made of nothing")
	}
	spoilt := m
	spoilt.Nodes = nil
	if err := r.Of(spoilt)[0].Start(t.Context()); err == nil || !strings.HasPrefix(err.Error(), "nodes: ") {
		t.Errorf("a module that is none: %v", err)
	}
	if err := (remote{r, order{Module: m, Stage: 1}, ""}).Start(t.Context()); err == nil ||
		err.Error() != "module dva01 has no stage 1" {
		t.Errorf("%v", err)
	}
	if _, err := r.ask(t.Context(), "burn", order{Module: m}); err == nil || err.Error() != `"/burn" is no order` {
		t.Errorf("%v", err)
	}
	for _, text := range []string{"", "{", `{"module":7}`, "\x00\xff", strings.Repeat("[", 1000)} {
		res, err := r.client.Post("http://apps/start", "", strings.NewReader(text))
		if err != nil || res.StatusCode != http.StatusOK {
			t.Errorf("garbage: %v, %v", res, err)
		} else {
			res.Body.Close()
		}
	}
	state(false)
	labelled := m
	labelled.Spec = appmodules.Application{FileSystem: "ext4", Directories: []string{"/srv/dva"},
		Addresses: []netip.Prefix{netip.MustParsePrefix("192.0.2.9/24")}, Run: m.Spec.(appmodules.Application).Run,
		Disks: []appmodules.Volume{{Target: "files"}}}
	here, there := New(Config{Dir: dir}).Of(labelled), r.Of(labelled)
	for i := range here {
		if len(here) != len(there) || here[i].Label() != there[i].Label() {
			t.Errorf("stage %d is %s here and another one there", i, here[i].Label())
		}
	}
}

// TestNobodyRunsApplications: the error says what to do.
func TestNobodyRunsApplications(t *testing.T) {
	_, m, _ := apps(t, "true")
	err := Dial(t.TempDir(), nil).Of(m)[0].Start(t.Context())
	if err == nil || !strings.Contains(err.Error(), "`systemctl start duet-apps`") ||
		strings.Contains(err.Error(), "http:") {
		t.Errorf("%v", err)
	}
	dir := t.TempDir()
	ln, err := net.Listen("unix", filepath.Join(dir, SocketName))
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = http.Serve(ln, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>") }))
	}()
	defer ln.Close()
	err = Dial(dir, nil).Of(m)[0].Start(t.Context())
	if err == nil || !strings.HasPrefix(err.Error(), "duetd apps: 200 OK: ") {
		t.Errorf("another program: %v", err)
	}
}

// TestKillAfterACancelledOrder: when the kill that follows a start that its daemon gave up has returned, nothing of it
// is there, and nothing comes later, wherever the start was.
func TestKillAfterACancelledOrder(t *testing.T) {
	r, m, dir := apps(t, "setsid sleep 60 & sleep 60")
	s := r.Of(m)[0]
	c := New(Config{Dir: dir, Logger: slog.New(slog.DiscardHandler)}).Of(m)[0].(*Commands)
	for i := range 60 {
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- s.Start(ctx) }()
		time.Sleep(time.Duration(i) * 100 * time.Microsecond) // anywhere
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("%v", err)
		}
		ends(t, s.Kill)
		if left := c.processes(); left != nil {
			t.Fatalf("%d: left are %v", i, left)
		}
	}
	until(t, "the end", func() bool { return c.processes() == nil && !has(c.Flag)() })
}

// TestTurns: an order waits for the one before it of the same stage, and for no other; one whose time is over does not
// have its turn.
func TestTurns(t *testing.T) {
	h := &handler{turns: map[string]chan struct{}{}}
	end, err := h.turn(t.Context(), "a/0")
	if err != nil {
		t.Fatal(err)
	}
	other, err := h.turn(t.Context(), "a/1")
	if err != nil {
		t.Fatal(err)
	}
	other()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := h.turn(ctx, "a/0"); !errors.Is(err, context.Canceled) {
		t.Errorf("beside another: %v", err)
	}
	end()
	for range 20 {
		if _, err := h.turn(ctx, "a/0"); !errors.Is(err, context.Canceled) {
			t.Fatalf("after its time: %v", err)
		}
	}
	if end, err = h.turn(t.Context(), "a/0"); err != nil {
		t.Fatal(err)
	}
	end()
}
