package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"duet/cluster"
	"duet/cluster/guard"
)

// located is a hypervisor whose VMs all run in one process.
type located struct {
	hypervisor
	pid int
}

// Process implements vmmanager.Locator.
func (l located) Process(string) (int, error) { return l.pid, nil }

// stopped reports whether a process is.
func stopped(t *testing.T, pid int) bool {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("/proc", fmt.Sprint(pid), "stat"))
	must(t, err)
	return text[bytes.LastIndexByte(text, ')')+2] == 'T'
}

// guarded runs a guard for a member, and gives its VM a process.
func (p *pair) guarded(m *member) (pid int) {
	p.t.Helper()
	cmd := exec.Command("sleep", "600")
	must(p.t, cmd.Start())
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	dir := filepath.Join(m.dir, "guard")
	go func() {
		ended <- guard.Run(ctx, guard.Config{Dir: dir, Met: func() {}, Logger: slog.New(slog.DiscardHandler),
			Ask: func(context.Context, cluster.NodeID, string) (guard.Standing, error) {
				return guard.Standing{}, errors.New("nobody is asked")
			}})
	}()
	p.t.Cleanup(func() {
		cancel()
		must(p.t, <-ended)
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // it was killed
	})
	m.guard, m.hv = guard.Socket(dir), located{m.hv.(hypervisor), cmd.Process.Pid}
	return cmd.Process.Pid
}

// notices are the codes of what status says of a module on a member.
func (p *pair) notices(m *member, module string) (codes string) {
	p.t.Helper()
	s, err := m.node.Status(p.t.Context())
	must(p.t, err)
	mod, err := s.Module(module)
	must(p.t, err)
	st, err := mod.On(m.name)
	must(p.t, err)
	for _, n := range st.Notices {
		codes += n.Code + " "
	}
	return codes
}

// TestVouching: the daemon vouches for a guest as long as it lives, and a new run of it only after the peer has
// confirmed the right: until then the guard counts, and the guest is paused in time.
func TestVouching(t *testing.T) {
	p := newPair(t)
	p.protected("web01")
	p.stop(p.a)
	pid := p.guarded(p.a)
	p.start(p.a)
	p.is(p.a, "web01", "PRIM")
	p.is(p.b, "web01", "SECOND")
	limit := guard.PauseAfter(p.a.node.cluster().Detection)
	goesOn := func(why string) {
		t.Helper()
		for since := time.Now(); time.Since(since) < 2*limit; {
			if stopped(t, pid) {
				t.Fatalf("%s: the guest is paused", why)
			}
			select {
			case <-time.After(10 * time.Millisecond):
			case <-t.Context().Done():
			}
		}
	}
	is := func(want bool, why string) {
		t.Helper()
		until(t, why, func() error {
			if stopped(t, pid) != want {
				return fmt.Errorf("paused: %t", !want)
			}
			return nil
		})
	}
	goesOn("the daemon lives")
	p.stop(p.a)
	goesOn("the daemon left, and its peer heard it")

	p.stop(p.b)
	p.start(p.a)
	is(true, "a new run that cannot hear its peer does not vouch")
	until(t, "status says so", func() error {
		if codes := p.notices(p.a, "web01"); !strings.Contains(codes, "guard-paused") {
			return errors.New(codes)
		}
		return nil
	})
	p.start(p.b)
	is(false, "the peer confirms the right")
	p.is(p.a, "web01", "PRIM")
	p.is(p.b, "web01", "SECOND")
	p.stop(p.b)
	p.is(p.a, "web01", "ALONE")
	goesOn("nobody else has the data")
}
