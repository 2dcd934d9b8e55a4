package witness

import (
	"cmp"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"duet/cluster"
	"duet/cluster/enroll"
)

// The keys of a Store.
const (
	tokensKey     = "tokens"    // []enroll.Record
	clusterPrefix = "clusters/" // clusters/ID: a clusterRecord
	votePrefix    = "votes/"    // votes/ID/IDENTITY: a cluster.Record
	memberPrefix  = "members/"  // members/ID/NODE: a cluster.Fact
)

const (
	maxClusters = 1024
	maxModules  = 256 // of one cluster
)

// Registration is what a cluster tells of itself.
type Registration struct {
	// ID names this registration in calls: 16 to 64 letters and digits (crypto/rand.Text
	// makes one), random, and a new one each time a cluster registers anew.
	ID string `json:"id"`
	// Name of the cluster, for people.
	Name string `json:"name"`
	// CA is the certificate of the cluster's authority, DER.
	CA []byte `json:"ca"`
}

var idForm = regexp.MustCompile(`^[A-Za-z0-9]{16,64}$`)

// check returns the authority of a registration that makes sense.
func (r Registration) check() (*x509.Certificate, error) {
	if !idForm.MatchString(r.ID) {
		return nil, fmt.Errorf("%w: the ID must be 16 to 64 letters and digits", ErrBadRequest)
	}
	odd := func(c rune) bool { return !unicode.IsPrint(c) || c == utf8.RuneError }
	if r.Name == "" || len(r.Name) > 64 || strings.ContainsFunc(r.Name, odd) {
		return nil, fmt.Errorf("%w: the name of the cluster must be 1 to 64 bytes of readable text", ErrBadRequest)
	}
	ca, err := x509.ParseCertificate(r.CA)
	if err != nil {
		return nil, fmt.Errorf("%w: certificate of the authority: %w", ErrBadRequest, err)
	}
	if !ca.IsCA {
		return nil, fmt.Errorf("%w: the certificate of %q is not of an authority", ErrBadRequest, ca.Subject.CommonName)
	}
	if err := ca.CheckSignatureFrom(ca); err != nil {
		return nil, fmt.Errorf("%w: certificate of the authority: %w", ErrBadRequest, err)
	}
	return ca, nil
}

// digest names one registration: this authority under this ID.
func (r Registration) digest() []byte {
	h := sha256.New()
	fmt.Fprintf(h, "%d %s ", len(r.ID), r.ID)
	h.Write(r.CA)
	return h.Sum(nil)
}

// clusterRecord is what a Store holds of a cluster.
type clusterRecord struct {
	Registration
	Since time.Time `json:"since"`
}

// tenant is a registered cluster.
type tenant struct {
	clusterRecord
	// Parsed from CA; it never changes, as the registration does not.
	ca *x509.Certificate

	// forgetting is held for reading while a vote is under way, and for writing by
	// what takes records away.
	forgetting sync.RWMutex
	gone       bool // under forgetting

	mu    sync.Mutex
	seats map[string]*sync.Mutex          // by module; votes of one module take turns
	facts map[cluster.NodeID]cluster.Fact // what is known of its nodes
}

func newTenant(r clusterRecord, ca *x509.Certificate) *tenant {
	return &tenant{clusterRecord: r, ca: ca, seats: make(map[string]*sync.Mutex),
		facts: make(map[cluster.NodeID]cluster.Fact)}
}

// seat returns the lock of a module. It is made for each name that is asked for, whatever comes of the vote, and
// lives until the module is forgotten, or until a restart that finds no vote: names count against maxModules, so
// that no cluster can fill the memory.
func (t *tenant) seat(module string) (*sync.Mutex, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	m := t.seats[module]
	if m == nil {
		if len(t.seats) >= maxModules {
			return nil, fmt.Errorf("%w: it votes for %d modules of this cluster already; release some", ErrFull, maxModules)
		}
		m = new(sync.Mutex)
		t.seats[module] = m
	}
	return m, nil
}

func (t *tenant) modules() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.seats)
}

// loadTenants reads all clusters and which modules they have. A damaged one is an error: a witness must not forget a
// part of what it promised. Records of votes are not read here but when they are asked for; those of a cluster that
// is not registered are skipped: Forget was broken off half-way, and takes them away when it is repeated.
func loadTenants(st Store) (map[string]*tenant, error) {
	keys, err := st.Keys(clusterPrefix)
	if err != nil {
		return nil, fmt.Errorf("list clusters: %w", err)
	}
	out := make(map[string]*tenant)
	for _, key := range keys {
		var r clusterRecord
		if _, err := st.Load(key, &r); err != nil {
			return nil, fmt.Errorf("load cluster: %w", err)
		}
		ca, err := r.check()
		if err == nil && clusterPrefix+r.ID != key {
			err = fmt.Errorf("it is of %q", r.ID)
		}
		if err != nil {
			return nil, fmt.Errorf("load cluster: record %s is damaged: %w", key, err)
		}
		out[r.ID] = newTenant(r, ca)
	}
	if err := loadFacts(st, out); err != nil {
		return nil, err
	}
	keys, err = st.Keys(votePrefix)
	if err != nil {
		return nil, fmt.Errorf("list votes: %w", err)
	}
	for _, key := range keys {
		id, module, _ := strings.Cut(strings.TrimPrefix(key, votePrefix), "/")
		if t := out[id]; t != nil {
			t.seats[module] = new(sync.Mutex)
		}
	}
	return out, nil
}

