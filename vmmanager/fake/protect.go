package fake

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"duet/vmmanager"
)

// Rewire returns def with the named disks backed by the endpoints: a disk's Path
// becomes the socket. The text stays as it is.
func (h *Hypervisor) Rewire(def vmmanager.Definition, endpoints []vmmanager.Endpoint) (vmmanager.Definition, error) {
	// The caller's stays as it was.
	def = clone(def)
	for _, to := range endpoints {
		if err := replace(&def, vmmanager.Disk{Target: to.Target, Path: to.Socket, Format: endpoint}); err != nil {
			return vmmanager.Definition{}, fmt.Errorf("rewire %s: %w", def.Name, err)
		}
	}
	return def, nil
}

// Restore returns def with the named disks backed by files again. Of own it takes Autostart only: nothing else of a
// fake disk is changed by Rewire.
func (h *Hypervisor) Restore(def, own vmmanager.Definition, disks []vmmanager.Disk) (vmmanager.Definition, error) {
	def = clone(def)
	def.Autostart = own.Autostart
	for _, d := range disks {
		if err := replace(&def, d); err != nil {
			return vmmanager.Definition{}, fmt.Errorf("restore %s: %w", def.Name, err)
		}
	}
	return def, nil
}

// Harden returns def: nothing shows a fake guest an error.
func (h *Hypervisor) Harden(def vmmanager.Definition, _ []string) (vmmanager.Definition, error) {
	return clone(def), nil
}

// Refit exchanges the definition of a running VM. Its writer has returned when
// between is called; watchers see the VM go off and come back. A VM that does not run has its definition exchanged
// and stays as it is.
func (h *Hypervisor) Refit(ctx context.Context, name string, edit vmmanager.Edit, between func() error) error {
	return h.refit(ctx, "refit", name, edit, between, func() bool {
		return h.leave(name, vmmanager.Off, vmmanager.ByDuet, vmmanager.Running)
	})
}

// Reload lets a VM go on whose memory is saved.
func (h *Hypervisor) Reload(ctx context.Context, name string, edit vmmanager.Edit, between func() error) error {
	now, err := h.Definition(ctx, name)
	if err == nil && !now.Saved {
		return h.Refit(ctx, name, edit, between)
	}
	return h.refit(ctx, "reload", name, edit, between, func() bool { return true })
}

func (h *Hypervisor) refit(ctx context.Context, verb, name string, edit vmmanager.Edit, between func() error,
	stop func() bool) error {
	if err := h.exchange(ctx, name, edit, between, stop); err != nil {
		return fmt.Errorf("%s %s: %w", verb, name, err)
	}
	return nil
}

