package witness

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"duet/cluster"
	"duet/cluster/enroll"
)

// relay stands between clients and a witness and can swallow what passes over the
// connections it has, as a firewall does that forgot them.
type relay struct {
	ln    net.Listener
	to    string
	made  atomic.Int32
	wg    sync.WaitGroup
	mu    sync.Mutex
	conns []*relayed
}

type relayed struct {
	net.Conn
	deaf atomic.Bool
}

func (r *relayed) Write(p []byte) (int, error) {
	if r.deaf.Load() {
		return len(p), nil
	}
	return r.Conn.Write(p)
}

func newRelay(t *testing.T, to string) *relay {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{ln: ln, to: to}
	r.wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			r.join(c)
		}
	})
	t.Cleanup(func() {
		ln.Close()
		r.each(func(c *relayed) { c.Close() })
		r.wg.Wait()
	})
	return r
}

func (r *relay) join(c net.Conn) {
	r.made.Add(1)
	w, err := net.Dial("tcp", r.to)
	if err != nil {
		c.Close()
		return
	}
	a, b := &relayed{Conn: c}, &relayed{Conn: w}
	r.mu.Lock()
	r.conns = append(r.conns, a, b)
	r.mu.Unlock()
	for _, d := range [][2]*relayed{{a, b}, {b, a}} {
		r.wg.Go(func() {
			io.Copy(d[0], struct{ io.Reader }{d[1]})
			d[0].Close()
			d[1].Close()
		})
	}
}

func (r *relay) each(f func(*relayed)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.conns {
		f(c)
	}
}

func (r *relay) addr() string { return r.ln.Addr().String() }

func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// TestSilentDeath: a connection that swallows everything costs patience, not seconds.
func TestSilentDeath(t *testing.T) {
	c := newBench(t).town()
	r := newRelay(t, c.addr)
	alpha := c.client("alpha", r.addr())
	mustAsk(t, alpha, ask("alpha", 1, 0), true, "")
	r.each(func(c *relayed) { c.deaf.Store(true) })
	start := time.Now()
	var wg sync.WaitGroup
	for i := range 5 { // all that hang on it get away
		wg.Go(func() {
			a := cluster.Ask{Module: fmt.Sprint("m", i), Node: "alpha", Epoch: 1}
			if ans, err := alpha.Ask(t.Context(), a); err != nil || !ans.Yes {
				t.Errorf("%+v %v", ans, err)
			}
		})
	}
	wg.Wait()
	if d := time.Since(start); d < patience || d > patience+700*time.Millisecond {
		t.Errorf("it took %v", d)
	}
	if n := r.made.Load(); n != 2 {
		t.Errorf("%d connections were made", n)
	}
}

// TestBrokenConnection: one that was closed meanwhile is not noticed by the caller.
func TestBrokenConnection(t *testing.T) {
	c := newBench(t).town()
	r := newRelay(t, c.addr)
	alpha := c.client("alpha", r.addr())
	for e := range cluster.Epoch(5) {
		mustAsk(t, alpha, ask("alpha", e+1, e), true, "")
		r.each(func(c *relayed) { c.Close() })
	}
	if n := r.made.Load(); n != 5 {
		t.Errorf("%d connections were made", n)
	}
}

// TestOneConnection: many callers share one, and one that gives up does not cost it.
func TestOneConnection(t *testing.T) {
	b := newBench(t)
	c := b.town()
	r := newRelay(t, c.addr)
	alpha := c.client("alpha", r.addr())
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			a := cluster.Ask{Module: fmt.Sprint("m", i), Node: "alpha", Epoch: 1}
			if ans, err := alpha.Ask(t.Context(), a); err != nil || !ans.Yes {
				t.Errorf("%+v %v", ans, err)
			}
		})
	}
	wg.Wait()
	ctx, cancel := context.WithCancel(t.Context())
	b.store.hook(func(string) (bool, error) { cancel(); <-time.After(50 * time.Millisecond); return true, nil })
	if _, err := alpha.Ask(ctx, ask("alpha", 1, 0)); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	b.store.hook(nil)
	mustAsk(t, alpha, ask("alpha", 1, 0), true, "")
	if n := r.made.Load(); n != 1 {
		t.Errorf("%d connections were made", n)
	}
}

