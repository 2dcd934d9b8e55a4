//go:build linux && cgo && libvirt_dlopen

package libvirt

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"libvirt.org/go/libvirt"

	"duet/vmmanager"
)

// keepFiles undefines a domain and forgets what libvirt keeps about it, but not
// the guest's UEFI variables and disks. A saved memory image goes: without its
// definition it cannot be used.
const keepFiles = libvirt.DOMAIN_UNDEFINE_KEEP_NVRAM | libvirt.DOMAIN_UNDEFINE_MANAGED_SAVE |
	libvirt.DOMAIN_UNDEFINE_SNAPSHOTS_METADATA | libvirt.DOMAIN_UNDEFINE_CHECKPOINTS_METADATA

// wholeText asks for the persistent definition with its secrets, such as the password of the console.
const wholeText = libvirt.DOMAIN_XML_INACTIVE | libvirt.DOMAIN_XML_SECURE

// Definition returns the persistent definition and the disks in it that can be
// replicated. A transient VM has none: the error is ErrNotFound and ErrUnsupported. The images of those are opened
// for their size, which waits for the disk; one that cannot be read is an error.
func (h *Hypervisor) Definition(ctx context.Context, name string) (vmmanager.Definition, error) {
	return h.definition(ctx, name, measure)
}

// bare is Definition without the disks, whose images may be missing.
func (h *Hypervisor) bare(ctx context.Context, name string) (vmmanager.Definition, error) {
	return h.definition(ctx, name, func(*libvirt.Connect, *libvirt.Domain, []byte) ([]vmmanager.Disk, error) {
		return nil,
			nil
	})
}

func (h *Hypervisor) definition(ctx context.Context, name string,
	find func(*libvirt.Connect, *libvirt.Domain, []byte) ([]vmmanager.Disk, error)) (vmmanager.Definition, error) {
	def, err := ask(ctx, h, probeTime, func(conn *libvirt.Connect) (def vmmanager.Definition, err error) {
		dom, err := conn.LookupDomainByName(name)
		if err != nil {
			return def, err
		}
		defer dom.Free()
		if kept, err := dom.IsPersistent(); err != nil {
			return def, err
		} else if !kept {
			return def, fmt.Errorf("%w: %w: the VM is transient, make it persistent with virsh define",
				vmmanager.ErrNotFound, vmmanager.ErrUnsupported)
		}
		text, err := dom.GetXMLDesc(wholeText)
		if err != nil {
			return def, err
		}
		def.Name, def.Text = name, []byte(text)
		if def.Saved, err = dom.HasManagedSaveImage(0); err != nil {
			return def, err
		}
		if def.Autostart, err = dom.GetAutostart(); err != nil {
			return def, err
		}
		def.Disks, err = find(conn, dom, def.Text)
		return def, err
	})
	if err != nil {
		return vmmanager.Definition{}, fmt.Errorf("read definition of %s: %w", name, err)
	}
	return def, nil
}

// Endpoints are those that the disks of the running VM are on, or of one that is off. One that is off tells those
// of its persistent definition.
func (h *Hypervisor) Endpoints(ctx context.Context, name string) ([]vmmanager.Endpoint, error) {
	found, err := of(ctx, h, name, readTime, func(dom *libvirt.Domain) ([]vmmanager.Endpoint, error) {
		text, err := dom.GetXMLDesc(0) // live if it runs
		if err != nil {
			return nil, err
		}
		return h.On(vmmanager.Definition{Text: []byte(text)}), nil
	})
	if err != nil {
		return nil, fmt.Errorf("read endpoints of %s: %w", name, err)
	}
	return found, nil
}

// On returns the endpoints that disks of the definition are on.
func (h *Hypervisor) On(def vmmanager.Definition) []vmmanager.Endpoint {
	domain, err := parseXML(def.Text)
	if err != nil {
		return nil // libvirt would not take it either
	}
	var out []vmmanager.Endpoint
	for _, d := range disks(domain) {
		if socket := d.socket(); socket != "" {
			out = append(out, vmmanager.Endpoint{Target: d.target, Socket: socket})
		}
	}
	return out
}

