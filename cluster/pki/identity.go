package pki

import (
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"sync"
	"time"

	"duet/cluster"
)

// ErrExists is returned by Init and Join when the directory already holds an identity.
var ErrExists = errors.New("this node is already a member of a cluster")

// Identity is what a node shows to others and checks them by. It may be used by
// several goroutines.
type Identity struct {
	dir  string
	node cluster.NodeID // by its certificate
	ca   authority      // never changes; for use without mu

	mu    sync.RWMutex
	cert  *tls.Certificate                // of this node, followed by the authority's
	local map[netip.Addr]*tls.Certificate // by the address that they name; of cert's key, and gone with it
}

// Init founds a cluster in dir: an authority for ten years and the certificate of its first node for one year. Both
// begin before any clock, for this computer's may be ahead. Files are readable by their owner only and durable when
// Init returns. After a crash half-way it may be called again. It fails with ErrExists where there is an identity.
func Init(dir, clusterName string, node cluster.NodeID) (*Identity, error) {
	if err := mustBeFree(dir); err != nil {
		return nil, err
	}
	ca, err := newAuthority(clusterName, time.Now())
	if err != nil {
		return nil, err
	}
	key, err := newKey()
	if err != nil {
		return nil, err
	}
	der, err := ca.admit(node, key.Public(), time.Now(), time.Time{})
	if err != nil {
		return nil, err
	}
	if err := settle(dir, ca, key, der); err != nil {
		return nil, err
	}
	return Load(dir)
}

func mustBeFree(dir string) error {
	taken, err := exists(dir)
	if err != nil {
		return fmt.Errorf("look for an identity: %w", err)
	}
	if taken {
		return fmt.Errorf("%w: %s holds its certificate; leave that cluster first", ErrExists, dir)
	}
	return nil
}

// settle stores an identity; the node's certificate comes last and makes it count.
func settle(dir string, ca authority, key *ecdsa.PrivateKey, der []byte) error {
	caKey, err := encodeKey(ca.key)
	if err != nil {
		return err
	}
	nodeKey, err := encodeKey(key)
	if err != nil {
		return err
	}
	err = store(dir, file{CACert, encodeCert(ca.cert.Raw)}, file{caKeyFile, caKey},
		file{nodeKeyFile, nodeKey}, file{nodeCertFile, encodeCert(der)})
	if err != nil {
		return fmt.Errorf("store identity: %w", err)
	}
	return nil
}

// Load is Read, and renews the certificate if it is due. It fails if one that is due cannot be renewed, though the
// old one may still be good.
func Load(dir string) (*Identity, error) {
	id, err := Read(dir)
	if err != nil {
		return nil, err
	}
	if _, err := id.Renew(time.Now()); err != nil {
		return nil, fmt.Errorf("load identity: %w", err)
	}
	return id, nil
}

// Read reads the identity in dir and writes nothing: somebody else renews it. A file that is missing wraps
// fs.ErrNotExist. Files that do not belong together are refused, as after a directory was restored from two backups.
func Read(dir string) (*Identity, error) {
	id, err := load(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("load identity: %w; run `duet cluster init` or `duet cluster join` on this node", err)
	}
	if err != nil {
		return nil, fmt.Errorf("load identity: %w", err)
	}
	return id, nil
}

// load looks at no time: a certificate that has ended can still be renewed, with the authority's key beside it.
func load(dir string) (*Identity, error) {
	id := &Identity{dir: dir}
	var err error
	if id.ca.cert, err = readCert(dir, CACert); err != nil {
		return nil, err
	}
	if id.ca.key, err = readKey(dir, caKeyFile); err != nil {
		return nil, err
	}
	cert, err := readCert(dir, nodeCertFile)
	if err != nil {
		return nil, err
	}
	key, err := readKey(dir, nodeKeyFile)
	if err != nil {
		return nil, err
	}
	id.node = cluster.NodeID(cert.Subject.CommonName)
	if !id.ca.key.PublicKey.Equal(id.ca.cert.PublicKey) || !key.PublicKey.Equal(cert.PublicKey) {
		return nil, fmt.Errorf("%s: a key does not belong to its certificate; restore the directory from one backup", dir)
	}
	if err := cert.CheckSignatureFrom(id.ca.cert); err != nil {
		return nil, fmt.Errorf("%w: %s in %s was not signed by %s beside it", ErrForeign, nodeCertFile, dir, CACert)
	}
	id.use(cert, key)
	return id, nil
}

