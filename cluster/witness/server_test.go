package witness

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestBadInput(t *testing.T) {
	c := newBench(t).town()
	cert := c.ca.node(t, "alpha", nil)
	for _, h2 := range []bool{false, true} {
		var p http.Protocols
		p.SetHTTP1(!h2)
		p.SetHTTP2(h2)
		tr := &http.Transport{TLSClientConfig: clientTLS(c.srv.Fingerprint(), cert), Protocols: &p}
		defer tr.CloseIdleConnections()
		base := "https://" + c.addr
		mine := base + "/v1/clusters/" + c.id
		for _, k := range []struct {
			method, url, body string
			status            int
			says              string
		}{
			{"POST", mine + "/hello", "", 200, "version"},
			{"GET", mine + "/hello", "", 400, "no call GET"},
			{"POST", base + "/", "", 400, "no call"},
			{"POST", base + "/v1/clusters/none/ask", "{}", 403, "not registered"},
			{"POST", mine + "/ask", "", 400, "unexpected end"},
			{"POST", mine + "/ask", "{}{}", 400, "invalid character"},
			{"POST", mine + "/ask", "null", 403, "in the name of"},
			{"POST", mine + "/ask", `{"node":"alpha","module":"web01"}`, 400, "epoch 0"},
			{"POST", mine + "/ask", `{"node":"alpha","module":"../x","epoch":1}`, 400, "module"},
			{"POST", mine + "/ask", `{"node":"alpha","module":"web01","epoch":-1}`, 400, "number"},
			{"POST", mine + "/ask", `{"node":"alpha","module":"web01","epoch":1,"complete":2}`, 400, "complete at epoch 2"},
			{"POST", mine + "/ask", strings.Repeat("[", maxBody), 400, ""},
			{"POST", mine + "/ask", strings.Repeat(" ", maxBody+1), 400, "too large"},
			{"POST", mine + "/forget-module", `{"module":""}`, 400, "module"},
			{"POST", base + "/v1/register", `{"secret":7}`, 400, "secret"},
			{"POST", base + "/v1/register", `{}`, 403, "not known"},
		} {
			req, err := http.NewRequestWithContext(t.Context(), k.method, k.url, strings.NewReader(k.body))
			if err != nil {
				t.Fatal(err)
			}
			resp, err := tr.RoundTrip(req)
			if err != nil {
				t.Errorf("%s %s: %v", k.method, k.url, err)
				continue
			}
			b, _ := io.ReadAll(resp.Body)
			resp.Body.Close()
			if resp.StatusCode != k.status || !strings.Contains(string(b), k.says) || resp.ProtoMajor == 2 != h2 {
				t.Errorf("%s %s %.40s: %s %d %s", k.method, k.url, k.body, resp.Proto, resp.StatusCode, b)
			}
		}
	}
}

func TestConnectionsAreBounded(t *testing.T) {
	c := newBench(t).town()
	var open []net.Conn
	for range conns.Each {
		conn, err := net.Dial("tcp", c.addr)
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, conn)
	}
	one, err := net.Dial("tcp", c.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer one.Close()
	one.SetDeadline(time.Now().Add(headerTimeout / 2))
	if _, err := one.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("one too many: %v", err)
	}
	for _, conn := range open {
		conn.Close()
	}
	alpha := c.client("alpha", "")
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	for err = errors.New(""); err != nil && ctx.Err() == nil; {
		_, err = alpha.Hello(ctx)
	}
	if err != nil {
		t.Error(err)
	}
}

func TestStopIsQuick(t *testing.T) {
	b := newBench(t)
	c := b.town()
	if _, err := c.client("beta", "").Hello(t.Context()); err != nil { // and stays connected
		t.Fatal(err)
	}
	mute, err := net.Dial("tcp", b.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer mute.Close()
	start := time.Now()
	var saved atomic.Bool
	var wg sync.WaitGroup
	b.store.hook(func(string) (bool, error) {
		wg.Go(func() {
			b.stop()
			if !saved.Load() {
				t.Error("it ended before the vote under way")
			}
		})
		<-time.After(3 * farewell)
		saved.Store(true)
		return true, nil
	})
	mustAsk(t, c.client("alpha", ""), ask("alpha", 1, 0), true, "")
	wg.Wait()
	if d := time.Since(start); d > 2*time.Second {
		t.Errorf("it took %v", d)
	}
}

func TestServeFails(t *testing.T) {
	s, err := New(Config{Dir: t.TempDir(), Store: newMemory()})
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ln.Close()
	if err := s.Serve(t.Context(), ln); !errors.Is(err, net.ErrClosed) {
		t.Errorf("got %v", err)
	}
}
