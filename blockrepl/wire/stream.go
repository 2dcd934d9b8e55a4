package wire

import (
	"errors"
	"net"
	"sync"
	"syscall"
)

// readSize is how much one read(2) may bring in: many small frames, one system call.
const readSize = 256 << 10

// errWait says that the socket takes no more without waiting.
var errWait = errors.New("socket is full")

// stream is a raw socket with a large read buffer, a non-blocking write and,
// when corked, a buffer that collects writes. It lies below TLS, so that many
// records of 16 KiB share one system call and tls.Conn.Write never waits.
type stream struct {
	net.Conn
	rbuf   []byte // read and not yet taken; a part of space
	space  []byte
	onWait func() // called before the socket is read; nil during the TLS handshake

	mu     sync.Mutex
	corked bool
	wbuf   []byte // written while corked

	raw   syscall.RawConn // nil: this connection cannot write without waiting
	tryFn func(fd uintptr) bool
	tryP  []byte // arguments and results of tryFn, which is built once to save an allocation per call
	tryN  int
	tryE  error
}

// Buffered prepares a raw connection for TLS: apply it to the socket, hand the
// result to tls.Client or tls.Server, and the tls.Conn to NewConn, which finds
// the buffer below and batches through it. Until then it writes straight through.
// The tls.Config should set DynamicRecordSizingDisabled, as small records cost time.
func Buffered(raw net.Conn) net.Conn { return newStream(raw) }

func newStream(raw net.Conn) *stream {
	s := &stream{Conn: raw}
	if sc, ok := raw.(syscall.Conn); ok {
		if rc, err := sc.SyscallConn(); err == nil {
			s.raw, s.tryFn = rc, s.tryOnce
		}
	}
	return s
}

// Read takes from the buffer, or from the socket when that is empty.
func (s *stream) Read(p []byte) (int, error) {
	if len(s.rbuf) == 0 {
		if s.onWait != nil {
			s.onWait()
		}
		if len(p) >= readSize/4 {
			return s.Conn.Read(p)
		}
		if s.space == nil {
			s.space = make([]byte, readSize)
		}
		n, err := s.Conn.Read(s.space)
		s.rbuf = s.space[:n]
		if n == 0 {
			return 0, err
		}
	}
	n := copy(p, s.rbuf)
	s.rbuf = s.rbuf[n:]
	return n, nil
}

// Write sends p, or only collects it when corked.
func (s *stream) Write(p []byte) (int, error) {
	s.mu.Lock()
	if s.corked {
		s.wbuf = append(s.wbuf, p...)
		s.mu.Unlock()
		return len(p), nil
	}
	s.mu.Unlock()
	return s.Conn.Write(p)
}

func (s *stream) cork() {
	s.mu.Lock()
	s.corked = true
	s.mu.Unlock()
}

// swap takes what was collected and leaves spare in its place.
func (s *stream) swap(spare []byte) []byte {
	s.mu.Lock()
	b := s.wbuf
	s.wbuf = spare[:0]
	s.mu.Unlock()
	return b
}

// try writes as much of p as the socket takes now; errWait if that is not all.
// One caller at a time.
func (s *stream) try(p []byte) (int, error) {
	if s.raw == nil {
		return 0, errWait
	}
	s.tryP, s.tryN, s.tryE = p, 0, nil
	err := s.raw.Write(s.tryFn)
	s.tryP = nil
	if err == nil {
		err = s.tryE
	}
	return s.tryN, err
}