// NewToken makes a token for one registration within life; zero means enroll.Life.
// Only its hash is kept.
func (s *Server) NewToken(life time.Duration) (enroll.Token, error) { return s.desk.NewToken(life) }

// tokens are those of a witness, in its store.
type tokens struct{ store Store }

// Tokens reads them.
func (t tokens) Tokens() (out []enroll.Record, err error) {
	if _, err := t.store.Load(tokensKey, &out); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrStore, err)
	}
	return out, nil
}

// SetTokens replaces them durably.
func (t tokens) SetTokens(r []enroll.Record) error {
	if err := t.store.Save(tokensKey, r); err != nil {
		return fmt.Errorf("%w: %w", ErrStore, err)
	}
	return nil
}

// register admits a cluster. The token is marked used, durably, before the cluster is; the same cluster may repeat
// the same request. The order is what keeps a token from serving twice: after a crash between the two the same
// cluster may repeat its request, another one cannot.
func (s *Server) register(secret []byte, r Registration) error {
	var ca *x509.Certificate
	return s.desk.Redeem(enroll.Request{
		Secret: secret,
		Digest: func() (_ []byte, err error) {
			ca, err = r.check()
			return r.digest(), err
		},
		May: func() error { return s.mayRegister(ca, r.ID) },
		Do:  func() error { return s.admit(clusterRecord{r, s.cfg.Now().UTC()}, ca) },
	})
}

// mayRegister is asked under the desk's lock, so nothing is registered between this and admit.
func (s *Server) mayRegister(ca *x509.Certificate, id string) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	switch t := s.tenants[id]; {
	case t != nil && !t.ca.Equal(ca):
		return fmt.Errorf("%w: register with a new random ID", ErrTaken)
	case t == nil && len(s.tenants) >= maxClusters:
		return fmt.Errorf("%w: it serves %d clusters already", ErrFull, maxClusters)
	}
	return nil
}

// admit makes a cluster durable and known. One that is known stays as it is. So a registration that is repeated
// keeps its records.
func (s *Server) admit(r clusterRecord, ca *x509.Certificate) error {
	if _, err := s.tenant(r.ID); err == nil {
		return nil
	}
	if err := s.cfg.Store.Save(clusterPrefix+r.ID, r); err != nil {
		return fmt.Errorf("%w: save cluster: %w", ErrStore, err)
	}
	s.mu.Lock()
	s.tenants[r.ID] = newTenant(r, ca)
	s.mu.Unlock()
	s.log.Info("cluster is registered", "cluster", r.Name, "id", r.ID)
	return nil
}

// tenant returns the cluster registered under id.
func (s *Server) tenant(id string) (*tenant, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if t := s.tenants[id]; t != nil {
		return t, nil
	}
	return nil, fmt.Errorf("%w: register it anew, with a token of the witness", ErrUnknownCluster)
}

// Forget removes the cluster registered under id and its records. It may be repeated if it fails half-way. An ID of
// which nothing is left is ErrUnknownCluster. It blocks on the store, and on votes of that cluster that are under
// way.
func (s *Server) Forget(id string) error {
	t, unknown := s.tenant(id)
	var digest []byte
	if unknown == nil {
		digest = t.digest()
	}
	// First the token, or a repeated request would bring the cluster back without its memory, and
	// the records last: a cluster that can still ask must find all of them.
	return s.desk.Forget(digest, func() error {
		if unknown == nil {
			if err := s.dismiss(t); err != nil {
				return err
			}
			s.log.Info("cluster is forgotten", "id", id)
		}
		var left []string
		for _, prefix := range []string{votePrefix, memberPrefix} {
			keys, err := s.cfg.Store.Keys(prefix + id + "/")
			if err != nil {
				return fmt.Errorf("list records: %w", err)
			}
			left = append(left, keys...)
		}
		if len(left) == 0 {
			return unknown
		}
		for _, key := range left {
			if err := s.cfg.Store.Delete(key); err != nil {
				return fmt.Errorf("delete record: %w", err)
			}
		}
		return nil
	})
}

// dismiss ends a registration. Votes that wait for the lock find t.gone afterwards.
func (s *Server) dismiss(t *tenant) error {
	t.forgetting.Lock()
	defer t.forgetting.Unlock()
	if err := s.cfg.Store.Delete(clusterPrefix + t.ID); err != nil {
		return fmt.Errorf("delete cluster: %w", err)
	}
	t.gone = true
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.tenants, t.ID)
	return nil
}

// Cluster describes a registered cluster.
type Cluster struct {
	ID      string    `json:"id"`
	Name    string    `json:"name"`
	CA      string    `json:"ca"` // SHA-256 of the authority's certificate, hexadecimal
	Since   time.Time `json:"since"`
	Modules int       `json:"modules"` // that the witness votes for
}

// Clusters lists the registered clusters by name.
func (s *Server) Clusters() []Cluster {
	s.mu.RLock()
	defer s.mu.RUnlock()
	out := make([]Cluster, 0, len(s.tenants))
	for _, t := range s.tenants {
		sum := sha256.Sum256(t.CA)
		out = append(out, Cluster{ID: t.ID, Name: t.Name, CA: hex.EncodeToString(sum[:]), Since: t.Since,
			Modules: t.modules()})
	}
	slices.SortFunc(out, func(a, b Cluster) int { return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID)) })
	return out
}
