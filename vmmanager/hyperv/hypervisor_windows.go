package hyperv

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	wmi "github.com/microsoft/wmi/pkg/wmiinstance"

	"duet/vmmanager"
)

var _ vmmanager.Hypervisor = (*Hypervisor)(nil)

const (
	look      = 250 * time.Millisecond // between two looks at a VM that changes its state
	pollTime  = time.Second            // between two looks at all VMs
	again     = 5 * time.Second        // between two requests to shut down
	startTime = 10 * time.Second       // a VM that is still off this long after a start will not come up
)

// Hypervisor is the Hyper-V of this computer. Its methods may be called by several goroutines.
type Hypervisor struct {
	slots chan struct{} // one per operation under way: a WMI that hangs must not collect threads
	stops stops
}

// New returns the Hypervisor of this computer. It does not connect.
func New() *Hypervisor {
	return &Hypervisor{slots: make(chan struct{}, 8)}
}

// State tells what the VM does now. A VM that is not there is Absent, which is no error.
func (h *Hypervisor) State(ctx context.Context, name string) (vmmanager.State, error) {
	state, err := h.enabled(ctx, name)
	if errors.Is(err, vmmanager.ErrNotFound) {
		return vmmanager.Absent, nil
	}
	if err != nil {
		return vmmanager.Absent, fmt.Errorf("read state of %s: %w", name, err)
	}
	return stateOf(state), nil
}

// enabled reads the provider's state of a VM. ErrNotFound: there is none of that name; ErrUnsupported: there are
// several.
func (h *Hypervisor) enabled(ctx context.Context, name string) (enabledState, error) {
	return ask(ctx, h, func(session *wmi.WmiSession) (enabledState, error) {
		s, err := find(session, name)
		if err != nil {
			return 0, err
		}
		defer s.Close()
		return s.state, nil
	})
}

// Definition returns the VM's settings as Hyper-V's XML text. It names no disks:
// Duet does not replicate disks of Hyper-V VMs.
func (h *Hypervisor) Definition(ctx context.Context, name string) (vmmanager.Definition, error) {
	text, err := ask(ctx, h, func(session *wmi.WmiSession) (string, error) {
		s, err := find(session, name)
		if err != nil {
			return "", err
		}
		defer s.Close()
		settings, err := session.QueryInstances("SELECT * FROM Msvm_VirtualSystemSettingData WHERE " +
			"VirtualSystemIdentifier='" + s.id +
			"' AND VirtualSystemType='Microsoft:Hyper-V:System:Realized'")
		if err != nil || len(settings) != 1 {
			wmi.CloseAllInstances(settings)
			return "", fmt.Errorf("%w: found %d settings (%v)", vmmanager.ErrUnavailable, len(settings), err)
		}
		defer wmi.CloseAllInstances(settings)
		return settings[0].EmbeddedXMLInstance()
	})
	if err != nil {
		return vmmanager.Definition{}, fmt.Errorf("read definition of %s: %w", name, err)
	}
	return vmmanager.Definition{Name: name, Text: []byte(strings.TrimSpace(text))}, nil
}

// Define returns ErrUnsupported: a Hyper-V definition names disks, which Duet cannot move yet.
func (h *Hypervisor) Define(_ context.Context, def vmmanager.Definition) error {
	return fmt.Errorf("define %s: %w: Duet cannot move the disks of a Hyper-V VM, import it with Hyper-V Manager on "+
		"both hosts",
		def.Name, vmmanager.ErrUnsupported)
}

// Start makes the VM run. Saved memory is dropped first: the disks may have gone on since on the other node. One that
// somebody paused stays so. The note of an earlier stop goes before the request: the end of the new run is not Duet's.
func (h *Hypervisor) Start(ctx context.Context, name string) error {
	state, err := h.enabled(ctx, name)
	if err == nil && isSaved(state) {
		err = h.reach(ctx, name, off, func(s enabledState) bool { return s == off })
	}
	if err == nil && toStart(state) {
		h.stops.forget(name)
		err = h.bringUp(ctx, name)
	}
	if err != nil {
		return fmt.Errorf("start %s: %w", name, err)
	}
	return nil
}

// bringUp requests a start and gives up when the VM stays off: the job's own
// error is not to be had through this library.
func (h *Hypervisor) bringUp(ctx context.Context, name string) error {
	limited, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	err := h.reach(limited, name, running, func(s enabledState) bool {
		return s != starting &&
			stateOf(s) == vmmanager.Running
	})
	// It is startTime that has run out, not the caller's time.
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		return errors.New("it did not come up: the event log Hyper-V-Worker-Admin has the reason")
	}
	return err
}

// reach requests a state and waits until the VM is where it should be. An error of a look ends the waiting, the
// request stands.
func (h *Hypervisor) reach(ctx context.Context, name string, to enabledState, there func(enabledState) bool) error {
	if err := h.request(ctx, name, to); err != nil {
		return err
	}
	for {
		state, err := h.enabled(ctx, name)
		if err != nil {
			return err
		}
		if there(state) {
			return nil
		}
		if err := sleep(ctx, look); err != nil {
			return err
		}
	}
}

// request asks for a state, unless ctx has ended by the time that the session is open: after that a Kill may have
// returned.
func (h *Hypervisor) request(ctx context.Context, name string, to enabledState) error {
	_, err := ask(ctx, h, func(session *wmi.WmiSession) (struct{}, error) {
		s, err := find(session, name)
		if err != nil {
			return struct{}{}, err
		}
		defer s.Close()
		if ctx.Err() != nil {
			return struct{}{}, ctx.Err()
		}
		return struct{}{}, s.request(to)
	})
	return err
}

// Shutdown asks the guest through its integration services, again every few
// seconds (a guest that is still booting does not hear it), and waits until it is off. It goes on while WMI does
// not answer: the guest may be stopping. The error is ctx's, with the last refusal.
func (h *Hypervisor) Shutdown(ctx context.Context, name string) error {
	h.stops.note(name)
	var refused error
	// A request that is refused is not the end: a guest that boots has no integration services yet.
	for asked := (time.Time{}); ; {
		state, err := h.State(ctx, name)
		if err == nil && (state == vmmanager.Off || state == vmmanager.Absent) {
			return nil
		}
		if err == nil && time.Since(asked) >= again {
			asked = time.Now()
			refused = h.request(ctx, name, shutDown)
		}
		if err := sleep(ctx, look); err != nil {
			return fmt.Errorf("shut down %s: %w", name, errors.Join(err, refused))
		}
	}
}

// Kill switches the VM off and returns nil when Hyper-V says that it is off or gone. Its error is ctx's, with what
// was last in the way; until ctx ends it tries again.
func (h *Hypervisor) Kill(ctx context.Context, name string) error {
	h.stops.note(name)
	for {
		state, err := h.State(ctx, name)
		if err == nil && (state == vmmanager.Off || state == vmmanager.Absent) {
			return nil
		}
		if err == nil {
			err = h.request(ctx, name, off) // it may be refused while the VM starts: then the next round asks again
		}
		if sleepErr := sleep(ctx, look); sleepErr != nil {
			return fmt.Errorf("kill %s: %w", name, errors.Join(sleepErr, err))
		}
	}
}

// sleep waits, or returns ctx's error when that ends first.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
