package node

import (
	"context"
	"slices"
	"time"

	"duet/blockrepl/badgerlog"
	"duet/cluster"
	"duet/cluster/pki"
	"duet/cluster/token"
	"duet/console/api"
)

// cluster is the configuration as it is now.
func (n *Node) cluster() cluster.Config {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.members
}

func (n *Node) self() cluster.NodeID { return n.cluster().Self }

// change makes a change of the configuration durable and uses it, unless alter, which may
// not change what c refers to, returns false. It returns the configuration then.
func (n *Node) change(alter func(c *cluster.Config) bool) (cluster.Config, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	c := n.members
	if !alter(&c) {
		return c, nil
	}
	if err := pki.SaveConfig(n.cfg.Dir, c); err != nil {
		return n.members, err
	}
	n.members = c
	return c, nil
}

// admit adds a node and tells the other members; it does not wait for those that are away.
func (n *Node) admit(ctx context.Context, m cluster.Member) (cluster.Config, error) {
	c, err := n.change(func(c *cluster.Config) bool {
		others := slices.DeleteFunc(slices.Clone(c.Members), func(have cluster.Member) bool { return have.Node == m.Node })
		c.Members = append(others, m)
		return true
	})
	if err != nil {
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
	added := false
	_, err := n.change(func(c *cluster.Config) bool {
		_, known := c.Member(m.Node)
		if added = !known; added {
			c.Members = append(slices.Clone(c.Members), m)
		}
		return added
	})
	if err != nil || !added {
		return err
	}
	return n.gossip.Update()
}

// NewToken makes a one-time token for a joining node.
func (n *Node) NewToken(_ context.Context, life time.Duration) (api.Token, error) {
	if life <= 0 {
		life = token.Life
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
func (t tokens) Tokens() ([]token.Record, error) {
	var out []token.Record
	_, err := badgerlog.Values{Store: t.store}.Load(tokensKey, &out)
	return out, err
}

// SetTokens replaces them durably.
func (t tokens) SetTokens(r []token.Record) error {
	return badgerlog.Values{Store: t.store}.Save(tokensKey, r)
}
