//go:build linux && cgo && libvirt_dlopen

package libvirt

import (
	"bytes"
	"strings"
	"testing"

	"libvirt.org/go/libvirt"

	"duet/vmmanager"
)

// driver is a Hypervisor on libvirt's driver for tests, which lives in this process, with one VM that create makes. It
// forgets its VMs when the test ends.
func driver(t *testing.T, create func(*libvirt.Connect) (*libvirt.Domain, error)) *Hypervisor {
	t.Helper()
	const uri = "test:///default"
	h, err := New(Config{URI: uri})
	must(t, err)
	conn, err := libvirt.NewConnect(uri) // while it is open the driver keeps what it has
	must(t, err)
	dom, err := create(conn)
	must(t, err)
	t.Cleanup(func() {
		_ = dom.Free()
		check(t, h.Close())
		_, err := conn.Close()
		check(t, err)
	})
	return h
}

const guest = "<domain type='test'><name>guest</name><memory>8192</memory><os><type>hvm</type></os></domain>"

// TestRefitNotSaved: a Refit whose save failed (there was no room) left its note on the run that went on. When that
// guest shut itself down later it was told as Duet's doing, and the VM was started again against its policy.
func TestRefitNotSaved(t *testing.T) {
	// A VM without a persistent definition cannot be saved.
	h := driver(t, func(conn *libvirt.Connect) (*libvirt.Domain, error) { return conn.DomainCreateXML(guest, 0) })
	now, err := h.status(t.Context(), "guest", readTime)
	must(t, err)
	edit := func(def vmmanager.Definition) (vmmanager.Definition, error) {
		def.Text = bytes.Replace(def.Text, []byte("8192"), []byte("4096"), 1)
		return def, nil
	}
	between := func() error { t.Error("between was called"); return nil }
	if err := h.Refit(t.Context(), "guest", edit, between); err == nil || !strings.Contains(err.Error(), "save memory") {
		t.Fatalf("refit: %v, want that its memory cannot be saved", err)
	}
	if after, err := h.status(t.Context(), "guest", readTime); err != nil || after != now {
		t.Fatalf("it was %+v and is %+v, %v", now, after, err)
	}
	if got := h.stops.of("guest", now.run); got != untouched {
		t.Errorf("the end of the run that goes on would be Duet's doing (%d)", got)
	}
}

// TestTakeBack: only what was noted for the stop that did not come about goes.
func TestTakeBack(t *testing.T) {
	var s stops
	s.note("a", 1, asked)()
	if len(s.by) != 0 {
		t.Errorf("left is %v", s.by)
	}
	s.note("a", 1, asked)
	s.note("a", 1, asked)()
	if got := s.of("a", 1); got != asked {
		t.Errorf("what was noted before is %d", got)
	}
	takeBack := s.note("a", 2, asked)
	s.note("a", 2, killed)
	takeBack()
	if got := s.of("a", 2); got != killed {
		t.Errorf("what was noted since is %d", got)
	}
}

// TestWakeIsAStart: a VM that goes on from its memory is another run, as one that is started.
func TestWakeIsAStart(t *testing.T) {
	h := driver(t, func(conn *libvirt.Connect) (*libvirt.Domain, error) { return conn.DomainDefineXML(guest) })
	h.stops.note("guest", 0, killed) // while libvirtd did not answer
	must(t, h.Wake(t.Context(), "guest"))
	now, err := h.status(t.Context(), "guest", readTime)
	must(t, err)
	if got := h.stops.of("guest", now.run); got != untouched {
		t.Errorf("the end of the new run would be Duet's doing (%d)", got)
	}
}
