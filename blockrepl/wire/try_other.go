//go:build !unix

package wire

// tryOnce cannot write without waiting on this system; a goroutine of the Conn writes instead.
func (s *stream) tryOnce(uintptr) bool {
	s.tryE = errWait
	return true
}
