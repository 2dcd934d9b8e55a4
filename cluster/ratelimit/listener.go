package ratelimit

import (
	"net"
	"net/netip"
	"sync"
)

// Listener hangs up on whoever comes when as many are there as the limits allow; nobody waits. A connection counts
// until it is closed, so it has to be closed, once or more.
func Listener(ln net.Listener, l Limits) net.Listener { return &bounded{ln, NewGate(l)} }

type bounded struct {
	net.Listener
	gate *Gate
}

// Accept implements net.Listener.
func (b *bounded) Accept() (net.Conn, error) {
	for {
		conn, err := b.Listener.Accept()
		if err != nil {
			return nil, err
		}
		src := Source(conn)
		if b.gate.Enter(src) {
			return &counted{Conn: conn, leave: sync.OnceFunc(func() { b.gate.Leave(src) })}, nil
		}
		conn.Close()
	}
}

type counted struct {
	net.Conn
	leave func()
}

// Close implements net.Conn.
func (c *counted) Close() error {
	defer c.leave()
	return c.Conn.Close()
}

// Source is the IP of a connection's other end.
func Source(c net.Conn) string {
	ap, err := netip.ParseAddrPort(c.RemoteAddr().String())
	if err != nil {
		return c.RemoteAddr().String()
	}
	return ap.Addr().Unmap().String()
}
