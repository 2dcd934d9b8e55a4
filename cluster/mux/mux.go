package mux

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"sync"
	"syscall"
	"time"

	"duet/cluster"
	"duet/cluster/ratelimit"
)

// Join is the service for nodes that are not members yet, the only one that
// needs no certificate.
const Join byte = 'J'

const (
	handshakeTimeout = 3 * time.Second        // TCP, TLS and the choice of a service
	stagger          = 150 * time.Millisecond // from one path to the next
	rebindEvery      = time.Second            // an address that appears is bound that much later at most
)

// What may be in the middle of a handshake at once. The members of the cluster wait their
// turn: all modules of one connect in the same moment when it comes back. Others, who may
// want to join or look for open ports, are hung up on, and cannot keep a member out.
var (
	forStrangers = ratelimit.Limits{All: 64, Each: 8}
	forMembers   = ratelimit.Limits{All: 64, Each: 8, Queue: 256}
)

// ErrStopped is returned by what is called after Stop.
var ErrStopped = errors.New("mux stopped")

// Identity is what a node shows and checks others by; pki.Identity is one.
type Identity interface {
	// Server accepts members and, without certificate, newcomers; nobody else.
	Server() *tls.Config
	// Client accepts nobody but peer.
	Client(peer cluster.NodeID) *tls.Config
	// Peer names the verified other side, false if it showed no certificate, or is no member now. It is asked again
	// for connections that are open, and must not wait.
	Peer(tls.ConnectionState) (cluster.NodeID, bool)
}

// Config says what a Mux works with.
type Config struct {
	Identity Identity
	// Cluster is the configuration as it is now: addresses, port, members. It must not wait: each dial and each
	// handshake asks.
	Cluster func() cluster.Config
	// WrapConn, if not nil, is put between each TCP connection and its TLS.
	WrapConn func(net.Conn) net.Conn
	Logger   *slog.Logger
}

// Mux is the port of this node. All methods may be called by several goroutines.
type Mux struct {
	cfg    Config
	others *ratelimit.Gate // handshakes of those who come from no member's address
	ours   *ratelimit.Gate // of those who come from one
	notes  *notes
	ctx    context.Context // ends with Stop
	cancel context.CancelFunc
	wg     sync.WaitGroup // every goroutine of this Mux

	mu       sync.Mutex
	stopped  bool                      // no goroutine is begun after it is set
	services map[byte]*listener        // by service byte; nil once stopped
	bound    map[string]net.Listener   // by address with port
	good     map[cluster.NodeID]string // the path that worked last
	pools    []*pool                   // to be closed with it
}

// New returns a Mux that does nothing yet.
func New(cfg Config) *Mux {
	m := &Mux{
		cfg: cfg, notes: newNotes(cfg.Logger),
		others: ratelimit.NewGate(forStrangers), ours: ratelimit.NewGate(forMembers),
		services: make(map[byte]*listener), bound: make(map[string]net.Listener), good: make(map[cluster.NodeID]string),
	}
	m.ctx, m.cancel = context.WithCancel(context.Background())
	return m
}

// Start binds this node's addresses. It fails if one is in use by another program; one that does not exist (yet) is
// tried again every second, and addresses that come and go in the configuration are followed. It returns before
// addresses that are missing are there. After an error the Mux is stopped.
func (m *Mux) Start() error {
	if m.ctx.Err() != nil {
		return ErrStopped
	}
	if err := m.rebind(); errors.Is(err, syscall.EADDRINUSE) {
		m.Stop()
		return fmt.Errorf("start mux: %w (is another duetd running?)", err)
	}
	m.spawn(func() {
		tick := time.NewTicker(rebindEvery)
		defer tick.Stop()
		for {
			select {
			case <-m.ctx.Done():
				return
			case <-tick.C:
				if err := m.rebind(); err != nil {
					m.notes.warn("cannot listen", err.Error())
				}
			}
		}
	})
	return nil
}

// Stop closes the port, the listeners, what is in the middle of a handshake and the connections of HTTP transports,
// and returns when all goroutines have ended. Accepted and dialled connections belong to their users. It may be
// called more than once. Requests under way fail; handlers and services are stopped by whoever has them.
func (m *Mux) Stop() {
	m.mu.Lock()
	m.stopped = true
	for addr, ln := range m.bound {
		ln.Close()
		delete(m.bound, addr)
	}
	services, pools := m.services, m.pools
	m.services, m.pools = nil, nil
	m.mu.Unlock()
	m.cancel()
	for _, l := range services {
		l.Close()
	}
	for _, p := range pools {
		p.close()
	}
	m.wg.Wait()
}

