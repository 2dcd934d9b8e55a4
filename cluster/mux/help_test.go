package mux

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"net"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"duet/cluster"
	"duet/cluster/ratelimit"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// ident is an Identity with a self-signed certificate; who trusts whom is a set of keys.
type ident struct {
	cert  tls.Certificate
	trust *sync.Map // string of DER -> NodeID
}

func newIdent(t testing.TB, node cluster.NodeID, trust *sync.Map) *ident {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: string(node)},
		NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	trust.Store(string(der), node)
	return &ident{cert: tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, trust: trust}
}

func (id *ident) config(check func(tls.ConnectionState) error) *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{id.cert},
		InsecureSkipVerify: true, VerifyConnection: check, SessionTicketsDisabled: true}
}

func (id *ident) Server() *tls.Config {
	c := id.config(func(st tls.ConnectionState) error {
		if len(st.PeerCertificates) == 0 {
			return nil
		}
		if _, ok := id.Peer(st); !ok {
			return errors.New("stranger")
		}
		return nil
	})
	c.ClientAuth = tls.RequestClientCert
	return c
}

func (id *ident) Client(peer cluster.NodeID) *tls.Config {
	return id.config(func(st tls.ConnectionState) error {
		if n, ok := id.Peer(st); !ok || n != peer {
			return fmt.Errorf("wanted %s, got %s", peer, n)
		}
		return nil
	})
}

func (id *ident) Peer(st tls.ConnectionState) (cluster.NodeID, bool) {
	if len(st.PeerCertificates) == 0 {
		return "", false
	}
	n, ok := id.trust.Load(string(st.PeerCertificates[0].Raw))
	if !ok {
		return "", false
	}
	return n.(cluster.NodeID), true
}

// ice can silence paths: connections from or to a frozen IP swallow what is
// written and deliver nothing, as a pulled cable does.
type ice struct {
	mu     sync.Mutex
	frozen map[string]bool
}

func (i *ice) set(ip string, frozen bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.frozen[ip] = frozen
}

func (i *ice) wrap(c net.Conn) net.Conn {
	return &icyConn{Conn: c, ice: i, gone: make(chan struct{})}
}

func (i *ice) has(c net.Conn) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.frozen[ratelimit.Source(c)] || i.frozen[c.LocalAddr().(*net.TCPAddr).IP.String()]
}

type icyConn struct {
	net.Conn
	ice  *ice
	once sync.Once
	gone chan struct{}
}

func (c *icyConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if c.ice.has(c.Conn) {
		<-c.gone
		return 0, net.ErrClosed
	}
	return n, err
}

func (c *icyConn) Write(p []byte) (int, error) {
	if c.ice.has(c.Conn) {
		return len(p), nil
	}
	return c.Conn.Write(p)
}

func (c *icyConn) Close() error {
	c.once.Do(func() { close(c.gone) })
	return c.Conn.Close()
}

// pair is two nodes with two networks on loopback.
type pair struct {
	alpha, beta *Mux
	ice         *ice
	trust       sync.Map

	mu  sync.Mutex
	cfg cluster.Config
}

const (
	alphaLAN, alphaRepl = "127.0.41.1", "127.0.42.1"
	betaLAN, betaRepl   = "127.0.41.2", "127.0.42.2"
)

func freePort(t testing.TB) int {
	t.Helper()
	ln, err := net.Listen("tcp", betaLAN+":0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().(*net.TCPAddr).Port
}

func newPair(t testing.TB) *pair {
	t.Helper()
	p := &pair{ice: &ice{frozen: make(map[string]bool)}, cfg: cluster.Config{
		Port: freePort(t), Detection: time.Second,
		Networks: []cluster.Network{{Name: "lan"}, {Name: "repl", Replication: true}},
		Members: []cluster.Member{
			{Node: "alpha", Addrs: map[string]string{"lan": alphaLAN, "repl": alphaRepl}},
			{Node: "beta", Addrs: map[string]string{"lan": betaLAN, "repl": betaRepl}},
		},
	}}
	p.alpha, p.beta = p.node(t, "alpha"), p.node(t, "beta")
	return p
}

func (p *pair) config(self cluster.NodeID) cluster.Config {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.cfg
	c.Self = self
	return c
}

func (p *pair) node(t testing.TB, n cluster.NodeID) *Mux {
	t.Helper()
	m := New(Config{Identity: newIdent(t, n, &p.trust), WrapConn: p.ice.wrap,
		Cluster: func() cluster.Config { return p.config(n) }})
	if err := m.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Stop)
	return m
}

// echo serves a service that returns what it gets, behind the caller's name.
func echo(t testing.TB, m *Mux, service byte) {
	t.Helper()
	ln, err := m.Listen(service)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				fmt.Fprintf(c, "%s\n", PeerOf(c))
			})
		}
	})
	t.Cleanup(func() { ln.Close(); wg.Wait() })
}
