package testcluster

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// bootSector is the whole guest of a tiny VM: it sleeps, and switches the VM off when
// the power button is pressed. It leaves its disk alone.
//
//	mov dx,0x602; mov ax,0x0100; out dx,ax    the power button sets its bit …
//	again: sti; hlt                           … which the timer has us look at
//	mov dx,0x600; in ax,dx; test ah,1; jz again
//	mov dx,0x604; mov ax,0x2000; out dx,ax    off
//	jmp again
func bootSector() []byte {
	code := []byte{0xba, 0x02, 0x06, 0xb8, 0x00, 0x01, 0xef, 0xfb, 0xf4, 0xba, 0x00, 0x06, 0xed, 0xf6, 0xc4, 0x01,
		0x74, 0xf5,
		0xba, 0x04, 0x06, 0xb8, 0x00, 0x20, 0xef, 0xeb, 0xec}
	sector := make([]byte, 512)
	copy(sector, code)
	binary.LittleEndian.PutUint16(sector[510:], 0xaa55)
	return sector
}

// tinyXML is a VM of 4 MiB that a boot sector runs.
const tinyXML = `<domain type='qemu'>
  <name>%s</name>
  <memory unit='MiB'>4</memory>
  <vcpu>1</vcpu>
  <os><type arch='x86_64' machine='pc'>hvm</type><boot dev='hd'/></os>
  <features><acpi/></features>
  <clock offset='utc'><timer name='hpet' present='no'/></clock>
  <on_poweroff>destroy</on_poweroff>
  <on_crash>preserve</on_crash>
  <devices>
    <disk type='file' device='disk'>
      <driver name='qemu' type='raw' cache='writeback' discard='unmap'/>
      <source file='%s'/>
      <target dev='vda' bus='virtio'/>
    </disk>
    <controller type='usb' model='none'/>
    <memballoon model='none'/>
  </devices>
</domain>
`

// DefineTiny makes the disk of a VM that needs next to no memory and CPU, and defines it on this host: a real
// QEMU whose guest is one boot sector. Everything on the disk but its first sector is free for the test.
func (h *Host) DefineTiny(ctx context.Context, name string, size int64) error {
	image, err := h.image(ctx, name, "raw", size)
	if err != nil {
		return err
	}
	outside, err := h.Node.Outside(image)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(outside, os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("write boot sector of %s: %w", name, err)
	}
	defer f.Close()
	if _, err := f.WriteAt(bootSector(), 0); err != nil {
		return fmt.Errorf("write boot sector of %s: %w", name, err)
	}
	return h.define(ctx, name, fmt.Sprintf(tinyXML, name, image))
}

// image makes an empty image on this host.
func (h *Host) image(ctx context.Context, name, format string, size int64) (string, error) {
	dir := "/var/lib/libvirt/images"
	if h.disk != nil {
		dir = filepath.Join(stateDir, "images") // on the disk that can fail
	}
	path := filepath.Join(dir, name+"."+format)
	for _, cmd := range [][]string{
		{"mkdir", "-p", filepath.Dir(path)},
		{"qemu-img", "create", "-q", "-f", format, path, fmt.Sprint(size)},
	} {
		if _, err := h.Node.Run(ctx, cmd[0], cmd[1:]...); err != nil {
			return "", err
		}
	}
	return path, nil
}

// define gives a definition to libvirt.
func (h *Host) define(ctx context.Context, name, text string) error {
	path := filepath.Join(h.cluster.cfg.Dir, name+".xml")
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		return err
	}
	_, err := h.Libvirt.Virsh(ctx, "define", path)
	return err
}

// Configured waits until the host's configuration of a module holds a text: an edit
// reaches the peer some time after it was made, and what is asked of a module's engine
// while it is exchanged for one with the new configuration is lost.
func (h *Host) Configured(ctx context.Context, module, text string) error {
	return Until(ctx, fmt.Sprintf("%s has %q of %s", h.Name, text, module), func() error {
		have, err := h.Duet(ctx, "config", "show", module)
		if err == nil && !strings.Contains(have, text) {
			err = fmt.Errorf("it has not")
		}
		return err
	})
}