// spawn runs f as a goroutine that Stop waits for, or not at all after Stop. It takes m.mu, so that no goroutine
// begins between the flag and the Wait.
func (m *Mux) spawn(f func()) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.stopped {
		return false
	}
	m.wg.Go(f)
	return true
}

// rebind makes the bound addresses those of the configuration. What was bound stays as it is while its address
// stays, with the socket options of the detection time it was bound under. Connections of an address that is gone
// are not closed: the kernel and gossip find out.
func (m *Mux) rebind() error {
	c := m.cfg.Cluster()
	want := make(map[string]bool)
	for _, a := range c.Paths(c.Self, false) {
		want[join(a, c.Port)] = true
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.stopped {
		return ErrStopped
	}
	for addr, ln := range m.bound {
		if !want[addr] {
			ln.Close()
			delete(m.bound, addr)
		}
	}
	var errs []error
	for addr := range want {
		if m.bound[addr] != nil {
			continue
		}
		ln, err := listen(m.ctx, addr, c.Detection)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		m.bound[addr] = ln
		m.wg.Go(func() { m.acceptLoop(ln) })
	}
	return errors.Join(errs...)
}

// Listen returns the listener of a service. Its connections carry their peer, see PeerOf. Closing it ends the
// service. A connection waits for Accept at most as long as its handshake has left, then the caller is hung up on:
// accept in a loop, and do the work elsewhere.
func (m *Mux) Listen(service byte) (net.Listener, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.stopped {
		return nil, ErrStopped
	}
	if m.services[service] != nil {
		return nil, fmt.Errorf("listen: service %q is taken", service)
	}
	l := &listener{m: m, service: service, conns: make(chan *Conn), closed: make(chan struct{})}
	m.services[service] = l
	return l, nil
}

// Conn is a connection between two nodes with the service chosen. That there is
// TLS inside is not part of its face, because net/http would then want to run the handshake.
type Conn struct {
	net.Conn
	tls  *tls.Conn // the same
	peer cluster.NodeID
	mux  *Mux // nil: of DialJoin
	path string
	// speaks is the version that both sides speak.
	speaks cluster.Version
}

func newConn(c *tls.Conn, raw net.Conn) *Conn {
	return &Conn{Conn: c, tls: c, path: ratelimit.Source(raw)}
}

// NetConn is the layer below, a *tls.Conn.
func (c *Conn) NetConn() net.Conn { return c.tls }

// abort closes without the farewell of TLS, which could wait for a dead peer. Reads and writes under way fail at
// once.
func (c *Conn) abort() { c.tls.NetConn().Close() }

// Path is the IP of the peer that the connection goes to or comes from.
func (c *Conn) Path() string { return c.path }

// PeerOf is the node at the other end of a connection that Dial or a listener of
// a Mux returned; empty for one that is not a member yet, or not from a Mux.
func PeerOf(c net.Conn) cluster.NodeID {
	if c, ok := c.(*Conn); ok {
		return c.peer
	}
	return ""
}

// member is the name in the certificate of the other side, and whether that node is a member now, with the key that it
// has shown.
func (c *Conn) member() (cluster.NodeID, bool) {
	node, ok := c.mux.cfg.Identity.Peer(c.tls.ConnectionState())
	if ok {
		_, ok = c.mux.cfg.Cluster().Member(node)
	}
	return node, ok
}

// Speaks is the version of the messages between the nodes that both ends know.
func (c *Conn) Speaks() cluster.Version { return c.speaks }

// speaking is conf with the versions that this release speaks. The caller's conf stays as it is.
func speaking(conf *tls.Config) *tls.Config {
	conf = conf.Clone()
	conf.NextProtos = cluster.Protocols()
	return conf
}

// negotiated notes the version after the handshake.
func (c *Conn) negotiated() (err error) {
	c.speaks, err = cluster.Negotiated(c.tls.ConnectionState().NegotiatedProtocol)
	return err
}

func join(ip string, port int) string { return net.JoinHostPort(ip, strconv.Itoa(port)) }

// listen binds addr with the socket options of accepted connections.
func listen(ctx context.Context, addr string, detection time.Duration) (net.Listener, error) {
	lc := net.ListenConfig{KeepAliveConfig: keepAlive(), Control: control(detection)}
	return lc.Listen(ctx, "tcp", addr)
}

// keepAlive finds a dead peer on a connection that is idle. About four seconds of silence end it; data that is not
// acknowledged is control's.
func keepAlive() net.KeepAliveConfig {
	return net.KeepAliveConfig{Enable: true, Idle: time.Second, Interval: time.Second, Count: 3}
}
