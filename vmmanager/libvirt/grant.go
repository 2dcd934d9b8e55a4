//go:build linux && cgo && libvirt_dlopen

package libvirt

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"libvirt.org/go/libvirt"
)

// grant lets the user whom the VM's QEMU runs as, or will, open the sockets of its endpoints. libvirt itself changes
// the owner of a local image, and leaves a socket as it is. What a dead daemon left of a socket keeps its owner for the
// next one (see nbd.Options), so this is needed before a VM starts or is moved to an endpoint, not at each
// reconnect. A socket that is not there is no error: its volume is closed, and QEMU says so. Sockets of other tools
// are given away too, as they are in the definition.
func (h *Hypervisor) grant(conn *libvirt.Connect, dom *libvirt.Domain, sockets ...string) error {
	text, err := dom.GetXMLDesc(0) // live if it runs
	if err != nil {
		return err
	}
	domain, err := parseXML([]byte(text))
	if err != nil {
		return err
	}
	for _, d := range disks(domain) {
		if socket := d.socket(); socket != "" {
			sockets = append(sockets, socket)
		}
	}
	if len(sockets) == 0 {
		return nil
	}
	to, err := h.qemuUser(conn, domain)
	if err != nil {
		return err
	}
	for _, socket := range sockets {
		if err := chown(socket, to); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("let QEMU open its volume: %w", err)
		}
	}
	return nil
}

// Grant gives files to the user whom the VM's QEMU runs as. libvirt does so itself unless it is told not to, for all
// VMs or for one. It stops at the first error. A link itself changes its owner, not what it leads to.
func (h *Hypervisor) Grant(ctx context.Context, name string, paths []string) error {
	err := h.with(ctx, name, writeTime, func(conn *libvirt.Connect, dom *libvirt.Domain) error {
		text, err := dom.GetXMLDesc(0)
		if err != nil {
			return err
		}
		domain, err := parseXML([]byte(text))
		if err != nil {
			return err
		}
		to, err := h.qemuUser(conn, domain)
		for _, path := range paths {
			if err == nil {
				err = chown(path, to)
			}
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("let QEMU open the images of %s: %w", name, err)
	}
	return nil
}

// chown gives a file to a user unless it is his.
func chown(path string, to owner) error {
	info, err := os.Lstat(path)
	if err != nil {
		return err
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && int(st.Uid) == to.uid && int(st.Gid) == to.gid {
		return nil
	}
	return os.Lchown(path, to.uid, to.gid)
}

// qemuUser finds whom the QEMU of a domain runs as. What libvirt says of its host is asked once for each connection of
// a watcher and the first time it is needed: on a host that keeps QEMU from /dev/kvm the answer takes ten seconds, and
// only a new configuration, which needs a new libvirtd, changes it. Two calls at once may both ask; the later
// answer stays.
func (h *Hypervisor) qemuUser(conn *libvirt.Connect, domain *element) (owner, error) {
	h.mu.Lock()
	known := h.capabilities
	h.mu.Unlock()
	if known == nil {
		var err error
		if known, err = h.learn(conn); err != nil {
			return owner{}, err
		}
	}
	return qemuUser(domain, known)
}

// learnAnew reads libvirt's capabilities again in the background: its daemon may have been restarted with another
// configuration. What was known is used until then.
func (h *Hypervisor) learnAnew(ctx context.Context) {
	told := func(err error) {
		if err != nil && ctx.Err() == nil {
			h.log.Warn("it is not known whom QEMU runs as", "err", err)
		}
	}
	err := h.spawn(ctx, func(conn *libvirt.Connect) {
		defer conn.Close()
		_, err := h.learn(conn)
		told(err)
	}, told)
	told(err)
}

// learn reads libvirt's capabilities.
func (h *Hypervisor) learn(conn *libvirt.Connect) (*element, error) {
	text, err := conn.GetCapabilities()
	if err != nil {
		return nil, fmt.Errorf("ask libvirt whom QEMU runs as: %w", err)
	}
	found, err := parseXML([]byte(text))
	if err != nil {
		return nil, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.capabilities = found
	return found, nil
}

// Runs returns nil if the process is the QEMU that libvirt has on record for the VM. libvirt writes its number before
// QEMU's first instruction, and QEMU opens its disks later. It reads one file and is called for each connection to
// a volume.
func (h *Hypervisor) Runs(name string, pid int) error {
	text, err := os.ReadFile(filepath.Join(h.runDir, name+".pid"))
	if err != nil {
		return fmt.Errorf("libvirt has no process of VM %s on record: %w", name, err)
	}
	if have := strings.TrimSpace(string(text)); have != strconv.Itoa(pid) {
		return fmt.Errorf("process %d is not the one that libvirt runs VM %s in, which is %s", pid, name, have)
	}
	return nil
}
