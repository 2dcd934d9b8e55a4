package scenario

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"duet/cluster/guard"
	"duet/testbed/guest"
	"duet/testbed/testcluster"
)

// letter is the state of a process in the kernel's table: T is stopped, 0 is gone.
func letter(pid int) byte {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	_, rest, ok := bytes.Cut(text, []byte(") "))
	if err != nil || !ok || len(rest) == 0 || rest[0] == 'Z' {
		return 0
	}
	return rest[0]
}

// qemus are the processes of a VM on a host.
func qemus(h *testcluster.Host, vm string) (out []int) {
	all, err := h.Node.Processes()
	if err != nil {
		return nil
	}
	for _, p := range all {
		if strings.Contains(p.Command, "guest="+vm+",") {
			out = append(out, p.PID)
		}
	}
	return out
}

// twin watches the QEMU that a host with a dead daemon has, and the one that its peer starts.
type twin struct {
	stop func() twinSeen
}

// twinSeen is what it saw, by guard.Now.
type twinSeen struct {
	paused, ended, started time.Duration // zero: never
}

// watchTwins watches until stop is called.
func watchTwins(old int, peer *testcluster.Host, vm string) twin {
	var seen twinSeen
	var wg sync.WaitGroup
	end := make(chan struct{})
	wg.Go(func() {
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
			case <-end:
				return
			}
			switch letter(old) {
			case 'T':
				if seen.paused == 0 {
					seen.paused = guard.Now()
				}
			case 0:
				if seen.ended == 0 {
					seen.ended = guard.Now()
				}
			}
			if seen.started == 0 {
				for _, pid := range qemus(peer, vm) {
					if ticks, err := guard.StartOf(pid); err == nil {
						seen.started = time.Duration(ticks) * time.Second / 100
					}
				}
			}
		}
	})
	return twin{func() twinSeen { close(end); wg.Wait(); return seen }}
}

// ended waits until a process is gone.
func ended(ctx context.Context, t *testing.T, pid int) {
	t.Helper()
	must(t, testcluster.Until(ctx, fmt.Sprintf("process %d ends", pid), func() error {
		if s := letter(pid); s != 0 {
			return errorf("it is %c", s)
		}
		return nil
	}))
}

// inState waits until a process is stopped, or is not.
func inState(ctx context.Context, t *testing.T, pid int, stopped bool) {
	t.Helper()
	must(t, testcluster.Until(ctx, fmt.Sprintf("process %d is stopped: %t", pid, stopped), func() error {
		if s := letter(pid); s == 0 || (s == 'T') != stopped {
			return errorf("it is %c", s)
		}
		return nil
	}))
}

// guardSaid is what the guard of a host logged.
func guardSaid(t *testing.T, h *testcluster.Host) string {
	t.Helper()
	text, err := os.ReadFile(h.GuardLog())
	must(t, err)
	return string(text)
}

// showGuards shows the guards' logs if the test fails.
func showGuards(t *testing.T, l *testcluster.Cluster) {
	t.Cleanup(func() {
		if t.Failed() {
			for _, h := range l.Hosts {
				text, _ := os.ReadFile(h.GuardLog())
				t.Logf("guard of %s:\n%s", h.Name, text)
			}
		}
	})
}

