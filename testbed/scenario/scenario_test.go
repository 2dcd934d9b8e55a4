package scenario

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"duet/console/api"
	"duet/testbed/guest"
	"duet/testbed/netns"
	"duet/testbed/testcluster"
)

// failoverLimit is the promise: SIGKILL of a host to the VM's process on the peer.
const failoverLimit = 3 * time.Second

// TestHostDies: failover under load, the return of the host, failback by command.
func TestHostDies(t *testing.T) {
	l := start(t, 10)
	ctx := bounded(t, 3*time.Minute)
	a, b := l.Hosts[testcluster.Alpha], l.Hosts[testcluster.Beta]
	must(t, a.Protect(ctx, testcluster.VM{Name: "web01", Size: 64 << 20, Rate: -1}))
	waitAcks(ctx, t, l, "web01", 100)

	must(t, a.Kill())
	killed := sinceBoot(t)
	before := read(t, l, "web01")
	must(t, b.Is(ctx, "web01", "ALONE"))
	ready := sinceBoot(t) - killed
	began, err := startOf(qemu(t, b, "web01"))
	must(t, err)
	// How long QEMU itself takes to get up is the computer's, a second and a half on a slow one.
	if took := began - killed; took > failoverLimit {
		t.Errorf("the VM's process began on beta after %v, promised is %v", took, failoverLimit)
	} else {
		t.Logf("the VM's process began on beta after %v, the VM ran after %v", took, ready)
	}
	rebooted(ctx, t, l, "web01", before)

	must(t, a.Boot(ctx))
	must(t, a.StartDuetd(ctx))
	must(t, a.Is(ctx, "web01", "SECOND"))
	must(t, b.Whole(ctx, "web01"))
	identical(ctx, t, b, "web01")

	before = read(t, l, "web01")
	duet(ctx, t, b, "swap", "web01")
	must(t, a.Whole(ctx, "web01"))
	must(t, b.Is(ctx, "web01", "SECOND"))
	rebooted(ctx, t, l, "web01", before)
	identical(ctx, t, a, "web01")
}

// TestHostIsReplaced: a host that is gone for good is taken off the cluster. When it comes back after all it says that
// it was removed, and starts nothing; it rejoins and gets the second copy of the VM, which runs all the time.
func TestHostIsReplaced(t *testing.T) {
	l := start(t, 60)
	ctx := bounded(t, 2*time.Minute)
	a, b := l.Hosts[testcluster.Alpha], l.Hosts[testcluster.Beta]
	must(t, a.Protect(ctx, testcluster.VM{Name: "web01", Size: 64 << 20, Rate: 100}))
	before := waitAcks(ctx, t, l, "web01", 50)
	if _, err := a.Duet(ctx, "cluster", "remove", "beta", "--yes"); err == nil ||
		!strings.Contains(err.Error(), "answers") {
		t.Errorf("removal of a node that answers: %v", err)
	}
	must(t, b.Kill())
	must(t, a.Is(ctx, "web01", "ALONE"))
	waitAcks(ctx, t, l, "web01", 50)
	must(t, testcluster.Until(ctx, "beta is taken for dead and removed", func() error {
		_, err := a.Duet(ctx, "cluster", "remove", "beta", "--yes")
		return err
	}))
	must(t, b.Boot(ctx))
	must(t, b.StartDuetd(ctx))
	must(t, testcluster.Until(ctx, "beta says that it was removed", func() error {
		st, err := b.Status(ctx)
		if err == nil && st.Removed == "" {
			err = errors.New(st.Verdict.Text)
		}
		return err
	}))
	refused(ctx, t, b, "was removed from cluster", "prim", "web01", "--yes")
	refused(ctx, t, b, "duetd runs here", "cluster", "rejoin", "192.0.2.1", "--token", "x", "--yes")
	must(t, b.StopDuetd(ctx))
	must(t, l.Rejoin(ctx))
	must(t, b.Is(ctx, "web01", "SECOND"))
	must(t, a.Whole(ctx, "web01"))
	log := waitAcks(ctx, t, l, "web01", 50)
	if len(log.Boots) != len(before.Boots) {
		t.Error("the guest booted again")
	}
	noErrors(t, log)
	identical(ctx, t, a, "web01")
	before = read(t, l, "web01")
	must(t, a.Kill())
	rebooted(ctx, t, l, "web01", before)
}