// measure returns the disks of a definition that can be replicated, with path and size.
func measure(conn *libvirt.Connect, dom *libvirt.Domain, text []byte) ([]vmmanager.Disk, error) {
	domain, err := parseXML(text)
	if err != nil {
		return nil, err
	}
	found := replicable(domain)
	for i := range found {
		disk := &found[i]
		if disk.Path == "" {
			d, _ := findDisk(domain, disk.Target)
			source := d.child("source")
			if disk.Path, disk.Block, err = volume(conn, source.attr("pool"), source.attr("volume")); err != nil {
				return nil, fmt.Errorf("disk %s: %w", disk.Target, err)
			}
		}
		// libvirt would ask a running VM's QEMU, which may be busy for long, and refuses while the VM has the disk
		// elsewhere. It alone knows the formats of other hypervisors.
		disk.Size, err = imageSize(disk.Path, disk.Format)
		if errors.Is(err, errors.ErrUnsupported) {
			var info *libvirt.DomainBlockInfo
			if info, err = dom.GetBlockInfo(disk.Path, 0); err == nil {
				disk.Size = int64(info.Capacity)
			}
		}
		if err != nil {
			return nil, fmt.Errorf("measure disk %s: %w", disk.Target, err)
		}
	}
	return found, nil
}

// volume returns the path of a storage pool's volume and whether it is a block device.
func volume(conn *libvirt.Connect, pool, name string) (path string, block bool, err error) {
	p, err := conn.LookupStoragePoolByName(pool)
	if err != nil {
		return "", false, err
	}
	defer p.Free()
	v, err := p.LookupStorageVolByName(name)
	if err != nil {
		return "", false, err
	}
	defer v.Free()
	info, err := v.GetInfo()
	if err != nil {
		return "", false, err
	}
	if info.Type != libvirt.STORAGE_VOL_FILE && info.Type != libvirt.STORAGE_VOL_BLOCK {
		return "", false, fmt.Errorf("%w: volume %s of pool %s is neither a file nor a block device: copy it into one",
			vmmanager.ErrUnsupported, name, pool)
	}
	path, err = v.GetPath()
	return path, info.Type == libvirt.STORAGE_VOL_BLOCK, err
}

// Define stores the definition, replacing one of the same name, after libvirt
// has checked it against its schema. A VM whose disks are endpoints is never
// started by libvirt itself: only Duet knows which node may run it. Autostart is a mark of libvirt's beside the
// text, set in a second call: where only that fails the text is stored all the same.
func (h *Hypervisor) Define(ctx context.Context, def vmmanager.Definition) error {
	domain, err := parseXML(def.Text)
	if err != nil {
		return fmt.Errorf("define %s: %w", def.Name, err)
	}
	if in := domain.child("name"); in == nil || in.text != def.Name {
		return fmt.Errorf("define %s: its text defines another VM", def.Name)
	}
	_, err = ask(ctx, h, writeTime, func(conn *libvirt.Connect) (struct{}, error) {
		dom, err := h.define(conn, def)
		if err != nil {
			return struct{}{}, err
		}
		defer dom.Free()
		return struct{}{}, dom.SetAutostart(def.Autostart && !protected(domain))
	})
	if err != nil {
		return fmt.Errorf("define %s: %w", def.Name, err)
	}
	return nil
}

// validated stores the text, one at a time: libxml2 2.9.14 is not thread-safe while a process reads its first schema,
// and a young libvirtd that is given two definitions at once may refuse valid ones.
func (h *Hypervisor) validated(conn *libvirt.Connect, text []byte) (*libvirt.Domain, error) {
	h.defining.Lock()
	defer h.defining.Unlock()
	return conn.DomainDefineXMLFlags(string(text), libvirt.DOMAIN_DEFINE_VALIDATE)
}

