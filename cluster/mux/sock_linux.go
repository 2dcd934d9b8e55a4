package mux

import (
	"cmp"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"duet/cluster"
)

// control sets TCP_USER_TIMEOUT: a connection whose data is not acknowledged for twice the detection time is dead.
// Accepted connections inherit it. It needs no ping: what was sent and lies unacknowledged is the peer's silence,
// also while a write blocks.
func control(detection time.Duration) func(string, string, syscall.RawConn) error {
	ms := int(2 * cmp.Or(detection, cluster.DefaultDetection) / time.Millisecond)
	return func(_, _ string, c syscall.RawConn) error {
		var opt error
		if err := c.Control(func(fd uintptr) {
			opt = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, ms)
		}); err != nil {
			return err
		}
		return opt
	}
}
