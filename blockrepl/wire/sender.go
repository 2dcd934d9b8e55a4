package wire

import "net"

// segment is a run of bytes to send; own ones go back to the free list.
type segment struct {
	b   []byte
	own bool
}

// sender has what is being sent: segments, cut into bytes for the socket.
//
// Invariant: it belongs to one goroutine, the one that made its Conn busy, until that takes
// the segments back with done. transmit may be left when the socket is full and goes on
// from the same byte, on whatever goroutine is busy then.
type sender struct {
	nc     net.Conn // encrypts into socket, if secure
	socket *stream
	secure bool

	segs   []segment
	sent   int    // segments
	offset int    // bytes of segs[sent], when encrypting
	raw    []byte // cut and not yet written
	cipher []byte // buffer for ciphertext
}

// transmit sends segs. Without wait it returns errWait when the socket is full, and
// goes on from there when it is called again.
func (s *sender) transmit(wait bool) error {
	for {
		if len(s.raw) == 0 {
			more, err := s.cut()
			if !more || err != nil {
				return err
			}
		}
		var n int
		var err error
		if wait {
			n, err = s.socket.Conn.Write(s.raw)
		} else {
			n, err = s.socket.try(s.raw)
		}
		s.raw = s.raw[n:]
		if err != nil {
			return err
		}
	}
}

// cut sets raw to the next bytes for the socket: a segment, or, encrypted, about
// sealAtOnce bytes of them. It reports false when nothing is left.
func (s *sender) cut() (bool, error) {
	if !s.secure {
		if s.sent == len(s.segs) {
			return false, nil
		}
		s.raw = s.segs[s.sent].b
		s.sent++
		return true, nil
	}
	for room := sealAtOnce; room > 0 && s.sent < len(s.segs); {
		g := &s.segs[s.sent]
		n := min(room, len(g.b)-s.offset)
		if _, err := s.nc.Write(g.b[s.offset : s.offset+n]); err != nil {
			return false, err
		}
		room -= n
		if s.offset += n; s.offset == len(g.b) {
			s.sent, s.offset = s.sent+1, 0
		}
	}
	s.cipher = s.socket.swap(s.cipher)
	s.raw = s.cipher
	return len(s.raw) > 0, nil
}

// done gives the segments back; nothing refers to them any more.
func (s *sender) done() []segment {
	segs := s.segs
	s.segs, s.sent, s.offset, s.raw = nil, 0, 0, nil
	return segs
}
