package pki

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"duet/cluster"
)

// What a certificate of the other side can be refused for. The errors that carry
// them name the node, the fact and the remedy.
var (
	// ErrExpired is returned when a certificate is outside its time.
	ErrExpired = errors.New("certificate is not valid now")
	// ErrForeign is returned when a certificate is of another cluster.
	ErrForeign = errors.New("certificate is not of this cluster")
	// ErrWrongNode is returned when an address answers as another node.
	ErrWrongNode = errors.New("wrong node answers")
	// ErrNoCertificate is returned when the other side shows no certificate.
	ErrNoCertificate = errors.New("no certificate was shown")
)

// base is what all connections between nodes have in common. Names are checked
// by our own verifier, since a node is known by its common name, not by DNS.
func base(verify func(tls.ConnectionState) error) *tls.Config {
	return &tls.Config{
		MinVersion:                  tls.VersionTLS13,
		InsecureSkipVerify:          true, // replaced by VerifyConnection, never left out
		VerifyConnection:            verify,
		SessionTicketsDisabled:      true, // each connection proves itself
		DynamicRecordSizingDisabled: true, // bulk data: full records from the start
	}
}

// Server is how this node accepts connections. A caller without a certificate gets through the handshake, since it
// may want to join, and Peer tells so; one with a certificate that is not good does not. A new certificate is used
// from the next handshake on.
func (id *Identity) Server() *tls.Config {
	c := base(func(st tls.ConnectionState) error {
		if len(st.PeerCertificates) == 0 {
			return nil
		}
		_, err := id.verify(st, x509.ExtKeyUsageClientAuth)
		return err
	})
	c.ClientAuth = tls.RequestClientCert
	c.GetCertificate = func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
		return id.named(hello.Conn.LocalAddr(), time.Now()), nil
	}
	return c
}

// Client is how this node calls peer; anybody else who answers is refused. It holds for one name and any address: it
// is by the name that nodes are told apart.
func (id *Identity) Client(peer cluster.NodeID) *tls.Config {
	c := base(func(st tls.ConnectionState) error {
		got, err := id.verify(st, x509.ExtKeyUsageServerAuth)
		if err != nil {
			return err
		}
		if got != peer {
			return fmt.Errorf("%w: called %s and reached %s; check the addresses in the cluster configuration", ErrWrongNode,
				peer, got)
		}
		return nil
	})
	c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return id.current(), nil }
	return c
}

// Peer is the node on the other side of a connection made with Server or Client, and whether it has shown a
// certificate at all. The name was verified in the handshake of a configuration of this Identity; of any other
// connection it proves nothing.
func (id *Identity) Peer(st tls.ConnectionState) (cluster.NodeID, bool) {
	if len(st.PeerCertificates) == 0 {
		return "", false
	}
	return cluster.NodeID(st.PeerCertificates[0].Subject.CommonName), true
}

func (id *Identity) verify(st tls.ConnectionState, use x509.ExtKeyUsage) (cluster.NodeID, error) {
	return verifyNode(st.PeerCertificates, id.ca.cert, use, time.Now())
}

// verifyNode checks a node's certificate against the one authority that counts and returns the node's name. An
// authority is refused as a node. Intermediate certificates are not looked at: nodes are signed by the authority
// itself.
func verifyNode(chain []*x509.Certificate, ca *x509.Certificate, use x509.ExtKeyUsage, now time.Time) (cluster.NodeID,
	error) {
	if len(chain) == 0 {
		return "", ErrNoCertificate
	}
	leaf := chain[0]
	pool := x509.NewCertPool()
	pool.AddCert(ca)
	_, err := leaf.Verify(x509.VerifyOptions{Roots: pool, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{use}})
	if err == nil && !leaf.IsCA {
		return cluster.NodeID(leaf.Subject.CommonName), nil
	}
	return "", explain(leaf, ca, now, err)
}

// explain turns what x509 says into a sentence with a remedy. What is not known to be something else is ErrForeign.
func explain(leaf, ca *x509.Certificate, now time.Time, err error) error {
	name := leaf.Subject.CommonName
	var unknown x509.UnknownAuthorityError
	var invalid x509.CertificateInvalidError
	switch {
	case errors.As(err, &unknown):
		return fmt.Errorf("%w: %s shows one of %v (authority %q), ours is %s; remove it from that cluster and join it anew",
			ErrForeign, name, leaf.Subject.Organization, leaf.Issuer.CommonName, short(fingerprint(ca)))
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired && now.Before(leaf.NotBefore):
		return fmt.Errorf("%w: that of %s begins on %s; check the clocks of both nodes", ErrExpired, name,
			leaf.NotBefore.Format(time.RFC3339))
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return fmt.Errorf("%w: that of %s ended on %s; restart duetd there to renew it, or check the clocks", ErrExpired,
			name, leaf.NotAfter.Format(time.RFC3339))
	case err == nil:
		return fmt.Errorf("%w: %s is an authority, not a node", ErrForeign, name)
	}
	return fmt.Errorf("%w: %s: %w", ErrForeign, name, err)
}

func short(f [sha256.Size]byte) string { return fmt.Sprintf("%x…", f[:6]) }

// joinTLS is how a node without an identity calls a cluster: it takes the authority from the chain it is shown, if
// its fingerprint is that of the token. That the other side shows the authority proves nothing yet, for it is
// public: pinned checks that the leaf was signed by it, and the handshake that the other side has the leaf's key.
func joinTLS(want [sha256.Size]byte) *tls.Config {
	return base(func(st tls.ConnectionState) error {
		_, err := pinned(st, want)
		return err
	})
}

// pinned finds the authority with the fingerprint want in what the other side
// has shown and checks the other side by it.
func pinned(st tls.ConnectionState, want [sha256.Size]byte) (*x509.Certificate, error) {
	for _, c := range st.PeerCertificates[min(1, len(st.PeerCertificates)):] {
		if fingerprint(c) == want {
			_, err := verifyNode(st.PeerCertificates, c, x509.ExtKeyUsageServerAuth, time.Now())
			return c, err
		}
	}
	return nil, fmt.Errorf("%w: the node that answers is not of the cluster that made this token (%s); check the address",
		ErrForeign, short(want))
}
