package membership

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"

	"duet/cluster"
)

// ErrRemoved is returned for a certificate of this cluster whose node is no member any more.
var ErrRemoved = errors.New("it is no member of this cluster any more")

// Identity is what a node shows and checks others by; *pki.Identity is one.
type Identity interface {
	Server() *tls.Config
	Client(peer cluster.NodeID) *tls.Config
	Peer(tls.ConnectionState) (cluster.NodeID, bool)
}

// Checked is an Identity for which a certificate of the cluster is not enough: its node has to be a member now, with
// that very key. A certificate outlives the membership of its node. Server stays as it is: whoever calls without
// being a member gets through the handshake, and is refused where the service is chosen (mux), so that it can be
// told why.
type Checked struct {
	Identity
	Book *Book
}

// Peer names the other side, and reports whether it is a member now.
func (c Checked) Peer(st tls.ConnectionState) (cluster.NodeID, bool) {
	n, ok := c.Identity.Peer(st)
	return n, ok && c.Book.Config().Trusts(n, KeyOf(st.PeerCertificates[0]))
}

// Client accepts nobody but peer, if that is a member. The look comes at the end of each handshake, not when the
// configuration is made.
func (c Checked) Client(peer cluster.NodeID) *tls.Config {
	conf := c.Identity.Client(peer)
	verify := conf.VerifyConnection
	conf.VerifyConnection = func(st tls.ConnectionState) error {
		if err := verify(st); err != nil {
			return err
		}
		if !c.Book.Config().Trusts(peer, KeyOf(st.PeerCertificates[0])) {
			return fmt.Errorf("%w: %s, or another computer has its name now", ErrRemoved, peer)
		}
		return nil
	}
	return conf
}

// KeyOf is the fingerprint of a certificate's public key, as Member.Key has it.
func KeyOf(c *x509.Certificate) string { return Fingerprint(c.RawSubjectPublicKeyInfo) }

// Fingerprint is that of a public key (SubjectPublicKeyInfo, DER).
func Fingerprint(spki []byte) string {
	sum := sha256.Sum256(spki)
	return hex.EncodeToString(sum[:])
}
