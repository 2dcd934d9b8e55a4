//go:build linux && cgo && libvirt_dlopen

package libvirt

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"libvirt.org/go/libvirt"

	"duet/vmmanager"
)

var _ vmmanager.Inspector = (*Hypervisor)(nil)

// inspectTime is the limit of Inspect: a libvirtd that has just started asks QEMU what it can.
const inspectTime = 20 * time.Second

// Inspect tells libvirt's and QEMU's versions, how guests are confined, and the VMs. It reads libvirt's
// capabilities anew each time: grant's are kept.
func (h *Hypervisor) Inspect(ctx context.Context) (vmmanager.HostReport, error) {
	out, err := ask(ctx, h, inspectTime, inspect)
	if err != nil {
		return vmmanager.HostReport{}, fmt.Errorf("inspect libvirt: %w", err)
	}
	return out, nil
}

// A version of QEMU that is not known is left out; all else that is not told is an error.
func inspect(conn *libvirt.Connect) (out vmmanager.HostReport, err error) {
	out.Name = "libvirt"
	lib, err := conn.GetLibVersion()
	if err != nil {
		return out, err
	}
	out.Version = dotted(lib)
	if kind, err := conn.GetType(); err == nil {
		out.Emulator = kind
		if v, err := conn.GetVersion(); err == nil { // it fails while no emulator is installed
			out.Emulator += " " + dotted(v)
		}
	}
	text, err := conn.GetCapabilities()
	if err != nil {
		return out, err
	}
	if out.Security, err = securityModels([]byte(text)); err != nil {
		return out, err
	}
	doms, err := conn.ListAllDomains(0)
	if err != nil {
		return out, err
	}
	for i := range doms {
		if vm, err := inspectVM(&doms[i]); err == nil { // else it has just gone
			out.VMs = append(out.VMs, vm)
		}
		_ = doms[i].Free() // the connection goes next
	}
	slices.SortFunc(out.VMs, func(a, b vmmanager.VMReport) int { return cmp.Compare(a.Name, b.Name) })
	return out, nil
}

// inspectVM reads one VM. The text may go into an archive for strangers, so it is asked for without passwords, and
// what libvirt still leaves in it is hidden.
func inspectVM(dom *libvirt.Domain) (out vmmanager.VMReport, err error) {
	if out.Name, err = dom.GetName(); err != nil {
		return out, err
	}
	now, err := statusOf(dom)
	if err != nil {
		return out, err
	}
	out.State = now.state
	info, err := dom.GetInfo()
	if err != nil {
		return out, err
	}
	out.Memory = int64(info.MaxMem) << 10 // KiB
	text, err := dom.GetXMLDesc(0)        // live if it runs, without libvirt's own secrets
	if err != nil {
		return out, err
	}
	out.Text = withoutSecrets([]byte(text))
	if root, err := parseXML([]byte(text)); err == nil {
		out.HugePages = root.child("memoryBacking", "hugepages") != nil
	}
	return out, nil
}
