package fake

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"duet/vmmanager"
)

var _ vmmanager.Inspector = (*Hypervisor)(nil)

// memory is what every VM has, in bytes.
const memory = 64 << 20

// Inspect tells of the VMs; their processes are confined by nothing. Texts are told as they are: there are no
// secrets in them.
func (h *Hypervisor) Inspect(ctx context.Context) (vmmanager.HostReport, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.readyLocked(ctx); err != nil {
		return vmmanager.HostReport{}, fmt.Errorf("inspect: %w", err)
	}
	out := vmmanager.HostReport{Name: "fake", Version: "1.0", Emulator: "fake 1.0"}
	for _, name := range slices.Sorted(maps.Keys(h.vms)) {
		v := h.vms[name]
		out.VMs = append(out.VMs, vmmanager.VMReport{Name: name, State: v.state, Memory: memory,
			Text: slices.Clone(v.def.Text)})
	}
	return out, nil
}
