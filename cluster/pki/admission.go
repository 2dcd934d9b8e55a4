package pki

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"duet/cluster"
	"duet/cluster/enroll"
)

// Why a join is refused besides its token. The errors that carry them say what to do.
var (
	// ErrNameTaken is returned when the cluster has a member of that name.
	ErrNameTaken = errors.New("node name is taken")
	// ErrBadRequest is returned when a request makes no sense.
	ErrBadRequest = errors.New("bad join request")
)

// JoinRequest is what a new node says. The secret in it is good once, so it goes to nobody but the owner of the
// token's pin, see joinTLS.
type JoinRequest struct {
	Secret []byte            `json:"secret"`
	Node   cluster.NodeID    `json:"node"`
	CSR    []byte            `json:"csr"`   // PKCS #10, DER, signed by the node's key
	Addrs  map[string]string `json:"addrs"` // IP by name of network
}

// JoinResponse is what it gets; secret, since it holds the authority's key. It is sent over the connection that the
// newcomer has checked by the token. The one who joins believes nothing of it before JoinConfig.accept.
type JoinResponse struct {
	CACert   []byte         `json:"ca_cert"`   // DER
	CAKey    []byte         `json:"ca_key"`    // PEM, PKCS #8
	NodeCert []byte         `json:"node_cert"` // DER
	Config   cluster.Config `json:"config"`    // Self is the new node
}

// AdmissionConfig says what an Admission works with; all fields are needed but Now.
type AdmissionConfig struct {
	Identity *Identity
	Tokens   enroll.Store
	// Cluster is the configuration as it is.
	Cluster func() cluster.Config
	// Admit adds a member durably and returns the new configuration. It is called
	// again for a member it has admitted when the answer was lost. It may wait for other nodes: tokens wait meanwhile.
	Admit func(context.Context, cluster.Member) (cluster.Config, error)
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// Admission lets nodes in. Its methods may be called by several goroutines and take turns.
type Admission struct {
	cfg  AdmissionConfig
	desk *enroll.Desk
}

// NewAdmission returns an Admission.
func NewAdmission(cfg AdmissionConfig) *Admission {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Admission{cfg: cfg, desk: enroll.NewDesk(enroll.Config{
		Store: cfg.Tokens, Prefix: tokenPrefix, Pin: fingerprint(cfg.Identity.ca.cert),
		Again: "make another with `duet cluster token`", Now: cfg.Now,
	})}
}

// NewToken makes a token for one join within life; zero means enroll.Life. It waits while a node is being admitted.
func (a *Admission) NewToken(life time.Duration) (enroll.Token, error) { return a.desk.NewToken(life) }

// Join admits the node of a good request. The token is marked used, durably, before anything is given out; the same
// node may repeat the same request. A node that asks again must come with the same key and name: a process that
// begins anew makes another key, and needs another token. Errors wrap a sentinel of this package, of enroll or of
// ratelimit where there is one for it.
func (a *Admission) Join(ctx context.Context, req JoinRequest) (resp JoinResponse, err error) {
	var csr *x509.CertificateRequest
	err = a.desk.Redeem(enroll.Request{
		Secret: req.Secret,
		Digest: func() ([]byte, error) {
			if csr, err = checkCSR(req); err != nil {
				return nil, err
			}
			return digestOf(req.Node, csr), nil
		},
		May: func() error { return checkMember(a.cfg.Cluster(), cluster.Member{Node: req.Node, Addrs: req.Addrs}) },
		Do: func() error {
			resp, err = a.answer(ctx, req, csr)
			return err
		},
	})
	return resp, err
}

// answer signs and admits. It signs first: an admitted member without a certificate would block its name.
func (a *Admission) answer(ctx context.Context, req JoinRequest, csr *x509.CertificateRequest) (JoinResponse, error) {
	ca := a.cfg.Identity.ca
	der, err := ca.admit(req.Node, csr.PublicKey, a.cfg.Now(), time.Time{})
	if err != nil {
		return JoinResponse{}, err
	}
	key, err := encodeKey(ca.key)
	if err != nil {
		return JoinResponse{}, err
	}
	theirs := sha256.Sum256(csr.RawSubjectPublicKeyInfo)
	cfg, err := a.cfg.Admit(ctx, cluster.Member{Node: req.Node, Addrs: req.Addrs, Key: hex.EncodeToString(theirs[:])})
	if err != nil {
		return JoinResponse{}, fmt.Errorf("admit %s: %w", req.Node, err)
	}
	cfg.Self = req.Node
	return JoinResponse{CACert: ca.cert.Raw, CAKey: key, NodeCert: der, Config: cfg}, nil
}

// checkCSR makes sure that the newcomer has the private key. Nothing but that key is taken from the request: the
// name is req.Node, by which it was checked.
func checkCSR(req JoinRequest) (*x509.CertificateRequest, error) {
	if err := checkName(req.Node); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBadRequest, err)
	}
	csr, err := x509.ParseCertificateRequest(req.CSR)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBadRequest, err)
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBadRequest, err)
	}
	return csr, nil
}

// checkMember checks name and addresses of a new member against the others. It is asked only while the token is
// unused: a repeated request would find its own node a member. Each network of the cluster needs an address.
func checkMember(cfg cluster.Config, m cluster.Member) error {
	if _, taken := cfg.Member(m.Node); taken {
		return fmt.Errorf("%w: %s is a member already; choose another name, or take the old node off first: `duet cluster "+
			"remove %s`", ErrNameTaken, m.Node, m.Node)
	}
	used := map[string]cluster.NodeID{}
	for _, o := range cfg.Members {
		for net, a := range o.Addrs {
			used[net+" "+a] = o.Node
		}
	}
	for _, net := range slices.Sorted(maps.Keys(m.Addrs)) {
		known := slices.ContainsFunc(cfg.Networks, func(n cluster.Network) bool { return n.Name == net })
		if !known {
			return fmt.Errorf("%w: the cluster has no network %q", ErrBadRequest, net)
		}
		if o, ok := used[net+" "+m.Addrs[net]]; ok {
			return fmt.Errorf("%w: address %s on network %s belongs to %s", ErrBadRequest, m.Addrs[net], net, o)
		}
	}
	for _, n := range cfg.Networks {
		if _, err := netip.ParseAddr(m.Addrs[n.Name]); err != nil {
			return fmt.Errorf("%w: no good address for network %q: %q", ErrBadRequest, n.Name, m.Addrs[n.Name])
		}
	}
	return nil
}

// digestOf names one join: the same node with the same key.
func digestOf(node cluster.NodeID, csr *x509.CertificateRequest) []byte {
	h := sha256.New()
	fmt.Fprintf(h, "%d %s ", len(node), node)
	h.Write(csr.RawSubjectPublicKeyInfo)
	return h.Sum(nil)
}