// TestGuardOfADeadDaemon: however a daemon is gone for good, its guest is paused before the peer starts it, and ended
// soon after; and what was acknowledged is there.
func TestGuardOfADeadDaemon(t *testing.T) {
	needs(t, "tcpdump")
	l := startWith(t, testcluster.Config{Subnet: 90, Apart: true})
	showGuards(t, l)
	ctx := bounded(t, 4*time.Minute)
	a, b := l.Hosts[testcluster.Alpha], l.Hosts[testcluster.Beta]
	const address = 50
	must(t, a.Protect(ctx, testcluster.VM{Name: "web01", Size: 32 << 20, Rate: -1, NIC: address}))
	// writes waits until the guest on a host has had more than n writes acknowledged.
	writes := func(t *testing.T, h *testcluster.Host, n uint64) (log guest.Log) {
		t.Helper()
		must(t, testcluster.Until(ctx, fmt.Sprintf("%d records are acknowledged on %s", n, h.Name), func() (err error) {
			if log, err = l.ReadConsoleOf(h.Name, "web01"); err == nil && log.Acked() <= n {
				err = errorf("it is %d", log.Acked())
			}
			return err
		}))
		return log
	}
	writes(t, a, 50)
	for _, how := range []struct {
		name string
		gone func(t *testing.T, h *testcluster.Host)
		back func(t *testing.T, h *testcluster.Host)
	}{
		{"killed", func(t *testing.T, h *testcluster.Host) { must(t, h.Duetd().Kill()) },
			func(t *testing.T, h *testcluster.Host) { must(t, h.StartDuetd(ctx)) }},
		{"frozen and thawed", func(t *testing.T, h *testcluster.Host) { must(t, h.Duetd().Freeze()) },
			func(t *testing.T, h *testcluster.Host) { must(t, h.Duetd().Thaw()) }},
		{"killed with its guard, which is started again", func(t *testing.T, h *testcluster.Host) {
			must(t, errors.Join(h.Duetd().Kill(), h.KillGuard(ctx), h.LaunchGuard()))
		}, func(t *testing.T, h *testcluster.Host) { must(t, h.StartDuetd(ctx)) }},
		{"dying again and again", func(t *testing.T, h *testcluster.Host) {
			began, old := guard.Now(), qemu(t, h, "web01")
			for letter(old) != 'T' && ctx.Err() == nil {
				must(t, h.Duetd().Kill())
				<-h.Duetd().Done()
				must(t, h.LaunchDuetd())
				life := time.After(120 * time.Millisecond) // long enough for words, too short to vouch for anything
				<-life
			}
			if took := guard.Now() - began; took > 2*time.Second {
				t.Errorf("short lives of the daemon postponed the pause by %v", took)
			}
			must(t, h.Duetd().Kill())
		}, func(t *testing.T, h *testcluster.Host) { must(t, h.StartDuetd(ctx)) }},
	} {
		t.Run(how.name, func(t *testing.T) {
			old := qemu(t, a, "web01")
			air := listen(t, l, address)
			air.answers(ctx, t)
			twins := watchTwins(old, b, "web01")
			gone := guard.Now()
			how.gone(t, a)
			must(t, b.Is(ctx, "web01", "ALONE"))
			ended(ctx, t, old)
			seen := twins.stop()
			air.answers(ctx, t)
			air.once(t, a, b, granted(ctx, t, b))
			t.Logf("the daemon was gone; its guest was paused after %v, the peer's QEMU began after %v, the old one had ended "+
				"after %v",
				seen.paused-gone, seen.started-gone, seen.ended-gone)
			if seen.paused == 0 || seen.started == 0 || seen.paused >= seen.started {
				t.Errorf("paused at %v, and beta's QEMU began at %v", seen.paused, seen.started)
			}
			if late := seen.ended - seen.started; late > 3*time.Second {
				t.Errorf("ended %v after beta's QEMU began", late)
			}
			before, err := l.ReadConsoleOf(a.Name, "web01")
			must(t, err)
			how.back(t, a)
			must(t, a.Is(ctx, "web01", "SECOND"))
			must(t, b.Whole(ctx, "web01"))
			if newest := writes(t, b, before.Acked()).Newest(); newest.Last < before.Newest().Last {
				t.Errorf("record %d was acknowledged on %s, the disk of %s ended at %d", before.Acked(), a.Name, b.Name,
					newest.Last)
			}
			a, b = b, a
		})
	}
}

