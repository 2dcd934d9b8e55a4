package mux

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"duet/cluster"
)

const (
	// pingAfter is how long a connection may say nothing before it is pinged, and
	// patience how long it may say nothing before a request also takes another path.
	// A busy peer answers pings, so a slow handler is not asked twice.
	pingAfter = 75 * time.Millisecond
	patience  = 200 * time.Millisecond
	// pingLost closes a connection that did not answer a ping.
	pingLost = 2 * time.Second
	// idleTime is how long an unused connection is kept, and pinged.
	idleTime = 5 * time.Second
)

// HTTPTransport returns a transport for URLs such as http://beta/path, where the
// name is a node and the scheme is always http, since the encryption is below.
// The other side serves with NewHTTPServer.
//
// A request whose path fails or falls silent is sent again over another path, so it may arrive twice, also when the
// handler is still at work: requests must be idempotent. One with a body needs GetBody for that, as http.NewRequest
// makes it. It is one HTTP/2 connection for each path, opened when it is first needed; Stop ends them, with the
// requests on them. Headers and body of an answer come from the attempt that answered first. The error joins those
// of all attempts.
func (m *Mux) HTTPTransport(service byte) http.RoundTripper {
	p := &pool{m: m, service: service, nodes: make(map[cluster.NodeID]*nodePool)}
	m.mu.Lock()
	m.pools = append(m.pools, p)
	m.mu.Unlock()
	return p
}

// NewHTTPServer returns a server for h on a listener of a Mux; the handler finds
// the caller by PeerFrom and MemberFrom.
func NewHTTPServer(h http.Handler) *http.Server {
	var p http.Protocols
	p.SetHTTP1(true)
	p.SetUnencryptedHTTP2(true)
	return &http.Server{
		Handler: h, Protocols: &p, ReadHeaderTimeout: handshakeTimeout,
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, connKey{}, c)
		},
	}
}

type connKey struct{}

// PeerFrom is the node that sent the request with this context; empty if it did
// not come through a server of NewHTTPServer.
func PeerFrom(ctx context.Context) cluster.NodeID {
	c, _ := ctx.Value(connKey{}).(net.Conn)
	return PeerOf(c)
}

// MemberFrom is PeerFrom, and whether that node is a member now with the key that it has shown: a connection outlives a
// membership, and another computer may have the node's name by now. It does not wait.
func MemberFrom(ctx context.Context) (cluster.NodeID, bool) {
	c, ok := ctx.Value(connKey{}).(*Conn)
	if !ok {
		return "", false
	}
	return c.member()
}

// pool is the RoundTripper of one service.
type pool struct {
	m       *Mux
	service byte

	mu    sync.Mutex
	nodes map[cluster.NodeID]*nodePool
}

// nodePool keeps one HTTP/2 connection per path to one node.
type nodePool struct {
	pool *pool
	node cluster.NodeID
	tr   *http.Transport

	mu    sync.Mutex
	conns map[*liveConn]bool // those that are open: calls that come at once may open several over one path
}

// liveConn knows when it last heard from the other side.
type liveConn struct {
	*Conn
	np    *nodePool
	addr  string       // that it was dialled by
	heard atomic.Int64 // Unix nanoseconds
}

// Close is called by the HTTP transport, also for a connection that it does not want in the end.
func (c *liveConn) Close() error {
	c.np.mu.Lock()
	delete(c.np.conns, c)
	c.np.mu.Unlock()
	return c.Conn.Close()
}

// Read notes when something came. Answers to pings arrive here too, so heard grows as long as the other side runs,
// whatever the handler does.
func (c *liveConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 {
		c.heard.Store(time.Now().UnixNano())
	}
	return n, err
}

// node makes the transport of a node when it is first asked for. It pings a connection that is silent, also while a
// request waits: that tells a slow peer from a dead path.
func (p *pool) node(n cluster.NodeID) *nodePool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if np := p.nodes[n]; np != nil {
		return np
	}
	np := &nodePool{pool: p, node: n, conns: make(map[*liveConn]bool)}
	var h2 http.Protocols
	h2.SetUnencryptedHTTP2(true)
	np.tr = &http.Transport{
		DialContext: np.dial, Protocols: &h2, DisableCompression: true, IdleConnTimeout: idleTime,
		HTTP2: &http.HTTP2Config{SendPingTimeout: pingAfter, PingTimeout: pingLost},
	}
	p.nodes[n] = np
	return np
}

// close ends all connections. A transport closes no connection that is in use: these are aborted, and their requests
// fail.
func (p *pool) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, np := range p.nodes {
		np.tr.CloseIdleConnections()
		np.mu.Lock()
		for c := range np.conns {
			c.abort()
		}
		np.mu.Unlock()
	}
}

// dial is called by the HTTP transport, with the address that RoundTrip chose. The transport may use the connection
// for other requests, so it must not end with ctx, and does not. One that comes after Stop is closed here: close may
// have looked already.
func (np *nodePool) dial(ctx context.Context, _, addr string) (net.Conn, error) {
	m := np.pool.m
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(m.ctx, cancel)
	defer stop()
	conn, err := m.dialPath(ctx, np.node, addr, np.pool.service)
	if err != nil {
		return nil, err
	}
	lc := &liveConn{Conn: conn, np: np, addr: addr}
	lc.heard.Store(time.Now().UnixNano())
	np.mu.Lock()
	defer np.mu.Unlock()
	if m.ctx.Err() != nil {
		conn.Close()
		return nil, ErrStopped
	}
	np.conns[lc] = true
	return lc, nil
}

