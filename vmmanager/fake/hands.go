package fake

import (
	"fmt"

	"duet/vmmanager"
)

// The hands: each does to a running VM what somebody else than Duet would do,
// and returns after its last write. They fail if the VM does not run.

// GuestShutdown lets the guest shut itself down.
func (h *Hypervisor) GuestShutdown(name string) error {
	return h.hand(name, vmmanager.Off, vmmanager.ByGuest)
}

// AdminShutdown lets an admin press the power button past Duet; a deaf guest ignores it.
func (h *Hypervisor) AdminShutdown(name string) error {
	h.mu.Lock()
	v := h.vms[name]
	deaf := v != nil && v.deaf
	h.mu.Unlock()
	if deaf {
		return nil
	}
	return h.hand(name, vmmanager.Off, vmmanager.ByAdmin)
}

// AdminDestroy lets an admin switch the VM off past Duet.
func (h *Hypervisor) AdminDestroy(name string) error {
	return h.hand(name, vmmanager.Off, vmmanager.ByAdmin)
}

// AdminSave lets an admin save the VM's memory and switch it off past Duet.
func (h *Hypervisor) AdminSave(name string) error { return h.save(name, vmmanager.BySave) }

// CutRefit leaves the VM as a Refit does whose process dies after it saved the memory. Its definition is the old
// one still.
func (h *Hypervisor) CutRefit(name string) error { return h.save(name, vmmanager.ByDuet) }

// save switches a running VM off with its memory kept. Between the two a watcher may see it off without: Definition
// reads Saved a moment later.
func (h *Hypervisor) save(name string, why vmmanager.Cause) error {
	if err := h.hand(name, vmmanager.Off, why); err != nil {
		return err
	}
	return h.with(name, func(v *vm) { v.saved = true })
}

// AdminSnapshot lets an admin put a disk of the running VM on a layer over its endpoint. The persistent definition
// stays on the endpoint, where libvirt's snapshot would change it too.
func (h *Hypervisor) AdminSnapshot(name, target, file string) error {
	return h.move(name, vmmanager.Disk{Target: target, Path: file, Format: layer})
}

// AdminPivot lets an admin put a disk of the running VM back on an endpoint.
func (h *Hypervisor) AdminPivot(name string, to vmmanager.Endpoint) error {
	return h.move(name, vmmanager.Disk{Target: to.Target, Path: to.Socket, Format: endpoint})
}

// AdminAttach lets an admin plug another disk into the running VM.
func (h *Hypervisor) AdminAttach(name, target, file string) error {
	return h.change(name, func(v *vm) error {
		v.live.Disks = append(v.live.Disks, vmmanager.Disk{Target: target, Path: file, Format: "raw"})
		return nil
	})
}

func (h *Hypervisor) move(name string, to vmmanager.Disk) error {
	return h.change(name, func(v *vm) error { return replace(&v.live, to) })
}

// change changes what a running VM is made of.
func (h *Hypervisor) change(name string, how func(*vm) error) error {
	var err error
	if found := h.with(name, func(v *vm) {
		if err = how(v); err == nil {
			h.tellLocked(vmmanager.Event{VM: name, State: v.state, Cause: vmmanager.ByDisk})
		}
	}); found != nil {
		return found
	}
	return err
}

// AdminPause lets an admin pause the VM past Duet.
func (h *Hypervisor) AdminPause(name string) error {
	return h.hand(name, vmmanager.Paused, vmmanager.ByAdmin)
}

// AdminResume lets an admin have a VM go on that is paused; another one is left as it is.
func (h *Hypervisor) AdminResume(name string) error {
	return h.with(name, func(v *vm) {
		if v.state == vmmanager.Paused {
			h.runLocked(name, v)
		}
	})
}

// Crash ends the process behind the VM.
func (h *Hypervisor) Crash(name string) error {
	return h.hand(name, vmmanager.Off, vmmanager.ByCrash)
}

// Panic panics the guest; the VM is kept for inspection.
func (h *Hypervisor) Panic(name string) error {
	return h.hand(name, vmmanager.Crashed, vmmanager.ByPanic)
}

// BreakDisk takes an endpoint of the VM away: it pauses and cannot be resumed before MendDisk. A VM that does not
// run is broken too, and its next start waits, although the error says that it does not run.
func (h *Hypervisor) BreakDisk(name string) error {
	h.mu.Lock()
	if v := h.vms[name]; v != nil {
		v.broken = true
	}
	h.mu.Unlock()
	return h.hand(name, vmmanager.IOError, vmmanager.ByIOError)
}

// MendDisk brings the endpoint back. It does not resume the VM.
func (h *Hypervisor) MendDisk(name string) error {
	return h.with(name, func(v *vm) {
		v.broken = false
		close(v.changed)
		v.changed = make(chan struct{})
	})
}

// Deafen makes the guest ignore its power button until it starts anew.
func (h *Hypervisor) Deafen(name string) error {
	return h.with(name, func(v *vm) { v.deaf = true })
}

// AdminEdit changes the text of the definition past Duet. text is its own from then on. It works on a VM that is
// off, too.
func (h *Hypervisor) AdminEdit(name string, text []byte) error {
	return h.with(name, func(v *vm) {
		v.def.Text = text
		h.tellLocked(vmmanager.Event{VM: name, State: v.state, Cause: vmmanager.ByEdit})
	})
}

// SetAway makes the hypervisor's daemon unreachable, or brings it back: then each
// VM's state is sent with cause ByReconnect. VMs run on. What happens meanwhile is told at once, which a real
// daemon that is away cannot do.
func (h *Hypervisor) SetAway(away bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.away && !away {
		h.away = false
		for name, v := range h.vms {
			h.tellLocked(vmmanager.Event{VM: name, State: v.state, Cause: vmmanager.ByReconnect})
		}
	}
	h.away = away
}

// Live returns the definition the VM runs with, which Adopt and Release change. ok is false unless it is Running.
func (h *Hypervisor) Live(name string) (vmmanager.Definition, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	v := h.vms[name]
	if v == nil || v.halt == nil {
		return vmmanager.Definition{}, false
	}
	return clone(v.live), true
}

// hand moves a running VM to another state. Paused, crashed and stuck ones count as not running.
func (h *Hypervisor) hand(name string, to vmmanager.State, why vmmanager.Cause) error {
	if !h.leave(name, to, why, vmmanager.Running) {
		return fmt.Errorf("VM %s does not run", name)
	}
	return nil
}

// with calls f under mu, whatever the VM does and whether the daemon is away or not.
func (h *Hypervisor) with(name string, f func(*vm)) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	v := h.vms[name]
	if v == nil {
		return fmt.Errorf("VM %s: %w", name, vmmanager.ErrNotFound)
	}
	f(v)
	return nil
}
