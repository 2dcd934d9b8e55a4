//go:build linux && cgo && libvirt_dlopen

package libvirt

import (
	"bytes"
	"strings"
	"testing"

	"libvirt.org/go/libvirt"

	"duet/vmmanager"
)

// TestRefitWouldNotGoOn: a VM whose network has gone while it ran could not go on from its saved memory. Its Refit
// saved it all the same, and it was off from then on.
func TestRefitWouldNotGoOn(t *testing.T) {
	const text = `<domain type='test'><name>guest</name><memory>8192</memory><os><type>hvm</type></os>` +
		`<devices><interface type='network'><source network='default'/></interface></devices></domain>`
	var net *libvirt.Network
	h := driver(t, func(conn *libvirt.Connect) (*libvirt.Domain, error) {
		dom, err := conn.DomainDefineXML(text)
		must(t, err)
		must(t, dom.Create())
		net, err = conn.LookupNetworkByName("default")
		return dom, err
	})
	defer net.Free()
	edit := func(def vmmanager.Definition) (vmmanager.Definition, error) {
		def.Text = bytes.Replace(def.Text, []byte("8192"), []byte("4096"), 1)
		return def, nil
	}
	now, err := h.status(t.Context(), "guest", readTime)
	must(t, err)
	must(t, net.Destroy())
	err = h.Refit(t.Context(), "guest", edit, func() error { t.Error("between was called"); return nil })
	const want = "interface 1: network default is not active: `virsh net-start default"
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("refit: %v, want that its network is not active", err)
	}
	if after, err := h.status(t.Context(), "guest", readTime); err != nil || after != now {
		t.Errorf("it was %+v and is %+v, %v", now, after, err)
	}
	must(t, net.Create())
	// The driver for tests saves it, and cannot edit what it saved.
	err = h.Refit(t.Context(), "guest", edit, func() error { return nil })
	if err == nil || !strings.Contains(err.Error(), "virDomainManagedSave") {
		t.Errorf("refit after its network is back: %v", err)
	}
}
