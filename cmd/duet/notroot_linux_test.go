package main

import (
	"bytes"
	"os"
	"os/exec"
	"syscall"
	"testing"
)

// notRoot is set for a run of this program as a user who may not open the socket that it names.
const notRoot = "DUET_TEST_NOT_ROOT"

// TestNotRoot: who may not open the socket is told so, and not that the daemon is away.
func TestNotRoot(t *testing.T) {
	if socket := os.Getenv(notRoot); socket != "" {
		b := newBench(t, true)
		b.socket = socket
		for line, want := range map[string]int{"status": exitError, "status db -q": exitUnknown, "doctor": exitError} {
			b.out, b.err = &output{}, &output{}
			b.app.out, b.app.err = b.out, b.err
			const denied = "may not open SOCKET: run duet as root, or use --connect https://NODE:PORT with a token"
			if got := b.one(t, t.Context(), line, want); got != denied {
				t.Errorf("%s: %q", line, got)
			}
		}
		return
	}
	if os.Geteuid() != 0 {
		t.Skip("needs root: it runs as another user")
	}
	b := newBench(t, false)
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestNotRoot$", "-test.count=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	cmd.Env, cmd.Dir = []string{notRoot + "=" + b.socket, "TMPDIR=/tmp"}, "/"
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Run(); err != nil {
		t.Errorf("%v\n%s", err, said.String())
	}
}
