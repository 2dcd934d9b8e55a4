//go:build linux && cgo && libvirt_dlopen

package libvirt

import (
	"context"
	"fmt"

	"libvirt.org/go/libvirt"

	"duet/vmmanager"
)

// Strays are the disks of the running VM that are not on the endpoints, and those that have none.
func (h *Hypervisor) Strays(ctx context.Context, name string, endpoints []vmmanager.Endpoint) ([]vmmanager.Stray,
	error) {
	found, err := of(ctx, h, name, readTime, func(dom *libvirt.Domain) ([]vmmanager.Stray, error) {
		if active, err := dom.IsActive(); err != nil || !active {
			return nil, err
		}
		text, err := dom.GetXMLDesc(0)
		if err != nil {
			return nil, err
		}
		domain, err := parseXML([]byte(text))
		if err != nil {
			return nil, err
		}
		return strays(domain, endpoints), nil
	})
	if err != nil {
		return nil, fmt.Errorf("read disks of %s: %w", name, err)
	}
	return found, nil
}
