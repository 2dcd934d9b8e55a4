//go:build linux && cgo && libvirt_dlopen

package libvirt

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"syscall"
	"time"

	"libvirt.org/go/libvirt"

	"duet/vmmanager"
)

const (
	stayTime      = 300 * time.Millisecond // a VM that has run this long after a resume stays running
	resumeLook    = 50 * time.Millisecond  // between two looks at a VM that was resumed
	maxResumeWait = time.Second            // between two tries
)

// resumeUntilItStays resumes a VM that is paused on an I/O error until it stays
// running, ctx ends, or it is gone. It does not resume while an endpoint refuses
// connections: QEMU would try too, and wait up to 16 s before it tries again. An
// endpoint that lets QEMU wait is no reason not to: the VM pauses again, and QEMU
// has the connection as soon as it is accepted. The pause between two tries doubles from 100 ms to 1 s. One that an
// admin pauses meanwhile is left so, which is no error.
func (h *Hypervisor) resumeUntilItStays(ctx context.Context, name string) error {
	for wait := 2 * resumeLook; ; wait = min(2*wait, maxResumeWait) {
		for !h.endpointsReady(ctx, name) {
			if h.heldBack(ctx, name) {
				return nil
			}
			if err := sleep(ctx, 2*resumeLook); err != nil {
				return fmt.Errorf("resume %s, whose endpoints are away: %w", name, err)
			}
		}
		if h.heldBack(ctx, name) {
			return nil
		}
		// A resume that fails is no reason to give up: the state read next decides.
		if err := h.resume(ctx, name); err != nil && ctx.Err() != nil {
			return err
		}
		if stays, err := h.stays(ctx, name); stays || err != nil {
			return err
		}
		if err := sleep(ctx, wait); err != nil {
			return fmt.Errorf("resume %s, which pauses on I/O errors: %w", name, err)
		}
	}
}

// heldBack reports whether an admin has paused the VM, not an I/O error.
func (h *Hypervisor) heldBack(ctx context.Context, name string) bool {
	now, err := h.status(ctx, name, readTime)
	return err == nil && now.state == vmmanager.Paused &&
		libvirt.DomainPausedReason(now.reason) == libvirt.DOMAIN_PAUSED_USER
}

// stays reports whether a VM runs for stayTime. A pause is no error; that it is off, crashed or gone is.
func (h *Hypervisor) stays(ctx context.Context, name string) (bool, error) {
	for since := time.Now(); time.Since(since) < stayTime; {
		if err := sleep(ctx, resumeLook); err != nil {
			return false, fmt.Errorf("resume %s: %w", name, err)
		}
		switch state, err := h.State(ctx, name); {
		case err != nil:
			return false, err
		case state == vmmanager.IOError || state == vmmanager.Paused:
			return false, nil
		case state != vmmanager.Running:
			return false, fmt.Errorf("resume %s: it is %s now", name, state)
		}
	}
	return true, nil
}

// endpointsReady reports whether all endpoints of a VM accept connections. What cannot be found out counts as ready,
// and so does a VM that is not paused any more: whether it is still there is found out by resuming it.
func (h *Hypervisor) endpointsReady(ctx context.Context, name string) bool {
	text, err := of(ctx, h, name, readTime, func(dom *libvirt.Domain) (string, error) {
		now, err := statusOf(dom)
		if err != nil || now.state != vmmanager.IOError && now.state != vmmanager.Paused {
			return "", err
		}
		return dom.GetXMLDesc(0)
	})
	if err != nil {
		return true
	}
	domain, err := parseXML([]byte(text))
	if err != nil {
		return true
	}
	for _, d := range disks(domain) {
		if d.socket() == "" {
			continue
		}
		// Nobody listens, or nothing is there. What waits, or fails otherwise, counts as ready.
		conn, err := new(net.Dialer).DialContext(ctx, "unix", d.socket())
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
			return false
		}
		if err == nil {
			_ = conn.Close() // it was only a knock
		}
	}
	return true
}
