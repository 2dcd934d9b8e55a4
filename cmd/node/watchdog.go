package node

import (
	"context"
	"fmt"

	"duet/cluster/watchdog"
)

// feedWatchdog has the watchdog reset this computer when the daemon hangs while it holds guests: nothing else ends
// a guest whose node no longer takes part. It ends after the modules: a hang in their end still resets the
// computer. It is fed by the answers of the modules (healthy); systemd's watchdog, which is fed apart from that
// (duetd's ready), only finds a process that does not run at all.
func (n *Node) feedWatchdog() {
	if n.cfg.Watchdog == "" {
		return
	}
	n.outlive("watchdog", func(ctx context.Context) {
		err := watchdog.Run(ctx, watchdog.GuardConfig{
			Open:     func() (watchdog.Dog, error) { return watchdog.Open(n.cfg.Watchdog, watchdog.DefaultTimeout) },
			Healthy:  n.healthy,
			Holds:    n.holdsGuests,
			Interval: watchdog.DefaultInterval,
			Logger:   n.log,
		})
		if err != nil {
			n.log.Error("no watchdog guards this node", "device", n.cfg.Watchdog, "err", err)
		}
	})
}

// healthy: the goroutine of every module answers, one after the other. A module that waits for its metadata disk
// counts as one that answers (engine.Alive): a slow disk is no reason for a reset.
func (n *Node) healthy(ctx context.Context) error {
	for _, m := range n.All() {
		if err := m.Run.Alive(ctx); err != nil {
			return fmt.Errorf("module %s does not answer: %w", m.Module.Name, err)
		}
	}
	return nil
}

// holdsGuests: what some module protects runs here, or may. It waits for no disk and no hypervisor.
func (n *Node) holdsGuests() bool {
	for _, m := range n.All() {
		if m.Run.Holds() {
			return true
		}
	}
	return false
}
