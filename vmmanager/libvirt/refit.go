//go:build linux && cgo && libvirt_dlopen

package libvirt

import (
	"context"
	"errors"
	"fmt"
	"time"

	"libvirt.org/go/libvirt"

	"duet/vmmanager"
)

// saveTime limits the saving and loading of a guest's memory; both take as long as the disk needs.
const saveTime = time.Hour

// Refit exchanges the definition of a running VM without a reboot. Its memory goes
// into libvirt's managed save image, so it is in a place that libvirt may use and
// needs as much room there as the guest has memory. libvirt checks that the guest
// would find the same devices before anything is changed. Watchers see the VM go
// off by Duet and come back. If this process dies in between, the VM is off: see Reload.
func (h *Hypervisor) Refit(ctx context.Context, def vmmanager.Definition, between func() error) error {
	if err := h.refit(ctx, def, between); err != nil {
		return fmt.Errorf("refit %s: %w", def.Name, err)
	}
	return nil
}

func (h *Hypervisor) refit(ctx context.Context, def vmmanager.Definition, between func() error) error {
	now, err := h.status(ctx, def.Name, readTime)
	switch {
	case err != nil:
		return err
	case now.state == vmmanager.Absent:
		return vmmanager.ErrNotFound
	case now.state == vmmanager.Off:
		if err := h.redefine(ctx, def, between); err != nil {
			return err
		}
		return h.onDomain(ctx, def.Name, writeTime, dropSaved)
	case now.state != vmmanager.Running:
		return fmt.Errorf("it is %s", now.state)
	}
	h.stops.note(def.Name, now.run, asked)
	if err := h.save(ctx, def.Name); err != nil {
		return err
	}
	// From here on the VM is off, and whatever happens it must run again.
	lasting := context.WithoutCancel(ctx)
	err = ctx.Err()
	if err == nil {
		err = h.exchange(lasting, def, between)
	}
	return errors.Join(err, h.load(lasting, def.Name))
}

// Reload ends a Refit whose process died.
func (h *Hypervisor) Reload(ctx context.Context, def vmmanager.Definition, between func() error) error {
	if err := h.reload(ctx, def, between); err != nil {
		return fmt.Errorf("reload %s: %w", def.Name, err)
	}
	return nil
}

func (h *Hypervisor) reload(ctx context.Context, def vmmanager.Definition, between func() error) error {
	now, err := h.bare(ctx, def.Name)
	if err != nil {
		return err
	}
	if !now.Saved {
		return h.refit(ctx, def, between)
	}
	if err := h.exchange(ctx, def, between); err != nil {
		return err
	}
	return h.load(ctx, def.Name)
}

// exchange gives a VM that is off with its memory saved another definition, the saved
// guest too, and calls between. What fails leaves both as they were.
func (h *Hypervisor) exchange(ctx context.Context, def vmmanager.Definition, between func() error) error {
	old, err := h.refitSaved(ctx, def.Name, string(def.Text))
	if err != nil {
		return err
	}
	if err := h.redefine(ctx, def, between); err != nil {
		_, backErr := h.refitSaved(ctx, def.Name, old)
		return errors.Join(err, backErr)
	}
	return nil
}

// redefine exchanges the persistent definition and calls between; if that fails it puts the old one back.
func (h *Hypervisor) redefine(ctx context.Context, def vmmanager.Definition, between func() error) error {
	old, err := h.bare(ctx, def.Name)
	if err != nil {
		return err
	}
	if err := h.Define(ctx, def); err != nil {
		return err
	}
	if err := between(); err != nil {
		return errors.Join(err, h.Define(ctx, old))
	}
	return nil
}

// dropSaved forgets memory that was saved: it may be older than the disks.
func dropSaved(dom *libvirt.Domain) error {
	saved, err := dom.HasManagedSaveImage(0)
	if err != nil || !saved {
		return err
	}
	return dom.ManagedSaveRemove(0)
}

// save writes the guest's memory and ends its process. When ctx ends first the
// saving is ended and the VM runs on, unless it was just done: then save succeeds.
func (h *Hypervisor) save(ctx context.Context, name string) error {
	saved := make(chan error, 1)
	go func() {
		saved <- h.onDomain(context.WithoutCancel(ctx), name, saveTime, func(dom *libvirt.Domain) error {
			return dom.ManagedSave(libvirt.DOMAIN_SAVE_RUNNING)
		})
	}()
	for {
		select {
		case err := <-saved:
			if err != nil {
				return errors.Join(fmt.Errorf("save memory: %w", err), ctx.Err())
			}
			return nil
		case <-ctx.Done():
		}
		// It fails while the saving has not begun or is over; then the next round tells.
		_ = h.onDomain(context.WithoutCancel(ctx), name, readTime, (*libvirt.Domain).AbortJob)
		select {
		case err := <-saved:
			saved <- err
		case <-time.After(copyLook):
		}
	}
}

// refitSaved makes the saved guest come back with another definition, and returns the one it had.
func (h *Hypervisor) refitSaved(ctx context.Context, name, text string) (old string, err error) {
	err = h.onDomain(ctx, name, readTime, func(dom *libvirt.Domain) error {
		was, err := dom.ManagedSaveGetXMLDesc(libvirt.DOMAIN_SAVE_IMAGE_XML_SECURE)
		if err != nil {
			return err
		}
		if err := dom.ManagedSaveDefineXML(text, uint32(libvirt.DOMAIN_SAVE_RUNNING)); err != nil {
			return err
		}
		old = was
		return nil
	})
	return old, err
}

// load lets a saved guest go on.
func (h *Hypervisor) load(ctx context.Context, name string) error {
	err := h.onDomain(ctx, name, saveTime, func(dom *libvirt.Domain) error {
		answered, err := h.beginCreate(ctx, name)
		if err != nil {
			return err
		}
		defer answered()
		return dom.CreateWithFlags(libvirt.DOMAIN_NONE)
	})
	if err != nil {
		return fmt.Errorf("go on from saved memory: %w", err)
	}
	return nil
}
