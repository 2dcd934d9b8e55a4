package witness

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"duet/cluster"
	"duet/cluster/enroll"
)

// ErrClosed is returned by a Client after Close.
var ErrClosed = errors.New("witness client is closed")

// ErrUnreached is wrapped by the error of a call that met nobody at the witness's address.
var ErrUnreached = errors.New("it cannot be reached")

const (
	// patience is how long a connection that worked before may take to answer until
	// a new one is tried; on a slow path, three times what connecting took.
	patience = 300 * time.Millisecond
	// connectTime bounds connecting, for the sake of the callers who wait for it.
	connectTime = 5 * time.Second
	// keepalive and keepaliveLost find out about dead connections while nothing is asked.
	keepalive     = 15 * time.Second
	keepaliveLost = 5 * time.Second
)

// ClientConfig says who calls which witness.
type ClientConfig struct {
	Addr string      // HOST:PORT
	Key  Fingerprint // the pinned key of the witness
	ID   string      // of the cluster's Registration
	// Certificate is the one of this node for TLS clients; a new one is used from
	// the next call on.
	Certificate func() *tls.Certificate
}

// Client calls a witness. Any number of goroutines may use it; they share one
// connection, which is opened when it is first needed and kept. A Client has no
// goroutine of its own: call Hello every ten seconds or so, and the next vote
// costs one round trip.
//
// Every call ends with its context. A call may reach the witness twice, so all
// of them are idempotent.
type Client struct {
	cfg  ClientConfig
	ctx  context.Context // ends with Close
	stop context.CancelFunc
	dial chan struct{} // holds a token while somebody looks for a line

	mu     sync.Mutex
	closed bool
	calls  sync.WaitGroup
	line   *line // the newest; nil if there is none
}

// line is a connection to the witness.
type line struct {
	// Of HTTP/2: any number of calls at once, and it pings while nothing is heard.
	conn     *http.ClientConn
	cert     *tls.Certificate // that the connection was made with
	patience time.Duration    // how long an answer may take before another line is tried

	users   int  // under Client.mu
	retired bool // under Client.mu: closed after the last user
}

// NewClient returns a Client. It connects when it is first used.
func NewClient(cfg ClientConfig) *Client {
	if cfg.Certificate == nil {
		cfg.Certificate = func() *tls.Certificate { return nil }
	}
	c := &Client{cfg: cfg, dial: make(chan struct{}, 1)}
	c.ctx, c.stop = context.WithCancel(context.Background())
	return c
}

// Close ends calls under way, and waits for them, and the connection. It may be called more than once, also while
// calls run: they end with ErrClosed. It does not wait for the witness.
func (c *Client) Close() error {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.stop()
	c.calls.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.line != nil {
		c.retire(c.line)
	}
	return nil
}

// Ask asks for the right to write a module. An error is no vote: neither a yes nor a no. a.Node must be the node of
// the certificate. A yes that is not to this very ask is an error: it would be of another epoch or node. Why, of a
// yes, is a sentence for the log only.
func (c *Client) Ask(ctx context.Context, a cluster.Ask) (cluster.Answer, error) {
	var ans cluster.Answer
	if err := c.call(ctx, pathAsk, a, &ans); err != nil {
		return cluster.Answer{}, err
	}
	if k := ans.Know; ans.Yes && (k.Promised != a.Epoch || k.To != a.Node) {
		return cluster.Answer{}, fmt.Errorf("ask witness %s: its yes is to %s for epoch %d, not to %s for epoch %d",
			c.cfg.Addr, k.To, k.Promised, a.Node, a.Epoch)
	}
	return ans, nil
}

// Hello finds out whether the witness answers and knows this node. It keeps the connection warm.
func (c *Client) Hello(ctx context.Context) (Greeting, error) {
	var g Greeting
	err := c.call(ctx, pathHello, struct{}{}, &g)
	return g, err
}

// ForgetModule has the witness forget a module that was released. It must not be called while any node may still ask
// for the right to write it. The witness has no memory of it afterwards: whoever asks first gets a yes, with data
// however old. It is durable when it returns nil; a module that is not there is no error.
func (c *Client) ForgetModule(ctx context.Context, module string) error {
	return c.call(ctx, pathForgetModule, forgetRequest{module}, nil)
}

