package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"net"
	"time"

	"duet/cluster"
)

const (
	caLife   = 10 * 365 * 24 * time.Hour // from when it is made; no way to exchange it: a cluster lasts as long
	nodeLife = 365 * 24 * time.Hour      // renewed when a third of it is left
	// backdate lets nodes meet whose clocks are not set yet. It is for certificates that name addresses, which programs
	// refuse that live for years; those that nodes know each other by begin with the authority.
	backdate = 24 * time.Hour
)

// caBegin is when each authority begins: before any clock. One that began when it was made would be refused by all
// whose clocks are behind that, for as long as they are, and it cannot be exchanged.
var caBegin = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

// authority is the cluster's own certificate authority.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func checkName(n cluster.NodeID) error { return n.Check() }

func newKey() (*ecdsa.PrivateKey, error) {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make key: %w", err)
	}
	return k, nil
}

// serial is 120 random bits, within the 20 bytes of RFC 5280 §4.1.2.2.
func serial() (*big.Int, error) {
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, fmt.Errorf("make serial number: %w", err)
	}
	return n, nil
}

// newAuthority makes a key and signs its certificate with it. Its certificates sign nothing further
// (MaxPathLenZero).
func newAuthority(clusterName string, now time.Time) (authority, error) {
	key, err := newKey()
	if err != nil {
		return authority{}, err
	}
	sn, err := serial()
	if err != nil {
		return authority{}, err
	}
	tmpl := &x509.Certificate{
		SerialNumber: sn,
		Subject:      pkix.Name{CommonName: "cluster " + clusterName, Organization: []string{clusterName}},
		NotBefore:    caBegin, NotAfter: now.Add(caLife),
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true,
		KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		return authority{}, fmt.Errorf("make authority: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	return authority{cert, key}, err
}

// admit makes the certificate by which others know a node. It begins when the authority does, so that none begins in
// the future, whatever the clock says now; it ends after nodeLife, or at the time until where that is later.
func (a authority) admit(node cluster.NodeID, pub crypto.PublicKey, now, until time.Time) ([]byte, error) {
	if end := now.Add(nodeLife); end.After(until) {
		until = end
	}
	return a.sign(node, pub, a.cert.NotBefore, until)
}

// sign makes the certificate of a node, which may name addresses of it too; it does not outlive the authority.
// Verifiers look at the common name alone; DNSNames and addresses are there for programs that know TLS only.
func (a authority) sign(node cluster.NodeID, pub crypto.PublicKey, from, until time.Time, ips ...net.IP) ([]byte,
	error) {
	if err := checkName(node); err != nil {
		return nil, err
	}
	sn, err := serial()
	if err != nil {
		return nil, err
	}
	if until.After(a.cert.NotAfter) {
		until = a.cert.NotAfter
	}
	tmpl := &x509.Certificate{
		SerialNumber: sn,
		Subject:      pkix.Name{CommonName: string(node), Organization: a.cert.Subject.Organization},
		DNSNames:     []string{string(node)}, IPAddresses: ips,
		NotBefore: from, NotAfter: until,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.cert, pub, a.key)
	if err != nil {
		return nil, fmt.Errorf("sign certificate of %s: %w", node, err)
	}
	return der, nil
}

// fingerprint names an authority in tokens and messages. It is of the whole certificate: unlike a node, an authority
// is never renewed.
func fingerprint(c *x509.Certificate) [sha256.Size]byte { return sha256.Sum256(c.Raw) }