// TestDaemonIsKilled: the guest sees a pause and no error, on whichever side the
// daemon dies, and nobody fails over.
func TestDaemonIsKilled(t *testing.T) {
	l := start(t, 12)
	ctx := bounded(t, 3*time.Minute)
	a, b := l.Hosts[testcluster.Alpha], l.Hosts[testcluster.Beta]
	must(t, a.Protect(ctx, testcluster.VM{Name: "web01", Size: 64 << 20, Rate: 200}))
	waitAcks(ctx, t, l, "web01", 100)
	for _, h := range []*testcluster.Host{a, b, a} {
		killed := time.Now()
		must(t, h.Duetd().Kill())
		<-h.Duetd().Done()
		before := read(t, l, "web01")
		must(t, h.LaunchDuetd())
		launched := time.Since(killed)
		waitAcks(ctx, t, l, "web01", 1)
		t.Logf("the guest paused for %v when the daemon of %s was killed, which was away for %v", time.Since(killed), h.Name,
			launched)
		must(t, a.Whole(ctx, "web01"))
		must(t, b.Is(ctx, "web01", "SECOND"))
		log := waitAcks(ctx, t, l, "web01", 50)
		if len(log.Boots) != len(before.Boots) {
			t.Fatalf("the guest booted again when the daemon of %s was killed", h.Name)
		}
		noErrors(t, log)
	}
	identical(ctx, t, a, "web01")
}

// TestPeerTakesOverMeanwhile: a daemon that was dead for so long that its peer took over finds a QEMU that waits to be
// served again. It is ended, and not a write of it was acknowledged since.
func TestPeerTakesOverMeanwhile(t *testing.T) {
	l := startWith(t, testcluster.Config{Subnet: 72, Apart: true})
	ctx := bounded(t, 2*time.Minute)
	a, b := l.Hosts[testcluster.Alpha], l.Hosts[testcluster.Beta]
	must(t, a.Protect(ctx, testcluster.VM{Name: "web01", Size: 32 << 20, Rate: 100}))
	// acks waits until the guest on a host has had more than n writes acknowledged.
	acks := func(h *testcluster.Host, n uint64) (log guest.Log) {
		t.Helper()
		must(t, testcluster.Until(ctx, fmt.Sprintf("%d records are acknowledged on %s", n, h.Name), func() (err error) {
			if log, err = l.ReadConsoleOf(h.Name, "web01"); err == nil && log.Acked() <= n {
				err = errorf("it is %d", log.Acked())
			}
			return err
		}))
		return log
	}
	acks(a, 50)
	old := qemu(t, a, "web01")
	must(t, a.KillGuard(ctx)) // which would end it
	must(t, a.Duetd().Kill())
	<-a.Duetd().Done()
	must(t, b.Is(ctx, "web01", "ALONE"))
	before := acks(a, 50)
	if newest := acks(b, before.Acked()).Newest(); newest.Last < before.Acked() {
		t.Errorf("record %d was acknowledged on alpha, the disk of beta ended at %d", before.Acked(), newest.Last)
	}
	if kept := a.Kept(); len(kept) != 1 {
		t.Errorf("systemd keeps %q, want the socket of one volume", kept)
	}
	must(t, a.StartDuetd(ctx))
	must(t, a.Is(ctx, "web01", "SECOND"))
	must(t, b.Whole(ctx, "web01"))
	must(t, testcluster.Until(ctx, "nothing of the old run is left on alpha", func() error {
		if kept, err := a.Kept(), unix.Kill(old, 0); len(kept) != 0 || !errors.Is(err, unix.ESRCH) {
			return errorf("systemd keeps %q; signal to the old QEMU: %v", kept, err)
		}
		return nil
	}))
	after := acks(a, 50)
	noErrors(t, after)
	if after.Acked() != before.Acked() {
		t.Errorf("alpha acknowledged up to record %d before beta took over, and %d in the end", before.Acked(), after.Acked())
	}
	identical(ctx, t, b, "web01")
}