// TellMembers has the witness know which nodes are members and which were removed; it may be told again. A witness
// of an older release does not know the call: ErrBadRequest. What it knows is durable when it returns nil, and it
// answers none of those that are gone from then on. Facts without a number are refused. After an error some of the
// facts may be known.
func (c *Client) TellMembers(ctx context.Context, facts []cluster.Fact) error {
	facts = slices.Clone(facts)
	for i := range facts {
		facts[i].Addrs = nil // nothing to the witness
	}
	for len(facts) > factsAtOnce {
		if err := c.call(ctx, pathMembers, membersRequest{facts[:factsAtOnce]}, nil); err != nil {
			return err
		}
		facts = facts[factsAtOnce:]
	}
	return c.call(ctx, pathMembers, membersRequest{facts}, nil)
}

// Register makes a cluster known to the witness at addr and returns the key to pin. If the answer was lost, the same
// call may be repeated; otherwise a token serves one cluster. The pin of the token, not what the witness sends, is
// the key: a wrong computer at addr fails with ErrWrongWitness before it sees the secret. The registration is
// durable there when it returns nil.
func Register(ctx context.Context, addr string, t enroll.Token, r Registration) (Fingerprint, error) {
	if _, err := r.check(); err != nil {
		return Fingerprint{}, fmt.Errorf("register: %w", err)
	}
	c := NewClient(ClientConfig{Addr: addr, Key: t.Pin})
	defer c.Close()
	if err := c.call(ctx, pathRegister, registerRequest{t.Secret, r}, nil); err != nil {
		return Fingerprint{}, err
	}
	return t.Pin, nil
}

// call sends a request and decodes the answer into out, if there is one to be had. The error wraps the cause of ctx
// where that ended the call: context.DeadlineExceeded of a caller whose time is over, ErrClosed after Close. An
// error of the witness keeps its sentinel, see kinds.
func (c *Client) call(ctx context.Context, path string, in, out any) error {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return ErrClosed
	}
	c.calls.Add(1)
	c.mu.Unlock()
	defer c.calls.Done()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(c.ctx, func() { cancel(ErrClosed) })()

	path = strings.Replace(path, "{id}", c.cfg.ID, 1)
	body, err := json.Marshal(in)
	if err == nil {
		err = c.attempts(ctx, path, body, out)
	}
	if err != nil && ctx.Err() != nil && !errors.Is(err, context.Cause(ctx)) {
		err = fmt.Errorf("%w (%w)", context.Cause(ctx), err)
	}
	if err != nil {
		return fmt.Errorf("witness %s: %w", c.cfg.Addr, cluster.Worded(err))
	}
	return nil
}

// attempts asks over the line that is there, and if that is dead once more over another. Only an existing line is
// given up for silence (patience): a new one has just answered a handshake, and what is slow after that is the
// witness itself, which another connection would not help.
func (c *Client) attempts(ctx context.Context, path string, body []byte, out any) error {
	for last := false; ; last = true {
		l, fresh, err := c.take(ctx)
		if err != nil {
			return err
		}
		last = last || fresh
		answer, err := l.send(ctx, c.cfg.Addr, path, body, last)
		// A call that was given up by its caller says nothing about the line.
		c.give(l, err != nil && !errors.Is(context.Cause(ctx), context.Canceled))
		switch {
		case err == nil:
			return answer.read(out)
		case last || ctx.Err() != nil:
			return err
		}
	}
}

// take returns a line to use, and whether it is a new one. One caller at a time looks for it, so that many do not
// connect at once. It blocks on the network while it connects, at most connectTime, without c.mu, so that Close and
// calls under way go on. A certificate that was renewed retires the line: the witness looks at the one that the
// connection was made with.
func (c *Client) take(ctx context.Context) (l *line, fresh bool, err error) {
	select {
	case c.dial <- struct{}{}:
		defer func() { <-c.dial }()
	case <-ctx.Done():
		return nil, false, fmt.Errorf("%w: %w", ErrUnreached, context.Cause(ctx))
	}
	cert := c.cfg.Certificate()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.line != nil && (c.line.conn.Err() != nil || !sameCert(c.line.cert, cert)) {
		c.retire(c.line)
	}
	if c.line == nil {
		c.mu.Unlock()
		l, err := connect(ctx, c.cfg, cert)
		c.mu.Lock()
		if err != nil {
			return nil, false, fmt.Errorf("%w: %w", ErrUnreached, err)
		}
		c.line, fresh = l, true
	}
	c.line.users++
	return c.line, fresh, nil
}

