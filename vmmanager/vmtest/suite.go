package vmtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"duet/vmmanager"
)

// Run runs the conformance suite. It uses VMs named duet-vmtest-… only. The tests come one after the other: each
// defines its VMs and takes them away again.
func Run(t *testing.T, w World) {
	t.Run("absent", w.testAbsent)
	t.Run("life", w.testLife)
	t.Run("causes", w.testCauses)
	t.Run("shutdown", w.testShutdown)
	t.Run("panic", w.testPanic)
	t.Run("pause", w.testPause)
	t.Run("saved memory", w.testSaved)
	t.Run("define", w.testDefine)
	t.Run("judge", w.testJudge)
	t.Run("watch", w.testWatch)
	t.Run("slow reader", w.testSlowReader)
	t.Run("ended context", w.testEndedContext)
	t.Run("many at once", w.testMany)
	t.Run("daemon restart", w.testDaemonRestart)
}

// testAbsent: a VM that does not exist cannot run, so stopping it succeeds.
func (w World) testAbsent(t *testing.T) {
	ctx, h := Context(t), w.Hypervisor
	const name = "duet-vmtest-absent"
	w.wantState(t, name, vmmanager.Absent)
	if _, err := h.Definition(ctx, name); !errors.Is(err, vmmanager.ErrNotFound) {
		t.Errorf("definition: %v, want ErrNotFound", err)
	}
	if err := h.Start(ctx, name); !errors.Is(err, vmmanager.ErrNotFound) {
		t.Errorf("start: %v, want ErrNotFound", err)
	}
	if err := h.Kill(ctx, name); err != nil {
		t.Errorf("kill: %v", err)
	}
	if err := h.Shutdown(ctx, name); err != nil {
		t.Errorf("shutdown: %v", err)
	}
}

// testLife: every call succeeds if the VM is there already.
func (w World) testLife(t *testing.T) {
	ctx, h := Context(t), w.Hypervisor
	const name = "duet-vmtest-life"
	events := Watch(t, h, name)
	w.vm(t, name)
	events.Want(vmmanager.Off, vmmanager.ByEdit)
	w.wantState(t, name, vmmanager.Off)
	for range 2 {
		if err := h.Start(ctx, name); err != nil {
			t.Fatalf("start: %v", err)
		}
		w.wantState(t, name, vmmanager.Running)
	}
	events.Want(vmmanager.Running, vmmanager.ByStart)
	for range 2 {
		if err := h.Kill(ctx, name); err != nil {
			t.Fatalf("kill: %v", err)
		}
		w.wantState(t, name, vmmanager.Off)
	}
	events.Want(vmmanager.Off, vmmanager.ByDuet)
	if err := w.Undefine(ctx, name); err != nil {
		t.Fatalf("undefine: %v", err)
	}
	events.Want(vmmanager.Absent, vmmanager.ByEdit)
}

// testCauses: who ended a run is told apart, also after Duet ended an earlier run.
func (w World) testCauses(t *testing.T) {
	for _, c := range []struct {
		name string
		hand Hand
		want vmmanager.Cause
	}{
		{"guest-off", w.GuestOff, vmmanager.ByGuest},
		{"admin-button", w.AdminButton, vmmanager.ByAdmin},
		{"admin-off", w.AdminOff, vmmanager.ByAdmin},
		{"crash", w.Crash, vmmanager.ByCrash},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.hand == nil {
				t.Skip("this world has no such hand")
			}
			ctx, name := Context(t), "duet-vmtest-"+c.name
			w.started(t, name)
			events := Watch(t, w.Hypervisor, name)
			if err := w.Hypervisor.Kill(ctx, name); err != nil {
				t.Fatalf("kill: %v", err)
			}
			events.Want(vmmanager.Off, vmmanager.ByDuet)
			if err := w.Hypervisor.Start(ctx, name); err != nil {
				t.Fatalf("start: %v", err)
			}
			events.Want(vmmanager.Running, vmmanager.ByStart)
			if err := c.hand(name); err != nil {
				t.Fatal(err)
			}
			events.Want(vmmanager.Off, c.want)
			w.wantState(t, name, vmmanager.Off)
		})
	}
}

