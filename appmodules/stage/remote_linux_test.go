package stage

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"duet/appmodules"
)

// app is a module of two pairs of commands; the files of the first are in dir.
func app(dir string) appmodules.Module {
	m := appmodules.Default()
	m.Name, m.Kind, m.Nodes = "app", appmodules.KindMirror, []string{"alpha", "beta"}
	m.ID = "abcdefghijklmnopqrstuvwx"
	m.Spec = appmodules.Application{FileSystem: "ext4", Run: []appmodules.Part{
		{Name: "one", Start: "echo $DUET_MODULE >" + dir + "/one; read x <" + dir + "/gate", Stop: "rm " + dir + "/one"},
		{Name: "two", Start: "echo cannot >&2; exit 1", Stop: "exit 0"}}}
	return m
}

// served is duetd apps in this process, and the daemon's side of it.
func served(t *testing.T) (*Remote, string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "da")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- Serve(ctx, Config{Dir: dir, Logger: slog.New(slog.DiscardHandler)}) }()
	t.Cleanup(func() {
		cancel()
		if err := errors.Join(<-ended, os.RemoveAll(dir)); err != nil {
			t.Error(err)
		}
	})
	for {
		if c, err := net.Dial("unix", filepath.Join(dir, SocketName)); err == nil {
			c.Close()
			break
		}
		time.Sleep(time.Millisecond)
	}
	return Dial(dir, nil), dir
}

// TestOrders: what the daemon asks of a stage is done by duetd apps, with its error; an order whose daemon is gone is
// called off.
func TestOrders(t *testing.T) {
	room, dir := served(t)
	all := room.Of(app(dir))
	if len(all) != 2 || all[0].Label() != "one" || all[1].Label() != "two" {
		t.Fatalf("stages %v", all)
	}
	up := func(want, wantWhole bool) {
		t.Helper()
		if is, whole, err := all[0].Up(t.Context()); is != want || whole != wantWhole || err != nil {
			t.Errorf("up %v, whole %v, %v", is, whole, err)
		}
	}
	up(false, false)
	ctx, cancel := context.WithCancel(t.Context())
	began := make(chan error, 1)
	gate := filepath.Join(dir, "gate")
	if err := mkfifo(gate); err != nil {
		t.Fatal(err)
	}
	go func() { began <- all[0].Start(ctx) }()
	for {
		if text, _ := os.ReadFile(filepath.Join(dir, "one")); string(text) == "app\n" {
			break
		}
		time.Sleep(time.Millisecond)
	}
	up(true, false)
	cancel() // the daemon dies
	if err := <-began; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if err := all[0].Kill(t.Context()); err != nil {
		t.Error(err)
	}
	up(false, false)
	if err := os.Remove(gate); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(gate, []byte("go\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := all[0].Start(t.Context()); err != nil {
		t.Error(err)
	}
	up(true, true)
	if err := all[0].Stop(t.Context()); err != nil {
		t.Error(err)
	}
	up(false, false)
	if err := all[1].Start(t.Context()); err == nil || !strings.Contains(err.Error(), "exit status 1: cannot") {
		t.Error(err)
	}
	if err := all[1].Kill(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestOrdersThatMakeNoSense: a module that is none, a stage that it has not, a word that is no order: an answer, and
// nothing done.
func TestOrdersThatMakeNoSense(t *testing.T) {
	room, dir := served(t)
	m := app(dir)
	for what, o := range map[string]order{"start": {Module: m, Stage: 7}, "stop": {Module: m, Stage: -1},
		"dance": {Module: m}, "kill": {}, "make": {Module: appmodules.Default()}} {
		if _, err := room.ask(t.Context(), what, o); err == nil {
			t.Errorf("%s of %+v was done", what, o)
		}
	}
}

// TestAppsAreAway: who is not there is named, with what to do.
func TestAppsAreAway(t *testing.T) {
	dir := t.TempDir()
	_, _, err := Dial(dir, nil).Of(app(dir))[0].Up(t.Context())
	if err == nil || !strings.Contains(err.Error(), "systemctl start duet-apps") ||
		strings.Contains(err.Error(), "http:") {
		t.Error(err)
	}
}

func mkfifo(path string) error { return unix.Mkfifo(path, 0o600) }
