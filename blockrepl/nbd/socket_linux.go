package nbd

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// ownerOnly sets the mode the socket file will have before it exists, so that
// there is no moment in which others could connect.
func ownerOnly(_, _ string, c syscall.RawConn) error {
	var err error
	if ctl := c.Control(func(fd uintptr) { err = unix.Fchmod(int(fd), 0o600) }); ctl != nil {
		return ctl
	}
	return err
}
