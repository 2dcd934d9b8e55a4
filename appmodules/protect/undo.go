package protect

import (
	"context"
	"fmt"
	"slices"

	"duet/vmmanager"
)

// giveBack returns the VM to the disks it had. It may be repeated. What a VM on its volumes has written since counts:
// a running one is copied back, one that went off keeps the images of the volumes. The volumes are served until the
// VM has left them, and no longer.
func (p *protection) giveBack(ctx context.Context) error {
	hv, vm := p.w.cfg.Hypervisor, p.Definition.Name
	state, err := p.w.settled(ctx, vm)
	if err == nil && state != vmmanager.Absent { // else somebody has undefined it
		var on []vmmanager.Endpoint
		on, err = hv.Endpoints(ctx, vm)
		if err == nil && state != vmmanager.Off && len(on) > 0 {
			err = p.copyBack(ctx, state, on)
		}
		if err == nil {
			err = p.redefine(ctx, state, on)
		}
	}
	if err != nil {
		return fmt.Errorf("give VM %s its disks back: %w", vm, err)
	}
	return p.closeCopies()
}

// copyBack moves the running VM from the volumes back to its own images. In a run after a cut it first has to serve
// them again, on the sockets that QEMU tries to reach, and to let a VM go on that was paused when they went away: a
// VM that stands still copies nothing.
func (p *protection) copyBack(ctx context.Context, state vmmanager.State, on []vmmanager.Endpoint) error {
	hv := p.w.cfg.Hypervisor
	if slices.ContainsFunc(p.copies, func(s *seeding) bool { return s.failure() != nil }) {
		_ = p.closeCopies() // what can still be read is served anew
	}
	if err := p.serve(ctx); err != nil {
		return err
	}
	if state == vmmanager.IOError {
		if err := hv.Start(ctx, p.Definition.Name); err != nil {
			return err
		}
	}
	for _, d := range p.Definition.Disks {
		for _, e := range on {
			if e.Target != d.Target {
				continue
			}
			if err := hv.Release(ctx, p.Definition.Name, d, func(int64, int64) {}); err != nil {
				return err
			}
		}
	}
	return nil
}

// redefine gives the VM its own definition. The images of a VM that went off while it was on the volumes are newer
// than its own: it keeps those.
func (p *protection) redefine(ctx context.Context, state vmmanager.State, on []vmmanager.Endpoint) error {
	hv, def := p.w.cfg.Hypervisor, p.Definition
	if state != vmmanager.Off {
		return hv.Define(ctx, def)
	}
	var newer []vmmanager.Disk
	for _, e := range on {
		for _, v := range p.Module.Volumes() {
			image := p.w.cfg.Volumes.Disk(v)
			if v.Target == e.Target && !p.has(image) {
				newer = append(newer, image)
				p.keepImage(image.Path)
			}
		}
	}
	def, err := hv.Restore(def, def, newer)
	if err != nil {
		return err
	}
	def.Disks = placed(p.Definition.Disks, newer)
	if len(newer) > 0 {
		// From here on this is what the VM has, also for a run that begins after the definition has changed: it could not
		// see any more that the images are in use.
		p.Definition = def
		if err := p.w.keep(p.record); err != nil {
			return err
		}
	}
	now, err := hv.Definition(ctx, def.Name)
	if err != nil {
		return err
	}
	if now.Saved && p.Running { // the death came while its memory was saved, before any copy
		own := p.Definition
		back := func(now vmmanager.Definition) (vmmanager.Definition, error) { return hv.Restore(now, own, own.Disks) }
		return hv.Reload(ctx, def.Name, back, func() error { return nil })
	}
	return hv.Define(ctx, def)
}

// has reports whether that image is the one of the VM's own definition: that of one that was off stays where it is.
func (p *protection) has(image vmmanager.Disk) bool {
	return slices.ContainsFunc(p.Definition.Disks, func(d vmmanager.Disk) bool {
		return d.Target == image.Target && d.Path == image.Path
	})
}

// placed are the disks with those that lie elsewhere by now in their place.
func placed(all, newer []vmmanager.Disk) []vmmanager.Disk {
	out := slices.Clone(all)
	for _, d := range newer {
		if i := slices.IndexFunc(out, func(o vmmanager.Disk) bool { return o.Target == d.Target }); i >= 0 {
			out[i] = d
		}
	}
	return out
}

// keepImage takes an image off the list of those that are dropped. It is durable with the record.
func (p *protection) keepImage(path string) {
	for i, m := range p.Mine {
		if m.Path == path {
			p.Mine[i].Was = path
		}
	}
}
