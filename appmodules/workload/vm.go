package workload

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"duet/appmodules"
	"duet/vmmanager"
)

// Hypervisor is what runs a VM and can change its disks.
type Hypervisor interface {
	vmmanager.Hypervisor
	vmmanager.Protector
}

// VMConfig is what a VM is made of. All fields are needed.
type VMConfig struct {
	Module     appmodules.Module // of KindVM
	Node       string            // this one
	Endpoints  []vmmanager.Endpoint
	Hypervisor Hypervisor
	Retained   string // directory of the definitions over which others were stored; it is made when it is needed
	Logger     *slog.Logger
}

// VM is the Workload of one virtual machine. Any goroutine may call its methods. What the hypervisor does is not under
// mu; report is, so that reports keep their order, and must not call back.
type VM struct {
	cfg    VMConfig
	domain string // the VM's name in its hypervisor; an edit cannot change it

	mu     sync.Mutex
	on     appmodules.On
	last   vmmanager.State         // that was seen, by an event or an answer
	report func(appmodules.Report) // nil before Watch: what happens then is noted and not reported
}

var (
	_ appmodules.Workload = (*VM)(nil)
	_ appmodules.Governed = (*VM)(nil)
	_ appmodules.Defined  = (*VM)(nil)
	_ appmodules.Straying = (*VM)(nil)
	_ appmodules.Saving   = (*VM)(nil)
)

// NewVM returns the VM of a module. It asks the hypervisor nothing.
func NewVM(cfg VMConfig) *VM {
	return &VM{cfg: cfg, domain: cfg.Module.Subject(), on: cfg.Module.Policy.On}
}

// SetPolicy changes what follows an end of the VM.
func (v *VM) SetPolicy(p appmodules.Policy) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.on = p.On
}

// up: the VM has a process, running or waiting for its disk.
func up(s vmmanager.State) bool {
	return s == vmmanager.Running || s == vmmanager.Paused || s == vmmanager.IOError
}

// conditionLocked is what a state means. mu is held. Lost goes by policy.on.crash where nobody said why a VM is off:
// an end that somebody meant is told by an event, which the engine gives time to come first.
func (v *VM) conditionLocked(s vmmanager.State) appmodules.Condition {
	c := appmodules.Condition{Up: up(s), Stuck: s == vmmanager.IOError, Text: s.String()}
	switch s {
	case vmmanager.Paused:
		c.Held = appmodules.Notice{Code: "paused", Text: fmt.Sprintf("VM %s is paused", v.domain),
			Remedy: "virsh resume " + v.domain}
	case vmmanager.Crashed: // kept so after a panic
		c.Lost = appmodules.Incident{What: v.on.Panic.Happening(), Why: vmmanager.ByReconnect.String()}
	case vmmanager.Off, vmmanager.Absent:
		c.Lost = appmodules.Incident{What: v.on.Crash.Happening(), Why: vmmanager.ByReconnect.String()}
	}
	return c
}

// saw notes a state.
func (v *VM) saw(s vmmanager.State) appmodules.Condition {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.last = s
	return v.conditionLocked(s)
}

// State asks the hypervisor.
func (v *VM) State(ctx context.Context) (appmodules.Condition, error) {
	s, err := v.cfg.Hypervisor.State(ctx, v.domain)
	if err != nil {
		return appmodules.Condition{}, err
	}
	return v.saw(s), nil
}

// Start starts the VM, or wakes it from the memory that was saved here. Without resume memory that was saved is
// dropped: it would not fit its disks. A VM whose state cannot be read after the start counts as running.
func (v *VM) Start(ctx context.Context, resume bool) (appmodules.Condition, error) {
	hv, how := v.cfg.Hypervisor, v.cfg.Hypervisor.Start
	if resume {
		// An earlier run may have died after it woke the VM and before that was noted.
		if s, err := hv.State(ctx, v.domain); err != nil || s == vmmanager.Off {
			how = hv.Wake
		}
	}
	if err := how(ctx, v.domain); err != nil {
		return appmodules.Condition{}, err
	}
	state := vmmanager.Running
	if now, err := hv.State(ctx, v.domain); err == nil && up(now) {
		state = now // somebody has paused it, or its disk gave it an error at once
	}
	return v.saw(state), nil
}