// define stores the text. libvirt does not let a definition take the name of one
// with another UUID, so that one goes first, with its saved memory and snapshots. It goes only where nothing else is in
// the way of the new one, which libvirt has checked then; if the new one cannot be stored all the same, text and
// autostart come back. One that runs is left alone, and the new one refused.
func (h *Hypervisor) define(conn *libvirt.Connect, def vmmanager.Definition) (*libvirt.Domain, error) {
	dom, refused := h.validated(conn, def.Text)
	// That code is also libvirt's for a name or UUID that another domain has.
	if refused == nil || !hasCode(refused, libvirt.ERR_OPERATION_FAILED) {
		return dom, refused
	}
	if !freeUUID(conn, def) {
		return nil, refused
	}
	old, err := conn.LookupDomainByName(def.Name)
	if err != nil {
		return nil, refused
	}
	defer old.Free()
	// A VM that runs must not lose its definition: it would be gone with its process.
	if active, err := old.IsActive(); err != nil || active {
		return nil, refused
	}
	text, err := old.GetXMLDesc(wholeText)
	if err != nil {
		return nil, refused
	}
	autostart, err := old.GetAutostart()
	if err != nil {
		return nil, refused
	}
	if err := old.UndefineFlags(keepFiles); err != nil {
		return nil, err
	}
	dom, err = h.validated(conn, def.Text)
	if err != nil {
		back, restoreErr := conn.DomainDefineXML(text)
		if restoreErr == nil {
			restoreErr = back.SetAutostart(autostart)
			_ = back.Free()
		}
		return nil, errors.Join(err, restoreErr)
	}
	return dom, nil
}

// freeUUID reports whether the UUID of a definition is no other VM's. One without gets a new one.
func freeUUID(conn *libvirt.Connect, def vmmanager.Definition) bool {
	domain, err := parseXML(def.Text)
	if err != nil {
		return false
	}
	id := domain.child("uuid")
	if id == nil {
		return true
	}
	other, err := conn.LookupDomainByUUIDString(strings.TrimSpace(id.text))
	if err != nil {
		return hasCode(err, libvirt.ERR_NO_DOMAIN)
	}
	defer other.Free()
	name, err := other.GetName()
	return err == nil && name == def.Name
}

// Undefine forgets a stopped VM. Its disks and UEFI variables stay. It succeeds if there is none. A saved memory
// goes with it.
func (h *Hypervisor) Undefine(ctx context.Context, name string) error {
	err := h.onDomain(ctx, name, writeTime, func(dom *libvirt.Domain) error {
		if active, err := dom.IsActive(); err != nil {
			return err
		} else if active {
			return errors.New("it is running")
		}
		return dom.UndefineFlags(keepFiles)
	})
	if err != nil && !errors.Is(err, vmmanager.ErrNotFound) {
		return fmt.Errorf("undefine %s: %w", name, err)
	}
	return nil
}

// Rewire returns def with the named disks backed by the endpoints. ErrUnsupported
// names the first disk or device that cannot be protected, and the remedy.
func (h *Hypervisor) Rewire(def vmmanager.Definition, endpoints []vmmanager.Endpoint) (vmmanager.Definition, error) {
	text, err := rewire(def.Text, endpoints, h.reconnect)
	if err != nil {
		return vmmanager.Definition{}, fmt.Errorf("rewire %s: %w", def.Name, err)
	}
	// Disks on endpoints have no file any more that could be replicated.
	return vmmanager.Definition{Name: def.Name, Text: text}, nil
}

// Restore returns def with the named disks backed by files again, and what Rewire changed of them as own has it. The
// disks of a VM whose own definition is not known stay set to pause it on errors.
func (h *Hypervisor) Restore(def, own vmmanager.Definition, disks []vmmanager.Disk) (vmmanager.Definition, error) {
	text, err := restore(def.Text, own, disks)
	if err != nil {
		return vmmanager.Definition{}, fmt.Errorf("restore %s: %w", def.Name, err)
	}
	return vmmanager.Definition{Name: def.Name, Text: text, Disks: disks, Autostart: own.Autostart}, nil
}

// Harden returns def with the named disks set to pause the VM on errors.
func (h *Hypervisor) Harden(def vmmanager.Definition, targets []string) (vmmanager.Definition, error) {
	text, err := harden(def.Text, targets)
	if err != nil {
		return vmmanager.Definition{}, fmt.Errorf("harden %s: %w", def.Name, err)
	}
	def.Text = text
	return def, nil
}
