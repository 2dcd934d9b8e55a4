package pki

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"duet/cluster"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func found(t *testing.T, name string, node cluster.NodeID) *Identity {
	t.Helper()
	id, err := Init(t.TempDir(), name, node)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// sibling is another node of id's cluster, made without a join.
func sibling(t *testing.T, id *Identity, node cluster.NodeID, when time.Time) *Identity {
	t.Helper()
	key, err := newKey()
	if err != nil {
		t.Fatal(err)
	}
	der, err := id.ca.sign(node, key.Public(), when.Add(-backdate), when.Add(nodeLife))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := settle(dir, id.ca, key, der); err != nil {
		t.Fatal(err)
	}
	sib, err := load(dir) // not Load, which would renew
	if err != nil {
		t.Fatal(err)
	}
	return sib
}

// shake runs a TLS handshake and returns both sides' errors and states.
func shake(t *testing.T, server, client *tls.Config) (sErr, cErr error, sSt, cSt tls.ConnectionState) {
	t.Helper()
	a, b := net.Pipe()
	s, c := tls.Server(a, server), tls.Client(b, client)
	done := make(chan error, 1)
	go func() {
		err := s.Handshake()
		if err == nil {
			_, err = s.Write([]byte("x")) // the client learns of a refused certificate only by reading
		}
		if err != nil {
			a.Close()
		}
		done <- err
	}()
	cErr = c.Handshake()
	if cErr == nil {
		_, cErr = c.Read(make([]byte, 1))
	}
	b.Close()
	sErr = <-done
	a.Close()
	return sErr, cErr, s.ConnectionState(), c.ConnectionState()
}

func TestInitLoad(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "pki")
	if _, err := Init(dir, "prod", "alpha"); err != nil {
		t.Fatal(err)
	}
	if _, err := Init(dir, "prod", "alpha"); !errors.Is(err, ErrExists) {
		t.Errorf("second Init: %v", err)
	}
	files, err := os.ReadDir(dir)
	if err != nil || len(files) != 4 {
		t.Errorf("files: %v %v", files, err)
	}
	for _, f := range files {
		if fi, _ := f.Info(); fi.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", f.Name(), fi.Mode())
		}
	}
	id, err := Load(dir)
	if err != nil || id.Node() != "alpha" {
		t.Fatalf("Load: %v %v", id, err)
	}
	if _, err := Load(t.TempDir()); !errors.Is(err, fs.ErrNotExist) ||
		!strings.Contains(err.Error(), "duet cluster init") {
		t.Errorf("Load of nothing: %v", err)
	}
	for _, bad := range []cluster.NodeID{"", "a/b", "-a", "a b", cluster.NodeID(strings.Repeat("a", 64))} {
		if _, err := Init(t.TempDir(), "prod", bad); err == nil {
			t.Errorf("node name %q was accepted", bad)
		}
	}
}

func TestLoadRefusesMixedFiles(t *testing.T) {
	a, b := found(t, "one", "alpha"), found(t, "two", "alpha")
	for _, name := range []string{CACert, caKeyFile, nodeCertFile, nodeKeyFile} {
		dir := t.TempDir()
		for _, f := range []string{CACert, caKeyFile, nodeCertFile, nodeKeyFile} {
			src := a.dir
			if f == name {
				src = b.dir
			}
			data, err := os.ReadFile(filepath.Join(src, f))
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, f), data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := Load(dir); err == nil {
			t.Errorf("%s of another cluster was accepted", name)
		}
	}
}