// testShutdown: it waits for the guest, and leaves a deaf guest alone when its context ends.
func (w World) testShutdown(t *testing.T) {
	if w.GuestDeaf == nil {
		t.Skip("this world has no such hand")
	}
	ctx, h := Context(t), w.Hypervisor
	const name = "duet-vmtest-shutdown"
	w.started(t, name)
	events := Watch(t, h, name)
	if err := h.Shutdown(ctx, name); err != nil {
		t.Fatalf("shutdown: %v", err)
	}
	w.wantState(t, name, vmmanager.Off)
	events.Want(vmmanager.Off, vmmanager.ByDuet)
	if err := h.Shutdown(ctx, name); err != nil {
		t.Fatalf("shutdown of a VM that is off: %v", err)
	}

	if err := h.Start(ctx, name); err != nil {
		t.Fatalf("start: %v", err)
	}
	if err := w.GuestDeaf(name); err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
	defer cancel()
	if err := h.Shutdown(short, name); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("shutdown of a deaf guest: %v, want the context's error", err)
	}
	w.wantState(t, name, vmmanager.Running)
}

// testPanic: a panicked guest is told as such, and Start brings the VM back.
func (w World) testPanic(t *testing.T) {
	if w.GuestPanic == nil {
		t.Skip("this world has no such hand")
	}
	ctx, h := Context(t), w.Hypervisor
	const name = "duet-vmtest-panic"
	w.started(t, name)
	events := Watch(t, h, name)
	if err := w.GuestPanic(name); err != nil {
		t.Fatal(err)
	}
	events.Want(vmmanager.Crashed, vmmanager.ByPanic)
	w.wantState(t, name, vmmanager.Crashed)
	if err := h.Start(ctx, name); err != nil {
		t.Fatalf("start: %v", err)
	}
	events.Until(vmmanager.Running, vmmanager.ByStart)
	w.wantState(t, name, vmmanager.Running)
}

// testPause: Start leaves alone what somebody paused.
func (w World) testPause(t *testing.T) {
	if w.AdminPause == nil {
		t.Skip("this world has no such hand")
	}
	const name = "duet-vmtest-pause"
	w.started(t, name)
	events := Watch(t, w.Hypervisor, name)
	if err := w.AdminPause(name); err != nil {
		t.Fatal(err)
	}
	events.Want(vmmanager.Paused, vmmanager.ByAdmin)
	if err := w.Hypervisor.Start(Context(t), name); err != nil {
		t.Fatalf("start: %v", err)
	}
	w.wantState(t, name, vmmanager.Paused)
}