// TestDaemonIsUpgraded: an orderly restart of either daemon costs a pause.
func TestDaemonIsUpgraded(t *testing.T) {
	l := start(t, 14)
	ctx := bounded(t, 2*time.Minute)
	a, b := l.Hosts[testcluster.Alpha], l.Hosts[testcluster.Beta]
	must(t, a.Protect(ctx, testcluster.VM{Name: "web01", Size: 64 << 20, Rate: 200}))
	before := waitAcks(ctx, t, l, "web01", 50)
	for _, h := range []*testcluster.Host{b, a} {
		must(t, h.StopDuetd(ctx))
		must(t, h.StartDuetd(ctx))
		must(t, a.Whole(ctx, "web01"))
		must(t, b.Is(ctx, "web01", "SECOND"))
		undisturbed(ctx, t, l, "web01", before)
	}
}

// TestHostShutsDown: a host that goes down in order gives its VM to the peer before it
// does, at once and without a loss, and gets its data back after its boot.
func TestHostShutsDown(t *testing.T) {
	l := start(t, 44)
	ctx := bounded(t, 2*time.Minute)
	a, b := l.Hosts[testcluster.Alpha], l.Hosts[testcluster.Beta]
	must(t, a.Protect(ctx, testcluster.VM{Name: "web01", Size: 64 << 20, Rate: 200}))
	before := waitAcks(ctx, t, l, "web01", 50)
	must(t, a.ShutDown(ctx))
	st, err := b.On(ctx, "web01")
	must(t, err)
	if st.Role != "ALONE" {
		t.Errorf("when alpha was down the module was %s (%s) on beta: %s", st.Role, st.Status, st.Why)
	}
	rebooted(ctx, t, l, "web01", before)
	must(t, a.Boot(ctx))
	must(t, a.StartDuetd(ctx))
	must(t, a.Is(ctx, "web01", "SECOND"))
	must(t, b.Whole(ctx, "web01"))
	identical(ctx, t, b, "web01")
}

// TestReplicationLinkIsCut: heartbeats live, so there is no outage and no failover.
func TestReplicationLinkIsCut(t *testing.T) {
	l := start(t, 16)
	ctx := bounded(t, 2*time.Minute)
	a, b := l.Hosts[testcluster.Alpha], l.Hosts[testcluster.Beta]
	must(t, a.Protect(ctx, testcluster.VM{Name: "web01", Size: 64 << 20, Rate: 200}))
	before := waitAcks(ctx, t, l, "web01", 50)
	var cuts []netns.Cut
	for _, c := range netns.Between(testcluster.Alpha, testcluster.Beta, testcluster.Front) {
		c.TCPPort = 7420
		cuts = append(cuts, c)
	}
	must(t, l.LAN.Cut(cuts...))
	log := waitAcks(ctx, t, l, "web01", 100) // on, alone or over the other network
	must(t, a.Whole(ctx, "web01"))
	must(t, b.Is(ctx, "web01", "SECOND"))
	must(t, l.LAN.Restore(cuts...))
	if len(log.Boots) != len(before.Boots) {
		t.Fatal("the guest booted again")
	}
	noErrors(t, log)
	identical(ctx, t, a, "web01")
}

// TestSwapUnderLoad: home and back while the guest writes as fast as it can.
func TestSwapUnderLoad(t *testing.T) {
	l := start(t, 18)
	ctx := bounded(t, 2*time.Minute)
	a, b := l.Hosts[testcluster.Alpha], l.Hosts[testcluster.Beta]
	must(t, a.Protect(ctx, testcluster.VM{Name: "web01", Size: 64 << 20, Rate: -1}))
	for range 2 {
		before := waitAcks(ctx, t, l, "web01", 50)
		duet(ctx, t, a, "swap", "web01")
		must(t, b.Whole(ctx, "web01"))
		must(t, a.Is(ctx, "web01", "SECOND"))
		rebooted(ctx, t, l, "web01", before)
		a, b = b, a
	}
	identical(ctx, t, a, "web01")
}

