package pki

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"duet/cluster"
	"duet/cluster/enroll"
	"duet/cluster/ratelimit"
)

// memTokens is a TokenStore in memory.
type memTokens struct {
	mu  sync.Mutex
	rec []enroll.Record
}

func (m *memTokens) Tokens() ([]enroll.Record, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.rec), nil
}

func (m *memTokens) SetTokens(r []enroll.Record) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.rec = slices.Clone(r)
	return nil
}

// office is a cluster of one node with a desk and a clock.
type office struct {
	id    *Identity
	door  *Admission
	store *memTokens
	now   time.Time

	mu  sync.Mutex
	cfg cluster.Config
}

func newOffice(t *testing.T) *office {
	o := &office{id: found(t, "prod", "alpha"), store: &memTokens{}, now: time.Now()}
	o.cfg = cluster.Config{
		Name: "prod", Self: "alpha", Port: 7420, GossipKeys: [][]byte{[]byte("k")},
		Networks: []cluster.Network{{Name: "lan"}, {Name: "back"}},
		Members:  []cluster.Member{{Node: "alpha", Addrs: map[string]string{"lan": "10.0.0.1", "back": "10.1.0.1"}}},
	}
	o.door = NewAdmission(AdmissionConfig{Identity: o.id, Tokens: o.store, Cluster: o.config, Admit: o.admit,
		Now: func() time.Time { return o.now }})
	return o
}

func (o *office) config() cluster.Config {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.cfg
}

func (o *office) admit(_ context.Context, m cluster.Member) (cluster.Config, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if _, ok := o.cfg.Member(m.Node); !ok {
		o.cfg.Members = append(slices.Clone(o.cfg.Members), m)
	}
	return o.cfg, nil
}

func (o *office) token(t *testing.T) enroll.Token {
	t.Helper()
	tok, err := o.door.NewToken(0)
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

func betaAddrs() map[string]string { return map[string]string{"lan": "10.0.0.2", "back": "10.1.0.2"} }

func request(t *testing.T, tok enroll.Token, node cluster.NodeID) JoinRequest {
	t.Helper()
	key, err := newKey()
	if err != nil {
		t.Fatal(err)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		t.Fatal(err)
	}
	return JoinRequest{Secret: tok.Secret, Node: node, CSR: csr, Addrs: betaAddrs()}
}

func TestDeskRefuses(t *testing.T) {
	with := func(f func(*JoinRequest)) func(*testing.T, *office) JoinRequest {
		return func(t *testing.T, o *office) JoinRequest {
			r := request(t, o.token(t), "beta")
			f(&r)
			return r
		}
	}
	cases := []struct {
		name string
		req  func(*testing.T, *office) JoinRequest
		want error
		says string
	}{
		{"wrong token", with(func(r *JoinRequest) { r.Secret = make([]byte, 20) }), enroll.ErrUnknown, "duet cluster token"},
		{"no token", with(func(r *JoinRequest) { r.Secret = nil }), enroll.ErrUnknown, ""},
		{"name taken", with(func(r *JoinRequest) { r.Node = "alpha" }), ErrNameTaken, "another name"},
		{"bad name", with(func(r *JoinRequest) { r.Node = "../x" }), ErrBadRequest, "letters"},
		{"no request", with(func(r *JoinRequest) { r.CSR = []byte("x") }), ErrBadRequest, ""},
		{"forged request", with(func(r *JoinRequest) { r.CSR[len(r.CSR)-1] ^= 1 }), ErrBadRequest, ""},
		{"missing address", with(func(r *JoinRequest) { delete(r.Addrs, "back") }), ErrBadRequest, "back"},
		{"unknown network", with(func(r *JoinRequest) { r.Addrs["x"] = "10.2.0.1" }), ErrBadRequest, `"x"`},
		{"taken address", with(func(r *JoinRequest) { r.Addrs["lan"] = "10.0.0.1" }), ErrBadRequest, "alpha"},
		{"used token", func(t *testing.T, o *office) JoinRequest {
			tok := o.token(t)
			if _, err := o.door.Join(t.Context(), request(t, tok, "beta")); err != nil {
				t.Fatal(err)
			}
			r := request(t, tok, "gamma")
			r.Addrs = map[string]string{"lan": "10.0.0.3", "back": "10.1.0.3"}
			return r
		}, enroll.ErrUsed, "make another"},
		{"same name, another key", func(t *testing.T, o *office) JoinRequest {
			tok := o.token(t)
			if _, err := o.door.Join(t.Context(), request(t, tok, "beta")); err != nil {
				t.Fatal(err)
			}
			return request(t, tok, "beta")
		}, enroll.ErrUsed, ""},
		{"expired token", func(t *testing.T, o *office) JoinRequest {
			r := request(t, o.token(t), "beta")
			o.now = o.now.Add(enroll.Life)
			return r
		}, enroll.ErrExpired, "duet cluster token"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			o := newOffice(t)
			req := c.req(t, o)
			members := len(o.cfg.Members)
			resp, err := o.door.Join(t.Context(), req)
			if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v, want %v", err, c.want)
			}
			if resp.CAKey != nil || len(o.cfg.Members) != members {
				t.Error("something was given to a refused node")
			}
		})
	}
}