func TestDeadlines(t *testing.T) {
	b := newBench(t)
	c := b.town()
	mute, err := net.Listen("tcp", "127.0.0.1:0") // accepts, and says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer mute.Close()
	check := func(what string, cl *Client) {
		start := time.Now()
		_, err := cl.Ask(within(t, 100*time.Millisecond), ask("alpha", 1, 0))
		if d := time.Since(start); !errors.Is(err, context.DeadlineExceeded) || d > 600*time.Millisecond {
			t.Errorf("%s: %v after %v", what, err, d)
		}
	}
	check("mute address", c.client("alpha", mute.Addr().String()))
	// Callers who queue behind one that connects keep their own deadlines.
	queue := c.client("alpha", mute.Addr().String())
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		_, err := queue.Hello(ctx)
		done <- err
	}()
	conn, err := mute.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	check("queue", queue)
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	release := make(chan struct{})
	b.store.hook(func(string) (bool, error) { <-release; return true, nil })
	check("hanging store", c.client("alpha", ""))
	close(release)
}

// TestSlowWitness: a vote that takes longer than patience arrives, and nobody is asked a third time.
func TestSlowWitness(t *testing.T) {
	b := newBench(t)
	c := b.town()
	r := newRelay(t, c.addr)
	alpha := c.client("alpha", r.addr())
	if _, err := alpha.Hello(t.Context()); err != nil {
		t.Fatal(err)
	}
	saves := b.store.count()
	b.store.hook(func(string) (bool, error) { <-time.After(3 * patience); return true, nil })
	mustAsk(t, alpha, ask("alpha", 1, 0), true, "")
	if n, s := r.made.Load(), b.store.count()-saves; n != 2 || s > 2 {
		t.Errorf("%d connections were made, %d values saved", n, s)
	}
}

// TestSlowIsNotDead: a caller who loses patience with a connection does not take it from another.
func TestSlowIsNotDead(t *testing.T) {
	b := newBench(t)
	c := b.town()
	r := newRelay(t, c.addr)
	alpha := c.client("alpha", r.addr())
	saving, release := make(chan struct{}, 3), make(chan struct{})
	b.store.hook(func(string) (bool, error) {
		saving <- struct{}{}
		<-release
		return true, nil
	})
	var wg sync.WaitGroup
	for i := range 2 {
		wg.Go(func() {
			a := cluster.Ask{Module: fmt.Sprint("m", i), Node: "alpha", Epoch: 1}
			if ans, err := alpha.Ask(t.Context(), a); err != nil || !ans.Yes {
				t.Errorf("call %d: %+v %v", i, ans, err)
			}
		})
		<-saving // the first is patient, since its connection is new
	}
	for ctx := within(t, 5*time.Second); r.made.Load() < 2 && ctx.Err() == nil; {
		runtime.Gosched()
	}
	close(release)
	wg.Wait()
	if n := r.made.Load(); n != 2 {
		t.Errorf("%d connections were made", n)
	}
}

func TestWrongWitness(t *testing.T) {
	c, d := newBench(t).town(), newBench(t).town()
	if _, err := c.client("alpha", d.addr).Ask(t.Context(), ask("alpha", 1, 0)); !errors.Is(err, ErrWrongWitness) {
		t.Errorf("ask: %v", err)
	}
	tok := c.token()
	if _, err := Register(t.Context(), d.addr, tok, c.registration()); !errors.Is(err, ErrWrongWitness) {
		t.Errorf("register: %v", err)
	}
	if _, err := Register(t.Context(), c.addr, tok, Registration{ID: c.id}); !errors.Is(err, ErrBadRequest) {
		t.Errorf("register nothing: %v", err)
	}
	bad := tok
	bad.Secret = make([]byte, 20)
	if _, err := Register(t.Context(), c.addr, bad, c.registration()); !errors.Is(err, enroll.ErrUnknown) ||
		!strings.Contains(err.Error(), "the witness refused") {
		t.Errorf("wrong token: %v", err)
	}
	c.stop()
	if _, err := c.client("alpha", "").Hello(t.Context()); err == nil {
		t.Error("a stopped witness answered")
	}
}

