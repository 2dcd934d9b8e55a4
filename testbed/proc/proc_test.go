//go:build linux

package proc

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) {
	if os.Getenv("DUET_PROC_CHILD") != "" {
		child()
	}
	goleak.VerifyTestMain(m)
}

// child is the test binary as another test program that dies without switching its node off.
func child() {
	n := New(Config{Name: "orphan"})
	err := n.Boot()
	if err == nil {
		var p *Process
		if p, err = n.Start(Spec{Path: "sleep", Args: []string{"60"}}); err == nil {
			println(p.PID())
			unix.Kill(os.Getpid(), unix.SIGKILL)
		}
	}
	println(err.Error())
	os.Exit(1)
}

// boot switches a node on for one test, or skips it where that cannot work.
func boot(t *testing.T, cfg Config) *Node {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root to make namespaces")
	}
	n := New(cfg)
	if err := n.Boot(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Kill(); err != nil {
			t.Error(err)
		}
	})
	return n
}

func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func sh(t *testing.T, n *Node, script string) string {
	t.Helper()
	out, err := n.Run(within(t), "sh", "-c", script)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

// poll looks at something that tells nobody when it changes until it holds.
func poll(t *testing.T, what string, ok func() bool) {
	t.Helper()
	ctx := within(t)
	for !ok() {
		select {
		case <-ctx.Done():
			t.Fatalf("waited in vain for %s", what)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func gone(pid int) bool { return errors.Is(unix.Kill(pid, 0), unix.ESRCH) }

func TestNodeIsAHostOfItsOwn(t *testing.T) {
	dir, outside := t.TempDir(), t.TempDir()
	n := boot(t, Config{Name: "alpha", Binds: []Bind{{Source: dir, Target: outside}}, Hosts: "10.77.1.12 beta\n"})
	if got := sh(t, n, "uname -n"); got != "alpha" {
		t.Errorf("host name %q", got)
	}
	if got := strings.Fields(sh(t, n, "getent hosts beta")); !slices.Equal(got, []string{"10.77.1.12", "beta"}) {
		t.Errorf("beta resolves to %v", got)
	}
	sh(t, n, "echo kept >"+outside+"/file; echo lost >/run/file")
	if got, err := os.ReadFile(filepath.Join(dir, "file")); err != nil || string(got) != "kept\n" {
		t.Errorf("the bound folder holds %q, %v", got, err)
	}
	for _, path := range []string{"/run/file", filepath.Join(outside, "file")} {
		if _, err := os.Stat(path); err == nil {
			t.Errorf("%s is visible outside", path)
		}
	}
	path, err := n.Outside("/run/file")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(path); err != nil || string(got) != "lost\n" {
		t.Errorf("through %s: %q, %v", path, got, err)
	}
	if err := errors.Join(n.Kill(), n.Boot()); err != nil {
		t.Fatal(err)
	}
	if got := sh(t, n, "test ! -e /run/file && cat "+outside+"/file"); got != "kept" {
		t.Errorf("after another boot: %q", got)
	}
}

func TestKillLeavesNothing(t *testing.T) {
	n := boot(t, Config{Name: "alpha"})
	// Children, orphans, sessions of their own, deaf ones, stopped ones, and one that forks all the time.
	sh(t, n, `for i in 1 2 3; do setsid sleep 60 >/dev/null 2>&1 & done
		setsid sh -c 'trap "" TERM INT HUP; sleep 61; sleep 62' >/dev/null 2>&1 &
		setsid sh -c 'kill -STOP $$' >/dev/null 2>&1 &
		setsid sh -c 'while :; do (sleep 0.01 &); done' >/dev/null 2>&1 & :`)
	p, err := n.Start(Spec{Path: "sleep", Args: []string{"60"}})
	if err != nil {
		t.Fatal(err)
	}
	var before []Info
	poll(t, "all to run", func() bool {
		before, err = n.Processes()
		return err != nil || len(before) >= 7
	})
	if err != nil ||
		!slices.ContainsFunc(before, func(i Info) bool { return i.PID == p.PID() && i.Command == "sleep 60" }) {
		t.Errorf("processes %v, %v", before, err)
	}
	if err := n.Kill(); err != nil {
		t.Fatal(err)
	}
	for _, i := range before {
		if !gone(i.PID) {
			t.Errorf("%v is alive", i)
		}
	}
	if code, err := p.Wait(within(t)); code != -1 || err != nil {
		t.Errorf("the process that was killed with its node: %d, %v", code, err)
	}
	if _, err := n.Start(Spec{Path: "true"}); !errors.Is(err, ErrDown) {
		t.Errorf("start on a dead node: %v", err)
	}
	if err := n.Kill(); err != nil {
		t.Errorf("second kill: %v", err)
	}
}

func TestOrphansAreReaped(t *testing.T) {
	n := boot(t, Config{Name: "alpha"})
	sh(t, n, "setsid sleep 0 >/dev/null 2>&1 & :")
	poll(t, "no process", func() bool {
		all, err := n.Processes()
		return err == nil && len(all) == 0
	})
	// A zombie has no namespace to be found by, but it keeps its number inside.
	if got := sh(t, n, "grep -l '^State:.Z' /proc/[0-9]*/status 2>/dev/null || echo none"); got != "none" {
		t.Errorf("zombies: %s", got)
	}
}

func TestFreeze(t *testing.T) {
	n := boot(t, Config{Name: "alpha"})
	file := filepath.Join(t.TempDir(), "ticks")
	ticking := Spec{Path: "sh", Args: []string{"-c", "while :; do echo t; sleep 0.01; done"}, Output: file}
	if _, err := n.Start(ticking); err != nil {
		t.Fatal(err)
	}
	size := func() int64 {
		st, err := os.Stat(file)
		if err != nil {
			return 0
		}
		return st.Size()
	}
	poll(t, "a tick", func() bool { return size() > 0 })
	if err := n.Freeze(within(t)); err != nil {
		t.Fatal(err)
	}
	all, err := n.Processes()
	if err != nil || len(all) == 0 {
		t.Fatal(all, err)
	}
	for _, p := range all {
		if p.stat != 'T' && p.stat != 'Z' && p.stat != 'D' {
			t.Errorf("frozen process %d is in state %c", p.PID, p.stat)
		}
	}
	still := size()
	quiet := time.After(100 * time.Millisecond)
	<-quiet
	if size() != still {
		t.Error("a frozen node still writes")
	}
	if err := n.Thaw(); err != nil {
		t.Fatal(err)
	}
	poll(t, "a tick after the thaw", func() bool { return size() > still })
}

func TestProcess(t *testing.T) {
	dir := t.TempDir()
	n := boot(t, Config{Name: "alpha"})
	file := filepath.Join(dir, "out")
	p, err := n.Start(Spec{Path: "sh", Args: []string{"-c", "echo $X; pwd >&2; exit 3"}, Env: []string{"X=y"}, Dir: dir,
		Output: file})
	if err != nil {
		t.Fatal(err)
	}
	if code, err := p.Wait(within(t)); code != 3 || err != nil {
		t.Errorf("exit code %d, %v", code, err)
	}
	if got, _ := os.ReadFile(file); string(got) != "y\n"+dir+"\n" {
		t.Errorf("output %q", got)
	}
	if err := p.Kill(); err != nil {
		t.Errorf("kill of a process that has ended: %v", err)
	}
	if _, err := n.Start(Spec{Path: "no-such-program"}); !errors.Is(err, exec.ErrNotFound) {
		t.Errorf("unknown program: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := n.Run(ctx, "sleep", "60"); !errors.Is(err, context.Canceled) {
		t.Errorf("run with an ended context: %v", err)
	}
	if _, err := n.Run(within(t), "sh", "-c", "echo why >&2; exit 4"); err == nil ||
		!strings.Contains(err.Error(), "exit code 4: why") {
		t.Errorf("failing command: %v", err)
	}
}

func TestCallerStaysOutside(t *testing.T) {
	n := boot(t, Config{Name: "alpha"})
	sh(t, n, "touch /run/here")
	if _, err := os.Stat("/run/here"); err == nil {
		t.Error("the caller sees the node's files")
	}
	if ln, err := net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Error(err)
	} else {
		ln.Close()
	}
}

func TestBootRefusesBadBind(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to make namespaces")
	}
	for _, b := range []Bind{{t.TempDir(), "/run/x"}, {"/nowhere/at/all", t.TempDir()}} {
		if err := New(Config{Name: "alpha", Binds: []Bind{b}}).Boot(); err == nil {
			t.Errorf("%v: booted", b)
		}
	}
}

func TestNodeDiesWithItsTest(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to make namespaces")
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "DUET_PROC_CHILD=1")
	var out bytes.Buffer
	cmd.Stderr = &out
	_ = cmd.Run() // it kills itself
	var pid int
	for _, c := range strings.TrimSpace(out.String()) {
		if c < '0' || c > '9' {
			t.Fatalf("child said %q", out.String())
		}
		pid = pid*10 + int(c-'0')
	}
	poll(t, "the node's process to end", func() bool { return gone(pid) })
}
