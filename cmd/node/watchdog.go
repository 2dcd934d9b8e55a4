package node

import (
	"context"
	"fmt"

	"duet/cluster/watchdog"
)

// feedWatchdog has the watchdog reset this computer when the daemon hangs while it holds
// guests: nothing else ends a guest whose node no longer takes part. It ends last.
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

// healthy: the goroutine of every module answers.
func (n *Node) healthy(ctx context.Context) error {
	for _, m := range n.All() {
		if err := m.Run.Alive(ctx); err != nil {
			return fmt.Errorf("module %s does not answer: %w", m.Module.Name, err)
		}
	}
	return nil
}

// holdsGuests: what some module protects runs here, or may.
func (n *Node) holdsGuests() bool {
	for _, m := range n.All() {
		if m.Run.Holds() {
			return true
		}
	}
	return false
}