// testSaved: saved memory is told and shown, Reload and Wake go on from it, Refit keeps it, and Start drops it: the
// disks may have gone on without it.
func (w World) testSaved(t *testing.T) {
	p, ok := w.Hypervisor.(vmmanager.Protector)
	if w.AdminSave == nil || !ok {
		t.Skip("this world has no such hand")
	}
	ctx, h := Context(t), w.Hypervisor
	const name = "duet-vmtest-saved"
	w.started(t, name)
	saved := func(want bool) vmmanager.Definition {
		t.Helper()
		def, err := h.Definition(ctx, name)
		if err != nil || def.Saved != want {
			t.Fatalf("saved memory is shown as %t (error %v), want %t", def.Saved, err, want)
		}
		return def
	}
	save := func() {
		t.Helper()
		if err := w.AdminSave(name); err != nil {
			t.Fatal(err)
		}
		w.wantState(t, name, vmmanager.Off)
	}
	saved(false)
	events := Watch(t, h, name)
	save()
	events.Want(vmmanager.Off, vmmanager.BySave)
	same := func(def vmmanager.Definition) (vmmanager.Definition, error) { return def, nil }
	failed := errors.New("failed")
	if err := p.Reload(ctx, name, same, func() error { return failed }); !errors.Is(err, failed) {
		t.Fatalf("reload: %v, want the error of between", err)
	}
	w.wantState(t, name, vmmanager.Off)
	saved(true)
	called := 0
	if err := p.Reload(ctx, name, same, func() error { called++; return nil }); err != nil || called != 1 {
		t.Fatalf("reload: %v, between called %d times", err, called)
	}
	w.wantState(t, name, vmmanager.Running)
	saved(false)

	save()
	if err := p.Refit(ctx, name, same, func() error { return nil }); err != nil {
		t.Fatalf("refit: %v", err)
	}
	w.wantState(t, name, vmmanager.Off)
	saved(true)
	if err := p.Wake(ctx, name); err != nil {
		t.Fatalf("wake: %v", err)
	}
	w.wantState(t, name, vmmanager.Running)
	saved(false)

	save()
	if err := h.Start(ctx, name); err != nil {
		t.Fatalf("start: %v", err)
	}
	saved(false)
}

// testDefine: what was defined is read back, and a definition does not touch a running VM.
func (w World) testDefine(t *testing.T) {
	ctx, h := Context(t), w.Hypervisor
	const name = "duet-vmtest-define"
	w.started(t, name)
	first, err := h.Definition(ctx, name)
	if err != nil {
		t.Fatalf("definition: %v", err)
	}
	if w.AdminEdit == nil {
		t.Skip("this world has no such hand")
	}
	events := Watch(t, h, name)
	if err := w.AdminEdit(name); err != nil {
		t.Fatal(err)
	}
	events.Want(vmmanager.Running, vmmanager.ByEdit)
	edited, err := h.Definition(ctx, name)
	if err != nil || bytes.Equal(edited.Text, first.Text) {
		t.Fatalf("definition after an edit is the old one (error %v)", err)
	}
	if err := h.Define(ctx, first); err != nil {
		t.Fatalf("define: %v", err)
	}
	events.Want(vmmanager.Running, vmmanager.ByEdit)
	again, err := h.Definition(ctx, name)
	if err != nil || again.Name != name || !bytes.Equal(again.Text, first.Text) {
		t.Fatalf("definition read back differs (error %v):\n%s\nwant\n%s", err, again.Text, first.Text)
	}
	w.wantState(t, name, vmmanager.Running)
}

// testWatch: every watcher sees every change, and its channel is closed when its context ends.
func (w World) testWatch(t *testing.T) {
	ctx, h := Context(t), w.Hypervisor
	const name = "duet-vmtest-watch"
	w.vm(t, name)
	short, cancel := context.WithCancel(ctx)
	ended, err := h.Watch(short)
	if err != nil {
		t.Fatalf("watch: %v", err)
	}
	one, two := Watch(t, h, name), Watch(t, h, name)
	if err := h.Start(ctx, name); err != nil {
		t.Fatalf("start: %v", err)
	}
	one.Want(vmmanager.Running, vmmanager.ByStart)
	two.Want(vmmanager.Running, vmmanager.ByStart)
	cancel()
	// Nobody has read from it: a watch that nobody reads ends all the same.
	(&Events{t, name, ended}).drain()
	if err := h.Kill(ctx, name); err != nil {
		t.Fatalf("kill: %v", err)
	}
	one.Want(vmmanager.Off, vmmanager.ByDuet)
	two.Want(vmmanager.Off, vmmanager.ByDuet)
}

