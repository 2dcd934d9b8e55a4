package witness

import (
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestCertificates(t *testing.T) {
	c := newBench(t).town()
	key := newKey(t)
	self := &x509.Certificate{SerialNumber: c.ca.cert.SerialNumber, Subject: c.ca.cert.Subject,
		NotAfter: time.Now().Add(year)}
	forged := authority{makeCert(t, self, self, key.Public(), key), key} // the authority's name, another key
	shift := func(from, to time.Duration) func(*x509.Certificate) {
		return func(x *x509.Certificate) { x.NotBefore, x.NotAfter = time.Now().Add(from), time.Now().Add(to) }
	}
	for _, k := range []struct {
		name string
		cert *tls.Certificate
		want error
		says string
	}{
		{"good", c.ca.node(t, "alpha", nil), nil, ""},
		{"none", nil, ErrNoCertificate, ""},
		{"forged", forged.node(t, "alpha", nil), ErrForeign, ""},
		{"ended an hour ago", c.ca.node(t, "alpha", shift(-year, -time.Hour)), nil, ""},
		{"begins in an hour", c.ca.node(t, "alpha", shift(time.Hour, year)), nil, ""},
		{"ended two days ago", c.ca.node(t, "alpha", shift(-year, -48*time.Hour)), ErrExpired, "that of alpha ended on"},
		{"begins in two days", c.ca.node(t, "alpha", shift(48*time.Hour, year)), ErrExpired, "that of alpha begins on"},
		{"for servers only", c.ca.node(t, "alpha", func(
			x *x509.Certificate) {
			x.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		}), ErrForeign, "usage"},
		{"the authority itself", &tls.Certificate{Certificate: [][]byte{c.ca.cert.Raw}, PrivateKey: c.ca.key}, ErrForeign,
			"not a node"},
		{"odd name", c.ca.node(t, "the witness", nil), ErrForeign, "not a node"},
		{"no name", c.ca.node(t, "", nil), ErrForeign, "not a node"},
		{"another node", c.ca.node(t, "beta", nil), ErrWrongNode, "beta asks in the name of"},
	} {
		t.Run(k.name, func(t *testing.T) {
			_, err := c.clientWith(k.cert, "").Ask(t.Context(), ask("alpha", 1, 0))
			if !errors.Is(err, k.want) || k.want != nil && !strings.Contains(err.Error(), k.says) {
				t.Errorf("got %v, want %v %q", err, k.want, k.says)
			}
		})
	}
}

func TestOpenConnection(t *testing.T) {
	b := newBench(t)
	c := b.town()
	alpha := c.client("alpha", "")
	mustAsk(t, alpha, ask("alpha", 1, 0), true, "")
	if err := b.srv.Forget(c.id); err != nil {
		t.Fatal(err)
	}
	if _, err := alpha.Ask(t.Context(), ask("alpha", 1, 0)); !errors.Is(err, ErrUnknownCluster) {
		t.Errorf("got %v", err)
	}
}

func TestOldTLS(t *testing.T) {
	c := newBench(t).town()
	conf := clientTLS(c.srv.Fingerprint(), nil)
	conf.MinVersion, conf.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	if conn, err := tls.Dial("tcp", c.addr, conf); err == nil {
		conn.Close()
		t.Error("TLS 1.2 was accepted")
	}
}

func TestIdentity(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	first, err := loadIdentity(dir)
	if err != nil {
		t.Fatal(err)
	}
	again, err := loadIdentity(dir)
	if err != nil || again.key != first.key {
		t.Errorf("%v %v %v", first.key, again.key, err)
	}
	path := filepath.Join(dir, keyFile)
	fi, err := os.Stat(path)
	if err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", fi, err)
	}
	if files, _ := os.ReadDir(dir); len(files) != 1 {
		t.Errorf("%v", files)
	}
	if _, ok := first.cert.PrivateKey.(*ecdsa.PrivateKey); !ok ||
		first.cert.Leaf.NotAfter.Before(time.Now().Add(10*year)) {
		t.Error(first.cert.Leaf.NotAfter)
	}
	if err := os.WriteFile(path, []byte("junk"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := New(Config{Dir: dir, Store: newMemory()}); err == nil || !strings.Contains(err.Error(), keyFile) {
		t.Errorf("damaged key: %v", err)
	}
	if b, _ := os.ReadFile(path); string(b) != "junk" {
		t.Error("a damaged key was replaced")
	}
}
