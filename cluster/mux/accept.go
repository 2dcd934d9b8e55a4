package mux

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"time"

	"duet/cluster/ratelimit"
)

// What the callee answers to the service byte. They are on the wire and keep their numbers; a caller takes one that
// it does not know for answerNotAllowed.
const (
	answerOK         = 0
	answerNoService  = 1
	answerNotAllowed = 2
)

var (
	// ErrNoService is returned by Dial if the peer has no such service, or not yet.
	ErrNoService = errors.New("the peer does not offer the service")
	// ErrNotAllowed is returned by Dial if the peer does not know this node as a member.
	ErrNotAllowed = errors.New("the peer does not take this node for a member")
)

// acceptLoop accepts until ln is closed; closing it while the address is still wanted leads to a new one by rebind.
// It never waits for a caller: each has a goroutine, and the gate bounds what they do.
func (m *Mux) acceptLoop(ln net.Listener) {
	for {
		raw, err := ln.Accept()
		if err != nil {
			if !errors.Is(err, net.ErrClosed) {
				m.drop(ln) // out of descriptors, for example: rebind comes in a second
			}
			return
		}
		if !m.spawn(func() { m.receive(raw) }) {
			raw.Close()
		}
	}
}

// receive takes one caller through the gate and greets it. A member that comes too late to be greeted within its
// time is refused like a stranger. The gate is left when the service has the connection, so its limits bound
// handshakes, not connections.
func (m *Mux) receive(raw net.Conn) {
	src := ratelimit.Source(raw)
	gate, member := m.others, m.isMember(src)
	if member {
		gate = m.ours
	}
	ctx, cancel := context.WithTimeout(m.ctx, handshakeTimeout)
	defer cancel()
	if err := gate.Wait(ctx, src); err != nil {
		raw.Close()
		if m.ctx.Err() == nil {
			m.notes.warn("connection refused", "too many handshakes at once, the last from "+src)
		}
		return
	}
	defer gate.Leave(src)
	if err := m.greet(ctx, raw); err != nil && !errors.Is(err, errGone) && m.ctx.Err() == nil {
		m.notes.warn("connection refused", fmt.Sprintf("from %s: %v", src, err))
	}
}

// isMember reports whether an IP is that of a member; who it is shows in the handshake.
func (m *Mux) isMember(ip string) bool {
	for _, other := range m.cfg.Cluster().Members {
		for _, a := range other.Addrs {
			if a == ip {
				return true
			}
		}
	}
	return false
}

// drop gives up a listener that fails; connections that it accepted go on.
func (m *Mux) drop(ln net.Listener) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for addr, have := range m.bound {
		if have == ln {
			delete(m.bound, addr)
		}
	}
	ln.Close()
}

// greet runs the handshake of one caller and hands the connection to its service. What ends early, by its time or by
// Stop, is closed below TLS: the farewell of TLS could wait for the caller.
func (m *Mux) greet(ctx context.Context, raw net.Conn) error {
	conn := newConn(tls.Server(m.wrap(raw), speaking(m.cfg.Identity.Server())), raw)
	conn.mux = m
	stop := context.AfterFunc(ctx, func() { raw.Close() })
	if err := m.serve(ctx, conn, stop); err != nil {
		stop()
		raw.Close()
		return err
	}
	return nil
}

// errGone ends a connection that needs no line in the log.
var errGone = errors.New("connection is of no more use")

// serve reads the service byte and answers it. It calls release, which ends the hold that ctx has on the connection,
// before it gives the connection away. The membership is looked at here and not in the TLS handshake, so that the
// refusal is a byte that the caller understands (ErrNotAllowed) and not an alert. Join alone needs none.
func (m *Mux) serve(ctx context.Context, conn *Conn, release func() bool) error {
	if err := conn.tls.HandshakeContext(ctx); err != nil {
		if err == io.EOF { // bare: the caller said nothing at all, it only looked whether the port is open
			return errGone
		}
		return fmt.Errorf("handshake: %w", err)
	}
	if err := conn.negotiated(); err != nil {
		return err
	}
	var b [1]byte
	if _, err := conn.Read(b[:]); err != nil {
		return fmt.Errorf("read service: %w", err)
	}
	var member bool
	conn.peer, member = conn.member()
	if !member && b[0] != Join {
		conn.Write([]byte{answerNotAllowed})
		return fmt.Errorf("%q asked for service %q and is not a member of this cluster", conn.peer, b[0])
	}
	m.mu.Lock()
	l := m.services[b[0]]
	m.mu.Unlock()
	if l == nil { // no fault: services come and go as a node starts and stops
		conn.Write([]byte{answerNoService})
		return errGone
	}
	if _, err := conn.Write([]byte{answerOK}); err != nil || !release() {
		return errGone
	}
	return l.offer(ctx, conn)
}

// wrap applies the hook.
func (m *Mux) wrap(raw net.Conn) net.Conn {
	if m.cfg.WrapConn == nil {
		return raw
	}
	return m.cfg.WrapConn(raw)
}

// listener is the net.Listener of one service. conns has no buffer: what is handed over is held by somebody.
type listener struct {
	m       *Mux
	service byte
	conns   chan *Conn
	once    sync.Once
	closed  chan struct{} // closed by Close; accepting and offering end
}

// offer waits for Accept; on an error the connection is still the caller's.
func (l *listener) offer(ctx context.Context, c *Conn) error {
	select {
	case l.conns <- c:
		return nil
	case <-l.closed:
		return errGone
	case <-ctx.Done():
		return fmt.Errorf("service %q does not accept: %w", l.service, ctx.Err())
	}
}

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, fmt.Errorf("accept service %q: %w", l.service, net.ErrClosed)
	}
}

// Close implements net.Listener. Connections that were accepted stay with their users. The service may be opened
// again at once.
func (l *listener) Close() error {
	l.once.Do(func() {
		close(l.closed)
		l.m.mu.Lock()
		if l.m.services[l.service] == l {
			delete(l.m.services, l.service)
		}
		l.m.mu.Unlock()
	})
	return nil
}

// Addr implements net.Listener: the first address of this node.
func (l *listener) Addr() net.Addr {
	c := l.m.cfg.Cluster()
	for _, ip := range c.Paths(c.Self, false) {
		return &net.TCPAddr{IP: net.ParseIP(ip), Port: c.Port}
	}
	return &net.TCPAddr{}
}

// notes logs each distinct text at most once a minute, because a node that is
// refused comes again every second.
type notes struct {
	log  *slog.Logger
	mu   sync.Mutex
	last map[string]time.Time
}

func newNotes(log *slog.Logger) *notes {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &notes{log: log, last: make(map[string]time.Time)}
}

func (n *notes) warn(msg, why string) {
	if n.isNew(msg + why) {
		n.log.Warn(msg, "why", why) // without the lock: a log may be a pipe that nobody reads
	}
}

func (n *notes) isNew(text string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	now := time.Now()
	if now.Sub(n.last[text]) < time.Minute {
		return false
	}
	if len(n.last) > 100 { // texts can be made up by a stranger
		clear(n.last)
	}
	n.last[text] = now
	return true
}
