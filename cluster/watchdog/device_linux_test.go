package watchdog

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestNoWayOut(t *testing.T) {
	root := t.TempDir()
	for file, text := range map[string]string{"class/watchdog/watchdog0/nowayout": "1\n", "dev/char/248:1/nowayout": "0\n",
		"dev/char/248:2/nowayout": "1\n"} {
		name := filepath.Join(root, file)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		major, minor uint32
		want         bool
	}{{miscMajor, watchdogMinor, true}, {248, 1, false}, {248, 2, true}, {248, 3, false}} {
		if got := noWayOut(root, c.major, c.minor); got != c.want {
			t.Errorf("%d:%d: %t", c.major, c.minor, got)
		}
	}
}

// TestRealDevice runs only when told which device to use: it arms it, and a fault would reset the computer.
func TestRealDevice(t *testing.T) {
	path := os.Getenv("DUET_TEST_WATCHDOG")
	if path == "" {
		t.Skip("the ioctls were NOT tried on a real watchdog: set DUET_TEST_WATCHDOG=/dev/watchdog0 on a computer that may " +
			"be reset (modprobe softdog makes one)")
	}
	d, err := Open(path, 30*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Disarm(); err != nil {
			t.Errorf("THIS COMPUTER IS RESET IN %s: %v", d.Timeout(), err)
		}
	})
	if d.Timeout() < 30*time.Second {
		t.Errorf("timeout %s", d.Timeout())
	}
	if err := d.Keepalive(); err != nil {
		t.Error(err)
	}
	if second, err := Open(path, 30*time.Second); !errors.Is(err, unix.EBUSY) {
		t.Errorf("opened twice: %v, %v", second, err)
	}
	if err := d.Disarm(); err != nil {
		t.Error(err)
	}
	again, err := Open(path, 40*time.Second)
	if err != nil {
		t.Fatalf("not released: %v", err)
	}
	if again.Timeout() < 40*time.Second {
		t.Errorf("timeout %s", again.Timeout())
	}
	if err := again.Disarm(); err != nil {
		t.Errorf("THIS COMPUTER IS RESET IN %s: %v", again.Timeout(), err)
	}
}
