package fake

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"duet/vmmanager"
)

var (
	_ vmmanager.Hypervisor = (*Hypervisor)(nil)
	_ vmmanager.Protector  = (*Hypervisor)(nil)
)

// Config says how the VMs of a Hypervisor behave; the zero value takes no time at all.
type Config struct {
	// StartTime, ShutdownTime and KillTime are how long each takes.
	StartTime, ShutdownTime, KillTime time.Duration
	// Wait waits for a duration or until ctx ends, and returns ctx's error then; nil
	// means the real clock. Simulations give their own.
	Wait func(ctx context.Context, d time.Duration) error
	// OnRun is called in a goroutine of its own whenever a VM starts to run. ctx ends
	// when the VM stops or pauses, and no stop or pause is over before OnRun has
	// returned: what it writes is what the guest writes. def is the running definition.
	OnRun func(ctx context.Context, def vmmanager.Definition)
}

// Hypervisor keeps VMs in memory. Its methods may be called by several goroutines. OnRun, an Edit and between are
// called without mu: they may call back.
type Hypervisor struct {
	cfg Config // does not change

	mu       sync.Mutex
	away     bool                               // the daemon is: calls are ErrUnavailable; Kill and hands work
	vms      map[string]*vm                     // by name
	findings map[string][]vmmanager.Finding     // what Judge says, by VM
	watchers map[*vmmanager.EventQueue]struct{} // one for each Watch
}

// vm is one VM. Fields belong to Hypervisor.mu, except that writer may be waited for without it.
type vm struct {
	state   vmmanager.State      // Off from its definition on; one that is undefined is not in the map
	def     vmmanager.Definition // persistent
	live    vmmanager.Definition // what it runs with
	deaf    bool                 // ignores Shutdown
	broken  bool                 // an endpoint is away: it cannot stay running
	saved   bool                 // it is off and its memory is kept
	halt    context.CancelFunc   // ends OnRun; nil while the VM does not run
	writer  chan struct{}        // closed when OnRun has returned
	changed chan struct{}        // closed and replaced at each change
}

// New returns a Hypervisor without VMs.
func New(cfg Config) *Hypervisor {
	if cfg.Wait == nil {
		cfg.Wait = realWait
	}
	return &Hypervisor{cfg: cfg, vms: map[string]*vm{}, findings: map[string][]vmmanager.Finding{},
		watchers: map[*vmmanager.EventQueue]struct{}{}}
}

func realWait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// State tells what the VM does now.
func (h *Hypervisor) State(ctx context.Context, name string) (vmmanager.State, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.readyLocked(ctx); err != nil {
		return vmmanager.Absent, fmt.Errorf("read state of %s: %w", name, err)
	}
	if v := h.vms[name]; v != nil {
		return v.state, nil
	}
	return vmmanager.Absent, nil
}

// readyLocked returns why a call cannot be made now. The context's own error comes first, as the contract has it
// for calls that were ended.
func (h *Hypervisor) readyLocked(ctx context.Context) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if h.away {
		return vmmanager.ErrUnavailable
	}
	return nil
}

// Definition returns the persistent definition.
func (h *Hypervisor) Definition(ctx context.Context, name string) (vmmanager.Definition, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	v, err := h.findLocked(ctx, name)
	if err != nil {
		return vmmanager.Definition{}, fmt.Errorf("read definition of %s: %w", name, err)
	}
	def := clone(v.def)
	def.Saved = v.saved
	return def, nil
}

// findLocked returns the VM, ErrNotFound, or what readyLocked says.
func (h *Hypervisor) findLocked(ctx context.Context, name string) (*vm, error) {
	if err := h.readyLocked(ctx); err != nil {
		return nil, err
	}
	if v := h.vms[name]; v != nil {
		return v, nil
	}
	return nil, vmmanager.ErrNotFound
}

// clone shares no memory with def: definitions go in and out by value. Saved is left out, which is the VM's and not
// the definition's.
func clone(def vmmanager.Definition) vmmanager.Definition {
	return vmmanager.Definition{Name: def.Name, Text: slices.Clone(def.Text), Disks: slices.Clone(def.Disks),
		Autostart: def.Autostart}
}

// Define stores the definition. A running VM keeps the one it was started with.
func (h *Hypervisor) Define(ctx context.Context, def vmmanager.Definition) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.readyLocked(ctx); err != nil {
		return fmt.Errorf("define %s: %w", def.Name, err)
	}
	v := h.vms[def.Name]
	if v == nil {
		v = &vm{state: vmmanager.Off, changed: make(chan struct{})}
		h.vms[def.Name] = v
	} else if slices.Equal(v.def.Text, def.Text) && slices.Equal(v.def.Disks, def.Disks) &&
		v.def.Autostart == def.Autostart {
		return nil
	}
	v.def = clone(def)
	v.def.Autostart = def.Autostart && len(h.On(def)) == 0
	h.tellLocked(vmmanager.Event{VM: def.Name, State: v.state, Cause: vmmanager.ByEdit})
	return nil
}

// Start makes the VM run. While one of its endpoints is away it waits, as real hypervisors do.
func (h *Hypervisor) Start(ctx context.Context, name string) error {
	if err := h.start(ctx, name); err != nil {
		return fmt.Errorf("start %s: %w", name, err)
	}
	return nil
}

