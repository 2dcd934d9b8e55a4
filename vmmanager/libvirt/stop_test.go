//go:build linux && cgo && libvirt_dlopen

package libvirt

import (
	"context"
	"errors"
	"testing"
	"time"
)

// TestKillAwaitsStart: Kill said that a VM was gone whose start was still with a libvirtd that did not answer.
func TestKillAwaitsStart(t *testing.T) {
	h := driver(t, defined)
	answered, err := h.beginCreate(t.Context(), "guest")
	must(t, err)
	must(t, h.Close()) // from now on libvirtd does not answer
	soon, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := h.Kill(soon, "guest"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("kill beside a start: %v, want the context's error", err)
	}
	answered()
	must(t, h.Kill(t.Context(), "guest"))
}