func TestRefusedRequestKeepsToken(t *testing.T) {
	o := newOffice(t)
	tok := o.token(t)
	if _, err := o.door.Join(t.Context(), request(t, tok, "alpha")); !errors.Is(err, ErrNameTaken) {
		t.Fatal(err)
	}
	req := request(t, tok, "beta")
	for range 2 { // the second time the first answer was lost
		if resp, err := o.door.Join(t.Context(), req); err != nil || resp.Config.Self != "beta" ||
			len(resp.Config.Members) != 2 {
			t.Fatalf("%+v %v", resp.Config, err)
		}
	}
	for _, r := range o.store.rec {
		if strings.Contains(string(r.Hash), string(tok.Secret)) {
			t.Error("secret is stored")
		}
	}
}

func TestTooManyTries(t *testing.T) {
	o := newOffice(t)
	good := request(t, o.token(t), "beta")
	bad := request(t, enroll.Token{Secret: make([]byte, 20)}, "beta")
	try := func(want error) {
		t.Helper()
		if _, err := o.door.Join(t.Context(), bad); !errors.Is(err, want) {
			t.Fatalf("got %v, want %v", err, want)
		}
	}
	for range 30 { // slowly: no harm
		try(enroll.ErrUnknown)
		o.now = o.now.Add(7 * time.Second)
	}
	o.now = o.now.Add(time.Minute)
	for range 10 {
		try(enroll.ErrUnknown)
	}
	try(ratelimit.ErrTooManyTries)
	if _, err := o.door.Join(t.Context(), good); !errors.Is(err, ratelimit.ErrTooManyTries) {
		t.Errorf("good token meanwhile: %v", err)
	}
	o.now = o.now.Add(time.Minute)
	if _, err := o.door.Join(t.Context(), good); err != nil {
		t.Errorf("a minute later: %v", err)
	}
}

func TestOldTokensAreForgotten(t *testing.T) {
	o := newOffice(t)
	o.token(t)
	o.now = o.now.Add(enroll.Life + 25*time.Hour)
	o.token(t)
	if len(o.store.rec) != 1 {
		t.Errorf("%d records", len(o.store.rec))
	}
}

// listen serves the desk on a loopback port until the test ends.
func (o *office) listen(t *testing.T) string {
	t.Helper()
	ln, err := tls.Listen("tcp", "127.0.0.1:0", o.id.Server())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- o.door.Serve(ctx, ln) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return ln.Addr().String()
}

func dialer(addr string) func(context.Context, *tls.Config) (net.Conn, error) {
	return func(ctx context.Context, c *tls.Config) (net.Conn, error) {
		return (&tls.Dialer{Config: c}).DialContext(ctx, "tcp", addr)
	}
}

