package witness

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"regexp"
	"time"

	"duet/cluster"
)

// ClockSkew is how far the clocks of witness and nodes may be apart. See the
// package comment.
const ClockSkew = 24 * time.Hour

// What a call can be refused for besides its token. The errors that carry them say what to do; they
// cross the wire, so a Client returns them too.
var (
	// ErrTaken is returned when the ID of a registration belongs to another authority.
	ErrTaken = errors.New("cluster ID is taken")
	// ErrBadRequest is returned when a request makes no sense.
	ErrBadRequest = errors.New("bad witness request")
	// ErrUnknownCluster is returned when no cluster is registered under the ID of a call.
	ErrUnknownCluster = errors.New("cluster is not registered with this witness")
	// ErrNoCertificate is returned when the caller shows no certificate.
	ErrNoCertificate = errors.New("no certificate was shown")
	// ErrForeign is returned when the caller's certificate is not of the cluster it speaks for.
	ErrForeign = errors.New("certificate is not of this cluster")
	// ErrExpired is returned when the caller's certificate is outside its time.
	ErrExpired = errors.New("certificate is not valid now")
	// ErrWrongNode is returned when a node asks in the name of another.
	ErrWrongNode = errors.New("certificate is of another node")
	// ErrRemoved is returned to a node that was removed from its cluster: its certificate outlives that.
	ErrRemoved = errors.New("the node was removed from the cluster")
	// ErrFull is returned when the witness keeps as much as it may.
	ErrFull = errors.New("witness is full")
	// ErrStore is returned when the witness could not read or save its record: it did not vote.
	ErrStore = errors.New("witness cannot store its vote")
	// ErrStopping is returned by a witness that is about to end.
	ErrStopping = errors.New("witness is stopping")
	// ErrWrongWitness is returned when an address answers with another key than the pinned one.
	ErrWrongWitness = errors.New("another witness answers")
)

var nameForm = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9._-]{0,62}$`)

// isName accepts what names of nodes and modules may be; it is safe in keys of a Store.
func isName(s string) bool { return nameForm.MatchString(s) }

// caller checks the certificate of a call by the one authority that counts and
// returns the node it is of.
func caller(chain []*x509.Certificate, ca *x509.Certificate, now time.Time) (cluster.NodeID, error) {
	if len(chain) == 0 {
		return "", fmt.Errorf("%w: a witness answers the nodes of a registered cluster only", ErrNoCertificate)
	}
	leaf := chain[0]
	pool := x509.NewCertPool()
	pool.AddCert(ca)
	// The time is checked apart, with the skew: nearest is the time nearest to now
	// at which both certificates are good.
	at := nearest(leaf, ca, now)
	_, err := leaf.Verify(x509.VerifyOptions{Roots: pool, CurrentTime: at,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	name := leaf.Subject.CommonName
	switch {
	case err != nil:
		return "", fmt.Errorf("%w: %q shows one of authority %q: %w", ErrForeign, name, leaf.Issuer.CommonName, err)
	case leaf.IsCA || !isName(name):
		return "", fmt.Errorf("%w: %q is not a node", ErrForeign, name)
	case now.Sub(at) > ClockSkew:
		return "", fmt.Errorf("%w: that of %s ended on %s, and the witness has %s; restart duetd there to renew it, or "+
			"check the clocks",
			ErrExpired, name, at.Format(time.RFC3339), now.Format(time.RFC3339))
	case at.Sub(now) > ClockSkew:
		return "", fmt.Errorf("%w: that of %s begins on %s, and the witness has %s; check the clocks",
			ErrExpired, name, at.Format(time.RFC3339), now.Format(time.RFC3339))
	}
	return cluster.NodeID(name), nil
}

// nearest moves now into the time of both certificates, as little as that takes. Where their times do not meet, what
// it returns is outside one of them, and Verify refuses it.
func nearest(leaf, ca *x509.Certificate, now time.Time) time.Time {
	for _, c := range []*x509.Certificate{leaf, ca} {
		if now.Before(c.NotBefore) {
			now = c.NotBefore
		}
	}
	for _, c := range []*x509.Certificate{leaf, ca} {
		if now.After(c.NotAfter) {
			now = c.NotAfter
		}
	}
	return now
}

// serverTLS takes any caller, with a certificate or without: who it may be is
// decided call by call, where the answer can say what is wrong, and where a
// cluster that was forgotten or a certificate that ended counts at once.
func (id identity) serverTLS() *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		Certificates:           []tls.Certificate{*id.cert},
		ClientAuth:             tls.RequestClientCert,
		SessionTicketsDisabled: true, // each connection proves itself
	}
}

// clientTLS takes nobody but the witness with that key, whatever else is in its certificate.
func clientTLS(want Fingerprint, cert *tls.Certificate) *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		InsecureSkipVerify:     true, // replaced by VerifyConnection, never left out
		ServerName:             "witness",
		SessionTicketsDisabled: true,
		VerifyConnection: func(st tls.ConnectionState) error {
			if got := fingerprint(st.PeerCertificates[0]); got != want {
				return fmt.Errorf("%w: its key is %.12s…, expected %.12s…; check the address, or register with the new witness",
					ErrWrongWitness, got, want)
			}
			return nil
		},
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			if cert == nil {
				return &tls.Certificate{}, nil // none, as for a registration
			}
			return cert, nil
		},
	}
}
