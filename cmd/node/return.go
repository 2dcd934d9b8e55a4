package node

import (
	"context"
	"fmt"
	"strings"
	"time"

	"duet/console/api"
	"duet/console/tasks"
	"duet/vmmanager"
)

// Return copies the disks of a running VM that somebody has moved off their volumes back onto them while it runs. What
// is a layer over its volume is left to the hypervisor's own command, which only merges.
func (n *Node) Return(ctx context.Context, name string) (api.Task, error) {
	m, err := n.module(name)
	if err != nil {
		return api.Task{}, err
	}
	if primary, _ := n.roles(m); primary != "" && primary != string(n.self()) {
		return api.Task{}, fmt.Errorf("%w: module %s is primary on %s: return it there", api.ErrConflict, name, primary)
	}
	hv, vm := n.cfg.Hypervisor, m.cfg.VM.Domain
	strays, err := hv.Strays(ctx, vm, n.endpoints(m.cfg))
	if err != nil {
		return api.Task{}, err
	}
	var away []string
	for _, d := range strays {
		switch {
		case d.Extra || d.On == "":
		case d.Above:
			return api.Task{}, fmt.Errorf("%w: disk %s is a snapshot over its volume: `virsh blockcommit %s %s --active --pivot --wait` merges it",
				api.ErrConflict, d.Target, vm, d.Target)
		default:
			away = append(away, d.Target)
		}
	}
	if len(away) == 0 {
		return api.Task{}, fmt.Errorf("%w: every disk of VM %s that the module has is on its volume", api.ErrConflict, vm)
	}
	return n.run("return", name, func(ctx context.Context, t *tasks.Task) (string, error) {
		t.Step("lets the VM pause, not fail, when a disk does not answer")
		stop := func(def vmmanager.Definition) (vmmanager.Definition, error) { return hv.Harden(def, away) }
		if err := hv.Refit(ctx, vm, stop, func() error { return nil }); err != nil {
			return "", err
		}
		for _, e := range n.endpoints(m.cfg) {
			began := time.Now()
			t.Step("copies disk %s back into its volume while the VM runs", e.Target)
			err := hv.Adopt(ctx, vm, e, func(done, total int64) { t.Progress(tasks.Rate("adopt", done, total, began)) })
			if err != nil {
				return "", err
			}
		}
		return fmt.Sprintf("disk %s of VM %s is on its volume again; the peer is resynced", strings.Join(away, ", "), vm), nil
	})
}
