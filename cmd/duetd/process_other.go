//go:build !linux && !windows

package main

import (
	"context"
	"fmt"
	"log/slog"

	"duet/appmodules/workload"
	"duet/cmd/node"
	"duet/vmmanager"
)

// hypervisor refuses: there is none that Duet knows on this system.
func hypervisor(string, *slog.Logger) (workload.Hypervisor, func()) {
	return vmmanager.Unavailable{Err: fmt.Errorf("%w: neither KVM nor Hyper-V on this system", vmmanager.ErrUnavailable)},
		func() {}
}

// urgent does nothing.
func urgent(*slog.Logger) {}

// stayInMemory does nothing: there is no guard on this system.
func stayInMemory(*slog.Logger) {}

// sockets are not kept on this system.
func sockets(*slog.Logger) node.Sockets { return nil }

// ready waits until ctx ends: nobody is to be told, and nothing feeds a watchdog.
func ready(ctx context.Context, _ *slog.Logger) { <-ctx.Done() }

// computerStops is not known on this system: a stop of the daemon leaves the VMs.
func computerStops(*slog.Logger) bool { return false }

// stopping does nothing.
func stopping() {}
