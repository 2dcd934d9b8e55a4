//go:build linux && cgo && libvirt_dlopen

package libvirt

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"libvirt.org/go/libvirt"

	"duet/vmmanager"
)

// hang has every call to libvirt wait until the returned function is called.
func hang(h *Hypervisor) (thaw func()) {
	for range cap(h.dials) {
		h.dials <- struct{}{}
	}
	return func() {
		for range cap(h.dials) {
			<-h.dials
		}
	}
}

func defined(conn *libvirt.Connect) (*libvirt.Domain, error) { return conn.DomainDefineXML(guest) }

// TestDryRunGoesOn: whoever gives a dry run up has its answer when he asks again. On a slow host it was begun anew each
// time, and nobody waited long enough to hear of its end.
func TestDryRunGoesOn(t *testing.T) {
	h := driver(t, defined)
	thaw := hang(h)
	def := vmmanager.Definition{Name: "guest", Text: []byte(guest)}
	ctx, cancel := context.WithCancel(t.Context())
	said := make(chan error)
	go func() {
		_, err := h.dryRun(ctx, def, nil)
		said <- err
	}()
	until(t, "it has begun", func() (bool, error) { return len(h.trial.turn) == 1, nil })
	cancel()
	if err := <-said; !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "still trying it out") {
		t.Errorf("a dry run that takes long: %v", err)
	}
	thaw()
	h.trial.turn <- struct{}{} // it has ended
	<-h.trial.turn
	defer hang(h)()
	soon, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if found, err := h.dryRun(soon, def, nil); err != nil || len(found) > 0 {
		t.Errorf("asked again: %v, %v", found, err)
	}
}

// TestLookEnds: whoever waits for another one's look at the host waits no longer than he wants.
func TestLookEnds(t *testing.T) {
	h := driver(t, defined)
	h.trial.looking <- struct{}{}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := h.Judge(ended, vmmanager.Definition{Name: "guest", Text: []byte(guest)})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("judge beside a look that hangs: %v", err)
	}
}

// TestTrialForgets: what was said of a VM long ago is not kept for ever.
func TestTrialForgets(t *testing.T) {
	tr := newTrial()
	tr.keep("old", dryRun{until: time.Now().Add(-time.Second)})
	tr.keep("new", dryRun{until: time.Now().Add(time.Minute)})
	tr.keep("newer", dryRun{until: time.Now().Add(time.Minute)})
	if left := slices.Sorted(maps.Keys(tr.dry)); !slices.Equal(left, []string{"new", "newer"}) {
		t.Errorf("it keeps %v", left)
	}
}
