//go:build !linux

package nbd

import "net"

// link is the socket of a connection after the haggling.
type link struct{ conn net.Conn }

func newLink(conn net.Conn) (*link, error) { return &link{conn: conn}, nil }

// read waits for bytes; io.EOF at the end.
func (l *link) read(p []byte) (int, error) { return l.conn.Read(p) }

// trySend sends nothing: only the writing goroutine may wait, and here every send may.
func (l *link) trySend(segs []segment) ([]segment, error) { return segs, nil }

// sendAll sends all of segs.
func (l *link) sendAll(segs []segment) error {
	for _, s := range segs {
		if _, err := l.conn.Write(s.ch.buf[s.from:s.to]); err != nil {
			return err
		}
	}
	return nil
}

// endRead makes read return.
func (l *link) endRead() {
	if half, ok := l.conn.(interface{ CloseRead() error }); ok {
		_ = half.CloseRead()
	}
}

// cut makes read and sendAll return.
func (l *link) cut() { l.conn.Close() }

// close frees the socket.
func (l *link) close() { l.conn.Close() }
