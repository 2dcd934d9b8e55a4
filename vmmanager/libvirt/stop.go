//go:build linux && cgo && libvirt_dlopen

package libvirt

import (
	"context"
	"errors"
	"fmt"
	"time"

	"libvirt.org/go/libvirt"

	"duet/vmmanager"
)

const (
	// grace is what libvirt gets to end a guest. It asks QEMU to leave, and QEMU
	// first waits for its disks: just what must not take long when they are frozen.
	grace = 500 * time.Millisecond
	// killAnswer is how long Kill waits for a libvirtd that does not answer.
	killAnswer = 3 * time.Second
)

// Kill ends the VM. It returns nil only when no process of the guest exists and
// libvirtd, if it answers, says so too. Where libvirtd does not answer, the QEMU
// process is found and killed without it. Its limit is ctx: it tries again until then. ErrUnavailable is no error
// here, a process that cannot be killed or looked for is.
func (h *Hypervisor) Kill(ctx context.Context, name string) error {
	for {
		gone, err := h.killOnce(ctx, name)
		if err != nil {
			return fmt.Errorf("kill %s: %w", name, err)
		}
		if gone {
			return nil
		}
		if err := sleep(ctx, 50*time.Millisecond); err != nil {
			return fmt.Errorf("kill %s: %w", name, err)
		}
	}
}

// killOnce ends what there is now and reports whether the VM is gone for good. The processes are pinned first, so
// that those that run now die even if libvirtd has lost them; libvirt gets its grace beside that. A start that libvirtd
// still has must then have come to its end, or its connection to its own; where libvirtd answers it is asked again, and
// /proc is in any case. What came up meanwhile is for the next round.
func (h *Hypervisor) killOnce(ctx context.Context, name string) (bool, error) {
	processes, err := findProcesses(h.runDir, name)
	if err != nil {
		return false, err
	}
	defer closeAll(processes)
	var answer error
	destroyed := make(chan struct{}) // closed when libvirt has answered or was given up
	go func() {
		defer close(destroyed)
		answer = h.destroy(ctx, name)
	}()
	// Where libvirt ends the guest in its grace, SIGKILL finds nobody and wait returns at once.
	err = endProcesses(ctx, processes, destroyed)
	<-destroyed
	if err != nil {
		return false, err
	}
	if err := h.awaitCreate(ctx, name); err != nil {
		return false, err
	}
	if !errors.Is(answer, vmmanager.ErrUnavailable) {
		now, err := h.status(ctx, name, killAnswer)
		if err != nil && !errors.Is(err, vmmanager.ErrUnavailable) {
			return false, err
		}
		if err == nil && now.state != vmmanager.Off && now.state != vmmanager.Absent {
			return false, nil
		}
	}
	// Whatever libvirtd says: its word alone is not enough, and where it gives none this is all there is.
	left, err := findProcesses(h.runDir, name)
	closeAll(left)
	return len(left) == 0, err
}

// endProcesses kills the processes that libvirt has not ended in time, and waits until none is left.
func endProcesses(ctx context.Context, processes []process, destroyed <-chan struct{}) error {
	if len(processes) == 0 {
		return nil
	}
	select {
	case <-destroyed:
	case <-time.After(grace):
	case <-ctx.Done():
		return ctx.Err()
	}
	for _, p := range processes {
		if err := p.kill(); err != nil {
			return err
		}
	}
	for _, p := range processes {
		if err := p.wait(ctx); err != nil {
			return err
		}
	}
	return nil
}

// destroy lets libvirt end the VM and notes that Duet did it. It is noted before, as the event may be told before
// the call returns. Where libvirtd does not answer, the number of the run is not known (0).
func (h *Hypervisor) destroy(ctx context.Context, name string) error {
	err := h.onDomain(ctx, name, killAnswer, func(dom *libvirt.Domain) error {
		now, err := statusOf(dom)
		if err != nil || now.state == vmmanager.Off {
			return err
		}
		h.stops.note(name, now.run, killed)
		return dom.DestroyFlags(libvirt.DOMAIN_DESTROY_DEFAULT)
	})
	if errors.Is(err, vmmanager.ErrUnavailable) {
		h.stops.note(name, 0, killed)
	}
	return err
}

// awaitCreate waits until libvirtd has answered a start that we sent and gave
// up waiting for: it could still bring the VM up after it was destroyed. Where libvirtd hangs its connection is given
// up after 8 s; a libvirtd that goes on later than that may still carry the start out.
func (h *Hypervisor) awaitCreate(ctx context.Context, name string) error {
	h.mu.Lock()
	answered := h.creating[name]
	h.mu.Unlock()
	if answered == nil {
		return nil
	}
	select {
	case <-answered:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Shutdown presses the power button and asks the guest agent, again every few
// seconds (a guest that is still booting hears neither), and waits until the VM is
// off. A VM whose guest has panicked hears nothing any more and is killed. A paused guest hears nothing either and
// is waited for, until ctx ends.
func (h *Hypervisor) Shutdown(ctx context.Context, name string) error {
	const (
		again = 3 * time.Second
		look  = 200 * time.Millisecond
	)
	agent := make(chan struct{}, 1) // holds a token while a request is with the agent, which may not answer for a minute
	var requested time.Time
	for {
		now, err := h.status(ctx, name, readTime)
		switch {
		case err == nil && (now.state == vmmanager.Off || now.state == vmmanager.Absent):
			return nil
		// It is kept for inspection and never goes off by itself.
		case err == nil && now.state == vmmanager.Crashed:
			return h.Kill(ctx, name)
		case err == nil && time.Since(requested) >= again:
			requested = time.Now()
			h.stops.note(name, now.run, asked)
			err = h.requestShutdown(ctx, name, agent)
		}
		// The guest goes on stopping while libvirtd is away.
		if err != nil && !errors.Is(err, vmmanager.ErrUnavailable) {
			return fmt.Errorf("shut down %s: %w", name, err)
		}
		if err := sleep(ctx, look); err != nil {
			return fmt.Errorf("shut down %s: %w", name, err)
		}
	}
}

// requestShutdown asks the guest to stop, by agent without waiting and by power button. The two are told at once,
// not one after the other: an agent that is there but hangs would keep the button waiting.
func (h *Hypervisor) requestShutdown(ctx context.Context, name string, agent chan struct{}) error {
	select {
	case agent <- struct{}{}:
		err := h.spawn(ctx, func(conn *libvirt.Connect) {
			defer func() { <-agent }()
			defer conn.Close()
			if dom, err := conn.LookupDomainByName(name); err == nil {
				// Most guests have no agent; the power button is the answer to any error.
				_ = dom.ShutdownFlags(libvirt.DOMAIN_SHUTDOWN_GUEST_AGENT)
				_ = dom.Free()
			}
		}, func(error) { <-agent })
		if err != nil {
			return err
		}
	default:
	}
	err := h.onDomain(ctx, name, readTime, func(dom *libvirt.Domain) error {
		return dom.ShutdownFlags(libvirt.DOMAIN_SHUTDOWN_ACPI_POWER_BTN)
	})
	// It may be off by now, or paused, which Shutdown waits out.
	if hasCode(err, libvirt.ERR_OPERATION_INVALID) || errors.Is(err, vmmanager.ErrNotFound) {
		return nil
	}
	return err
}
