package mux

import (
	"context"
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
)

// serveHTTP serves h on beta's control service and returns alpha's client.
func (p *pair) serveHTTP(t testing.TB, h http.HandlerFunc) *http.Client {
	t.Helper()
	ln, err := p.beta.Listen('C')
	if err != nil {
		t.Fatal(err)
	}
	srv := NewHTTPServer(h)
	done := make(chan error, 1)
	go func() { done <- srv.Serve(ln) }()
	t.Cleanup(func() {
		srv.Close()
		<-done
	})
	return &http.Client{Transport: p.alpha.HTTPTransport('C')}
}

func post(ctx context.Context, c *http.Client, body string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://beta/x", strings.NewReader(body))
	if err != nil {
		return "", err
	}
	resp, err := c.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return string(b), err
}

// answer says who called, over which protocol, and what was in the body.
func answer(w http.ResponseWriter, r *http.Request) {
	b, _ := io.ReadAll(r.Body)
	fmt.Fprintf(w, "%s %d %s %s", PeerFrom(r.Context()), r.ProtoMajor, r.Host, b)
}

func TestHTTP(t *testing.T) {
	p := newPair(t)
	c := p.serveHTTP(t, answer)
	for range 3 {
		if got, err := post(t.Context(), c, "hello"); err != nil || got != "alpha 2 beta hello" {
			t.Fatalf("%q %v", got, err)
		}
	}
	resp, err := c.Get("http://beta/x")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if _, err := c.Get("http://gamma/x"); !errors.Is(err, ErrNoPath) {
		t.Errorf("unknown node: %v", err)
	}
}

// TestHTTPDeadPath silences the path in use: calls go on over the other one
// with a short delay at first and with none afterwards.
func TestHTTPDeadPath(t *testing.T) {
	p := newPair(t)
	c := p.serveHTTP(t, answer)
	call := func(limit time.Duration) {
		t.Helper()
		start := time.Now()
		if _, err := post(t.Context(), c, "x"); err != nil {
			t.Fatal(err)
		}
		if d := time.Since(start); d > limit {
			t.Errorf("call took %v", d)
		}
	}
	call(time.Second)
	for _, ip := range []string{betaLAN, betaRepl, betaLAN} {
		p.ice.set(ip, true)
		call(patience + 300*time.Millisecond) // 300 ms of slack for a busy machine
		call(patience - 20*time.Millisecond)
		call(patience - 20*time.Millisecond)
		p.ice.set(ip, false)
	}
}

// TestHTTPSlowHandler: a handler that takes its time is no dead path.
func TestHTTPSlowHandler(t *testing.T) {
	p := newPair(t)
	var calls atomic.Int32
	release := make(chan struct{})
	c := p.serveHTTP(t, func(w http.ResponseWriter, r *http.Request) {
		if calls.Add(1) == 1 {
			<-release
		}
		answer(w, r)
	})
	timer := time.AfterFunc(5*patience, func() { close(release) })
	defer timer.Stop()
	start := time.Now()
	if got, err := post(t.Context(), c, "x"); err != nil || got != "alpha 2 beta x" {
		t.Fatalf("%q %v", got, err)
	}
	if d := time.Since(start); d < 4*patience {
		t.Errorf("answered after %v by another attempt", d)
	}
	if n := calls.Load(); n != 1 {
		t.Errorf("handler ran %d times", n)
	}
}

// TestHTTPFirstCallsAtOnce: first calls that come at once dial as often, and all but one of these connections are
// given up. The one that stays is the one that is watched.
func TestHTTPFirstCallsAtOnce(t *testing.T) {
	const calls = 8
	p := newPair(t)
	var dialled atomic.Int32
	all := make(chan struct{})
	p.alpha.cfg.WrapConn = func(c net.Conn) net.Conn {
		if dialled.Add(1) == calls {
			close(all)
		}
		select {
		case <-all:
		case <-time.After(patience / 2): // before another path is tried
		}
		return c
	}
	var ran atomic.Int32
	release := make(chan struct{})
	c := p.serveHTTP(t, func(w http.ResponseWriter, r *http.Request) {
		if b, _ := io.ReadAll(r.Body); string(b) == "slow" {
			ran.Add(1)
			select {
			case <-release:
			case <-r.Context().Done():
			}
		}
	})
	var wg sync.WaitGroup
	for range calls {
		wg.Go(func() {
			if _, err := post(t.Context(), c, "x"); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if dialled.Load() < 2 {
		t.Fatal("they did not come at once")
	}
	np := p.alpha.pools[0].node("beta")
	for open, late := -1, time.Now().Add(5*time.Second); open != 1; {
		np.mu.Lock()
		open = len(np.conns)
		np.mu.Unlock()
		if time.Now().After(late) {
			t.Fatalf("%d connections are open", open)
		}
		runtime.Gosched()
	}
	timer := time.AfterFunc(3*patience, func() { close(release) })
	defer timer.Stop()
	if _, err := post(t.Context(), c, "slow"); err != nil || ran.Load() != 1 {
		t.Errorf("a slow handler ran %d times, %v", ran.Load(), err)
	}
}

func TestHTTPAllPathsDown(t *testing.T) {
	p := newPair(t)
	c := p.serveHTTP(t, answer)
	if _, err := post(t.Context(), c, "x"); err != nil {
		t.Fatal(err)
	}
	p.ice.set(betaLAN, true)
	p.ice.set(betaRepl, true)
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	if _, err := post(ctx, c, "x"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("silent: %v", err)
	}
	p.beta.Stop()
	start := time.Now()
	if _, err := post(t.Context(), c, "x"); err == nil || time.Since(start) > 5*time.Second {
		t.Errorf("stopped: %v after %v", err, time.Since(start))
	}
}

// TestHTTPPeerRestart: connections of the former process do no harm.
func TestHTTPPeerRestart(t *testing.T) {
	p := newPair(t)
	c := p.serveHTTP(t, answer)
	if _, err := post(t.Context(), c, "x"); err != nil {
		t.Fatal(err)
	}
	p.beta.Stop()
	p.beta = p.node(t, "beta")
	p.serveHTTP(t, answer)
	if got, err := post(t.Context(), c, "y"); err != nil || got != "alpha 2 beta y" {
		t.Errorf("%q %v", got, err)
	}
}

func TestHTTPStream(t *testing.T) {
	p := newPair(t)
	c := p.serveHTTP(t, func(w http.ResponseWriter, r *http.Request) {
		for i := range 3 {
			fmt.Fprintln(w, i)
			w.(http.Flusher).Flush()
			select {
			case <-r.Context().Done():
				return
			case <-time.After(patience):
			}
		}
	})
	resp, err := c.Get("http://beta/x")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if b, err := io.ReadAll(resp.Body); err != nil || string(b) != "0\n1\n2\n" {
		t.Errorf("%q %v", b, err)
	}
}

func BenchmarkHTTP(b *testing.B) {
	p := newPair(b)
	c := p.serveHTTP(b, answer)
	for b.Loop() {
		if _, err := post(b.Context(), c, "hello"); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDial(b *testing.B) {
	p := newPair(b)
	echo(b, p.beta, 'R')
	for b.Loop() {
		c, err := p.alpha.Dial(b.Context(), "beta", 'R', Replication)
		if err != nil {
			b.Fatal(err)
		}
		c.Close()
	}
}
