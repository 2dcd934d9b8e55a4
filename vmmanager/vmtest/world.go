package vmtest

import (
	"context"
	"errors"
	"testing"
	"time"

	"duet/vmmanager"
)

// patience is how long the suite waits for anything, and how long a whole test of it may take: far longer than a
// loaded computer needs to boot guests under emulation. What is promised is measured, and not by this.
const patience = 2 * time.Minute

// World is a hypervisor under test together with the hands of everybody else
// who can touch a VM. A hand that is nil skips the tests that need it. One Run at a time uses it: the names of the
// VMs are fixed.
type World struct {
	Hypervisor vmmanager.Hypervisor
	// Definition makes a definition of a VM that does not exist yet, with no disk
	// to replicate. Its guest obeys the power button.
	Definition func(name string) vmmanager.Definition
	// Undefine lets the suite clean up.
	Undefine func(ctx context.Context, name string) error

	GuestOff    Hand // the guest shuts itself down
	GuestPanic  Hand // the kernel of the guest panics; the VM is kept for inspection
	GuestDeaf   Hand // the guest ignores its power button from now on
	AdminButton Hand // an admin presses the power button past Duet
	AdminOff    Hand // an admin switches the VM off past Duet
	AdminPause  Hand // an admin pauses the VM past Duet
	AdminSave   Hand // an admin saves the memory of the VM and switches it off past Duet
	AdminEdit   Hand // an admin changes the definition past Duet
	Crash       Hand // the process of the hypervisor dies
	// RestartDaemon restarts the hypervisor's own daemon, under running VMs.
	RestartDaemon func() error
}

// Hand does something to a running VM without the Hypervisor and returns when it was done.
type Hand func(name string) error

// Events reads a Watch for one VM. One goroutine, that of the test, reads it.
type Events struct {
	t  *testing.T
	vm string
	ch <-chan vmmanager.Event // of all VMs of that hypervisor
}

// Watch starts watching one VM. The watch ends with the test. It sees every change after it has returned. Cleanup
// also checks that the channel is closed once the watch has ended.
func Watch(t *testing.T, h vmmanager.Hypervisor, vm string) *Events {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ch, err := h.Watch(ctx)
	if err != nil {
		cancel()
		t.Fatalf("watch: %v", err)
	}
	e := &Events{t, vm, ch}
	t.Cleanup(func() {
		cancel()
		e.drain()
	})
	return e
}

// drain waits until the channel is closed.
func (e *Events) drain() {
	e.t.Helper()
	late := time.After(patience)
	for {
		select {
		case _, open := <-e.ch:
			if !open {
				return
			}
		case <-late:
			e.t.Error("the channel of Watch is not closed after its context ended")
			return
		}
	}
}

// Next returns the next event of the VM. One that only says that a disk may have changed is
// passed over: some implementations have it at every change of a running VM.
func (e *Events) Next() vmmanager.Event {
	e.t.Helper()
	late := time.After(patience)
	for {
		select {
		case got, open := <-e.ch:
			if !open {
				e.t.Fatal("the channel of Watch was closed early")
			}
			if got.VM == e.vm && got.Cause != vmmanager.ByDisk {
				return got
			}
		case <-late:
			e.t.Fatalf("no event of %s within %s", e.vm, patience)
		}
	}
}

// Want fails the test unless the next event of the VM is this one.
func (e *Events) Want(state vmmanager.State, cause vmmanager.Cause) {
	e.t.Helper()
	if got := e.Next(); got.State != state || got.Cause != cause {
		e.t.Fatalf("event of %s: %s, %s; want %s, %s", e.vm, got.State, got.Cause, state, cause)
	}
}

// Disk waits for the news that a disk of the VM may have changed.
func (e *Events) Disk() {
	e.t.Helper()
	late := time.After(patience)
	for {
		select {
		case got := <-e.ch:
			if got.VM == e.vm && got.Cause == vmmanager.ByDisk {
				return
			}
		case <-late:
			e.t.Fatalf("no news of a disk of %s within %s", e.vm, patience)
		}
	}
}

// Until skips events of the VM up to this one.
func (e *Events) Until(state vmmanager.State, cause vmmanager.Cause) {
	e.t.Helper()
	for {
		if got := e.Next(); got.State == state && got.Cause == cause {
			return
		}
	}
}

// Context returns one that ends with the test or when patience does.
func Context(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// vm defines a VM for one test and removes it afterwards. Cleaning up has a context of its own: the test's may have
// run out.
func (w World) vm(t *testing.T, name string) {
	t.Helper()
	if err := w.Hypervisor.Define(Context(t), w.Definition(name)); err != nil {
		t.Fatalf("define: %v", err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := errors.Join(w.Hypervisor.Kill(ctx, name), w.Undefine(ctx, name)); err != nil {
			t.Errorf("clean up: %v", err)
		}
	})
}

// started is vm, running.
func (w World) started(t *testing.T, name string) {
	t.Helper()
	w.vm(t, name)
	if err := w.Hypervisor.Start(Context(t), name); err != nil {
		t.Fatalf("start: %v", err)
	}
}

// wantState fails the test unless the VM is in that state.
func (w World) wantState(t *testing.T, name string, want vmmanager.State) {
	t.Helper()
	got, err := w.Hypervisor.State(Context(t), name)
	if err != nil || got != want {
		t.Fatalf("state of %s: %v, %v; want %v", name, got, err, want)
	}
}
