package vmmanager

import (
	"context"
	"errors"
)

var (
	// ErrNotFound is returned when no VM of that name is defined.
	ErrNotFound = errors.New("no such VM")
	// ErrUnsupported is returned when a VM has something Duet cannot protect; the message names it and the remedy.
	ErrUnsupported = errors.New("not supported")
	// ErrUnavailable is returned when the hypervisor does not answer; the call may be repeated.
	ErrUnavailable = errors.New("hypervisor not reachable")
)

// Hypervisor runs virtual machines on this node. Each call moves a VM to a state
// and succeeds if it is there already. All methods may be called by several
// goroutines; each returns when done or when ctx ends, and an error leaves the
// VM as it was unless it says otherwise.
type Hypervisor interface {
	// State tells what the VM does now.
	State(ctx context.Context, name string) (State, error)
	// Definition returns the persistent definition. ErrNotFound if there is none, and
	// ErrUnsupported as well if the VM is transient: it runs without one.
	Definition(ctx context.Context, name string) (Definition, error)
	// Define stores the definition, replacing one of the same name. Running VMs are not
	// touched. A VM on endpoints is never started by the hypervisor itself, whatever
	// Autostart says.
	Define(ctx context.Context, def Definition) error
	// Start makes the VM run: starts it without any memory that was saved, or lets it go on
	// after a disk did not answer. One that somebody paused stays so, which is no error.
	Start(ctx context.Context, name string) error
	// Shutdown asks the guest to stop and waits for it; when ctx ends first it returns ctx's error.
	Shutdown(ctx context.Context, name string) error
	// Kill ends the VM. It returns nil only when the guest can no longer write.
	Kill(ctx context.Context, name string) error
	// Watch sends an Event for every change of every VM until ctx ends, then
	// closes the channel. After a lost connection it reconnects by itself and sends
	// the present state of each VM with cause ByReconnect. A slow reader loses
	// intermediate events, never the last one of a VM.
	Watch(ctx context.Context) (<-chan Event, error)
}

// Protector changes what a VM's disks are backed by. It is separate from
// Hypervisor because only kinds that can do it implement it.
type Protector interface {
	// Rewire returns def with the named disks backed by the endpoints instead of
	// files, set so that an endpoint that goes away pauses the VM and never shows the
	// guest an error, and so that the hypervisor does not start it by itself. Pure.
	Rewire(def Definition, endpoints []Endpoint) (Definition, error)
	// Adopt copies a disk of a running VM into the endpoint while it runs, over whatever
	// that holds, and switches the VM over to it. The persistent definition follows
	// where it named the same disk, so that it tells where the newest data are. progress
	// is called now and then with bytes copied and bytes in all. On error the VM runs on
	// as before.
	Adopt(ctx context.Context, name string, to Endpoint, progress func(done, total int64)) error
	// Release is the way back: copies the disk of a running VM from its endpoint
	// into to (a raw file made by the caller, of the disk's size) and switches over.
	Release(ctx context.Context, name string, to Disk, progress func(done, total int64)) error
	// Restore is the inverse of Rewire: it returns def with the named disks backed by files
	// again. own is the VM's definition before it was rewired: what Rewire changed of a disk
	// becomes what it was there. Without it (no Text) such disks keep pausing the VM on errors. Pure.
	Restore(def, own Definition, disks []Disk) (Definition, error)
	// Harden returns def with the named disks set to pause the VM on errors. Pure.
	Harden(def Definition, targets []string) (Definition, error)
	// Refit exchanges the definition of a running VM without a reboot: its memory is
	// saved, edit makes its new definitions of the persistent one and, apart from that, of
	// the one that it runs with, between is called while it stands still, and it goes on. If
	// saving, edit or between fails it goes on as before; a guest only sees a pause. One that this host could not start
	// again as it is now (a network has gone since) is not saved: the error says why, and what mends it. An edit
	// that changes nothing of a running VM does not pause it. Of a VM that is off only the
	// persistent definition is exchanged; memory saved by somebody else stays if it is fit
	// for the new definition.
	Refit(ctx context.Context, name string, edit Edit, between func() error) error
	// Reload ends a Refit whose process died: the VM, off with its memory saved, gets the
	// definitions that edit makes, between is called, and it goes on. If between fails it
	// stays as it is. A VM whose memory is not saved is treated as by Refit.
	Reload(ctx context.Context, name string, edit Edit, between func() error) error
	// Wake lets a VM that is off go on from its saved memory. The caller knows that its
	// disks are as they were when it was saved.
	Wake(ctx context.Context, name string) error
	// Strays are the disks of the running VM that are not on the endpoints, and those that
	// have none; none of a VM that is off. A disk that is being copied elsewhere is still
	// where it was.
	Strays(ctx context.Context, name string, endpoints []Endpoint) ([]Stray, error)
	// Grant gives files to the user whom the VM's process runs as, or will when it starts.
	Grant(ctx context.Context, name string, paths []string) error
	// Runs returns nil if the process is the one that runs the VM: the only one that may
	// open its endpoints. It is quick and needs no daemon of the hypervisor.
	Runs(name string, pid int) error
	// Endpoints are those of Duet's that the VM's disks are on: of the running VM, or of
	// the definition of one that is off.
	Endpoints(ctx context.Context, name string) ([]Endpoint, error)
	// On returns the endpoints that disks of the definition are on. Pure.
	On(def Definition) []Endpoint
	// Obstacles are all that keeps Duet from protecting a VM of that definition. Pure.
	Obstacles(def Definition) []Finding
	// Judge tells all that would keep a VM of that definition from running on this host, or
	// make it another one than elsewhere. It changes nothing. Sockets of Duet's endpoints
	// need not be there. What only matters while the VM is off is left out while it runs here.
	Judge(ctx context.Context, def Definition) ([]Finding, error)
	// Undefine forgets a stopped VM; its disks stay.
	Undefine(ctx context.Context, name string) error
}
