//go:build linux && cgo && libvirt_dlopen

package libvirt

import (
	"libvirt.org/go/libvirt"
)

// withoutMissing has start start a VM that is off, without the removable media that this
// host lacks. The definition is as before afterwards: what lies in the drives is the
// admin's, and it may be there on the other host. An edit that somebody makes during the start is lost with that. A
// process that dies meanwhile leaves the drives marked as optional, which loosen takes for an admin's word from
// then on.
func (h *Hypervisor) withoutMissing(name string, dom *libvirt.Domain, start func() error) error {
	text, err := dom.GetXMLDesc(wholeText)
	if err != nil {
		return err
	}
	conn, err := dom.DomainGetConnect()
	if err != nil {
		return err
	}
	defer conn.Close()
	here := &host{exists: exists, hasVolume: func(pool, volume string) bool { return hasVolume(conn, pool, volume) }}
	loose, empty, err := loosen([]byte(text), here)
	if err != nil || len(empty) == 0 {
		return start() // a definition that cannot be read is libvirt's to judge
	}
	h.log.Warn("the VM starts without media that are not on this host", "vm", name, "drives", empty)
	if err := storeText(conn, string(loose)); err != nil {
		return err
	}
	err = start()
	if backErr := storeText(conn, text); backErr != nil {
		h.log.Warn("the VM's definition keeps startupPolicy='optional' on its drives", "vm", name, "error", backErr)
	}
	return err
}

// storeText stores a definition that libvirt itself has written. So it is not validated.
func storeText(conn *libvirt.Connect, text string) error {
	dom, err := conn.DomainDefineXML(text)
	if err != nil {
		return err
	}
	return dom.Free()
}

// hasVolume tells whether a storage pool is active and has a volume; yes if that cannot be told.
func hasVolume(conn *libvirt.Connect, pool, volume string) bool {
	p, err := conn.LookupStoragePoolByName(pool)
	if err != nil {
		return !hasCode(err, libvirt.ERR_NO_STORAGE_POOL)
	}
	defer p.Free()
	if active, err := p.IsActive(); err == nil && !active {
		return false
	}
	v, err := p.LookupStorageVolByName(volume)
	if err != nil {
		return !hasCode(err, libvirt.ERR_NO_STORAGE_VOL)
	}
	_ = v.Free() // a handle
	return true
}
