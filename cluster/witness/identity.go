package witness

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"time"

	"duet/blockrepl/durable"
)

// keyFile is the one file of an identity. The certificate is made anew at each
// start, for clients pin the key: so the two cannot fall apart, and nothing ends.
const keyFile = "witness.key"

const pemKey = "PRIVATE KEY"

// identity is what a witness shows to its callers.
type identity struct {
	cert *tls.Certificate
	key  Fingerprint
}

// loadIdentity reads the key in dir, or makes one, durably, if there is none. A
// damaged key is an error: clusters have pinned it, so no other can take its place.
func loadIdentity(dir string) (identity, error) {
	path := filepath.Join(dir, keyFile)
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		if b, err = makeKey(); err == nil {
			err = storeKey(path, b)
		}
	}
	if err != nil {
		return identity{}, err
	}
	key, err := decodeKey(b)
	if err != nil {
		return identity{}, fmt.Errorf("%s: %w", path, err)
	}
	return newIdentity(key)
}

// storeKey is done before the key is shown to anybody: a token must not carry a fingerprint that a power loss takes
// away.
func storeKey(path string, b []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	return durable.WriteFile(path, b)
}

func makeKey() ([]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: pemKey, Bytes: der}), nil
}

func decodeKey(b []byte) (*ecdsa.PrivateKey, error) {
	block, _ := pem.Decode(b)
	if block == nil || block.Type != pemKey {
		return nil, fmt.Errorf("no PEM block %q", pemKey)
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	ec, ok := key.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("key is a %T, not ECDSA", key)
	}
	return ec, nil
}

// newIdentity makes a certificate that never ends, for the pinned key alone counts.
func newIdentity(key *ecdsa.PrivateKey) (identity, error) {
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: "duet witness"},
		DNSNames:     []string{"witness"},
		NotBefore:    time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC),
		NotAfter:     time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC), // "no end", RFC 5280 §4.1.2.5
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		return identity{}, fmt.Errorf("make certificate: %w", err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return identity{}, fmt.Errorf("make certificate: %w", err)
	}
	return identity{&tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, fingerprint(leaf)}, nil
}

func fingerprint(c *x509.Certificate) Fingerprint { return sha256.Sum256(c.RawSubjectPublicKeyInfo) }
