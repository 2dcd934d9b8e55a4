package protect_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"duet/console/api"
	"duet/vmmanager"
)

// endings counts how the runs of a test ended.
type endings map[string]int

// TestCutAnywhere: a daemon that dies at any call that changes something, before or after the change, leaves a protect
// or a release that its next run brings to one of its two ends, also when that dies once more on its way.
func TestCutAnywhere(t *testing.T) {
	for _, c := range []struct {
		name  string
		state vmmanager.State
		kind  string
	}{
		{"protect of a running VM", vmmanager.Running, "protect"},
		{"protect of a VM that is off", vmmanager.Off, "protect"},
		{"release of a running VM", vmmanager.Running, "release"},
		{"release of a VM that is off", vmmanager.Off, "release"},
	} {
		t.Run(c.name, func(t *testing.T) {
			ends := endings{}
			cuts := 0
			for first := 1; ; first++ {
				if !cutAt(t, c.state, c.kind, first, false, 0, ends) {
					break
				}
				cuts++
				cutAt(t, c.state, c.kind, first, true, 0, ends)
				for second := 1; second < 8; second++ {
					cutAt(t, c.state, c.kind, first, first%2 == 0, second, ends)
				}
			}
			if len(ends) != 2 || cuts < 8 {
				t.Errorf("%d cuts, ends %v: both ends should be met", cuts, ends)
			}
		})
	}
}

// cutAt runs one work in a world whose daemon dies at the first-th change (half: after it was made), the run after it
// at the second-th (0: not), and the next one not. It returns false if the work got through before.
func cutAt(t *testing.T, state vmmanager.State, kind string, first int, half bool, second int,
	ends endings) (died bool) {
	t.Helper()
	where := fmt.Sprintf("cut at %d (after: %v), then at %d", first, half, second)
	w := newWorld(t, state)
	if kind == "release" {
		w.run(0, false, func(d *daemon) { d.finish(d.works.Protect(d.ctx, "web01", api.ProtectRequest{})) })
		if !w.protected() {
			t.Fatalf("%s: it was not protected", where)
		}
	}
	died = w.run(first, half, func(d *daemon) {
		if kind == "release" {
			d.follow(d.works.Release(d.ctx, w.here["web01"].Module, api.ReleaseRequest{}))
		} else {
			d.follow(d.works.Protect(d.ctx, "web01", api.ProtectRequest{}))
		}
	})
	if second > 0 {
		w.run(second, half, func(d *daemon) { d.settle() })
	}
	w.run(0, false, func(d *daemon) { d.settle() })
	if faults := w.faults(state); len(faults) > 0 {
		t.Errorf("%s: %s", where, strings.Join(faults, "; "))
	}
	if died {
		ends[map[bool]string{true: "protected", false: "its own disks"}[w.protected()]]++
	}
	return died
}

// TestReleaseWithoutGrant: a VM whose process cannot be given its images stays protected.
func TestReleaseWithoutGrant(t *testing.T) {
	w := newWorld(t, vmmanager.Running)
	w.run(0, false, func(d *daemon) { d.finish(d.works.Protect(d.ctx, "web01", api.ProtectRequest{})) })
	w.deny = true
	w.run(0, false, func(d *daemon) {
		d.follow(d.works.Release(d.ctx, w.here["web01"].Module, api.ReleaseRequest{}))
		if d.failed == nil {
			t.Error("it was released")
		}
		d.settle()
	})
	if faults := w.faults(vmmanager.Running); len(faults) > 0 || !w.protected() {
		t.Errorf("protected %v: %v", w.protected(), faults)
	}
}

// faults are what is wrong with a world in which no work is left.
func (w *world) faults(state vmmanager.State) (out []string) {
	bad := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	ctx := context.Background()
	if len(w.store) > 0 {
		bad("plans are left: %v", w.store)
	}
	def, err := w.hv.Definition(ctx, "web01")
	now, stateErr := w.hv.State(ctx, "web01")
	if err != nil || stateErr != nil {
		return append(out, fmt.Sprint(err, stateErr))
	}
	if now != state || def.Saved {
		bad("the VM is %v, it was %v; saved %v", now, state, def.Saved)
	}
	defs := []vmmanager.Definition{def}
	if live, ok := w.hv.Live("web01"); ok && now == vmmanager.Running {
		defs = append(defs, live)
	}
	_, here := w.here["web01"]
	_, there := w.there["web01"]
	if here != there || here != w.begun["web01"] {
		bad("the module is stored here %v, begun %v, stored on the peer %v", here, w.begun["web01"], there)
	}
	for _, d := range defs {
		on := w.hv.On(d)
		switch {
		case here && len(on) != 2:
			bad("it is protected, and its VM is on %v", d.Disks)
		case !here && len(on) != 0:
			bad("it is not protected, and its VM is on %v", d.Disks)
		}
		if here {
			continue
		}
		for _, disk := range d.Disks {
			if !w.images[disk.Path] {
				bad("its disk %s is gone", disk.Path)
			}
		}
	}
	if here {
		for _, v := range w.here["web01"].Module.Volumes() {
			if !w.images[v.Paths["alpha"]] || !w.images["beta:"+v.Paths["beta"]] {
				bad("an image of %s is gone", v.Target)
			}
		}
		return out
	}
	used := func(path string) bool {
		return slices.ContainsFunc(def.Disks, func(d vmmanager.Disk) bool { return d.Path == path })
	}
	for path := range w.images {
		if strings.Contains(path, made) && !strings.HasPrefix(path, "beta:") && !used(path) {
			bad("image %s is left", path)
		}
		if strings.HasPrefix(path, "beta:") && !w.was { // after a release it keeps them
			bad("image %s is left", path)
		}
	}
	return out
}
