package scenario

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"duet/testbed/proc"
	"duet/testbed/testcluster"
)

const (
	allModules = 25 // over both hosts, what Duet promises to carry
	atAlpha    = 13
	// lastStart bounds the kill of alpha to the start of the last of its VMs. On an
	// idle computer with 2 cores it is within 10 s; this one may be shared.
	lastStart = 20 * time.Second
)

// TestTwentyFiveModules: 25 VMs active on both hosts; when one host dies the other runs
// all of them soon, in their start order, and its own are not disturbed.
func TestTwentyFiveModules(t *testing.T) {
	l := start(t, 56)
	ctx := bounded(t, 4*time.Minute)
	must(t, l.StartWitness(ctx))
	must(t, l.AddWitness(ctx))
	a, b := l.Hosts[testcluster.Alpha], l.Hosts[testcluster.Beta]
	var atA, atB []string
	for i := range allModules {
		vm := fmt.Sprintf("vm%02d", i)
		if i < atAlpha {
			atA = append(atA, vm)
		} else {
			atB = append(atB, vm)
		}
	}
	begin := time.Now()
	protectTiny(ctx, t, l, a, atA)
	protectTiny(ctx, t, l, b, atB)
	t.Logf("%d modules protected and in step in %.1fs", allModules, time.Since(begin).Seconds())
	calm := usageOf(t, b.Duetd())
	waitFor(t, 5*time.Second)
	idle := usageOf(t, b.Duetd())
	own := machines(t, b)

	must(t, a.Kill())
	killed := sinceBoot(t)
	must(t, testcluster.Until(ctx, "beta runs all VMs", func() error {
		if n := len(machines(t, b)); n != allModules {
			return fmt.Errorf("it runs %d", n)
		}
		return nil
	}))
	for _, vm := range append(atA, atB...) {
		must(t, b.Is(ctx, vm, "ALONE"))
	}
	after := usageOf(t, b.Duetd())
	started := judgeStarts(t, machines(t, b), own, atA, killed)
	t.Logf("kill to VM process: first %.2fs, median %.2fs, last %.2fs", started[0].Seconds(),
		started[len(started)/2].Seconds(), started[len(started)-1].Seconds())
	t.Logf("duetd of beta: idle %.3f CPU s per s, %d MiB; the failover cost %.2f CPU s, then %d MiB",
		(idle.cpu-calm.cpu).Seconds()/5, idle.rss>>20, (after.cpu - idle.cpu).Seconds(), after.rss>>20)
	if last := started[len(started)-1]; last > lastStart {
		t.Errorf("the last VM started %v after the kill, wanted %v", last, lastStart)
	}

	must(t, a.Boot(ctx))
	begin = time.Now()
	must(t, a.StartDuetd(ctx))
	for _, vm := range append(atA, atB...) {
		must(t, a.Is(ctx, vm, "SECOND"))
		must(t, b.Whole(ctx, vm))
	}
	t.Logf("alpha is back: all %d in step %.1fs after the start of its daemon", allModules, time.Since(begin).Seconds())
}

// protectTiny makes tiny VMs modules of a host, the last with the lowest start order,
// and waits until their copies are in step. A few at a time keep both CPUs busy.
func protectTiny(ctx context.Context, t *testing.T, l *testcluster.Cluster, h *testcluster.Host, vms []string) {
	t.Helper()
	errs := make([]error, len(vms))
	var all sync.WaitGroup
	slots := make(chan struct{}, 4)
	for i, vm := range vms {
		all.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			errs[i] = protectOne(ctx, l, h, vm, len(vms)-i)
		})
	}
	all.Wait()
	must(t, errors.Join(errs...))
	for _, vm := range vms {
		must(t, h.Whole(ctx, vm))
	}
}

