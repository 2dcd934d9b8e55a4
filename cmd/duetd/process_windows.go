package main

import (
	"context"
	"fmt"
	"log/slog"

	"duet/appmodules/workload"
	"duet/cmd/node"
	"duet/vmmanager"
	"duet/vmmanager/hyperv"
)

// hyperV runs VMs through Hyper-V; changing their disks is refused.
type hyperV struct {
	vmmanager.Hypervisor
	vmmanager.Protector
}

// hypervisor uses Hyper-V on this computer; there is no address of another one, and nothing to close.
func hypervisor(_ string, _ *slog.Logger) (workload.Hypervisor, func()) {
	refuse := vmmanager.Unavailable{Err: fmt.Errorf("%w: disks of Hyper-V VMs", vmmanager.ErrUnsupported)}
	hv := hyperv.New()
	return hyperV{hv, refuse}, func() {}
}

// urgent does nothing: Windows services get their priority from the service manager.
func urgent(*slog.Logger) {}

// stayInMemory does nothing: there is no guard on this system.
func stayInMemory(*slog.Logger) {}

// sockets are not kept on this system.
func sockets(*slog.Logger) node.Sockets { return nil }

// ready waits until ctx ends: the service manager is not told.
func ready(ctx context.Context, _ *slog.Logger) { <-ctx.Done() }

// computerStops is not known on this system: a stop of the daemon leaves the VMs, also when the computer goes down.
func computerStops(*slog.Logger) bool { return false }

// stopping does nothing.
func stopping() {}
