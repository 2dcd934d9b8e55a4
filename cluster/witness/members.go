package witness

import (
	"fmt"
	"net/http"
	"strings"

	"duet/cluster"
)

// A certificate outlives the membership of its node, and a node that was removed while it was
// away does not know it. So the nodes of a cluster tell the witness which of them joined and
// which were removed, and it answers the latter no more.

// maxFacts bounds the nodes of one cluster of which something is known: members and those that were removed, for
// ever. ErrFull comes for a new name only; what changes for a known one is always taken.
const maxFacts = 1000

// factsAtOnce are what one call tells: without addresses each takes 220 bytes at most, and a call maxBody.
const factsAtOnce = 100

// membersRequest tells of nodes.
type membersRequest struct {
	Facts []cluster.Fact `json:"facts"`
}

func memberKey(id string, node cluster.NodeID) string { return memberPrefix + id + "/" + string(node) }

// loadFacts reads what is known of the nodes of all. A record that cannot be read is an error: forgetting a removal
// would let a node with old data ask again.
func loadFacts(st Store, all map[string]*tenant) error {
	keys, err := st.Keys(memberPrefix)
	if err != nil {
		return fmt.Errorf("list members: %w", err)
	}
	for _, key := range keys {
		id, _, _ := strings.Cut(strings.TrimPrefix(key, memberPrefix), "/")
		t := all[id]
		if t == nil {
			continue // of a cluster that was forgotten half-way
		}
		var f cluster.Fact
		if _, err := st.Load(key, &f); err != nil {
			return fmt.Errorf("load member: %w", err)
		}
		t.facts[f.Node] = f
	}
	return nil
}

// party is who makes a call.
type party struct {
	*tenant
	node cluster.NodeID
	key  string // fingerprint of the public key that it has shown, hexadecimal
}

// admitted refuses a node of which it is known that it was removed, or that another computer has its name now. A node
// of which nothing is known is admitted: clusters of older releases tell nothing. One without a Key in its fact is
// known by its name only.
func (p party) admitted() error {
	p.mu.Lock()
	f, known := p.facts[p.node]
	p.mu.Unlock()
	switch {
	case known && f.Gone:
		return fmt.Errorf("%w: `duet cluster rejoin` on %s brings it back", ErrRemoved, p.node)
	case known && f.Key != "" && f.Key != p.key:
		return fmt.Errorf("%w: another computer is %s now", ErrRemoved, p.node)
	}
	return nil
}

// present is admitted while forgetting is held, so that it stays true: the cluster or the node may have been removed
// since the call began.
func (p party) present() error {
	if p.gone {
		return fmt.Errorf("%w: it was removed just now", ErrUnknownCluster)
	}
	return p.admitted()
}

func (s *Server) serveMembers(r *http.Request, body []byte) (any, error) {
	p, err := s.caller(r)
	if err != nil {
		return nil, err
	}
	req, err := decode[membersRequest](body)
	if err != nil {
		return nil, err
	}
	for _, f := range req.Facts {
		if f.Since == 0 || f.Check() != nil {
			return nil, fmt.Errorf("%w: %q is no member with a number", ErrBadRequest, f.Node)
		}
	}
	return struct{}{}, s.learn(p, req.Facts)
}

// learn makes what is newer durable, before it counts. An error half-way leaves the facts before it known; the same
// call may be repeated.
func (s *Server) learn(p party, facts []cluster.Fact) error {
	t := p.tenant
	t.forgetting.Lock() // one at a time, and no vote meanwhile
	defer t.forgetting.Unlock()
	if err := p.present(); err != nil {
		return err
	}
	for _, f := range facts {
		t.mu.Lock()
		have, known := t.facts[f.Node]
		full := !known && len(t.facts) >= maxFacts
		t.mu.Unlock()
		if known && !f.Newer(have) {
			continue
		}
		if full {
			return fmt.Errorf("%w: it knows %d nodes of this cluster", ErrFull, maxFacts)
		}
		f.Addrs = nil // nothing to it
		if err := s.cfg.Store.Save(memberKey(t.ID, f.Node), f); err != nil {
			return fmt.Errorf("%w: save member: %w", ErrStore, err)
		}
		t.mu.Lock()
		t.facts[f.Node] = f
		t.mu.Unlock()
	}
	return nil
}
