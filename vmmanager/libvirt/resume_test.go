//go:build linux && cgo && libvirt_dlopen

package libvirt

import (
	"context"
	"strings"
	"testing"
	"time"

	"libvirt.org/go/libvirt"

	"duet/vmmanager"
)

// TestResumeOfWhatIsGone: while its endpoints refused nobody looked whether the VM was still there, and a start of one
// that an admin had switched off meanwhile waited until its context ended.
func TestResumeOfWhatIsGone(t *testing.T) {
	disk := "<devices><disk type='network' device='disk'>" + endpointSource("/nosuch/vda.sock", "", true) +
		"<target dev='vda' bus='virtio'/></disk></devices></domain>"
	h := driver(t, func(conn *libvirt.Connect) (*libvirt.Domain, error) {
		return conn.DomainDefineXML(strings.Replace(guest, "</domain>", disk, 1))
	})
	if on, err := h.Endpoints(t.Context(), "guest"); err != nil || len(on) != 1 {
		t.Fatalf("endpoints %v, %v", on, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := h.resumeUntilItStays(ctx, "guest"); err == nil || !strings.Contains(err.Error(), "it is off now") {
		t.Errorf("a VM that is off: %v", err)
	}
}

// TestResumeOfWhatIsPaused: a VM that an admin paused while it was resumed after an I/O error was resumed again, or
// waited for its endpoints for ever. It stays paused.
func TestResumeOfWhatIsPaused(t *testing.T) {
	disk := "<devices><disk type='network' device='disk'>" + endpointSource("/nosuch/vda.sock", "", true) +
		"<target dev='vda' bus='virtio'/></disk></devices></domain>"
	for what, text := range map[string]string{"endpoints away": strings.Replace(guest, "</domain>", disk, 1),
		"endpoints there": guest} {
		t.Run(what, func(t *testing.T) {
			h := driver(t, func(conn *libvirt.Connect) (*libvirt.Domain, error) {
				dom, err := conn.DomainCreateXML(text, 0)
				if err == nil {
					err = dom.Suspend()
				}
				return dom, err
			})
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			if err := h.resumeUntilItStays(ctx, "guest"); err != nil {
				t.Error(err)
			}
			if now, err := h.State(t.Context(), "guest"); err != nil || now != vmmanager.Paused {
				t.Errorf("the VM is %v, %v", now, err)
			}
		})
	}
}
