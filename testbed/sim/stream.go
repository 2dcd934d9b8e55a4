package sim

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// stream is an end of a pipe as a net.Conn that carries bytes, for the real byte path. Read and Write are called
// by goroutines of the byte path, receive and fail by the world; mu is held for moments only. What has arrived
// is read before the error of its end, as from a TCP socket, unless this side has closed it.
type stream struct {
	net.Conn // nil: what is missing here nobody calls
	w        *world
	e        *end
	gate     *gate

	mu       sync.Mutex
	changed  sync.Cond
	received []byte
	err      error // of reading, after what was received; and of writing
	late     [2]bool
	timers   [2]*time.Timer
}

const (
	reading = iota
	writing
)

func newStream(e *end) *stream {
	s := &stream{w: e.node.c.w, e: e, gate: e.proc.gate}
	s.changed.L = &s.mu
	e.lost = s.fail
	e.got = s.receive
	return s
}

// receive takes bytes from the network. The bytes are the stream's from then on: Write has copied them.
func (s *stream) receive(b []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.received = append(s.received, b...)
	s.changed.Broadcast()
}

// fail ends the stream from outside.
func (s *stream) fail(cause error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		s.err = cause
	}
	s.changed.Broadcast()
}

// Read takes what has arrived, or waits for it.
func (s *stream) Read(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		switch {
		case s.late[reading]:
			return 0, os.ErrDeadlineExceeded
		case errors.Is(s.err, net.ErrClosed):
			return 0, s.err
		case len(s.received) > 0:
			n := copy(p, s.received)
			if s.received = s.received[n:]; len(s.received) == 0 {
				s.received = nil
			}
			return n, nil
		case s.err != nil:
			return 0, s.err
		}
		s.changed.Wait()
	}
}

// Write sends a copy of p. It waits only while the process is frozen. It never waits for the peer: there is no
// window, so a peer that does not read is found by the stall budget only. Success says nothing of arrival.
func (s *stream) Write(p []byte) (int, error) {
	if !s.gate.pass() {
		return 0, net.ErrClosed
	}
	s.mu.Lock()
	err := s.err
	if s.late[writing] {
		err = os.ErrDeadlineExceeded
	}
	s.mu.Unlock()
	if err != nil {
		if errors.Is(err, io.EOF) {
			err = errors.New("broken pipe")
		}
		return 0, err
	}
	b := append([]byte(nil), p...)
	there := s.e.other()
	s.w.live.post(func() { s.e.send(func() { there.got(b) }) })
	return len(p), nil
}

// Close ends the stream; the other side hears of it when the network lets it. A Read or Write that waits ends
// with net.ErrClosed.
func (s *stream) Close() error {
	s.fail(net.ErrClosed)
	s.w.live.post(func() { s.w.quiet(0, s.e.proc, func() { _ = s.e.Close() }) })
	return nil
}

// SetDeadline bounds reading and writing.
func (s *stream) SetDeadline(t time.Time) error {
	return errors.Join(s.SetReadDeadline(t), s.SetWriteDeadline(t))
}

// SetReadDeadline bounds reading.
func (s *stream) SetReadDeadline(t time.Time) error { return s.bound(reading, t) }

// SetWriteDeadline bounds writing.
func (s *stream) SetWriteDeadline(t time.Time) error { return s.bound(writing, t) }

func (s *stream) bound(side int, t time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.timers[side] != nil {
		s.timers[side].Stop()
		s.timers[side] = nil
	}
	left := time.Until(t)
	s.late[side] = !t.IsZero() && left <= 0
	if !t.IsZero() && left > 0 {
		s.timers[side] = time.AfterFunc(left, func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.late[side] = true
			s.changed.Broadcast()
		})
	}
	s.changed.Broadcast()
	return nil
}

// address is where a stream leads.
type address string

// Network is the simulated one.
func (address) Network() string { return "sim" }

// String is the name of a node.
func (a address) String() string { return string(a) }

// LocalAddr names this end for logs.
func (s *stream) LocalAddr() net.Addr { return address(s.e.node.name) }

// RemoteAddr names the other end for logs.
func (s *stream) RemoteAddr() net.Addr { return address(s.e.other().node.name) }