// exchange exchanges the definitions while the VM is off; stop says whether it goes on afterwards. The edit is
// called without mu, with copies. If between fails the old definition is put back; a VM that stop has switched off
// goes on, and one that was found saved stays so.
func (h *Hypervisor) exchange(ctx context.Context, name string, edit vmmanager.Edit, between func() error,
	stop func() bool) error {
	old, err := h.Definition(ctx, name)
	if err != nil {
		return err
	}
	h.mu.Lock()
	// A VM that was never started has none.
	live := clone(h.vms[name].live)
	h.mu.Unlock()
	def, err := edit(clone(old))
	if err == nil && live.Name != "" {
		live, err = edit(live)
	}
	if err != nil {
		return err
	}
	if refused := h.refused(name); len(refused) > 0 {
		return fmt.Errorf("it would not go on here once it is saved: %s", refused[0].Whole())
	}
	// From here on the VM is off, until the end.
	goesOn := stop()
	err = h.Define(ctx, def)
	if err == nil {
		if err = between(); err != nil {
			err = errors.Join(err, h.Define(ctx, old))
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if v := h.vms[name]; goesOn && v.state == vmmanager.Off && (err == nil || !v.saved) {
		if err == nil {
			v.live = live
		}
		v.saved = false
		h.runLocked(name, v)
	}
	return err
}

// refused is what keeps a running VM from being started again, as SetFindings has set it.
func (h *Hypervisor) refused(name string) []vmmanager.Finding {
	h.mu.Lock()
	defer h.mu.Unlock()
	if v := h.vms[name]; v == nil || v.state != vmmanager.Running {
		return nil
	}
	return vmmanager.Refusals(h.findings[name])
}

// Wake lets a VM go on from its saved memory. The caller's word that the disks are as they were is not checked.
func (h *Hypervisor) Wake(ctx context.Context, name string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	v, err := h.findLocked(ctx, name)
	if err == nil && !v.saved {
		err = errors.New("its memory is not saved")
	}
	if err != nil {
		return fmt.Errorf("wake %s: %w", name, err)
	}
	v.saved = false
	h.runLocked(name, v)
	return nil
}

// Strays are the disks of the running VM that are elsewhere. Those of its live definition are compared by target
// and socket.
func (h *Hypervisor) Strays(ctx context.Context, name string, endpoints []vmmanager.Endpoint) ([]vmmanager.Stray,
	error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	v, err := h.findLocked(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("read disks of %s: %w", name, err)
	}
	if v.state == vmmanager.Off {
		return nil, nil
	}
	var found []vmmanager.Stray
	for _, d := range v.live.Disks {
		i := slices.IndexFunc(endpoints, func(to vmmanager.Endpoint) bool { return to.Target == d.Target })
		if i < 0 || d.Format != endpoint || d.Path != endpoints[i].Socket {
			found = append(found, vmmanager.Stray{Target: d.Target, On: d.Path, Extra: i < 0, Above: d.Format == layer})
		}
	}
	return found, nil
}

// Grant gives nothing away: a fake VM has no process. It fails as every call does, for a VM that is not there and a
// daemon that is away.
func (h *Hypervisor) Grant(ctx context.Context, name string, _ []string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	_, err := h.findLocked(ctx, name)
	return err
}

// Runs lets any process be the VM's: a fake one has none.
func (h *Hypervisor) Runs(string, int) error { return nil }

// layer is the Format of a disk that is a snapshot over an endpoint.
const layer = "layer"

// endpoint is the Format of a disk on an endpoint.
const endpoint = "endpoint"

// Endpoints are those of the running VM, or of the definition of one that is off.
func (h *Hypervisor) Endpoints(ctx context.Context, name string) ([]vmmanager.Endpoint, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	v, err := h.findLocked(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("read endpoints of %s: %w", name, err)
	}
	def := v.def
	if v.state != vmmanager.Off {
		def = v.live
	}
	return h.On(def), nil
}

// On returns the endpoints that disks of the definition are on.
func (h *Hypervisor) On(def vmmanager.Definition) []vmmanager.Endpoint {
	var out []vmmanager.Endpoint
	for _, d := range def.Disks {
		if d.Format == endpoint {
			out = append(out, vmmanager.Endpoint{Target: d.Target, Socket: d.Path})
		}
	}
	return out
}

// replace backs one disk by something else of the same size. The size stays what it was: an endpoint and an image
// are of the disk's size by contract.
func replace(def *vmmanager.Definition, by vmmanager.Disk) error {
	i := slices.IndexFunc(def.Disks, func(d vmmanager.Disk) bool { return d.Target == by.Target })
	if i < 0 {
		return fmt.Errorf("disk %s: %w: the definition has no such disk", by.Target, vmmanager.ErrUnsupported)
	}
	by.Size = def.Disks[i].Size
	def.Disks[i] = by
	return nil
}

// Adopt switches a disk of a running VM over to the endpoint. It copies nothing: a fake VM has no data. The VM has
// to be Running.
func (h *Hypervisor) Adopt(ctx context.Context, name string, to vmmanager.Endpoint,
	progress func(done, total int64)) error {
	return h.switchOver(ctx, name, vmmanager.Disk{Target: to.Target, Path: to.Socket, Format: endpoint}, progress)
}

// Release switches a disk of a running VM over to a file. It copies nothing.
func (h *Hypervisor) Release(ctx context.Context, name string, to vmmanager.Disk,
	progress func(done, total int64)) error {
	return h.switchOver(ctx, name, to, progress)
}

// switchOver moves a disk of the running VM and, where that names the disk, of the persistent definition, at once
// and with one call of progress. Nobody is told by an event.
func (h *Hypervisor) switchOver(ctx context.Context, name string, to vmmanager.Disk,
	progress func(done, total int64)) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	v, err := h.findLocked(ctx, name)
	if err == nil && v.state != vmmanager.Running {
		err = errors.New("the VM does not run")
	}
	if err == nil {
		err = replace(&v.live, to)
	}
	if err == nil {
		_ = replace(&v.def, to) // it may have been edited
	}
	if err != nil {
		return fmt.Errorf("switch disk %s of %s over: %w", to.Target, name, err)
	}
	if progress != nil {
		progress(1, 1)
	}
	return nil
}

// Undefine forgets a stopped VM. It succeeds if there is none.
func (h *Hypervisor) Undefine(ctx context.Context, name string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	v, err := h.findLocked(ctx, name)
	if errors.Is(err, vmmanager.ErrNotFound) {
		return nil
	}
	if err == nil && v.state != vmmanager.Off {
		err = fmt.Errorf("it is %s", v.state)
	}
	if err != nil {
		return fmt.Errorf("undefine %s: %w", name, err)
	}
	delete(h.vms, name)
	h.tellLocked(vmmanager.Event{VM: name, State: vmmanager.Absent, Cause: vmmanager.ByEdit})
	return nil
}
