package node

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"duet/blockrepl/badgerlog"
	"duet/cluster"
	"duet/cluster/enroll"
	"duet/console/api"
)

// cluster is the configuration as it is now.
func (n *Node) cluster() cluster.Config { return n.members.Config() }

func (n *Node) self() cluster.NodeID { return n.cluster().Self }

// admit adds a node and tells the other members; it does not wait for those that are away.
func (n *Node) admit(ctx context.Context, m cluster.Member) (cluster.Config, error) {
	c, err := n.members.Change(func(c *cluster.Config) bool {
		c.Members = append(without(c.Members, m.Node), m)
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
	return n.changeMembers(func(c *cluster.Config) bool {
		if have, known := c.Member(m.Node); known && maps.Equal(have.Addrs, m.Addrs) {
			return false
		}
		c.Members = append(without(c.Members, m.Node), m)
		return true
	})
}

// dropMember takes over what another node removed.
func (n *Node) dropMember(node cluster.NodeID) error {
	return n.changeMembers(func(c *cluster.Config) bool {
		c.Members = without(c.Members, node)
		return true
	})
}

func (n *Node) changeMembers(alter func(c *cluster.Config) bool) error {
	changed := false
	_, err := n.members.Change(func(c *cluster.Config) bool {
		changed = alter(c)
		return changed
	})
	if err != nil || !changed {
		return err
	}
	return n.gossip.Update()
}

func without(members []cluster.Member, node cluster.NodeID) []cluster.Member {
	return slices.DeleteFunc(slices.Clone(members), func(m cluster.Member) bool { return m.Node == node })
}

// RemoveNode takes a node that is gone for good off the cluster. What it has is left to
// it: were it to come back, the others would not let it in.
func (n *Node) RemoveNode(ctx context.Context, name string) (api.NodeRemoval, error) {
	node, c := cluster.NodeID(name), n.cluster()
	_, known := c.Member(node)
	switch {
	case !known:
		var names []string
		for _, m := range c.Members {
			names = append(names, string(m.Node))
		}
		return api.NodeRemoval{}, fmt.Errorf("%w: node %q: there are %s", api.ErrNotFound, name, strings.Join(names, ", "))
	case node == c.Self:
		return api.NodeRemoval{}, fmt.Errorf("%w: this is node %s: remove it from another one, after it was stopped for good", api.ErrConflict, name)
	case n.gossip.View().Alive(node):
		return api.NodeRemoval{}, fmt.Errorf("%w: node %s answers: stop its duetd first, for good: `systemctl disable --now duetd` there", api.ErrConflict, name)
	}
	if err := n.dropMember(node); err != nil {
		return api.NodeRemoval{}, err
	}
	n.log.Info("node removed", "node", node)
	for _, other := range n.cluster().Members {
		if other.Node == c.Self {
			continue
		}
		if err := n.rpcTo(ctx, other.Node, "members/"+name+"/remove", nil, nil); err != nil {
			n.log.Warn("a member does not know yet that a node was removed: repeat the command there", "member", other.Node, "node", node, "err", err)
		}
	}
	gone := api.NodeRemoval{Node: name, Modules: []string{}}
	for _, m := range n.all() {
		if m.cfg.Peer(string(c.Self)) == name {
			gone.Modules = append(gone.Modules, m.cfg.Name)
		}
	}
	return gone, nil
}

// NewToken makes a one-time token for a joining node.
func (n *Node) NewToken(_ context.Context, life time.Duration) (api.Token, error) {
	life = cmp.Or(max(life, 0), enroll.Life)
	t, err := n.door.NewToken(life)
	if err != nil {
		return api.Token{}, err
	}
	return api.Token{Token: t.String(), Expires: time.Now().Add(life)}, nil
}

// tokens keeps join tokens in the store.
type tokens struct{ store *badgerlog.Store }

const tokensKey = "cluster/tokens"

// Tokens reads them.
func (t tokens) Tokens() ([]enroll.Record, error) {
	var out []enroll.Record
	_, err := badgerlog.Values{Store: t.store}.Load(tokensKey, &out)
	return out, err
}

// SetTokens replaces them durably.
func (t tokens) SetTokens(r []enroll.Record) error {
	return badgerlog.Values{Store: t.store}.Save(tokensKey, r)
}
