package nbd

import (
	"fmt"
	"net"
	"syscall"
)

// link is the socket of a connection after the haggling. Reading goes through
// Go's poller: a thread of its own that blocks in the kernel was measured to
// give half the rate at queue depth 1, as it must win a processor back each time.
type link struct {
	conn socket
	raw  syscall.RawConn
	try  trier
}

// socket is what unix and TCP connections have in common.
type socket interface {
	net.Conn
	syscall.Conn
	CloseRead() error
	CloseWrite() error
}

// newLink takes conn over, if err is nil.
func newLink(conn net.Conn) (*link, error) {
	s, ok := conn.(socket)
	if !ok {
		return nil, fmt.Errorf("take over %T: not a socket", conn)
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("take over connection: %w", err)
	}
	return &link{conn: s, raw: raw}, nil
}

// read waits for bytes; io.EOF at the end.
func (l *link) read(p []byte) (int, error) { return l.conn.Read(p) }

// sendAll sends all of segs and waits if it must. It and trySend are never called at once: outbox.busy sees to that.
func (l *link) sendAll(segs []segment) (err error) {
	for len(segs) > 0 && err == nil {
		s := segs[0]
		if _, err = l.conn.Write(s.ch.buf[s.from:s.to]); err == nil {
			segs, err = l.trySend(segs[1:])
		}
	}
	return err
}

// endRead makes read return io.EOF once it has given all that arrived.
func (l *link) endRead() { _ = l.conn.CloseRead() } // fails only if the connection is gone

// cut makes read and sendAll return. It does not free the descriptor, which others may be about to use: close does,
// when nobody is left.
func (l *link) cut() {
	_ = l.conn.CloseRead()
	_ = l.conn.CloseWrite()
}

// close frees the socket.
func (l *link) close() { _ = l.conn.Close() }