// TestThreeModules: all modules of a dead host run on the other, in start order;
// with failback auto they go home by themselves.
func TestThreeModules(t *testing.T) {
	l := start(t, 20)
	ctx := bounded(t, 4*time.Minute)
	a, b := l.Hosts[testcluster.Alpha], l.Hosts[testcluster.Beta]
	for i, h := range []*testcluster.Host{a, a, b} {
		vm := fmt.Sprintf("vm%d", i)
		must(t, h.Protect(ctx, testcluster.VM{Name: vm, Size: 32 << 20, Rate: 10}))
		apply(ctx, t, h, vm, "failback: manual", "failback: auto", "order: 0", fmt.Sprintf("order: %d", 9-i))
		must(t, h.Whole(ctx, vm))
		must(t, l.Peer(h).Is(ctx, vm, "SECOND"))
		waitAcks(ctx, t, l, vm, 5)
	}
	before := []guest.Log{read(t, l, "vm0"), read(t, l, "vm1")}
	must(t, a.Kill())
	for i, vm := range []string{"vm0", "vm1"} {
		must(t, b.Is(ctx, vm, "ALONE"))
		rebooted(ctx, t, l, vm, before[i])
	}
	if first, second := up(ctx, t, b, "vm1"), up(ctx, t, b, "vm0"); second.Before(first) {
		t.Errorf("vm0 (order 9) started at %v, before vm1 (order 8) at %v", second, first)
	}
	must(t, b.Is(ctx, "vm2", "ALONE"))
	must(t, a.Boot(ctx))
	must(t, a.StartDuetd(ctx))
	for _, vm := range []string{"vm0", "vm1"} {
		must(t, a.Whole(ctx, vm))
		must(t, b.Is(ctx, vm, "SECOND"))
	}
	must(t, a.Is(ctx, "vm2", "SECOND"))
}

// TestWaysAGuestEnds: each is told apart and handled by the policy.
func TestWaysAGuestEnds(t *testing.T) {
	l := start(t, 22)
	ctx := bounded(t, 3*time.Minute)
	a, b := l.Hosts[testcluster.Alpha], l.Hosts[testcluster.Beta]
	must(t, a.Protect(ctx, testcluster.VM{Name: "web01", Size: 32 << 20, Rate: 20}))
	waitAcks(ctx, t, l, "web01", 5)

	t.Run("its QEMU is killed", func(t *testing.T) {
		before := read(t, l, "web01")
		must(t, unix.Kill(qemu(t, a, "web01"), unix.SIGKILL))
		rebooted(ctx, t, l, "web01", before)
		must(t, a.Whole(ctx, "web01"))
	})
	t.Run("libvirtd is restarted", func(t *testing.T) {
		before := read(t, l, "web01")
		must(t, a.Libvirt.Restart(ctx))
		log := waitAcks(ctx, t, l, "web01", 10)
		if len(log.Boots) != len(before.Boots) {
			t.Error("the guest booted again")
		}
		must(t, a.Whole(ctx, "web01"))
	})
	for _, how := range []string{"shutdown", "destroy"} {
		t.Run("an admin's virsh "+how, func(t *testing.T) {
			_, err := a.Libvirt.Virsh(ctx, how, "web01")
			must(t, err)
			for _, h := range []*testcluster.Host{a, b} {
				must(t, testcluster.Until(ctx, "the module stops on "+h.Name, func() error {
					st, err := h.On(ctx, "web01")
					if err == nil && st.Role != "STOP" {
						err = fmt.Errorf("it is %s (%s): %s", st.Role, st.Status, st.Why)
					}
					return err
				}))
			}
			before := read(t, l, "web01")
			duet(ctx, t, a, "start", "web01")
			must(t, a.Whole(ctx, "web01"))
			must(t, b.Is(ctx, "web01", "SECOND"))
			rebooted(ctx, t, l, "web01", before)
		})
	}
}

// TestGuestPanics: a panicked guest is started again, and when that does not help it
// is moved to the peer.
func TestGuestPanics(t *testing.T) {
	l := start(t, 32)
	ctx := bounded(t, 3*time.Minute)
	a, b := l.Hosts[testcluster.Alpha], l.Hosts[testcluster.Beta]
	must(t, a.Define(ctx, testcluster.VM{Name: "web01", Size: 32 << 20, Mode: "panic-after=20", Rate: 20}))
	duet(ctx, t, a, "vm", "protect", "web01", "--arbitration", "available")
	apply(ctx, t, a, "web01", "max: 3", "max: 1")
	duet(ctx, t, a, "start", "web01")
	must(t, testcluster.Until(ctx, "the guest is started again here and then moved", func() error {
		out, err := a.Duet(ctx, "log", "web01")
		if err != nil {
			return err
		}
		for _, want := range []string{"the guest failed: restart it here: guest panicked",
			"the guest failed too often here: move it to the peer"} {
			if !strings.Contains(out, want) {
				return fmt.Errorf("the log does not say %q", want)
			}
		}
		st, err := b.On(ctx, "web01")
		if err == nil && st.Role != "PRIM" && st.Role != "ALONE" {
			err = fmt.Errorf("beta is %s", st.Role)
		}
		return err
	}))
}

