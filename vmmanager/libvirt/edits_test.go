//go:build linux && cgo && libvirt_dlopen

package libvirt

import (
	"strings"
	"testing"

	"libvirt.org/go/libvirt"

	"duet/vmmanager"
	"duet/vmmanager/vmtest"
)

// TestEditOfAStoppedVM: an edit of a VM that is off is told, and read as it is then.
func TestEditOfAStoppedVM(t *testing.T) {
	var conn *libvirt.Connect
	h := driver(t, func(c *libvirt.Connect) (*libvirt.Domain, error) {
		conn = c
		return c.DomainDefineXML(guest)
	})
	events := vmtest.Watch(t, h, "guest")
	before, err := h.Definition(t.Context(), "guest")
	must(t, err)
	dom, err := conn.DomainDefineXML(strings.ReplaceAll(string(before.Text), ">8192<", ">4096<"))
	must(t, err)
	check(t, dom.Free())
	events.Until(vmmanager.Off, vmmanager.ByEdit)
	def, err := h.Definition(t.Context(), "guest")
	if err != nil || !strings.Contains(string(def.Text), ">4096<") {
		t.Errorf("it reads %s, %v", def.Text, err)
	}
}
