package voting

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"duet/cluster"
	"duet/cluster/membership"
	"duet/cluster/pki"
	"duet/cluster/witness"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// memory is a witness's Store.
type memory struct {
	mu   sync.Mutex
	data map[string][]byte
}

func (m *memory) Load(key string, v any) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	b, ok := m.data[key]
	if !ok {
		return false, nil
	}
	return true, json.Unmarshal(b, v)
}

func (m *memory) Save(key string, v any) (err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.data[key], err = json.Marshal(v)
	return err
}

func (m *memory) Delete(key string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.data, key)
	return nil
}

func (m *memory) Keys(prefix string) (out []string, _ error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for k := range m.data {
		if strings.HasPrefix(k, prefix) {
			out = append(out, k)
		}
	}
	return out, nil
}

// third is a witness, which may lose what it has.
type third struct {
	t    *testing.T
	dir  string
	addr string
	srv  *witness.Server
	stop func()
}

func newThird(t *testing.T) *third {
	w := &third{t: t, dir: t.TempDir(), addr: "127.0.0.1:0"}
	w.start()
	t.Cleanup(func() { w.stop() })
	return w
}

// start runs it with the key of its directory and an empty store.
func (w *third) start() {
	w.t.Helper()
	var err error
	w.srv, err = witness.New(witness.Config{Dir: w.dir, Store: &memory{data: make(map[string][]byte)}})
	must(w.t, err)
	ln, err := net.Listen("tcp", w.addr)
	must(w.t, err)
	w.addr = ln.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- w.srv.Serve(ctx, ln) }()
	w.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-served; err != nil {
			w.t.Error(err)
		}
	})
}

// loses is the store, and the key too where all is lost.
func (w *third) loses(all bool) {
	w.t.Helper()
	w.stop()
	if all {
		must(w.t, os.RemoveAll(w.dir))
	}
	w.start()
}

func (w *third) token() string {
	w.t.Helper()
	t, err := w.srv.NewToken(0)
	must(w.t, err)
	return t.String()
}

// pair are the panels of two nodes. Both show alpha's certificate, which is nothing to what they do here.
type pair struct {
	alpha, beta *Panel
	heard       error // what beta's engines say of their peers
}

func newPair(t *testing.T) *pair {
	t.Helper()
	id, err := pki.Init(t.TempDir(), "office", "alpha")
	must(t, err)
	p := &pair{}
	node := func(self, other cluster.NodeID, peer **Panel, heard func() error) *Panel {
		dir := t.TempDir()
		must(t, membership.Save(dir, cluster.Config{Name: "office", Self: self, Members: []cluster.Member{
			{Node: "alpha", Since: 1, Addrs: map[string]string{"hb1": "127.0.81.1"}},
			{Node: "beta", Since: 2, Addrs: map[string]string{"hb1": "127.0.81.2"}}}}))
		book, err := membership.Open(dir)
		must(t, err)
		alive := cluster.View{Self: self, Peers: map[cluster.NodeID]cluster.PeerView{
			other: {Paths: map[string]bool{"hb1": true}}}}
		panel, err := New(Config{Book: book, View: func() cluster.View { return alive },
			Call: func(ctx context.Context, _ cluster.NodeID, v cluster.Voters) (cluster.Voters, error) {
				return (*peer).Take(ctx, v)
			},
			Apart:     func(ctx context.Context, _ cluster.NodeID, host string) error { return (*peer).Apart(ctx, host) },
			Heard:     func(time.Duration) error { return heard() },
			Authority: id.Authority, Certificate: id.Certificate,
			SpareAfter: time.Hour, Logger: slog.New(slog.DiscardHandler)})
		must(t, err)
		t.Cleanup(func() { must(t, panel.Close()) })
		return panel
	}
	p.alpha = node("alpha", "beta", &p.beta, func() error { return nil })
	p.beta = node("beta", "alpha", &p.alpha, func() error { return p.heard })
	return p
}