// StartTime is waited for once, without mu, and then the state is looked at anew: another call may have started the
// VM meanwhile. A Kill in that time finds it off, and the start goes on.
func (h *Hypervisor) start(ctx context.Context, name string) error {
	waited := false
	for {
		h.mu.Lock()
		v, err := h.findLocked(ctx, name)
		if err != nil {
			h.mu.Unlock()
			return err
		}
		cold := v.state == vmmanager.Off || v.state == vmmanager.Crashed
		switch {
		case v.state == vmmanager.Running || v.state == vmmanager.Paused:
			h.mu.Unlock()
			return nil
		// Only once: what another call made of the VM meanwhile is seen by the next round.
		case cold && !waited && h.cfg.StartTime > 0:
			h.mu.Unlock()
			if err := h.cfg.Wait(ctx, h.cfg.StartTime); err != nil {
				return err
			}
			waited = true
		case v.broken:
			changed := v.changed
			h.mu.Unlock()
			select {
			case <-changed:
			case <-ctx.Done():
				return ctx.Err()
			}
		default:
			if cold {
				// A new run has the persistent definition, and saved memory is dropped, as the contract has it.
				v.live, v.deaf, v.saved = clone(v.def), false, false
			}
			h.runLocked(name, v)
			h.mu.Unlock()
			return nil
		}
	}
}

// runLocked lets a VM run. The goroutine of the run ends when OnRun returns; whoever stops or pauses the VM has
// ended its context and waits for that in leave.
func (h *Hypervisor) runLocked(name string, v *vm) {
	ctx, halt := context.WithCancel(context.Background())
	v.halt, v.writer = halt, make(chan struct{})
	h.becomeLocked(name, v, vmmanager.Running, vmmanager.ByStart)
	done, live := v.writer, clone(v.live)
	go func() {
		defer close(done)
		if h.cfg.OnRun != nil {
			h.cfg.OnRun(ctx, live)
		}
	}()
}

// becomeLocked changes the state, wakes whoever waits for a change, and tells the watchers, in one step under mu:
// nobody sees a state whose event is not on its way.
func (h *Hypervisor) becomeLocked(name string, v *vm, state vmmanager.State, why vmmanager.Cause) {
	v.state = state
	close(v.changed)
	v.changed = make(chan struct{})
	h.tellLocked(vmmanager.Event{VM: name, State: state, Cause: why})
}

// leave brings a VM from one of the states to another; ok is false if it was in
// none of them. It returns after the last write of the VM. It does not look at away, as a guest does not. The
// writer is waited for without mu, and without limit: an OnRun that does not end with its context hangs the caller.
func (h *Hypervisor) leave(name string, to vmmanager.State, why vmmanager.Cause, from ...vmmanager.State) (ok bool) {
	for {
		h.mu.Lock()
		v := h.vms[name]
		if v == nil || !slices.Contains(from, v.state) {
			h.mu.Unlock()
			return false
		}
		writer := v.writer
		if v.halt != nil {
			v.halt()
		}
		if writer == nil || isClosed(writer) {
			v.halt, v.writer = nil, nil
			h.becomeLocked(name, v, to, why)
			h.mu.Unlock()
			return true
		}
		h.mu.Unlock()
		// And then all is looked at anew: another call may have been first.
		<-writer
	}
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// Shutdown asks the guest to stop; a deaf guest keeps it waiting until ctx ends. ErrUnavailable while the daemon is
// away; a VM that is paused is waited for, too: it may be resumed.
func (h *Hypervisor) Shutdown(ctx context.Context, name string) error {
	for {
		h.mu.Lock()
		if err := h.readyLocked(ctx); err != nil {
			h.mu.Unlock()
			return fmt.Errorf("shut down %s: %w", name, err)
		}
		v := h.vms[name]
		if v == nil || v.state == vmmanager.Off {
			h.mu.Unlock()
			return nil
		}
		hears, changed := v.state == vmmanager.Running && !v.deaf, v.changed
		crashed := v.state == vmmanager.Crashed
		h.mu.Unlock()
		switch {
		// It hears nothing any more.
		case crashed:
			return h.Kill(ctx, name)
		case hears:
			if err := h.cfg.Wait(ctx, h.cfg.ShutdownTime); err != nil {
				return fmt.Errorf("shut down %s: %w", name, err)
			}
			h.leave(name, vmmanager.Off, vmmanager.ByDuet, vmmanager.Running)
		default:
			select {
			case <-changed:
			case <-ctx.Done():
				return fmt.Errorf("shut down %s: %w", name, ctx.Err())
			}
		}
	}
}

// Kill ends the VM; it works while the daemon is away, too. KillTime is waited for without mu, and a VM that was
// started again in it is ended with it.
func (h *Hypervisor) Kill(ctx context.Context, name string) error {
	h.mu.Lock()
	v := h.vms[name]
	off := v == nil || v.state == vmmanager.Off
	h.mu.Unlock()
	if off {
		return nil
	}
	if err := h.cfg.Wait(ctx, h.cfg.KillTime); err != nil {
		return fmt.Errorf("kill %s: %w", name, err)
	}
	h.leave(name, vmmanager.Off, vmmanager.ByDuet, vmmanager.Running, vmmanager.Paused, vmmanager.IOError,
		vmmanager.Crashed)
	return nil
}

// Names returns the names of all VMs in order.
func (h *Hypervisor) Names() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Sorted(maps.Keys(h.vms))
}