// TestDefinitionFollows: an edit on the primary is there when the VM moves.
func TestDefinitionFollows(t *testing.T) {
	l := start(t, 24)
	ctx := bounded(t, 2*time.Minute)
	a, b := l.Hosts[testcluster.Alpha], l.Hosts[testcluster.Beta]
	must(t, a.Protect(ctx, testcluster.VM{Name: "web01", Size: 32 << 20, Rate: 20}))
	has := func(h *testcluster.Host, text string, want bool) {
		t.Helper()
		must(t, testcluster.Until(ctx, fmt.Sprintf("%s has %q: %t", h.Name, text, want), func() error {
			xml, err := h.Libvirt.Virsh(ctx, "dumpxml", "--inactive", "web01")
			if err == nil && strings.Contains(xml, text) != want {
				err = fmt.Errorf("it is otherwise: %s", xml)
			}
			return err
		}))
	}
	notice := func(text string, want bool) {
		t.Helper()
		must(t, testcluster.Until(ctx, fmt.Sprintf("status says %q: %t", text, want), func() error {
			st, err := a.On(ctx, "web01")
			if err != nil {
				return err
			}
			said := fmt.Sprint(st.Notices)
			if strings.Contains(said, text) != want {
				err = errors.New(said)
			}
			return err
		}))
	}
	virsh := func(args ...string) {
		t.Helper()
		_, err := a.Libvirt.Virsh(ctx, args...)
		must(t, err)
	}
	memory := func(mib int) string { return fmt.Sprintf(">%d</memory>", mib*1024) }
	virsh("setmaxmem", "web01", "144M", "--config")
	has(b, memory(144), true)

	// While the daemon is away too.
	must(t, a.StopDuetd(ctx))
	virsh("setmaxmem", "web01", "152M", "--config")
	must(t, a.StartDuetd(ctx))
	has(b, memory(152), true)
	must(t, b.Is(ctx, "web01", "SECOND"))

	// A disk that is not replicated stays here, and status says so until it is gone.
	_, err := a.Node.Run(ctx, "qemu-img", "create", "-q", "-f", "raw", "/var/lib/libvirt/images/more.raw", "1M")
	must(t, err)
	virsh("attach-disk", "web01", "/var/lib/libvirt/images/more.raw", "vdb", "--config")
	notice("disk vdb", true)
	has(a, "more.raw", true)
	virsh("setmaxmem", "web01", "160M", "--config")
	virsh("detach-disk", "web01", "vdb", "--config")
	notice("disk vdb", false)
	has(b, memory(160), true)
	has(b, "more.raw", false)

	// A disk that is taken off its volume is put back: the guest would write past Duet.
	xml, err := a.Libvirt.Virsh(ctx, "dumpxml", "--inactive", "--security-info", "web01")
	must(t, err)
	from, to := strings.Index(xml, "<source protocol"), strings.Index(xml, "</source>")+len("</source>")
	file := filepath.Join(t.TempDir(), "web01.xml")
	must(t, os.WriteFile(file, []byte(strings.Replace(
		xml[:from]+"<source file='/var/lib/libvirt/images/more.raw'/>"+xml[to:], "<disk type='network'", "<disk type='file'",
		1)), 0o600))
	virsh("define", file)
	has(a, "/run/duet/volumes/web01-vda.sock", true)
	has(a, "more.raw", false)
	duet(ctx, t, a, "swap", "web01")
	must(t, b.Whole(ctx, "web01"))
	live, err := b.Libvirt.Virsh(ctx, "dumpxml", "web01")
	if err != nil || !strings.Contains(live, memory(160)) || !strings.Contains(live, "web01-vda.sock") {
		t.Errorf("beta runs (%v):\n%s", err, live)
	}
}

// up is when the VM last came up on h.
func up(ctx context.Context, t *testing.T, h *testcluster.Host, vm string) time.Time {
	t.Helper()
	out, err := h.Duet(ctx, "log", vm, "--json")
	must(t, err)
	var entries []api.LogEntry
	must(t, json.Unmarshal([]byte(out), &entries))
	var at time.Time
	for _, e := range entries {
		if e.On == "Up" && e.Node == h.Name {
			at = e.Time
		}
	}
	return at
}