// testSlowReader: a reader that does not read keeps nobody waiting and still gets the last event.
func (w World) testSlowReader(t *testing.T) {
	ctx, h := Context(t), w.Hypervisor
	const name = "duet-vmtest-slow"
	w.vm(t, name)
	slow := Watch(t, h, name)
	for range 2 {
		if err := errors.Join(h.Start(ctx, name), h.Kill(ctx, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := h.Start(ctx, name); err != nil {
		t.Fatalf("start: %v", err)
	}
	for range 2 {
		slow.Until(vmmanager.Running, vmmanager.ByStart)
		slow.Until(vmmanager.Off, vmmanager.ByDuet)
	}
	slow.Until(vmmanager.Running, vmmanager.ByStart)
}

// testEndedContext: no call outlives its context.
func (w World) testEndedContext(t *testing.T) {
	const name = "duet-vmtest-ended"
	w.vm(t, name)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	h := w.Hypervisor
	if _, err := h.State(ctx, name); !errors.Is(err, context.Canceled) {
		t.Errorf("state: %v, want the context's error", err)
	}
	if err := h.Start(ctx, name); !errors.Is(err, context.Canceled) {
		t.Errorf("start: %v, want the context's error", err)
	}
	if _, err := h.Watch(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("watch: %v, want the context's error", err)
	}
	w.wantState(t, name, vmmanager.Off)
}

// testMany: methods may be called by several goroutines.
func (w World) testMany(t *testing.T) {
	ctx, h := Context(t), w.Hypervisor
	const n = 3
	var all sync.WaitGroup
	for i := range n {
		name := fmt.Sprintf("duet-vmtest-many-%d", i)
		w.vm(t, name)
		all.Go(func() {
			if err := errors.Join(h.Start(ctx, name), h.Kill(ctx, name), h.Start(ctx, name)); err != nil {
				t.Error(err)
			}
			if state, err := h.State(ctx, name); err != nil || state != vmmanager.Running {
				t.Errorf("state of %s: %v, %v", name, state, err)
			}
		})
	}
	all.Wait()
}

// testDaemonRestart: VMs run on, and each is told again.
func (w World) testDaemonRestart(t *testing.T) {
	if w.RestartDaemon == nil {
		t.Skip("this world has no such hand")
	}
	const running, off = "duet-vmtest-restart-running", "duet-vmtest-restart-off"
	w.started(t, running)
	w.vm(t, off)
	one, two := Watch(t, w.Hypervisor, running), Watch(t, w.Hypervisor, off)
	if err := w.RestartDaemon(); err != nil {
		t.Fatal(err)
	}
	one.Want(vmmanager.Running, vmmanager.ByReconnect)
	two.Want(vmmanager.Off, vmmanager.ByReconnect)
	w.wantState(t, running, vmmanager.Running)
	if err := w.Hypervisor.Kill(Context(t), running); err != nil {
		t.Fatalf("kill: %v", err)
	}
	one.Want(vmmanager.Off, vmmanager.ByDuet)
}

// testJudge: a VM that can run here is refused neither before it is defined, nor while it
// is off, nor while it runs; asking changes nothing.
func (w World) testJudge(t *testing.T) {
	p, ok := w.Hypervisor.(vmmanager.Protector)
	if !ok {
		t.Skip("this hypervisor protects no VMs")
	}
	const name = "duet-vmtest-judge"
	def := w.Definition(name)
	judge := func(when string) {
		t.Helper()
		found, err := p.Judge(Context(t), def)
		if err != nil {
			t.Fatalf("judge a VM that is %s: %v", when, err)
		}
		if refused := vmmanager.Refusals(found); len(refused) != 0 {
			t.Errorf("a VM that is %s is refused: %+v", when, refused)
		}
	}
	judge("not defined")
	w.wantState(t, name, vmmanager.Absent)
	w.vm(t, name)
	judge("off")
	w.wantState(t, name, vmmanager.Off)
	if err := w.Hypervisor.Start(Context(t), name); err != nil {
		t.Fatalf("start: %v", err)
	}
	judge("running")
	w.wantState(t, name, vmmanager.Running)
}