func TestRenewedCertificate(t *testing.T) {
	b := newBench(t)
	c := b.town()
	var cert atomic.Pointer[tls.Certificate]
	cert.Store(c.ca.node(t, "alpha", nil))
	cl := NewClient(ClientConfig{Addr: c.addr, Key: c.srv.Fingerprint(), ID: c.id, Certificate: cert.Load})
	defer cl.Close()
	for _, name := range []cluster.NodeID{"alpha", "beta", "beta"} {
		if name == "beta" && cert.Load().Leaf.Subject.CommonName == "alpha" {
			cert.Store(c.ca.node(t, "beta", nil)) // stands for a new one of the same node
		}
		if g, err := cl.Hello(t.Context()); err != nil || g.Node != name {
			t.Errorf("%+v %v", g, err)
		}
	}
}

func TestClose(t *testing.T) {
	c := newBench(t).town()
	mute, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer mute.Close()
	cl := c.client("alpha", mute.Addr().String())
	done := make(chan error, 1)
	go func() {
		_, err := cl.Hello(t.Context())
		done <- err
	}()
	conn, err := mute.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for range 2 {
		if err := cl.Close(); err != nil {
			t.Fatal(err)
		}
	}
	select {
	case err := <-done:
		if !errors.Is(err, ErrClosed) {
			t.Errorf("got %v", err)
		}
	case <-within(t, 5*time.Second).Done():
		t.Fatal("the call did not end")
	}
	if _, err := cl.Hello(t.Context()); !errors.Is(err, ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

// impostor answers every call in its own way, with a key the client trusts.
func impostor(t *testing.T, h http.HandlerFunc) *Client {
	t.Helper()
	id, err := loadIdentity(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: h, TLSConfig: id.serverTLS()}
	done := make(chan error, 1)
	go func() { done <- srv.ServeTLS(ln, "", "") }()
	cl := NewClient(ClientConfig{Addr: ln.Addr().String(), Key: id.key, ID: "x"})
	t.Cleanup(func() { cl.Close(); srv.Close(); <-done })
	return cl
}

func TestOddAnswers(t *testing.T) {
	for _, k := range []struct {
		status int
		body   string
		says   string
	}{
		{200, `{"yes":true,"know":{"promised":4,"to":"alpha"}}`, ""},
		{200, `{"yes":true,"know":{"promised":4,"to":"beta"}}`, "its yes is to beta"},
		{200, `{"yes":true,"know":{"promised":5,"to":"alpha"}}`, "for epoch 5"},
		{200, `{"yes":true}`, "its yes is to"},
		{200, `{"yes":`, "decode answer"},
		{200, "[" + strings.Repeat(" ", 4*maxBody) + "]", "decode answer"},
		{404, "not here", "is it a witness"},
		{302, `{}`, "is it a witness"},
		{500, `{"error":"out of luck"}`, "the witness refused: out of luck"},
	} {
		cl := impostor(t, func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(k.status)
			io.WriteString(w, k.body)
		})
		ans, err := cl.Ask(t.Context(), ask("alpha", 4, 3))
		if k.says == "" {
			if err != nil || !ans.Yes {
				t.Errorf("%s: %+v %v", k.body, ans, err)
			}
			continue
		}
		if err == nil || ans.Yes || !strings.Contains(err.Error(), k.says) {
			t.Errorf("%d %.60s: %+v %v", k.status, k.body, ans, err)
		}
	}
}

// BenchmarkAsk is what a vote costs over loopback on the connection that is kept, without the store.
func BenchmarkAsk(b *testing.B) {
	c := newBench(b).town()
	alpha := c.client("alpha", "")
	for e := cluster.Epoch(1); b.Loop(); e++ {
		mustAsk(b, alpha, ask("alpha", e, e-1), true, "")
	}
}

// BenchmarkAskConnect is what it costs with a new connection each time.
func BenchmarkAskConnect(b *testing.B) {
	c := newBench(b).town()
	cert := c.ca.node(b, "alpha", nil)
	for e := cluster.Epoch(1); b.Loop(); e++ {
		cl := NewClient(ClientConfig{Addr: c.addr, Key: c.srv.Fingerprint(), ID: c.id,
			Certificate: func() *tls.Certificate { return cert }})
		mustAsk(b, cl, ask("alpha", e, e-1), true, "")
		cl.Close()
	}
}
