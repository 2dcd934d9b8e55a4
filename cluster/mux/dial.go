package mux

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"time"

	"duet/cluster"
)

// Route says which paths to a peer come first.
type Route uint8

const (
	// Any takes the path that worked last, and the replication network last of all.
	Any Route = iota
	// Replication takes the replication network first.
	Replication
)

// ErrNoPath is returned when the configuration has no address of a node.
var ErrNoPath = errors.New("the cluster's configuration has no address of it")

// Dial connects to a service of node. The paths are tried in order, each 150 ms after the one before or as soon as
// that failed, and the first that succeeds wins; each has 3 s at most. The connection belongs to the caller, and ctx
// does not end it. An error joins those of all paths that were tried; it is ErrNoPath for a node without an address,
// ErrStopped after Stop, ErrNoService and ErrNotAllowed where the node itself refuses, and cluster.ErrOlder where no
// version is common.
func (m *Mux) Dial(ctx context.Context, node cluster.NodeID, service byte, route Route) (net.Conn, error) {
	paths, err := m.paths(node, route)
	if err != nil {
		return nil, fmt.Errorf("%s is not reached: %w", node, cluster.Worded(err))
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the attempts that lost
	stop := context.AfterFunc(m.ctx, cancel)
	defer stop()

	results := make(chan dialed)
	conn, err := race(ctx, len(paths), func(i int) bool {
		return m.spawn(func() {
			c, err := m.dialPath(ctx, node, paths[i], service)
			select {
			case results <- dialed{c, err}:
			case <-ctx.Done():
				if c != nil {
					c.Close()
				}
			}
		})
	}, results)
	if err != nil {
		return nil, fmt.Errorf("%s is not reached: %w", node, cluster.Worded(err))
	}
	m.worked(node, conn.RemoteAddr().String())
	return conn, nil
}

// dialed is the end of one attempt: one of both is nil.
type dialed struct {
	conn *Conn
	err  error
}

// race starts attempts 0 to n-1, staggered, and returns the first good result or all errors. A result that it does
// not take is closed by its attempt, when ctx ends: the caller cancels it.
func race(ctx context.Context, n int, start func(i int) bool, results <-chan dialed) (*Conn, error) {
	var errs []error
	timer := time.NewTimer(0)
	defer timer.Stop()
	for started := 0; len(errs) < n; {
		select {
		case <-timer.C:
			if started == n {
				continue
			}
			if !start(started) {
				return nil, ErrStopped
			}
			started++
			timer.Reset(stagger)
		case r := <-results:
			if r.err == nil {
				return r.conn, nil
			}
			errs = append(errs, r.err)
			timer.Reset(0) // the next one need not wait
		case <-ctx.Done():
			return nil, errors.Join(append(errs, context.Cause(ctx))...)
		}
	}
	return nil, errors.Join(errs...)
}

// paths lists the addresses of node, best first.
func (m *Mux) paths(node cluster.NodeID, route Route) ([]string, error) {
	c := m.cfg.Cluster()
	var out []string
	for _, ip := range c.Paths(node, route == Replication) {
		out = append(out, join(ip, c.Port))
	}
	if len(out) == 0 {
		return nil, ErrNoPath
	}
	if route == Any {
		m.mu.Lock()
		good := m.good[node]
		m.mu.Unlock()
		slices.SortStableFunc(out, func(a, b string) int {
			switch {
			case a == good && b != good:
				return -1
			case b == good && a != good:
				return 1
			}
			return 0
		})
	}
	return out, nil
}

// worked remembers a path for the next call.
func (m *Mux) worked(node cluster.NodeID, path string) {
	m.mu.Lock()
	m.good[node] = path
	m.mu.Unlock()
}

// dialPath connects to a service of node at one address.
func (m *Mux) dialPath(ctx context.Context, node cluster.NodeID, addr string, service byte) (*Conn, error) {
	conn, err := connect(ctx, target{
		addr: addr, service: service, tls: m.cfg.Identity.Client(node),
		detection: m.cfg.Cluster().Detection, wrap: m.wrap,
	})
	if err != nil {
		return nil, err
	}
	conn.peer, conn.mux = node, m
	return conn, nil
}

// DialJoin connects to the join service at addr ("ip:port") for a node that has
// no identity yet; cfg decides whom to trust.
func DialJoin(ctx context.Context, addr string, cfg *tls.Config) (net.Conn, error) {
	c, err := connect(ctx, target{addr: addr, service: Join, tls: cfg, wrap: func(c net.Conn) net.Conn { return c }})
	if err != nil {
		return nil, fmt.Errorf("dial: %w", err)
	}
	return c, nil
}

// target is one way to a service.
type target struct {
	addr      string
	service   byte
	tls       *tls.Config
	detection time.Duration // 0: the default
	wrap      func(net.Conn) net.Conn
}

// connect runs TCP, TLS and the choice of the service. ctx bounds it only until it returns; where its end meets the
// success, a connection that AfterFunc closes is never returned.
func connect(ctx context.Context, t target) (*Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	d := net.Dialer{KeepAliveConfig: keepAlive(), Control: control(t.detection)}
	raw, err := d.DialContext(ctx, "tcp", t.addr)
	if err != nil {
		return nil, err // it names the address
	}
	stop := context.AfterFunc(ctx, func() { raw.Close() })
	conn := newConn(tls.Client(t.wrap(raw), speaking(t.tls)), raw)
	err = choose(ctx, conn, t.service)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		raw.Close()
		return nil, fmt.Errorf("%s: %w", t.addr, err)
	}
	return conn, nil
}

// noCommonProtocol is TLS's no_application_protocol (RFC 7301), for which crypto/tls has no
// value: the callee speaks no version that the caller offered. The caller is the newer one: a
// newer callee speaks the one before.
const noCommonProtocol = "tls: no application protocol"

// choose runs the handshake and selects the service. With TLS 1.3 the callee judges the caller's certificate after
// the caller's handshake has succeeded, so a refusal comes with the first Read.
func choose(ctx context.Context, conn *Conn, service byte) error {
	if err := conn.tls.HandshakeContext(ctx); err != nil {
		var alert *net.OpError
		if errors.As(err, &alert) && alert.Op == "remote error" && alert.Err.Error() == noCommonProtocol {
			return fmt.Errorf("%w: it speaks none of %s, which this node speaks", cluster.ErrOlder, cluster.Spoken())
		}
		return fmt.Errorf("handshake: %w", err)
	}
	if err := conn.negotiated(); err != nil {
		return err
	}
	if _, err := conn.Write([]byte{service}); err != nil {
		return fmt.Errorf("select service: %w", err)
	}
	var b [1]byte
	if _, err := conn.Read(b[:]); err != nil {
		return fmt.Errorf("select service: %w", err) // a refused certificate shows here
	}
	switch b[0] {
	case answerOK:
		return nil
	case answerNoService:
		return fmt.Errorf("%w: %q", ErrNoService, service)
	}
	return ErrNotAllowed
}
