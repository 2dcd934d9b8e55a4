//go:build unix

package wire

import "syscall"

// tryOnce runs inside RawConn.Write; it returns true so that it never waits.
func (s *stream) tryOnce(fd uintptr) bool {
	for s.tryN < len(s.tryP) {
		n, err := syscall.Write(int(fd), s.tryP[s.tryN:])
		switch {
		case err == syscall.EINTR:
		case err == syscall.EAGAIN:
			s.tryE = errWait
			return true
		case err != nil:
			s.tryE = err
			return true
		default:
			s.tryN += n
		}
	}
	return true
}
