package nbd

import (
	"errors"
	"fmt"
	"net"
	"os"
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

// deserted says that a connection failed because nobody listens on the socket any more, or it is gone.
func deserted(err error) bool {
	return errors.Is(err, unix.ECONNREFUSED) || errors.Is(err, os.ErrNotExist)
}

// inherit gives a new socket to the owner of the one it replaces: the hypervisor has given that to the user of its
// QEMU.
func inherit(path string, old os.FileInfo) error {
	st, ok := old.Sys().(*syscall.Stat_t)
	if !ok {
		return nil
	}
	return os.Lchown(path, int(st.Uid), int(st.Gid))
}

// peerOf asks the kernel who connected (SO_PEERCRED): who it was then, also if the descriptor was handed on since.
func peerOf(c *net.UnixConn) (Peer, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return Peer{}, err
	}
	var cred *unix.Ucred
	ctl := raw.Control(func(fd uintptr) { cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	if ctl != nil {
		return Peer{}, ctl
	}
	if err != nil {
		return Peer{}, fmt.Errorf("who connected is not known: %w", err)
	}
	return Peer{PID: int(cred.Pid), UID: cred.Uid}, nil
}
