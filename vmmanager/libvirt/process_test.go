//go:build linux

package libvirt

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// halfDead makes this test binary a process whose main thread has exited, as that of a QEMU that was killed while
// another of its threads waits for a disk. It ends with its standard input.
const halfDead = "DUET_HALF_DEAD"

func init() {
	if os.Getenv(halfDead) == "" {
		return
	}
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	_, _, _ = syscall.Syscall(syscall.SYS_EXIT, 0, 0, 0) // this thread only: init runs on the main one
}

// TestHalfDead: Kill said that a VM was gone while its process still had a thread in the kernel.
func TestHalfDead(t *testing.T) {
	cmd := exec.Command(os.Args[0], "-name", "guest=half,,dead,debug-threads=on")
	cmd.Env = append(os.Environ(), halfDead+"=1")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	}()
	at := filepath.Join("/proc", strconv.Itoa(cmd.Process.Pid))
	for late := time.Now().Add(30 * time.Second); ; {
		stat, err := os.ReadFile(filepath.Join(at, "stat")) // its command line is also empty for a moment of the exec
		if err != nil || time.Now().After(late) {
			t.Fatalf("its main thread has not exited: %q, %v", stat, err)
		}
		if _, rest, _ := strings.Cut(string(stat), ") "); strings.HasPrefix(rest, "Z") {
			break
		}
		<-time.After(10 * time.Millisecond)
	}
	thread := shows(cmd.Process.Pid, "half,dead")
	if filepath.Dir(thread) != filepath.Join(at, "task") {
		t.Errorf("a process with a thread left is at %q", thread)
	}
	if _, err := os.Stat(filepath.Join(thread, "root")); err != nil { // what sees looks at
		t.Error(err)
	}
	if other := shows(cmd.Process.Pid, "other"); other != "" {
		t.Errorf("it is another VM's at %q", other)
	}
}

func TestGuestName(t *testing.T) {
	for _, c := range []struct{ cmdline, want string }{
		{"/usr/bin/qemu-system-x86_64 -name guest=web01,debug-threads=on -S", "web01"},
		{"qemu -S -name guest=web01", "web01"},
		{"qemu -name guest=a,,b,,,debug-threads=on", "a,b,"},
		{"qemu -name web01", ""},
		{"qemu -name", ""},
		{"qemu -object guest=web01", ""},
		{"", ""},
	} {
		if got := guestName([]byte(strings.ReplaceAll(c.cmdline, " ", "\x00"))); got != c.want {
			t.Errorf("%q: %q, want %q", c.cmdline, got, c.want)
		}
	}
}

func FuzzGuestName(f *testing.F) {
	f.Add([]byte("qemu\x00-name\x00guest=a,,b,debug-threads=on"))
	f.Fuzz(func(t *testing.T, cmdline []byte) { guestName(cmdline) })
}