// sameCert compares the leaves: the rest of the chain and the key come with them.
func sameCert(a, b *tls.Certificate) bool {
	if a == nil || b == nil {
		return a == b
	}
	return len(a.Certificate) > 0 && len(b.Certificate) > 0 && bytes.Equal(a.Certificate[0], b.Certificate[0])
}

// give ends the use of a line.
func (c *Client) give(l *line, broken bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	l.users--
	if broken || l.retired {
		c.retire(l)
	}
}

// retire takes a line out of use and closes it after its last user: it may be only
// slow, and another call on it still be answered. The caller holds c.mu.
func (c *Client) retire(l *line) {
	l.retired = true
	if c.line == l {
		c.line = nil
	}
	if l.users == 0 {
		l.conn.Close()
	}
}

// connect runs TCP and TLS, which proves the witness's key. The line lives on when ctx has ended.
func connect(ctx context.Context, cfg ClientConfig, cert *tls.Certificate) (*line, error) {
	var protocols http.Protocols
	protocols.SetHTTP2(true)
	tr := &http.Transport{
		Protocols: &protocols, TLSClientConfig: clientTLS(cfg.Key, cert), DisableCompression: true,
		HTTP2: &http.HTTP2Config{SendPingTimeout: keepalive, PingTimeout: keepaliveLost},
	}
	ctx, cancel := context.WithTimeout(ctx, connectTime)
	defer cancel()
	start := time.Now()
	conn, err := tr.NewClientConn(ctx, "https", cfg.Addr)
	if err != nil {
		return nil, err
	}
	return &line{conn: conn, cert: cert, patience: max(patience, 3*time.Since(start))}, nil
}

// answer is what came back from the witness.
type answer struct {
	status int // HTTP status
	// JSON: of the call, or a problem; at most maxBody.
	body []byte
}

// send makes one attempt. Unless it is the last one, silence ends it. The error says nothing about whether the
// witness got the call. Host is fixed because the certificate is pinned by key: the address may be any name.
func (l *line) send(ctx context.Context, addr, path string, body []byte, last bool) (answer, error) {
	if !last {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, l.patience)
		defer cancel()
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+addr+path, bytes.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	req.Host = "witness"
	req.Header.Set("Content-Type", "application/json")
	resp, err := l.conn.RoundTrip(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	if err != nil {
		return answer{}, fmt.Errorf("read answer: %w", err)
	}
	return answer{resp.StatusCode, b}, nil
}

// read decodes an answer; one that tells an error becomes that error.
func (a answer) read(out any) error {
	if a.status == http.StatusOK {
		if out == nil {
			return nil
		}
		if err := json.Unmarshal(a.body, out); err != nil {
			return fmt.Errorf("decode answer: %w", err)
		}
		return nil
	}
	var p problem
	if err := json.Unmarshal(a.body, &p); err != nil || p.Error == "" {
		return fmt.Errorf("it answered with HTTP status %d; is it a witness?", a.status)
	}
	for _, k := range kinds() {
		if k.name == p.Kind {
			return &refusal{k.err, p.Error}
		}
	}
	return &refusal{nil, p.Error}
}

// refusal is an error of the witness in its own words.
type refusal struct {
	kind error // nil: of a newer witness, whose kind this release does not know
	text string
}

// Refused is what a witness that answered a call has said instead of a yes, in its own words; empty: err is no answer
// of a witness.
func Refused(err error) string {
	var r *refusal
	if errors.As(err, &r) {
		return r.text
	}
	return ""
}

// Error implements error.
func (r *refusal) Error() string { return "the witness refused: " + r.text }

// Unwrap gives the sentinel.
func (r *refusal) Unwrap() error { return r.kind }
