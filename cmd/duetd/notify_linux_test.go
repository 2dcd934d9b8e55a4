package main

import (
	"context"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// manager is a systemd that hears what a service says.
func manager(t *testing.T) *net.UnixConn {
	t.Helper()
	dir, err := os.MkdirTemp("", "notify") // short: a socket lies in it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	at := &net.UnixAddr{Name: filepath.Join(dir, "s"), Net: "unixgram"}
	c, err := net.ListenUnixgram("unixgram", at)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	t.Setenv("NOTIFY_SOCKET", at.Name)
	return c
}

// hears is the next thing that a service says.
func hears(t *testing.T, c *net.UnixConn) string {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
	b := make([]byte, 100)
	n, err := c.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	return string(b[:n])
}

// TestReady: systemd hears once that the service is ready, then that it lives for as long as it does, if it wants to,
// and that its end is on purpose.
func TestReady(t *testing.T) {
	for _, watched := range []string{"30000", "", "never"} { // microseconds
		var log output
		c := manager(t)
		t.Setenv("WATCHDOG_USEC", watched)
		t.Setenv("WATCHDOG_PID", "")
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			ready(ctx, slog.New(slog.NewTextHandler(&log, nil)))
		}()
		if got := hears(t, c); got != "READY=1" {
			t.Errorf("first it says %q", got)
		}
		if watched == "30000" {
			for range 3 {
				if got := hears(t, c); got != "WATCHDOG=1" {
					t.Errorf("then it says %q", got)
				}
			}
		}
		cancel()
		<-ended
		stopping()
		got := hears(t, c)
		for watched == "30000" && got == "WATCHDOG=1" {
			got = hears(t, c)
		}
		if got != "STOPPING=1" || log.String() != "" {
			t.Errorf("watched %q: at the end it says %q, logged %s", watched, got, log.String())
		}
	}
}

// TestReadyUnheard: a systemd that does not hear is logged, and the service goes on until its end.
func TestReadyUnheard(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", filepath.Join(t.TempDir(), "none"))
	t.Setenv("WATCHDOG_USEC", "3000")
	t.Setenv("WATCHDOG_PID", "")
	var log output
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		ready(ctx, slog.New(slog.NewTextHandler(&log, nil)))
	}()
	waitFor(t, "both warnings", func() bool {
		return strings.Contains(log.String(), "systemd cannot be told that the daemon is ready") &&
			strings.Contains(log.String(), "systemd's watchdog cannot be fed")
	})
	cancel()
	<-ended
}

// TestComputerStops: VMs move only where systemd says that the computer goes down, whatever its exit code, and not
// where it says nothing.
func TestComputerStops(t *testing.T) {
	for script, want := range map[string]bool{"echo stopping; exit 1": true, "echo running": false,
		"echo degraded; exit 1": false, "echo ' stopping '": true, "echo not stopping; exit 1": false,
		"echo stopping >&2; exit 4": false, "": false} {
		bin := t.TempDir()
		if script != "" {
			if err := os.WriteFile(filepath.Join(bin, "systemctl"), []byte("#!/bin/sh\n"+
				`[ "$*" = is-system-running ] || exit 9`+"\n"+script+"\n"), 0o700); err != nil {
				t.Fatal(err)
			}
		}
		t.Setenv("PATH", bin)
		var log output
		got := computerStops(slog.New(slog.NewTextHandler(&log, nil)))
		silent := script == "" || strings.Contains(script, ">&2")
		if said := strings.Contains(log.String(), "systemd does not say whether this computer goes down"); got != want ||
			said != silent {
			t.Errorf("systemctl says %q: %v, logged %s", script, got, log.String())
		}
	}
}