func TestJoin(t *testing.T) {
	o := newOffice(t)
	addr := o.listen(t)
	tok, err := ParseToken(o.token(t).String())
	if err != nil {
		t.Fatal(err)
	}
	lost := 2 // answers that get lost
	dial := func(ctx context.Context, c *tls.Config) (net.Conn, error) {
		conn, err := dialer(addr)(ctx, c)
		if err == nil && lost > 0 {
			lost--
			return deafConn{conn}, nil
		}
		return conn, err
	}
	dir := t.TempDir()
	cfg, err := Join(t.Context(), JoinConfig{Dir: dir, Token: tok, Node: "beta", Addrs: betaAddrs(), Dial: dial})
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Self != "beta" || len(cfg.Members) != 2 || len(cfg.GossipKeys) != 1 {
		t.Errorf("config: %+v", cfg)
	}
	beta, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	if sErr, cErr, _, _ := shake(t, beta.Server(), o.id.Client("beta")); sErr != nil || cErr != nil {
		t.Error(sErr, cErr)
	}
	if sErr, cErr, _, _ := shake(t, o.id.Server(), beta.Client("alpha")); sErr != nil || cErr != nil {
		t.Error(sErr, cErr)
	}
	if _, err := Join(t.Context(), JoinConfig{Dir: dir, Token: tok, Node: "beta", Dial: dial}); !errors.Is(err,
		ErrExists) {
		t.Errorf("second join: %v", err)
	}
	// Beta can now admit the next one.
	if sib := sibling(t, beta, "gamma", time.Now()); sib.Node() != "gamma" {
		t.Error(sib.Node())
	}
}

// deafConn loses what is sent to it.
type deafConn struct{ net.Conn }

func (c deafConn) Read([]byte) (int, error) { return 0, errors.New("connection lost") }

func TestJoinRefused(t *testing.T) {
	o := newOffice(t)
	addr := o.listen(t)
	good := o.token(t)
	cases := []struct {
		name string
		tok  enroll.Token
		node cluster.NodeID
		want error
	}{
		{"wrong secret", enroll.Token{Secret: make([]byte, 20), Pin: good.Pin}, "beta", enroll.ErrUnknown},
		{"wrong cluster", enroll.Token{Secret: good.Secret}, "beta", ErrForeign},
		{"name taken", good, "alpha", ErrNameTaken},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			_, err := Join(t.Context(), JoinConfig{Dir: dir, Token: c.tok, Node: c.node, Addrs: betaAddrs(), Dial: dialer(addr)})
			if !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
			if taken, _ := exists(dir); taken {
				t.Error("an identity was stored")
			}
		})
	}
}

func TestServeEndsWithIdleCaller(t *testing.T) {
	o := newOffice(t)
	conn, err := dialer(o.listen(t))(t.Context(), joinTLS(fingerprint(o.id.ca.cert)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() }) // runs before the desk is stopped only if the desk hangs
}

// FuzzDesk feeds requests as they come from the network, with the right token.
func FuzzDesk(f *testing.F) {
	dir := f.TempDir()
	id, err := Init(dir, "prod", "alpha")
	if err != nil {
		f.Fatal(err)
	}
	f.Add("beta", []byte("csr"), "lan", "10.0.0.2")
	f.Fuzz(func(t *testing.T, node string, csr []byte, net, addr string) {
		d := NewAdmission(AdmissionConfig{Identity: id, Tokens: &memTokens{},
			Cluster: func() cluster.Config { return cluster.Config{Networks: []cluster.Network{{Name: "lan"}}} },
			Admit: func(context.Context, cluster.Member) (cluster.Config, error) {
				return cluster.Config{}, nil
			}})
		tok, err := d.NewToken(0)
		if err != nil {
			t.Fatal(err)
		}
		_, err = d.Join(t.Context(), JoinRequest{Secret: tok.Secret, Node: cluster.NodeID(node), CSR: csr,
			Addrs: map[string]string{net: addr}})
		if err != nil && !errors.Is(err, ErrBadRequest) {
			t.Error(err)
		}
	})
}
