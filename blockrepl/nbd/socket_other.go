//go:build !linux

package nbd

import (
	"errors"
	"net"
	"os"
	"syscall"
)

// ownerOnly does nothing: the mode is set after the socket was made.
func ownerOnly(_, _ string, _ syscall.RawConn) error { return nil }

// wsaRefused is the refusal of a connection on Windows, which syscall.ECONNREFUSED is not there.
const wsaRefused = syscall.Errno(10061)

// deserted says that a connection failed because nobody listens on the socket any more, or it is gone.
func deserted(err error) bool {
	return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, wsaRefused) || errors.Is(err, os.ErrNotExist)
}

// inherit does nothing: there is one user.
func inherit(string, os.FileInfo) error { return nil }

func peerOf(*net.UnixConn) (Peer, error) {
	return Peer{}, errors.New("this system does not say who connected")
}
