package testcluster

import (
	"context"
	"path/filepath"

	"duet/testbed/proc"
)

// LaunchGuard starts the guard beside the daemon, as systemd does, unless it runs. It does not wait for it. On a
// real host it is a unit of its own, so it outlives the daemon.
func (h *Host) LaunchGuard() error {
	if h.guard != nil {
		select {
		case <-h.guard.Done():
		default:
			return nil
		}
	}
	p, err := h.Node.Start(proc.Spec{Path: filepath.Join(h.Bin, "duetd"), Args: []string{"guard"}, Output: h.GuardLog()})
	if err == nil {
		h.guard = p
	}
	return err
}

// LaunchApps starts duetd apps beside the daemon, as systemd does, unless it runs. It does not wait for it.
func (h *Host) LaunchApps() error {
	if h.apps != nil {
		select {
		case <-h.apps.Done():
		default:
			return nil
		}
	}
	p, err := h.Node.Start(proc.Spec{Path: filepath.Join(h.Bin, "duetd"), Args: []string{"apps"},
		Output: filepath.Join(h.cluster.cfg.Dir, h.Name, "apps.log")})
	if err == nil {
		h.apps = p
	}
	return err
}

// Guard is the guard's process. nil before the first start; perhaps ended.
func (h *Host) Guard() *proc.Process { return h.guard }

// GuardLog is the file of the guard's messages.
func (h *Host) GuardLog() string { return filepath.Join(h.cluster.cfg.Dir, h.Name, "guard.log") }

// KillGuard ends the guard by SIGKILL.
func (h *Host) KillGuard(ctx context.Context) error {
	if err := h.guard.Kill(); err != nil {
		return err
	}
	_, err := h.guard.Wait(ctx)
	return err
}
