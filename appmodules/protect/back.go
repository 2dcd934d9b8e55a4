package protect

import (
	"context"
	"fmt"
	"strings"
	"time"

	"duet/appmodules"
	"duet/console/api"
	"duet/vmmanager"
)

// Return copies the disks of a running VM that somebody has moved off their volumes back onto them while it runs. What
// is a layer over its volume is left to the hypervisor's own command, which only merges. Each disk is copied as a
// whole, over what its volume holds; disks that are on their volumes are left there. The module goes on alone
// meanwhile, as its engine has given the peer up when the disk left (kept.Strayed). A copy that fails leaves the disk
// where it is.
func (w *Works) Return(ctx context.Context, m appmodules.Module) (api.Task, error) {
	hv, vm := w.cfg.Hypervisor, m.Subject()
	strays, err := hv.Strays(ctx, vm, w.cfg.Modules.Endpoints(m))
	if err != nil {
		return api.Task{}, err
	}
	var away []string
	for _, d := range strays {
		switch {
		case d.Extra || d.On == "":
		case d.Above:
			return api.Task{}, fmt.Errorf("%w: disk %s is a snapshot over its volume: `virsh blockcommit %s %s --active "+
				"--pivot --wait` merges it",
				api.ErrConflict, d.Target, vm, d.Target)
		default:
			away = append(away, d.Target)
		}
	}
	if len(away) == 0 {
		return api.Task{}, fmt.Errorf("%w: every disk of VM %s that the module has is on its volume", api.ErrConflict, vm)
	}
	return w.cfg.Tasks.Run("return", m.Name, func(ctx context.Context, _ string, t Task) (string, error) {
		t.Step("lets the VM pause, not fail, when a disk does not answer")
		stop := func(def vmmanager.Definition) (vmmanager.Definition, error) { return hv.Harden(def, away) }
		if err := hv.Refit(ctx, vm, stop, func() error { return nil }); err != nil {
			return "", err
		}
		for _, e := range w.cfg.Modules.Endpoints(m) {
			began := time.Now()
			t.Step("copies disk %s back into its volume while the VM runs", e.Target)
			if err := hv.Adopt(ctx, vm, e, func(done, total int64) { t.Copied("adopt", done, total, began) }); err != nil {
				return "", err
			}
		}
		return fmt.Sprintf("disk %s of VM %s is on its volume again; the peer is resynced", strings.Join(away, ", "), vm), nil
	})
}
