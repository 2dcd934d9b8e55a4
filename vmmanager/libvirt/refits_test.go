//go:build linux && cgo && libvirt_dlopen

package libvirt

import (
	"context"
	"errors"
	"strings"
	"testing"
)

// TestStartWaitsForRefit: a connection that was lost made a VM with its memory saved look crashed, and its start threw
// the memory away (met on an emulated host whose libvirtd was slow).
func TestStartWaitsForRefit(t *testing.T) {
	h := &Hypervisor{}
	done := h.refits.begin("vm")
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for what, start := range map[string]func(context.Context, string) error{"start": h.Start, "wake": h.Wake} {
		err := start(ended, "vm")
		if !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "is being exchanged") {
			t.Errorf("a %s beside a refit: %v", what, err)
		}
	}
	waited := make(chan error, 1)
	go func() { waited <- h.refits.wait(t.Context(), "vm") }()
	if err := h.refits.wait(t.Context(), "other"); err != nil {
		t.Errorf("another VM: %v", err)
	}
	done()
	if err := <-waited; err != nil {
		t.Errorf("after the refit: %v", err)
	}
}
