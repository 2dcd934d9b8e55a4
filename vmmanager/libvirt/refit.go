//go:build linux && cgo && libvirt_dlopen

package libvirt

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"libvirt.org/go/libvirt"

	"duet/vmmanager"
)

// saveTime limits the saving and loading of a guest's memory; both take as long as the disk needs.
const saveTime = time.Hour

// Refit exchanges the definitions of a running VM without a reboot. Its memory goes
// into libvirt's managed save image, so it is in a place that libvirt may use and
// needs as much room there as the guest has memory. The image keeps the definition that the VM runs with, which is not
// the persistent one: it has what was plugged in while it ran, and what libvirt made of the host's CPU. libvirt checks
// that the guest would find the same devices before anything is changed. Watchers see the VM go off by Duet and come
// back. If this process dies in between, the VM is off: see Reload. While it lasts Start and Wake wait: what takes
// the VM for crashed and starts it would drop its memory.
func (h *Hypervisor) Refit(ctx context.Context, name string, edit vmmanager.Edit, between func() error) error {
	defer h.refits.begin(name)()
	if err := h.refit(ctx, name, edit, between); err != nil {
		return fmt.Errorf("refit %s: %w", name, err)
	}
	return nil
}

// refit needs a VM that runs or is off: a paused one would be running afterwards. The edits are tried on the live
// definition first, where an error costs the guest nothing, and so is whether the host has still what that asks for.
func (h *Hypervisor) refit(ctx context.Context, name string, edit vmmanager.Edit, between func() error) error {
	now, err := h.status(ctx, name, probeTime)
	switch {
	case err != nil:
		return err
	case now.state == vmmanager.Absent:
		return vmmanager.ErrNotFound
	case now.state == vmmanager.Off:
		return h.exchange(ctx, name, edit, between)
	case now.state != vmmanager.Running:
		return fmt.Errorf("it is %s", now.state)
	}
	edited, changes, err := h.changesLive(ctx, name, edit)
	if err != nil {
		return err
	} else if !changes {
		return h.redefine(ctx, name, edit, between)
	}
	switch lacks, err := h.lacks(ctx, edited); {
	case err != nil:
		return err
	case lacks != "":
		return fmt.Errorf("it would not go on here once it is saved: %s", lacks)
	}
	// The end of this run is Duet's doing, and must not be taken for an admin's save.
	takeBack := h.stops.note(name, now.run, asked)
	lasting := context.WithoutCancel(ctx)
	if err := h.save(ctx, name); err != nil {
		// The VM runs on, and how that ends is not Duet's doing. One that libvirt still holds may be saved yet.
		if on, lookErr := h.status(lasting, name, readTime); lookErr != nil || on.run == now.run && !on.passing() {
			takeBack()
		}
		return err
	}
	// From here on the VM is off, and whatever happens it must run again. So ctx ends nothing any more, each call
	// has its own limit.
	err = ctx.Err()
	if err == nil {
		err = h.exchange(lasting, name, edit, between)
	}
	return errors.Join(err, h.load(lasting, name))
}

// changesLive is the definition of the running VM with an edit, and whether that changes anything. It costs no pause.
func (h *Hypervisor) changesLive(ctx context.Context, name string, edit vmmanager.Edit) ([]byte, bool, error) {
	live, err := h.live(ctx, name)
	if err != nil {
		return nil, false, err
	}
	edited, err := edit(vmmanager.Definition{Name: name, Text: live})
	return edited.Text, err == nil && !bytes.Equal(live, edited.Text), err
}

// lacks says what this host has not that keeps a VM of a definition from starting, each with its remedy; empty:
// nothing. It is Judge without the dry run: QEMU has started the VM here as it is, and what is around it may have gone
// since.
func (h *Hypervisor) lacks(ctx context.Context, text []byte) (string, error) {
	domain, err := parseXML(text)
	if err != nil {
		return "", err
	}
	here, err := h.look(ctx)
	if err != nil {
		return "", err
	}
	var all []string
	for _, f := range vmmanager.Refusals(judge(needs(domain), here)) {
		all = append(all, f.Whole())
	}
	return strings.Join(all, "; "), nil
}

// live is the definition that the VM runs with. Secrets are in it, as an edit returns the whole text.
func (h *Hypervisor) live(ctx context.Context, name string) ([]byte, error) {
	return of(ctx, h, name, probeTime, func(dom *libvirt.Domain) ([]byte, error) {
		text, err := dom.GetXMLDesc(libvirt.DOMAIN_XML_SECURE)
		return []byte(text), err
	})
}

// Reload ends a Refit whose process died.
func (h *Hypervisor) Reload(ctx context.Context, name string, edit vmmanager.Edit, between func() error) error {
	defer h.refits.begin(name)()
	if err := h.reload(ctx, name, edit, between); err != nil {
		return fmt.Errorf("reload %s: %w", name, err)
	}
	return nil
}

