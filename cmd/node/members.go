package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"duet/blockrepl/badgerlog"
	"duet/cluster"
	"duet/cluster/enroll"
	"duet/cluster/membership"
	"duet/console/api"
)

// cluster is the configuration as it is now.
func (n *Node) cluster() cluster.Config { return n.members.Config() }

func (n *Node) self() cluster.NodeID { return n.cluster().Self }

// checked is this node's identity, for which only those who are members now count.
func (n *Node) checked() membership.Checked {
	return membership.Checked{Identity: n.identity, Book: n.members}
}

// admit adds a node and tells the other members; those that are away learn it when they meet one.
func (n *Node) admit(ctx context.Context, m cluster.Member) (cluster.Config, error) {
	c, err := n.members.Change(func(c *cluster.Config) bool { c.Admit(m); return true })
	if err != nil {
		return c, err
	}
	n.log.Info("node admitted", "node", m.Node, "addrs", m.Addrs)
	if err := n.gossip.Update(); err != nil {
		return c, err
	}
	admitted, _ := c.Member(m.Node)
	for _, other := range c.Members {
		if other.Node == c.Self || other.Node == m.Node {
			continue
		}
		if err := n.rpcTo(ctx, other.Node, "members", cluster.Fact{Member: admitted}, nil); err != nil {
			n.log.Warn("a member does not know the new node yet", "member", other.Node, "node", m.Node, "err", err)
		}
	}
	return c, nil
}

// learn takes over what another node knows of the membership.
func (n *Node) learn(f cluster.Fact) error {
	return n.changeMembers(func(c *cluster.Config) bool { return c.Learn(f) })
}

// gone takes over what another node removed, which has more to tell when they meet.
func (n *Node) gone(node cluster.NodeID) error {
	return n.learn(cluster.Fact{Member: cluster.Member{Node: node}, Gone: true})
}

// met answers a node that tells what it knows of the membership.
func (n *Node) met(x cluster.Exchange) (cluster.Exchange, error) {
	err := n.changeMembers(func(c *cluster.Config) bool { return c.Take(x) })
	return n.cluster().Exchange(), err
}

// meetEvery is how often one node of the cluster has all of them know the same.
const meetEvery = 5 * time.Second

// meetMembers brings together what the nodes know of the membership, until ctx ends.
func (n *Node) meetMembers(ctx context.Context) {
	tick := time.NewTicker(meetEvery)
	defer tick.Stop()
	call := func(ctx context.Context, node cluster.NodeID, x cluster.Exchange) (theirs cluster.Exchange, err error) {
		ctx, cancel := context.WithTimeout(ctx, meetEvery)
		defer cancel()
		err = n.rpcTo(ctx, node, "members/meet", x, &theirs)
		return theirs, err
	}
	for {
		news, err := n.members.Meet(ctx, n.gossip.View().Alive, call)
		if err != nil && ctx.Err() == nil {
			n.log.Debug("not all members know the same yet", "err", err)
		}
		if news && ctx.Err() == nil {
			if err := n.gossip.Update(); err != nil {
				n.log.Warn("heartbeats do not follow the membership", "err", err)
			}
			continue
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
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
	if err := n.changeMembers(func(c *cluster.Config) bool { c.Remove(node); return true }); err != nil {
		return api.NodeRemoval{}, err
	}
	n.log.Info("node removed", "node", node)
	for _, other := range n.cluster().Members {
		if other.Node == c.Self {
			continue
		}
		if err := n.tellGone(ctx, other.Node, node); err != nil {
			n.log.Warn("a member does not know yet that a node was removed; it learns it when it is back", "member", other.Node, "node", node, "err", err)
		}
	}
	gone := api.NodeRemoval{Node: name, Modules: []string{}, Keeps: fmt.Sprintf("No node and no witness answers %s any more, and the key "+
		"of the heartbeats is exchanged. What cannot be taken back is its copy of the cluster's authority: wipe /var/lib/duet on it; "+
		"if it is in foreign hands, found a new cluster.", name)}
	for _, m := range n.all() {
		if m.cfg.Peer(string(c.Self)) == name {
			gone.Modules = append(gone.Modules, m.cfg.Name)
		}
	}
	return gone, nil
}

// tellGone has a member know that a node was removed.
func (n *Node) tellGone(ctx context.Context, member, gone cluster.NodeID) error {
	err := n.rpcTo(ctx, member, "members/meet", n.cluster().Exchange(), nil)
	if errors.Is(err, cluster.ErrOlder) {
		err = n.rpcTo(ctx, member, "members/"+string(gone)+"/remove", nil, nil)
	}
	return err
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
