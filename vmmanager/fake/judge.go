package fake

import (
	"context"
	"fmt"
	"slices"

	"duet/vmmanager"
)

// sector is what the size of every disk is a multiple of, in bytes.
const sector = 512

// Obstacles are disks whose size cannot be replicated. A disk on an endpoint has no size of its own to be judged
// by.
func (h *Hypervisor) Obstacles(def vmmanager.Definition) []vmmanager.Finding {
	var out []vmmanager.Finding
	for _, d := range def.Disks {
		if d.Format != endpoint && (d.Size <= 0 || d.Size%sector != 0) {
			out = append(out, vmmanager.Finding{Level: vmmanager.Refused, Code: "disk-size", About: "disk " + d.Target,
				Fact: fmt.Sprintf("%s has %d bytes", d.Path, d.Size), Remedy: "give it whole sectors"})
		}
	}
	if len(def.Disks) == 0 {
		out = append(out, vmmanager.Finding{Level: vmmanager.Refused, Code: "no-disk",
			Fact: "it has no hard disk that could be replicated"})
	}
	return out
}

// Judge says what SetFindings has set for the VM.
func (h *Hypervisor) Judge(ctx context.Context, def vmmanager.Definition) ([]vmmanager.Finding, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.readyLocked(ctx); err != nil {
		return nil, fmt.Errorf("judge %s: %w", def.Name, err)
	}
	return vmmanager.Worst(h.findings[def.Name]), nil
}

// SetFindings sets what this host has to say of a VM from now on, whatever its definition.
func (h *Hypervisor) SetFindings(vm string, all ...vmmanager.Finding) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.findings[vm] = slices.Clone(all)
}
