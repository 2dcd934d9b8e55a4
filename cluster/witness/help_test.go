package witness

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"errors"
	"maps"
	"math/big"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"duet/cluster"
	"duet/cluster/enroll"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// memory is a Store that can fail, or lose its answer: what it holds survives a
// restart of the Server.
type memory struct {
	mu   sync.Mutex
	data map[string][]byte
	// onSave is called before a value is written; written is what becomes of the error.
	onSave func(key string) (written bool, err error)
	saves  int
}

func newMemory() *memory { return &memory{data: make(map[string][]byte)} }

func (m *memory) Load(key string, v any) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	b, ok := m.data[key]
	if !ok {
		return false, nil
	}
	return true, json.Unmarshal(b, v)
}

func (m *memory) Save(key string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	m.mu.Lock()
	hook := m.onSave
	m.mu.Unlock()
	written := true
	if hook != nil {
		written, err = hook(key)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.saves++
	if written {
		m.data[key] = b
	}
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

func (m *memory) hook(f func(string) (bool, error)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.onSave = f
}

func (m *memory) copy() map[string][]byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	return maps.Clone(m.data)
}

func (m *memory) count() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.saves
}

var errDisk = errors.New("no space left on device")

func diskFull(key string) (bool, error) {
	if strings.HasPrefix(key, votePrefix) {
		return false, errDisk
	}
	return true, nil
}

// authority is the CA of a cluster made for a test.
type authority struct {
	cert *x509.Certificate
	key  crypto.Signer
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func makeCert(t testing.TB, tmpl, parent *x509.Certificate, pub any, key crypto.Signer) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, pub, key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func newAuthority(t testing.TB) authority {
	t.Helper()
	key := newKey(t)
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "cluster prod"}, // all test clusters have this name
		NotBefore: time.Now().Add(-5 * year), NotAfter: time.Now().Add(10 * year),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	return authority{makeCert(t, tmpl, tmpl, key.Public(), key), key}
}

const year = 365 * 24 * time.Hour

// node makes the certificate of a node; change may alter it first.
func (a authority) node(t testing.TB, name string, change func(*x509.Certificate)) *tls.Certificate {
	t.Helper()
	key := newKey(t)
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(year),
		KeyUsage: x509.KeyUsageDigitalSignature, BasicConstraintsValid: true,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	if change != nil {
		change(tmpl)
	}
	leaf := makeCert(t, tmpl, a.cert, key.Public(), a.key)
	return &tls.Certificate{Certificate: [][]byte{leaf.Raw, a.cert.Raw}, PrivateKey: key, Leaf: leaf}
}

// bench is a witness that runs until the test ends.
type bench struct {
	t     testing.TB
	dir   string
	store *memory
	srv   *Server
	addr  string
	stop  func()
}

func newBench(t testing.TB) *bench {
	b := &bench{t: t, dir: t.TempDir(), store: newMemory(), addr: "127.0.0.1:0"}
	b.start()
	t.Cleanup(func() { b.stop() })
	return b
}

func (b *bench) start() {
	b.t.Helper()
	srv, err := New(Config{Dir: b.dir, Store: b.store, Version: "1.0"})
	if err != nil {
		b.t.Fatal(err)
	}
	ln, err := net.Listen("tcp", b.addr)
	if err != nil {
		b.t.Fatal(err)
	}
	b.srv, b.addr = srv, ln.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- srv.Serve(ctx, ln) }()
	b.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			b.t.Error(err)
		}
	})
}

func (b *bench) restart() {
	b.t.Helper()
	b.stop()
	b.start()
}

func (b *bench) token() enroll.Token {
	b.t.Helper()
	tok, err := b.srv.NewToken(0)
	if err != nil {
		b.t.Fatal(err)
	}
	return tok
}

// town is a registered cluster.
type town struct {
	*bench
	ca authority
	id string
}

func (b *bench) town() town {
	b.t.Helper()
	c := town{b, newAuthority(b.t), rand.Text()}
	key, err := Register(b.t.Context(), b.addr, b.token(), c.registration())
	if err != nil || key != b.srv.Fingerprint() {
		b.t.Fatal(key, err)
	}
	return c
}

func (c town) registration() Registration {
	return Registration{ID: c.id, Name: "prod", CA: c.ca.cert.Raw}
}

// client calls as a node of c; addr is the witness's if empty.
func (c town) client(node, addr string) *Client { return c.clientWith(c.ca.node(c.t, node, nil), addr) }

func (c town) clientWith(cert *tls.Certificate, addr string) *Client {
	if addr == "" {
		addr = c.addr
	}
	cl := NewClient(ClientConfig{Addr: addr, Key: c.srv.Fingerprint(), ID: c.id,
		Certificate: func() *tls.Certificate { return cert }})
	c.t.Cleanup(func() { cl.Close() })
	return cl
}

func ask(node cluster.NodeID, epoch, complete cluster.Epoch) cluster.Ask {
	return cluster.Ask{Module: "web01", Node: node, Epoch: epoch, Complete: complete}
}

func mustAsk(t testing.TB, c *Client, a cluster.Ask, yes bool, says string) cluster.Answer {
	t.Helper()
	ans, err := c.Ask(t.Context(), a)
	if err != nil {
		t.Fatal(err)
	}
	if ans.Yes != yes || !strings.Contains(ans.Why, says) {
		t.Fatalf("ask %+v: yes %v, %q; want %v, %q", a, ans.Yes, ans.Why, yes, says)
	}
	return ans
}
