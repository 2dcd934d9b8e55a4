package node

import (
	"context"
	"slices"
	"time"

	"duet/blockrepl/badgerlog"
	"duet/cluster"
	"duet/cluster/pki"
	"duet/console/api"
)

// cluster is the configuration as it is now.
func (n *Node) cluster() cluster.Config {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.members
}

func (n *Node) self() cluster.NodeID { return n.cluster().Self }

// setMembers makes a new list of members durable and uses it.
func (n *Node) setMembers(c cluster.Config) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := pki.SaveConfig(n.cfg.Dir, c); err != nil {
		return err
	}
	n.members = c
	return nil
}

// admit adds a node and tells the other members; it does not wait for those that are away.
func (n *Node) admit(ctx context.Context, m cluster.Member) (cluster.Config, error) {
	c := n.cluster()
	c.Members = slices.DeleteFunc(slices.Clone(c.Members), func(have cluster.Member) bool { return have.Node == m.Node })
	c.Members = append(c.Members, m)
	if err := n.setMembers(c); err != nil {
		return c, err
	}
	n.log.Info("node admitted", "node", m.Node, "addrs", m.Addrs)
	if err := n.gossip.Update(); err != nil {
		return c, err
	}
	for _, other := range c.Members {
		if other.Node == c.Self || other.Node == m.Node {
			continue
		}
		if err := n.rpcTo(ctx, other.Node, "members", m, nil); err != nil {
			n.log.Warn("a member does not know the new node yet", "member", other.Node, "node", m.Node, "err", err)
		}
	}
	return c, nil
}

// addMember takes over what another node admitted.
func (n *Node) addMember(m cluster.Member) error {
	c := n.cluster()
	if _, known := c.Member(m.Node); known {
		return nil
	}
	c.Members = append(slices.Clone(c.Members), m)
	if err := n.setMembers(c); err != nil {
		return err
	}
	return n.gossip.Update()
}

// NewToken makes a one-time token for a joining node.
func (n *Node) NewToken(_ context.Context, life time.Duration) (api.Token, error) {
	if life <= 0 {
		life = pki.TokenLife
	}
	t, err := n.desk.NewToken(life)
	if err != nil {
		return api.Token{}, err
	}
	return api.Token{Token: t.String(), Expires: time.Now().Add(life)}, nil
}

// tokens keeps join tokens in the store.
type tokens struct{ store *badgerlog.Store }

const tokensKey = "cluster/tokens"

// Tokens reads them.
func (t tokens) Tokens() ([]pki.TokenRecord, error) {
	var out []pki.TokenRecord
	_, err := jsonStore{t.store, ""}.Load(tokensKey, &out)
	return out, err
}

// SetTokens replaces them durably.
func (t tokens) SetTokens(r []pki.TokenRecord) error {
	return jsonStore{t.store, ""}.Save(tokensKey, r)
}
