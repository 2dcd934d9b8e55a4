//go:build linux && cgo && libvirt_dlopen

package libvirt

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"libvirt.org/go/libvirt"

	"duet/vmmanager"
)

var (
	_ vmmanager.Hypervisor = (*Hypervisor)(nil)
	_ vmmanager.Protector  = (*Hypervisor)(nil)
)

const (
	readTime  = 10 * time.Second       // limit of a call that only reads
	probeTime = time.Minute            // limit of one for which libvirt may ask a QEMU program what it can do
	writeTime = 2 * time.Minute        // limit of a call that changes something; a start on a busy node takes long
	passTime  = 100 * time.Millisecond // between two looks at a VM that libvirt is busy with
	closeTime = 10 * time.Second       // keepalive ends a call that libvirtd no longer answers after 8 s

	// reconnectSince is the libvirt that understands <reconnect> on an NBD disk (9.2.0).
	reconnectSince = 9_002_000
)

// startLoop runs libvirt's event loop. The C library has one loop per process,
// which every connection needs and which cannot be stopped, so it belongs to the
// process: the first New starts it and it ends with the process.
var startLoop = sync.OnceValue(func() error {
	if err := libvirt.EventRegisterDefaultImpl(); err != nil {
		return err
	}
	go func() {
		for {
			if libvirt.EventRunDefaultImpl() != nil {
				time.Sleep(100 * time.Millisecond) // poll(2) failed, for want of memory; nobody can be told
			}
		}
	}()
	return nil
})

// Config says which libvirtd to use.
type Config struct {
	// URI is libvirt's name of the connection; empty means qemu:///system.
	URI string
	// RunDir is the directory in which that libvirtd keeps the run-time files of its
	// guests, as this process sees it; empty means /run/libvirt/qemu. Kill tells this
	// libvirtd's guests by it from those of another one on the same computer.
	RunDir string
	// Logger receives what no caller can be told; nil means nothing is logged.
	Logger *slog.Logger
}

// Hypervisor is the QEMU driver of one libvirtd. Its methods may be called by
// several goroutines. It needs no daemon to be made: calls return ErrUnavailable
// while libvirtd is away, except Kill, which does without. The tokens of trial and the lock defining are
// held during calls of libvirt's; the others for moments, and none of these while another one is taken.
type Hypervisor struct {
	uri       string // never empty
	runDir    string
	log       *slog.Logger
	reconnect bool          // libvirt understands <reconnect>
	dials     chan struct{} // a slot per connection being opened: a libvirtd that hangs must not collect threads
	stops     stops
	refits    refits
	trial     *trial // of definitions

	defining sync.Mutex // held while libvirtd checks a definition against its schema, see define

	mu     sync.Mutex
	closed bool
	// capabilities are what libvirt said last of its host; nil: nothing yet.
	capabilities *element
	creating     map[string]chan struct{} // per VM, closed when libvirtd has answered our request to start it
	calls        sync.WaitGroup           // calls into libvirt, also those nobody waits for any more
}