// TestGuardDoesNoHarm: where the right stays, the guest goes on, and what an admin has done to it stays too.
func TestGuardDoesNoHarm(t *testing.T) {
	l := start(t, 92)
	showGuards(t, l)
	ctx := bounded(t, 4*time.Minute)
	a, b := l.Hosts[testcluster.Alpha], l.Hosts[testcluster.Beta]
	must(t, a.Define(ctx, testcluster.VM{Name: "web01", Size: 32 << 20, Rate: 100}))
	duet(ctx, t, a, "vm", "protect", "web01", "--primary", testcluster.Alpha) // safe, and no witness: nobody takes over
	duet(ctx, t, a, "start", "web01")
	inStep := func() {
		t.Helper()
		must(t, a.Whole(ctx, "web01"))
		must(t, b.Is(ctx, "web01", "SECOND"))
	}
	inStep()
	before := waitAcks(ctx, t, l, "web01", 20)
	old := qemu(t, a, "web01")
	// suspended asks libvirt, which must answer although QEMU does not: one whose disks are away may be paused for that.
	suspended := func(want bool) {
		t.Helper()
		short, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		if _, err := a.Libvirt.Virsh(short, "dumpxml", "web01"); err != nil {
			t.Error(err)
		}
		said, err := a.Libvirt.Virsh(short, "domstate", "--reason", "web01")
		if err != nil || strings.Contains(said, "(user)") != want {
			t.Errorf("libvirt says %q, %v; suspended by an admin: %t", said, err, want)
		}
	}
	quiet := func(t *testing.T, d time.Duration) {
		t.Helper()
		twins := watchTwins(old, b, "web01")
		<-time.After(d)
		if seen := twins.stop(); seen.paused != 0 || seen.ended != 0 {
			t.Errorf("the guest was paused at %v, ended at %v", seen.paused, seen.ended)
		}
	}
	same := func(t *testing.T) {
		t.Helper()
		log := waitAcks(ctx, t, l, "web01", 20)
		if len(log.Boots) != len(before.Boots) || letter(old) == 0 {
			t.Error("the guest booted again")
		}
		noErrors(t, log)
	}

	t.Run("the daemon is restarted at once", func(t *testing.T) {
		must(t, a.Duetd().Kill())
		<-a.Duetd().Done()
		must(t, a.StartDuetd(ctx))
		inStep()
		inState(ctx, t, old, false)
		same(t)
	})
	t.Run("the daemon is stopped on purpose", func(t *testing.T) {
		must(t, a.StopDuetd(ctx))
		quiet(t, 5*time.Second)
		must(t, a.StartDuetd(ctx))
		inStep()
		same(t)
	})
	t.Run("the daemon is away for long and nobody took over", func(t *testing.T) {
		must(t, a.Duetd().Kill())
		inState(ctx, t, old, true)
		suspended(false)
		short, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		_, err := a.Libvirt.Virsh(short, "qemu-monitor-command", "web01", "--hmp", "info status")
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a QEMU that is stopped answers: %v", err)
		}
		must(t, a.StartDuetd(ctx))
		inState(ctx, t, old, false)
		inStep()
		same(t)
	})
	t.Run("the guest that an admin suspended", func(t *testing.T) {
		_, err := a.Libvirt.Virsh(ctx, "suspend", "web01")
		must(t, err)
		must(t, a.Duetd().Kill())
		inState(ctx, t, old, true)
		suspended(true)
		must(t, a.StartDuetd(ctx))
		inState(ctx, t, old, false)
		inStep()
		suspended(true)
		_, err = a.Libvirt.Virsh(ctx, "resume", "web01")
		must(t, err)
		same(t)
	})
	t.Run("the guard itself is killed", func(t *testing.T) {
		finds(ctx, t, a, testcluster.Alpha, "ok", "a guard pauses")
		must(t, a.KillGuard(ctx))
		finds(ctx, t, a, testcluster.Alpha, "warning", "no guard runs")
		must(t, testcluster.Until(ctx, "status says so", func() error {
			st, err := a.On(ctx, "web01")
			if said := fmt.Sprint(st.Notices); err == nil && !strings.Contains(said, "no-guard") {
				err = errorf("it says %s", said)
			}
			return err
		}))
		same(t)
		must(t, a.LaunchGuard())
		finds(ctx, t, a, testcluster.Alpha, "ok", "a guard pauses")
		must(t, a.Duetd().Kill())
		inState(ctx, t, old, true)
	})
	t.Run("no guard is left, and one had paused the guest", func(t *testing.T) {
		must(t, a.KillGuard(ctx))
		must(t, a.LaunchDuetdAlone())
		inState(ctx, t, old, false)
		inStep()
		same(t)
	})
	if said := guardSaid(t, a); strings.Contains(said, "the guest is ended") {
		t.Errorf("the guard ended a guest:\n%s", said)
	}
	identical(ctx, t, a, "web01")
	t.Run("an admin ends what the guard has paused", func(t *testing.T) {
		must(t, a.LaunchGuard())
		finds(ctx, t, a, testcluster.Alpha, "ok", "a guard pauses")
		must(t, a.Duetd().Kill())
		inState(ctx, t, old, true)
		_, err := a.Libvirt.Virsh(ctx, "destroy", "web01")
		must(t, err)
		ended(ctx, t, old)
	})
}
