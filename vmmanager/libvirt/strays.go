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
	var found []vmmanager.Stray
	err := h.onDomain(ctx, name, readTime, func(dom *libvirt.Domain) error {
		if active, err := dom.IsActive(); err != nil || !active {
			return err
		}
		text, err := dom.GetXMLDesc(0)
		if err != nil {
			return err
		}
		domain, err := parseXML([]byte(text))
		found = strays(domain, endpoints)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read disks of %s: %w", name, err)
	}
	return found, nil
}