func TestHandshake(t *testing.T) {
	now := time.Now()
	alpha := found(t, "one", "alpha")
	beta := sibling(t, alpha, "beta", now)
	old := sibling(t, alpha, "beta", now.Add(-nodeLife-time.Hour))
	early := sibling(t, alpha, "beta", now.Add(backdate+time.Hour))
	foreign := found(t, "one", "beta")
	// A certificate that may sign must not serve as a node's.
	rogue := &Identity{ca: alpha.ca}
	rogue.use(alpha.ca.cert, alpha.ca.key)

	cases := []struct {
		name           string
		server, client *Identity
		to             cluster.NodeID
		want           error
		says           string
	}{
		{"good", alpha, beta, "alpha", nil, ""},
		{"wrong node", alpha, beta, "gamma", ErrWrongNode, "called gamma and reached alpha"},
		{"server expired", old, alpha, "beta", ErrExpired, "that of beta ended on"},
		{"server too early", early, alpha, "beta", ErrExpired, "clocks"},
		{"client expired", alpha, old, "alpha", ErrExpired, "that of beta ended on"},
		{"server foreign", foreign, alpha, "beta", ErrForeign, "join it anew"},
		{"client foreign", alpha, &Identity{ca: alpha.ca, cert: foreign.cert}, "alpha", ErrForeign, "join it anew"},
		{"authority as node", rogue, alpha, "alpha", ErrForeign, ""},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			sErr, cErr, sSt, cSt := shake(t, c.server.Server(), c.client.Client(c.to))
			if c.want == nil {
				if sErr != nil || cErr != nil {
					t.Fatal(sErr, cErr)
				}
				got, ok := alpha.Peer(sSt)
				if !ok || got != "beta" || sSt.Version != tls.VersionTLS13 || cSt.DidResume {
					t.Errorf("peer %q %v", got, ok)
				}
				return
			}
			err := errors.Join(sErr, cErr)
			if sErr == nil || cErr == nil || !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("server: %v; client: %v; want %v", sErr, cErr, c.want)
			}
		})
	}
}

func TestHandshakeWithoutCertificate(t *testing.T) {
	alpha := found(t, "one", "alpha")
	c := joinTLS(fingerprint(alpha.ca.cert))
	sErr, cErr, sSt, _ := shake(t, alpha.Server(), c)
	if sErr != nil || cErr != nil {
		t.Fatal(sErr, cErr)
	}
	if n, ok := alpha.Peer(sSt); ok {
		t.Errorf("a caller without certificate is %q", n)
	}
	_, cErr, _, _ = shake(t, alpha.Server(), joinTLS([32]byte{1}))
	if !errors.Is(cErr, ErrForeign) {
		t.Errorf("wrong fingerprint: %v", cErr)
	}
	// Old protocols are refused.
	c = joinTLS(fingerprint(alpha.ca.cert))
	c.MinVersion, c.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	if sErr, _, _, _ := shake(t, alpha.Server(), c); sErr == nil {
		t.Error("TLS 1.2 was accepted")
	}
}

// TestPinnedNeedsTheLeafSigned lets an impostor show the real authority behind a
// certificate of his own making.
func TestPinnedNeedsTheLeafSigned(t *testing.T) {
	alpha, evil := found(t, "one", "alpha"), found(t, "one", "alpha")
	chain := *evil.cert
	chain.Certificate = [][]byte{evil.cert.Certificate[0], alpha.ca.cert.Raw}
	_, cErr, _, _ := shake(t, (&Identity{ca: alpha.ca, cert: &chain}).Server(), joinTLS(fingerprint(alpha.ca.cert)))
	if !errors.Is(cErr, ErrForeign) {
		t.Errorf("impostor: %v", cErr)
	}
}

func TestRenew(t *testing.T) {
	alpha := found(t, "one", "alpha")
	before := alpha.Expires()
	now := time.Now()
	for _, c := range []struct {
		after time.Duration
		want  bool
	}{
		{nodeLife / 2, false},
		{nodeLife * 3 / 4, true},
		{nodeLife * 3 / 4, false}, // it is new now
		{nodeLife * 3, true},      // even if it has ended: the authority is here
	} {
		got, err := alpha.Renew(now.Add(c.after))
		if err != nil || got != c.want {
			t.Errorf("after %v: %v %v", c.after, got, err)
		}
	}
	reloaded, err := Load(alpha.dir)
	if err != nil || !reloaded.Expires().After(before) || !reloaded.Expires().Equal(alpha.Expires()) {
		t.Errorf("stored: %v, was %v: %v", reloaded.Expires(), before, err)
	}
	if _, err := alpha.Renew(now.Add(caLife + time.Hour)); !errors.Is(err, ErrExpired) {
		t.Errorf("after the authority's end: %v", err)
	}
	cert := alpha.current().Leaf
	if cert.NotAfter.After(alpha.ca.cert.NotAfter) {
		t.Error("certificate outlives its authority")
	}
	old := sibling(t, alpha, "beta", now.Add(-nodeLife))
	if id, err := Load(old.dir); err != nil || id.Expires().Before(now.Add(nodeLife-time.Hour)) {
		t.Errorf("Load did not renew: %v", err)
	}
}