// Stop asks the guest to shut down, and returns when the VM is off. What Duet has ended so is not reported as an end.
func (v *VM) Stop(ctx context.Context) error {
	err := v.cfg.Hypervisor.Shutdown(ctx, v.domain)
	if err == nil {
		v.saw(vmmanager.Off)
	}
	return err
}

// Kill ends the VM; one that is not defined has nothing to end.
func (v *VM) Kill(ctx context.Context) error {
	err := v.cfg.Hypervisor.Kill(ctx, v.domain)
	if err == nil || errors.Is(err, vmmanager.ErrNotFound) {
		v.saw(vmmanager.Off)
		return nil
	}
	return err
}

// Watch has report called by Event. A later Watch takes the place of the one before.
func (v *VM) Watch(ctx context.Context, report func(appmodules.Report)) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.report = func(r appmodules.Report) {
		if ctx.Err() == nil {
			report(r)
		}
	}
}

// Event is what the hypervisor tells of this VM, in order, by one goroutine at a time. Some events may be missing,
// the last one never is (vmmanager.Hypervisor.Watch).
func (v *VM) Event(ev vmmanager.Event) {
	v.mu.Lock()
	defer v.mu.Unlock()
	before := v.last
	v.last = ev.State
	if v.report == nil {
		return
	}
	now := v.conditionLocked(ev.State)
	for _, what := range v.followsLocked(before, ev) {
		v.report(appmodules.Report{Incident: appmodules.Incident{What: what, Why: ev.Cause.String()}, Now: now})
	}
}

// followsLocked applies the policy to what happened to the VM. mu is held. BySave comes first as IsSaved and then as
// an end, so that the engine knows that the memory is fit when it decides what follows. After a reconnect the
// hypervisor knows no cause: only a VM that was last seen running has ended in between, one that is off for long has
// not ended again.
func (v *VM) followsLocked(before vmmanager.State, ev vmmanager.Event) []appmodules.Happening {
	switch ev.Cause {
	case vmmanager.ByCrash:
		return []appmodules.Happening{v.on.Crash.Happening()}
	case vmmanager.ByPanic:
		return []appmodules.Happening{v.on.Panic.Happening()}
	case vmmanager.ByGuest:
		return []appmodules.Happening{v.on.Shutdown.Happening()}
	case vmmanager.BySave:
		return []appmodules.Happening{appmodules.IsSaved, v.on.Admin.Happening()}
	case vmmanager.ByAdmin: // a pause by an admin ends nothing
		if ev.State == vmmanager.Off {
			return []appmodules.Happening{v.on.Admin.Happening()}
		}
	case vmmanager.ByReconnect:
		switch {
		case before == vmmanager.Running && ev.State == vmmanager.Crashed:
			return []appmodules.Happening{v.on.Panic.Happening()}
		case before == vmmanager.Running && !up(ev.State):
			return []appmodules.Happening{v.on.Crash.Happening()}
		}
	case vmmanager.ByEdit:
		return []appmodules.Happening{appmodules.IsEdited}
	case vmmanager.ByDisk:
		return []appmodules.Happening{appmodules.IsStrayed}
	}
	return []appmodules.Happening{appmodules.Changed}
}

// Saved tells that the VM's memory is saved on this node.
func (v *VM) Saved(ctx context.Context) (string, error) {
	def, err := v.cfg.Hypervisor.Definition(ctx, v.domain)
	if err != nil || !def.Saved {
		return "", err
	}
	return fmt.Sprintf("the memory of VM %s is saved on %s, but its disks may have gone on since: starting it drops "+
		"that memory", v.domain, v.cfg.Node), nil
}