// use begins with a certificate: handshakes that run finish with the one before. What was made for addresses goes
// with the old one.
func (id *Identity) use(cert *x509.Certificate, key *ecdsa.PrivateKey) {
	// The authority goes along so that a node that joins can compare it with its token.
	chain := &tls.Certificate{Certificate: [][]byte{cert.Raw, id.ca.cert.Raw}, PrivateKey: key, Leaf: cert}
	id.mu.Lock()
	id.cert, id.local = chain, nil
	id.mu.Unlock()
}

// named is the certificate for callers of one address of this node, which it names beside the node: they may know no
// other name. It has the node's key, by which members know it, and is made when it is needed first, and anew when it is
// not valid now, as after the clock was set. Signing takes the lock, so handshakes that come in wait for it once per
// address. What cannot be made is no failure: the certificate without addresses is good for all members.
func (id *Identity) named(local net.Addr, now time.Time) *tls.Certificate {
	base := id.current()
	at, err := netip.ParseAddrPort(local.String())
	if err != nil {
		return base // no address of IP
	}
	ip := at.Addr().Unmap().WithZone("")
	id.mu.Lock()
	defer id.mu.Unlock()
	if c := id.local[ip]; c != nil && !now.Before(c.Leaf.NotBefore) && !now.After(c.Leaf.NotAfter) {
		return c
	}
	key := id.cert.PrivateKey.(*ecdsa.PrivateKey)
	der, err := id.ca.sign(id.node, key.Public(), now.Add(-backdate), now.Add(nodeLife), ip.AsSlice())
	if err != nil {
		return base
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return base
	}
	if id.local == nil {
		id.local = make(map[netip.Addr]*tls.Certificate)
	}
	id.local[ip] = &tls.Certificate{Certificate: [][]byte{der, id.ca.cert.Raw}, PrivateKey: key, Leaf: leaf}
	return id.local[ip]
}

// current is not to be changed: handshakes share what it returns.
func (id *Identity) current() *tls.Certificate {
	id.mu.RLock()
	defer id.mu.RUnlock()
	return id.cert
}

// Certificate is what this node shows to others, followed by the authority's; a
// renewed one from the next call on.
func (id *Identity) Certificate() *tls.Certificate { return id.current() }

// Authority is the certificate of the cluster's authority, in DER.
func (id *Identity) Authority() []byte { return id.ca.cert.Raw }

// Node is the name of this node.
func (id *Identity) Node() cluster.NodeID { return id.node }

// Expires is when this node's certificate ends unless it is renewed. Peers refuse this node from then on.
func (id *Identity) Expires() time.Time { return id.current().Leaf.NotAfter }

// Renew makes a new certificate for this node if less than a third of nodeLife remains of the old one, or if that
// begins in the future, as one of an older release made while the clock was ahead; and reports whether it did. The new
// one ends no sooner, for it may be this clock that is wrong. New connections use it at once. Call it about daily. One
// caller at a time. What is new is durable before it is used. An error leaves the old certificate in use; it wraps
// ErrExpired if the authority itself has ended.
func (id *Identity) Renew(now time.Time) (bool, error) {
	old := id.current()
	early := now.Before(old.Leaf.NotBefore) && id.ca.cert.NotBefore.Before(old.Leaf.NotBefore)
	if !early && old.Leaf.NotAfter.Sub(now) >= nodeLife/3 {
		return false, nil
	}
	if now.After(id.ca.cert.NotAfter) {
		return false, fmt.Errorf("renew certificate: %w: the authority of the cluster ended on %s; check this node's "+
			"clock, else make a new cluster",
			ErrExpired, id.ca.cert.NotAfter.Format(time.DateOnly))
	}
	// The key stays, so that a crash cannot part it from its certificate.
	key := old.PrivateKey.(*ecdsa.PrivateKey)
	der, err := id.ca.admit(id.node, key.Public(), now, old.Leaf.NotAfter)
	if err != nil {
		return false, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return false, fmt.Errorf("renew certificate: %w", err)
	}
	if !early && !cert.NotAfter.After(old.Leaf.NotAfter) {
		return false, nil // the authority's own end is the limit
	}
	if err := store(id.dir, file{nodeCertFile, encodeCert(der)}); err != nil {
		return false, fmt.Errorf("renew certificate: %w", err)
	}
	id.use(cert, key)
	return true, nil
}