// TestFoundedAhead: a cluster that is made while the clock is ahead has an authority and a node that others believe.
func TestFoundedAhead(t *testing.T) {
	now := time.Now()
	for what, wrong := range map[string]time.Duration{"ahead": 2 * nodeLife, "right": 0, "a bit behind": -backdate} {
		ca, err := newAuthority("one", now.Add(wrong))
		if err != nil {
			t.Fatal(err)
		}
		key, err := newKey()
		if err != nil {
			t.Fatal(err)
		}
		der, err := ca.admit("alpha", key.Public(), now.Add(wrong), time.Time{})
		if err != nil {
			t.Fatal(err)
		}
		leaf, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := verifyNode([]*x509.Certificate{leaf}, ca.cert, x509.ExtKeyUsageServerAuth, now); err != nil {
			t.Errorf("made while the clock was %s: %v", what, err)
		}
	}
}

// TestWrongClock: a certificate that was made while the clock was wrong is good once it is right.
func TestWrongClock(t *testing.T) {
	alpha := found(t, "one", "alpha")
	now := time.Now()
	good := func(what string, id *Identity, at *tls.Certificate) {
		t.Helper()
		if _, err := verifyNode([]*x509.Certificate{at.Leaf}, id.ca.cert, x509.ExtKeyUsageClientAuth, now); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	if renewed, err := alpha.Renew(now.Add(2 * nodeLife)); err != nil || !renewed {
		t.Fatal(renewed, err)
	}
	good("renewed two years ahead", alpha, alpha.Certificate())
	local := &net.TCPAddr{IP: net.IPv4(10, 0, 0, 1), Port: 7420}
	for what, wrong := range map[string]time.Duration{"ahead": 2 * nodeLife, "behind": -2 * nodeLife} {
		if at := alpha.named(local, now.Add(wrong)); len(at.Leaf.IPAddresses) != 1 {
			t.Errorf("for its address while the clock is %s: %v", what, at.Leaf)
		}
		first := alpha.named(local, now)
		good("for its address, made "+what, alpha, first)
		if alpha.named(local, now) != first {
			t.Error("one that is good is made again")
		}
	}
	// Of a release that made them so.
	early := sibling(t, alpha, "beta", now.Add(nodeLife))
	end := early.Expires()
	reloaded, err := Load(early.dir)
	if err != nil {
		t.Fatal(err)
	}
	good("one that begins next year", reloaded, reloaded.Certificate())
	if reloaded.Expires().Before(end) {
		t.Errorf("it ends on %v, before: %v", reloaded.Expires(), end)
	}
	if renewed, err := reloaded.Renew(alpha.ca.cert.NotBefore.Add(-nodeLife)); err != nil || renewed {
		t.Errorf("while the clock is before the authority: renewed %v, %v", renewed, err)
	}
}

// TestRead: who only reads an identity renews nothing.
func TestRead(t *testing.T) {
	due := sibling(t, found(t, "one", "alpha"), "beta", time.Now().Add(-nodeLife+time.Hour))
	if id, err := Read(due.dir); err != nil || !id.Expires().Equal(due.Expires()) {
		t.Errorf("%v, was %v", err, due.Expires())
	}
	if _, err := Read(t.TempDir()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no identity: %v", err)
	}
}

func TestLeafUsage(t *testing.T) {
	leaf := found(t, "one", "alpha").current().Leaf
	if leaf.IsCA || len(leaf.ExtKeyUsage) != 2 || leaf.Subject.CommonName != "alpha" {
		t.Errorf("leaf: %+v", leaf.Subject)
	}
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: x509.NewCertPool()}); err == nil {
		t.Error("verifies against nothing")
	}
}
