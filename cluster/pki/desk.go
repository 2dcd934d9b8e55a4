package pki

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"duet/cluster"
	"duet/cluster/token"
)

// Why a join is refused. The errors that carry them say what to do.
var (
	// ErrTokenUnknown is returned for a token that this node did not make.
	ErrTokenUnknown = errors.New("join token is not known here")
	// ErrTokenUsed is returned for a token that another join has used.
	ErrTokenUsed = errors.New("join token was used before")
	// ErrTokenExpired is returned for a token after its time.
	ErrTokenExpired = errors.New("join token has expired")
	// ErrNameTaken is returned when the cluster has a member of that name.
	ErrNameTaken = errors.New("node name is taken")
	// ErrBadRequest is returned when a request makes no sense.
	ErrBadRequest = errors.New("bad join request")
)

// JoinRequest is what a new node says.
type JoinRequest struct {
	Secret []byte            `json:"secret"`
	Node   cluster.NodeID    `json:"node"`
	CSR    []byte            `json:"csr"`   // PKCS #10, DER, signed by the node's key
	Addrs  map[string]string `json:"addrs"` // IP by name of network
}

// JoinResponse is what it gets; secret, since it holds the authority's key.
type JoinResponse struct {
	CACert   []byte         `json:"ca_cert"`   // DER
	CAKey    []byte         `json:"ca_key"`    // PEM, PKCS #8
	NodeCert []byte         `json:"node_cert"` // DER
	Config   cluster.Config `json:"config"`    // Self is the new node
}

// DeskConfig says what a Desk works with; all fields are needed.
type DeskConfig struct {
	Identity *Identity
	Tokens   TokenStore
	// Cluster is the configuration as it is.
	Cluster func() cluster.Config
	// Admit adds a member durably and returns the new configuration. It is called
	// again for a member it has admitted when the answer was lost.
	Admit func(context.Context, cluster.Member) (cluster.Config, error)
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// Desk admits nodes. Its methods may be called by several goroutines and take turns.
type Desk struct {
	cfg DeskConfig

	mu    sync.Mutex
	brake token.Brake
}

// NewDesk returns a Desk.
func NewDesk(cfg DeskConfig) *Desk {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Desk{cfg: cfg}
}

// NewToken makes a token for one join within life; zero means token.Life. Only
// its hash is kept.
func (d *Desk) NewToken(life time.Duration) (token.Token, error) {
	if life <= 0 {
		life = token.Life
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	records, err := d.cfg.Tokens.Tokens()
	if err != nil {
		return token.Token{}, fmt.Errorf("read tokens: %w", err)
	}
	now := d.cfg.Now()
	t, r := token.New(tokenPrefix, fingerprint(d.cfg.Identity.ca.cert), now.Add(life))
	if err := d.cfg.Tokens.SetTokens(append(token.Fresh(records, now), r)); err != nil {
		return token.Token{}, fmt.Errorf("store token: %w", err)
	}
	return t, nil
}

// Join admits the node of a good request. The token is marked used, durably,
// before anything is given out; the same node may repeat the same request.
func (d *Desk) Join(ctx context.Context, req JoinRequest) (JoinResponse, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	records, i, err := d.checkToken(req)
	if err != nil {
		return JoinResponse{}, err
	}
	csr, err := checkCSR(req)
	if err != nil {
		return JoinResponse{}, err
	}
	digest := digestOf(req.Node, csr)
	switch {
	case records[i].Used(digest):
	case records[i].UsedBy != nil:
		return JoinResponse{}, fmt.Errorf("%w: each serves one node; make another with `duet cluster token`", ErrTokenUsed)
	default:
		if err := checkMember(d.cfg.Cluster(), cluster.Member{Node: req.Node, Addrs: req.Addrs}); err != nil {
			return JoinResponse{}, err
		}
		records[i].UsedBy = digest
		if err := d.cfg.Tokens.SetTokens(records); err != nil {
			return JoinResponse{}, fmt.Errorf("store token: %w", err)
		}
	}
	return d.answer(ctx, req, csr)
}

// answer signs and admits.
func (d *Desk) answer(ctx context.Context, req JoinRequest, csr *x509.CertificateRequest) (JoinResponse, error) {
	ca := d.cfg.Identity.ca
	der, err := ca.sign(req.Node, csr.PublicKey, d.cfg.Now())
	if err != nil {
		return JoinResponse{}, err
	}
	key, err := encodeKey(ca.key)
	if err != nil {
		return JoinResponse{}, err
	}
	cfg, err := d.cfg.Admit(ctx, cluster.Member{Node: req.Node, Addrs: req.Addrs})
	if err != nil {
		return JoinResponse{}, fmt.Errorf("admit %s: %w", req.Node, err)
	}
	cfg.Self = req.Node
	return JoinResponse{CACert: ca.cert.Raw, CAKey: key, NodeCert: der, Config: cfg}, nil
}

// checkToken finds the token of a request and counts wrong ones.
func (d *Desk) checkToken(req JoinRequest) ([]token.Record, int, error) {
	now := d.cfg.Now()
	if err := d.brake.Check(now); err != nil {
		return nil, 0, err
	}
	records, err := d.cfg.Tokens.Tokens()
	if err != nil {
		return nil, 0, fmt.Errorf("read tokens: %w", err)
	}
	records = slices.Clone(records)
	i := token.Find(records, req.Secret)
	if i < 0 {
		d.brake.Wrong(now)
		return nil, 0, fmt.Errorf("%w: a token works only on the node that made it; make one here with `duet cluster token`", ErrTokenUnknown)
	}
	if !now.Before(records[i].Expires) {
		return nil, 0, fmt.Errorf("%w at %s; make another with `duet cluster token`", ErrTokenExpired, records[i].Expires.Format(time.RFC3339))
	}
	return records, i, nil
}

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

// checkMember checks name and addresses of a new member against the others.
func checkMember(cfg cluster.Config, m cluster.Member) error {
	if _, taken := cfg.Member(m.Node); taken {
		return fmt.Errorf("%w: %s is a member already; choose another name, or take the old node off first: `duet cluster remove %s`", ErrNameTaken, m.Node, m.Node)
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