// reload goes on where refit was cut: each of its parts leaves memory and definition fit for each other, so it does
// not matter where, and an edit may meet its own work. If loading fails the memory is kept, and it may be called
// again.
func (h *Hypervisor) reload(ctx context.Context, name string, edit vmmanager.Edit, between func() error) error {
	now, err := h.bare(ctx, name)
	if err != nil {
		return err
	}
	// Nothing was saved when the process died, or it went on already: then it is as any VM.
	if !now.Saved {
		return h.refit(ctx, name, edit, between)
	}
	if err := h.exchange(ctx, name, edit, between); err != nil {
		return err
	}
	return h.load(ctx, name)
}

// Wake lets a VM go on from its saved memory.
func (h *Hypervisor) Wake(ctx context.Context, name string) error {
	if err := h.refits.wait(ctx, name); err != nil {
		return err
	}
	if err := h.load(ctx, name); err != nil {
		return fmt.Errorf("wake %s: %w", name, err)
	}
	return nil
}

// exchange gives a VM that is off another definition, and its saved memory too if there is some, and calls between.
// What fails leaves both as they were. The saved one is first: there libvirt compares the devices, and refuses
// before anything else has changed.
func (h *Hypervisor) exchange(ctx context.Context, name string, edit vmmanager.Edit, between func() error) error {
	now, err := h.bare(ctx, name)
	if err != nil {
		return err
	}
	if !now.Saved {
		return h.redefine(ctx, name, edit, between)
	}
	old, err := h.refitSaved(ctx, name, edit)
	if err != nil {
		return err
	}
	if err := h.redefine(ctx, name, edit, between); err != nil {
		// The saved definition goes back as it was, byte for byte.
		same := func(def vmmanager.Definition) (vmmanager.Definition, error) { def.Text = old; return def, nil }
		_, backErr := h.refitSaved(ctx, name, same)
		return errors.Join(err, backErr)
	}
	return nil
}

// redefine exchanges the persistent definition and calls between; if that fails it puts the old one back. between
// comes last: once it has succeeded nothing is taken back any more.
func (h *Hypervisor) redefine(ctx context.Context, name string, edit vmmanager.Edit, between func() error) error {
	old, err := h.bare(ctx, name)
	if err != nil {
		return err
	}
	edited, err := edit(old)
	if err != nil {
		return err
	}
	if err := h.Define(ctx, edited); err != nil {
		return err
	}
	if err := between(); err != nil {
		return errors.Join(err, h.Define(ctx, old))
	}
	return nil
}

// save writes the guest's memory and ends its process. When ctx ends first the
// saving is ended and the VM runs on, unless it was just done: then save succeeds. ManagedSave cannot be cancelled
// by its caller, only by AbortJob from another connection.
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

// refitSaved makes the saved guest come back with an edit of the definition it ran with, and returns that. libvirt may
// question QEMU for it, which takes long on some hosts. The memory itself is not touched. DOMAIN_SAVE_RUNNING: it
// goes on running, not paused, whatever it was saved as.
func (h *Hypervisor) refitSaved(ctx context.Context, name string, edit vmmanager.Edit) (old []byte, err error) {
	return of(ctx, h, name, writeTime, func(dom *libvirt.Domain) ([]byte, error) {
		was, err := dom.ManagedSaveGetXMLDesc(libvirt.DOMAIN_SAVE_IMAGE_XML_SECURE)
		if err != nil {
			return nil, err
		}
		edited, err := edit(vmmanager.Definition{Name: name, Text: []byte(was)})
		if err != nil {
			return nil, err
		}
		return []byte(was), dom.ManagedSaveDefineXML(string(edited.Text), uint32(libvirt.DOMAIN_SAVE_RUNNING))
	})
}

// load lets a saved guest go on. Unlike create it takes no FORCE_BOOT, which would drop the memory. Its error says what
// the host lacks, where that is known: libvirt's names no remedy.
func (h *Hypervisor) load(ctx context.Context, name string) error {
	err := h.bringUp(ctx, name, saveTime, func(dom *libvirt.Domain) error {
		return dom.CreateWithFlags(
			libvirt.DOMAIN_NONE)
	})
	if err == nil {
		return nil
	}
	err = fmt.Errorf("go on from saved memory: %w", err)
	saved, look := of(ctx, h, name, readTime, func(dom *libvirt.Domain) (string, error) {
		return dom.ManagedSaveGetXMLDesc(0)
	})
	if look != nil { // it is not saved any more, or nobody can say
		return err
	}
	if lacks, look := h.lacks(ctx, []byte(saved)); look == nil && lacks != "" {
		err = fmt.Errorf("%w: %s", err, lacks)
	}
	return err
}
