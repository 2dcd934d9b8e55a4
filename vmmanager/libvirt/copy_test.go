//go:build linux && cgo && libvirt_dlopen

package libvirt

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"libvirt.org/go/libvirt"
)

// TestAbortSeesNothing: a copy whose end could not be seen in time counted as ended, its VM as stopped.
func TestAbortSeesNothing(t *testing.T) {
	h := driver(t, func(conn *libvirt.Connect) (*libvirt.Domain, error) { return conn.DomainCreateXML(guest, 0) })
	job := &copyJob{h: h, name: "guest", target: "vda"}
	cause := errors.New("the destination failed")
	ended, cancel := context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
	defer cancel()
	if err := job.end(ended, cause); !errors.Is(err, cause) || !strings.Contains(err.Error(), "may still go on") {
		t.Errorf("no time to look: %v", err)
	}
	if err := job.end(t.Context(), cause); !errors.Is(err, cause) || strings.Contains(err.Error(), "may still go on") {
		t.Errorf("it has no such disk: %v", err)
	}
	job.name = "nosuch"
	if err := job.end(t.Context(), cause); !errors.Is(err, cause) || strings.Contains(err.Error(), "may still go on") {
		t.Errorf("it is gone: %v", err)
	}
}