// New returns the hypervisor behind cfg.URI. It does not connect. The error says
// in one sentence what is missing where libvirt is not installed.
func New(cfg Config) (*Hypervisor, error) {
	version, err := libvirt.GetVersion()
	if err != nil {
		return nil, fmt.Errorf("%w: libvirt.so.0 is not installed (Debian: apt install libvirt0 libvirt-daemon-system)",
			vmmanager.ErrUnavailable)
	}
	if err := startLoop(); err != nil {
		return nil, fmt.Errorf("start libvirt event loop: %w", err)
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Hypervisor{
		uri: cmp.Or(cfg.URI, "qemu:///system"), runDir: cmp.Or(cfg.RunDir, defaultRunDir), log: cfg.Logger,
		reconnect: version >= reconnectSince, dials: make(chan struct{}, 8), trial: newTrial(),
		creating: map[string]chan struct{}{},
	}, nil
}

// Close refuses new calls and waits for those in flight, at most 10 s: a
// libvirtd that hangs while a connection is being opened cannot be left sooner.
// End the contexts of Watch first.
func (h *Hypervisor) Close() error {
	h.mu.Lock()
	h.closed = true
	h.mu.Unlock()
	done := make(chan struct{})
	go func() {
		h.calls.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-time.After(closeTime):
		return fmt.Errorf("close libvirt: %w", vmmanager.ErrUnavailable)
	}
}

// State tells what the VM does now.
func (h *Hypervisor) State(ctx context.Context, name string) (vmmanager.State, error) {
	now, err := h.status(ctx, name, readTime)
	return now.state, err
}

// status is State together with the run it is about. A VM that is not defined is Absent, which is no error.
func (h *Hypervisor) status(ctx context.Context, name string, limit time.Duration) (status, error) {
	now, err := of(ctx, h, name, limit, statusOf)
	if errors.Is(err, vmmanager.ErrNotFound) {
		return status{state: vmmanager.Absent}, nil
	}
	if err != nil {
		return status{}, fmt.Errorf("read state of %s: %w", name, err)
	}
	return now, nil
}

// Start makes the VM run. A VM that is paused because a disk did not answer is
// resumed until it stays running: the first resume fails again while QEMU still
// has the broken connection. One that somebody paused has its disks back and is left
// so. A saved memory image is dropped, because the disks may have gone on on the other
// node since it was taken; that of a Refit is not, which Start waits for. While libvirt itself holds the VM (it is
// just being saved, or ended) Start waits. It returns ErrNotFound if there is no such VM, ErrUnavailable while
// libvirtd is away.
func (h *Hypervisor) Start(ctx context.Context, name string) error {
	// A VM that is off during a refit has not crashed.
	if err := h.refits.wait(ctx, name); err != nil {
		return err
	}
	now, err := h.status(ctx, name, readTime)
	for ; err == nil && now.passing(); now, err = h.status(ctx, name, readTime) {
		if err := sleep(ctx, passTime); err != nil {
			return fmt.Errorf("start %s: %w", name, err)
		}
	}
	if err != nil {
		return err
	}
	switch now.state {
	case vmmanager.Running, vmmanager.Paused:
		return h.letIn(ctx, name)
	case vmmanager.Absent:
		return fmt.Errorf("start %s: %w", name, vmmanager.ErrNotFound)
	case vmmanager.IOError:
		if err := h.letIn(ctx, name); err != nil {
			return err
		}
		return h.resumeUntilItStays(ctx, name)
	case vmmanager.Crashed: // kept for inspection: the process must go before a new one may come
		if err := h.Kill(ctx, name); err != nil {
			return err
		}
	}
	return h.create(ctx, name)
}

// letIn lets the QEMU of a VM that has one open its endpoints.
func (h *Hypervisor) letIn(ctx context.Context, name string) error {
	err := h.with(ctx, name, writeTime, func(conn *libvirt.Connect,
		dom *libvirt.Domain) error {
		return h.grant(conn, dom)
	})
	if err != nil {
		return fmt.Errorf("start %s: %w", name, err)
	}
	return nil
}

// create starts a VM that is off, without any memory that was saved.
func (h *Hypervisor) create(ctx context.Context, name string) error {
	err := h.bringUp(ctx, name, writeTime, func(dom *libvirt.Domain) error {
		// Told, since an admin may have saved it on purpose; the contract of Start has it dropped.
		if saved, err := dom.HasManagedSaveImage(0); err == nil && saved {
			h.log.Warn("saved memory of the VM is dropped, it may be older than its disks", "vm", name)
		}
		return h.withoutMissing(name, dom, func() error { return dom.CreateWithFlags(libvirt.DOMAIN_START_FORCE_BOOT) })
	})
	var refused libvirt.Error
	if errors.As(err, &refused) && refused.Code == libvirt.ERR_OPERATION_INVALID {
		// Somebody else may have started it meanwhile.
		if state, err := h.State(ctx, name); err == nil && state == vmmanager.Running {
			return nil
		}
	}
	if err != nil {
		return fmt.Errorf("start %s: %w", name, err)
	}
	return nil
}

// bringUp has libvirtd make a process of a VM that is off, in which its endpoints can be opened. QEMU opens its
// disks while libvirt starts it, so the sockets are given away before. The ends of earlier runs are marked as past
// before too, since the new run's events may be told before the call returns.
func (h *Hypervisor) bringUp(ctx context.Context, name string, limit time.Duration,
	up func(*libvirt.Domain) error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel() // a request that has not gone out by then never does
	return h.with(ctx, name, limit, func(conn *libvirt.Connect, dom *libvirt.Domain) error {
		answered, err := h.beginCreate(ctx, name)
		if err != nil {
			return err
		}
		defer answered()
		if err := h.grant(conn, dom); err != nil {
			return err
		}
		h.stops.begin(name)
		if err := up(dom); err != nil {
			return err
		}
		h.stops.began(name, runOf(dom))
		return nil
	})
}

// beginCreate notes that a start is with libvirtd until the returned function
// is called. It fails once ctx has ended: after that, a Kill may have said that the VM is gone. One start of a VM
// is under way at a time; another gets ErrUnavailable.
func (h *Hypervisor) beginCreate(ctx context.Context, name string) (answered func(), err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if h.creating[name] != nil {
		return nil, fmt.Errorf("%w: a start of it is under way", vmmanager.ErrUnavailable)
	}
	done := make(chan struct{})
	h.creating[name] = done
	return func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		delete(h.creating, name)
		close(done)
	}, nil
}

// resume lets a paused VM go on. It may pause again at once: see stays.
func (h *Hypervisor) resume(ctx context.Context, name string) error {
	err := h.onDomain(ctx, name, writeTime, (*libvirt.Domain).Resume)
	if err != nil {
		return fmt.Errorf("resume %s: %w", name, err)
	}
	return nil
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