// TestWitnessOnANode: a data node is no place for a witness, by whichever of its addresses it is named.
func TestWitnessOnANode(t *testing.T) {
	p := newPair(t)
	has := func(text string) func() ([]net.Addr, error) {
		ip, own, err := net.ParseCIDR(text)
		must(t, err)
		return func() ([]net.Addr, error) { return []net.Addr{&net.IPNet{IP: ip, Mask: own.Mask}}, nil }
	}
	p.alpha.addrs, p.beta.addrs = has("192.0.2.1/24"), has("192.0.2.2/24")
	for addr, node := range map[string]string{"192.0.2.1:7425": "alpha", "192.0.2.2:7425": "beta",
		"127.0.81.2:7425": "beta", "[::ffff:192.0.2.2]:7425": "beta"} {
		if _, err := p.alpha.Add(t.Context(), addr, "no token"); !errors.Is(err, ErrInvalid) ||
			!strings.Contains(err.Error(), "is node "+node) {
			t.Errorf("%s: %v", addr, err)
		}
	}
	if err := p.alpha.apart(t.Context(), "192.0.2.3"); err != nil {
		t.Errorf("a third computer: %v", err)
	}
}

// TestWitnessUnreached: a witness that nobody meets is told in words and with what to look at, not in those of Go.
func TestWitnessUnreached(t *testing.T) {
	p, w := newPair(t), newThird(t)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	addr := ln.Addr().String()
	must(t, ln.Close())
	_, err = p.alpha.Add(t.Context(), addr, w.token())
	if !errors.Is(err, ErrConflict) || !strings.Contains(err.Error(), "witness "+addr+": it cannot be reached: nothing "+
		"listens on "+addr+": is \"duetd witness\" running there, and its port open?") {
		t.Errorf("%v", err)
	}
}

// TestTake: what is stored is answered, not what was before.
func TestTake(t *testing.T) {
	p, w := newPair(t), newThird(t)
	_, err := p.alpha.Add(t.Context(), w.addr, w.token())
	must(t, err)
	v := p.alpha.voters()
	next := v.With(cluster.Witness{Addr: "127.0.0.1:1", Key: v.Active[0].Key, ID: "another"})
	if theirs, err := p.beta.Take(t.Context(), next); err != nil || !theirs.Equal(next) {
		t.Errorf("it has taken %+v, %v", theirs, err)
	}
	if theirs, err := p.beta.Take(t.Context(), v); err != nil || !theirs.Equal(next) {
		t.Errorf("what is older: it has %+v, %v", theirs, err)
	}
}

// TestBrokenOffAsk: that somebody gave up asking does not make a witness silent.
func TestBrokenOffAsk(t *testing.T) {
	p, w := newPair(t), newThird(t)
	h, err := p.alpha.Add(t.Context(), w.addr, w.token())
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	ask := cluster.Ask{Module: "web01", Node: "alpha", Epoch: 2, Complete: 1}
	if _, err := h.Ask(ctx, ask); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if since, err := h.Silent(); err != nil {
		t.Errorf("it is silent since %s: %v", since, err)
	}
	ctx, cancel = context.WithTimeout(t.Context(), -1)
	defer cancel()
	if _, err := h.Ask(ctx, ask); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
	if _, err := h.Silent(); err == nil {
		t.Error("one that did not answer in time is not silent")
	}
}

// told counts the lines of a log.
type told struct {
	slog.Handler
	lines atomic.Int32
}

func (*told) Enabled(context.Context, slog.Level) bool { return true }

func (l *told) Handle(context.Context, slog.Record) error { l.lines.Add(1); return nil }