func protectOne(ctx context.Context, l *testcluster.Cluster, h *testcluster.Host, vm string, order int) error {
	if err := h.DefineTiny(ctx, vm, 1<<20); err != nil {
		return err
	}
	if _, err := h.Duet(ctx, "vm", "protect", vm, "--primary", h.Name); err != nil {
		return err
	}
	text, err := h.Duet(ctx, "config", "show", vm)
	if err != nil {
		return err
	}
	want := fmt.Sprintf("order: %d", order)
	text = strings.Replace(text, "order: 0", want, 1)
	f, err := os.CreateTemp("", vm+"-*.yaml")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.WriteString(text)
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	if _, err := h.Duet(ctx, "config", "apply", f.Name()); err != nil {
		return err
	}
	if err := l.Peer(h).Configured(ctx, vm, want); err != nil {
		return err
	}
	_, err = h.Duet(ctx, "start", vm)
	return err
}

// machine is the QEMU of a VM.
type machine struct {
	pid   int
	start time.Duration // since the boot of this computer
}

// machines are the VMs that run on a host.
func machines(t *testing.T, h *testcluster.Host) map[string]machine {
	t.Helper()
	all, err := h.Node.Processes()
	must(t, err)
	found := map[string]machine{}
	for _, p := range all {
		_, rest, ok := strings.Cut(p.Command, "guest=")
		name, _, _ := strings.Cut(rest, ",")
		if start, err := startOf(p.PID); ok && err == nil {
			found[name] = machine{p.PID, start}
		}
	}
	return found
}

// judgeStarts checks that a host's own VMs were not touched and that the others came in
// start order, and returns how long after the kill each started.
func judgeStarts(t *testing.T, now, own map[string]machine, moved []string, killed time.Duration) []time.Duration {
	t.Helper()
	for vm, m := range own {
		if now[vm].pid != m.pid {
			t.Errorf("%s was running on beta all the time and was started again", vm)
		}
	}
	var started []time.Duration
	for _, vm := range slices.Backward(moved) { // the last has the lowest order
		started = append(started, now[vm].start-killed)
	}
	early := 0 // started before one that goes first
	for i := range started[1:] {
		if started[i+1] < started[i] {
			early++
		}
	}
	// One whose module noticed the death long before the others does not wait for
	// them; by chance alone it would be six.
	if t.Logf("%d VMs started before their turn", early); early > 4 {
		t.Errorf("the VMs did not start in their order: %v", started)
	}
	slices.Sort(started)
	return started
}

// usage is what a process has taken so far.
type usage struct {
	cpu time.Duration
	rss int64
}

func usageOf(t *testing.T, p *proc.Process) usage {
	t.Helper()
	f, err := statOf(p.PID())
	must(t, err)
	return usage{cpu: f[13] + f[14], rss: resident(t, p.PID())}
}

// clockTick is the unit of times in /proc/PID/stat.
const clockTick = time.Second / 100

// statOf reads the numbers of /proc/PID/stat as times; index 0 is the process id.
func statOf(pid int) ([]time.Duration, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil, err
	}
	_, rest, _ := bytes.Cut(text, []byte(") ")) // the name may hold anything
	out := make([]time.Duration, 2)
	for _, word := range strings.Fields(string(rest)) {
		n, _ := strconv.ParseInt(word, 10, 64) // the state is a letter
		out = append(out, time.Duration(n)*clockTick)
	}
	if len(out) < 22 {
		return nil, fmt.Errorf("stat of process %d is short", pid)
	}
	return out, nil
}

func startOf(pid int) (time.Duration, error) {
	f, err := statOf(pid)
	if err != nil {
		return 0, err
	}
	return f[21], nil
}

func sinceBoot(t *testing.T) time.Duration {
	t.Helper()
	var ts unix.Timespec
	must(t, unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts))
	return time.Duration(ts.Nano())
}

// waitFor lets time pass, for a measurement.
func waitFor(t *testing.T, d time.Duration) {
	t.Helper()
	select {
	case <-time.After(d):
	case <-t.Context().Done():
		t.Fatal(t.Context().Err())
	}
}