// silence is how long nothing was heard over the path; since bounds it. With no connection yet it is the time since
// the attempt began, so a path that does not even connect counts as silent.
func (np *nodePool) silence(addr string, since time.Time) time.Duration {
	np.mu.Lock()
	defer np.mu.Unlock()
	for c := range np.conns {
		if heard := time.Unix(0, c.heard.Load()); c.addr == addr && heard.After(since) {
			since = heard
		}
	}
	return time.Since(since)
}

// shed ends the connections over a path that no longer answer pings, or whose other side is no member any more, so that
// the next request dials anew. Requests on them go on elsewhere. Without it the request would join a dead connection,
// and wait pingLost for its end, or be answered by a computer whose name another one has now.
func (np *nodePool) shed(addr string) {
	np.mu.Lock()
	defer np.mu.Unlock()
	for c := range np.conns {
		_, member := c.member()
		if c.addr == addr && (!member || time.Since(time.Unix(0, c.heard.Load())) >= patience) {
			c.abort()
			delete(np.conns, c)
		}
	}
}

// RoundTrip implements http.RoundTripper. It blocks until an attempt answers, all have failed, or the context of req
// ends. A body that cannot be had twice leaves one attempt.
func (p *pool) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Body != nil {
		defer req.Body.Close()
	}
	node := cluster.NodeID(req.URL.Hostname())
	paths, err := p.m.paths(node, Any)
	if err != nil {
		return nil, fmt.Errorf("call %s: %w", node, err)
	}
	t := &trip{np: p.node(node), req: req, paths: paths, limit: 2 * len(paths),
		results: make(chan outcome), done: make(chan struct{})}
	if req.Body != nil && req.Body != http.NoBody && req.GetBody == nil {
		t.limit = 1
	}
	resp, err := t.run()
	close(t.done)
	if err != nil {
		return nil, fmt.Errorf("call %s: %w", node, err)
	}
	return resp, nil
}

// trip is one request under way, over one path or several.
type trip struct {
	np      *nodePool
	req     *http.Request
	paths   []string
	limit   int           // attempts; each path gets a second one if all failed
	results chan outcome  // without a buffer: who is not received closes its answer
	done    chan struct{} // nobody receives results any more

	cancels []context.CancelFunc // by attempt; the winner's is called when its body is closed
	last    time.Time            // start of the newest attempt
}

type outcome struct {
	attempt int
	resp    *http.Response
	err     error
}

// run starts attempts until one has an answer. It runs on the goroutine of the caller, which alone changes t.
func (t *trip) run() (*http.Response, error) {
	tick := time.NewTicker(patience / 8)
	defer tick.Stop()
	winner := -1
	defer func() {
		for i, cancel := range t.cancels {
			if i != winner {
				cancel()
			}
		}
	}()
	var errs []error
	if err := t.start(); err != nil {
		return nil, err
	}
	for {
		select {
		case r := <-t.results:
			if r.err == nil {
				winner = r.attempt
				t.np.pool.m.worked(t.np.node, t.path(r.attempt))
				r.resp.Body = &body{r.resp.Body, t.cancels[winner]}
				r.resp.Request = t.req
				return r.resp, nil
			}
			errs = append(errs, r.err)
			if len(errs) == t.limit || t.req.Context().Err() != nil {
				return nil, errors.Join(errs...)
			}
			if len(t.cancels) == t.limit {
				continue // others are still under way
			}
			if err := t.start(); err != nil {
				return nil, err
			}
		case <-tick.C:
			// Only the first attempt on each path answers silence; what falls silent
			// on all paths waits for an error.
			n := len(t.cancels)
			if n < min(t.limit, len(t.paths)) && t.np.silence(t.path(n-1), t.last) >= patience {
				if err := t.start(); err != nil {
					return nil, err
				}
			}
		case <-t.req.Context().Done():
			return nil, errors.Join(append(errs, context.Cause(t.req.Context()))...)
		}
	}
}

func (t *trip) path(attempt int) string { return t.paths[attempt%len(t.paths)] }

// start begins the next attempt. The attempt has a context of its own, which ends with that of the request; the
// node's name travels as Host, and the path as the address that dial gets.
func (t *trip) start() error {
	i := len(t.cancels)
	ctx, cancel := context.WithCancel(t.req.Context())
	req := t.req.Clone(ctx)
	req.URL.Scheme, req.URL.Host = "http", t.path(i)
	req.Host = string(t.np.node)
	if t.req.GetBody != nil {
		b, err := t.req.GetBody()
		if err != nil {
			cancel()
			return fmt.Errorf("repeat body: %w", err)
		}
		req.Body = b
	}
	t.np.shed(t.path(i))
	t.cancels = append(t.cancels, cancel)
	t.last = time.Now()
	ok := t.np.pool.m.spawn(func() {
		resp, err := t.np.tr.RoundTrip(req)
		if err != nil {
			err = fmt.Errorf("over %s: %w", req.URL.Host, err)
		}
		select {
		case t.results <- outcome{i, resp, err}:
		case <-t.done:
			if err == nil {
				resp.Body.Close()
			}
		}
	})
	if !ok {
		return ErrStopped
	}
	return nil
}

// body ends the context of its attempt when it is closed. The context must live as long: the transport ends the
// stream with it.
type body struct {
	io.ReadCloser
	cancel context.CancelFunc
}

func (b *body) Close() error {
	defer b.cancel()
	return b.ReadCloser.Close()
}