// TestOlderWitness: one whose release knows no members is told of them again only when it is of another release.
func TestOlderWitness(t *testing.T) {
	p, log := newPair(t), &told{}
	p.alpha.log = slog.New(log)
	release, calls := "1.0", 0
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.HasSuffix(r.URL.Path, "/hello"):
			fmt.Fprintf(w, `{"version":%q}`, release)
		case release == "1.0":
			calls++
			w.WriteHeader(http.StatusBadRequest)
			fmt.Fprint(w, `{"kind":"request","error":"no call"}`)
		default:
			calls++
			fmt.Fprint(w, `{}`)
		}
	}))
	srv.EnableHTTP2 = true
	srv.StartTLS()
	defer srv.Close()
	key := sha256.Sum256(srv.Certificate().RawSubjectPublicKeyInfo)
	h, err := p.alpha.newHandle(cluster.Witness{Addr: srv.Listener.Addr().String(), Key: hex.EncodeToString(key[:]),
		ID: "this"})
	must(t, err)
	defer h.client.Close()
	for range 3 {
		p.alpha.greet(t.Context(), h)
	}
	if _, err := h.Silent(); err != nil || calls != 1 || log.lines.Load() != 2 || p.alpha.tell(t.Context(), h) {
		t.Errorf("an older one: %v, told %d times, %d lines", err, calls, log.lines.Load())
	}
	release = "1.1"
	p.alpha.greet(t.Context(), h)
	if calls != 2 || log.lines.Load() != 2 || !p.alpha.tell(t.Context(), h) {
		t.Errorf("one that was updated: told %d times, %d lines", calls, log.lines.Load())
	}
}

// TestForgetfulWitness: a witness that lost what it knew is another one. Nobody takes it for the one that was told
// the present epochs, and it votes only once all engines know what their peers know.
func TestForgetfulWitness(t *testing.T) {
	for what, all := range map[string]bool{"its store is lost": false, "its store and its key are lost": true} {
		p, w := newPair(t), newThird(t)
		before, err := p.alpha.Add(t.Context(), w.addr, w.token())
		must(t, err)
		if again, err := p.alpha.Add(t.Context(), w.addr, w.token()); err != nil || again != before {
			t.Errorf("%s: one that answers became %v, %v", what, again, err)
		}
		w.loses(all)
		p.heard = errors.New("web01 has not heard its peer")
		if _, err := p.alpha.Add(t.Context(), w.addr, w.token()); !errors.Is(err, p.heard) ||
			p.alpha.Active()[0] != before {
			t.Fatalf("%s: while an engine knows nothing of its peer: %v, %v votes", what, err, p.alpha.Active()[0].cfg)
		}
		p.heard = nil
		after, err := p.alpha.Add(t.Context(), w.addr, w.token())
		must(t, err)
		if _, silent := after.Silent(); silent != nil || after == before || after.cfg.ID == before.cfg.ID {
			t.Errorf("%s: before it is %+v, then %+v, %v", what, before.cfg, after.cfg, silent)
		}
		for _, panel := range []*Panel{p.alpha, p.beta} {
			if v := panel.voters(); len(v.Spares) != 0 || len(v.Active) != 1 || v.Active[0] != after.cfg {
				t.Errorf("%s: %s has %+v", what, panel.cfg.Book.Config().Self, v)
			}
		}
		ask := cluster.Ask{Module: "web01", Node: "alpha", Epoch: 2, Complete: 1}
		if ans, err := after.Ask(t.Context(), ask); err != nil || !ans.Yes {
			t.Errorf("%s: it votes %+v, %v", what, ans, err)
		}
	}
}

// TestSilentSinceItsLastAnswer: people are told of the last answer, and not of when that was missed. A spare comes
// after calls have failed for a while.
func TestSilentSinceItsLastAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &Handle{}
		h.note(errNotAsked)
		if since, _ := h.Silent(); !since.Equal(time.Now()) {
			t.Errorf("one that was never heard is silent since %v", since)
		}
		h.note(nil)
		last := time.Now()
		time.Sleep(helloEvery) // the bubble's clock
		h.note(errors.New("connection refused"))
		time.Sleep(time.Second)
		h.note(errors.New("connection refused"))
		if since, why := h.Silent(); !since.Equal(last) || why == nil || h.silentFor() != time.Second {
			t.Errorf("silent since %v (%v), for %v; its last answer was at %v", since, why, h.silentFor(), last)
		}
		h.note(nil)
		if since, why := h.Silent(); !since.IsZero() || why != nil || h.silentFor() != 0 {
			t.Errorf("it answers, and is silent since %v (%v)", since, why)
		}
	})
}
