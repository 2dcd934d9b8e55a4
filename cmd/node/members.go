package node

import (
	"duet/blockrepl/badgerlog"
	"duet/cluster"
	"duet/cluster/membership"
	"duet/cluster/registrar"
)

// cluster is the configuration as it is now. It never waits. It is exchanged as a whole: who needs two things of it
// takes it once.
func (n *Node) cluster() cluster.Config { return n.members.Config() }

// self is this node's name.
func (n *Node) self() cluster.NodeID { return n.cluster().Self }

// checked is this node's identity, for which only those who are members now count: a certificate outlives the
// membership of its node (cluster/DESIGN.md, Members).
func (n *Node) checked() membership.Checked {
	return membership.Checked{Identity: n.identity, Book: n.members}
}

// newRegistrar is the one of this node. Its functions ask parts that are built later; none is called before Start.
func (n *Node) newRegistrar() *registrar.Registrar {
	return registrar.New(registrar.Config{Book: n.members, Identity: n.identity, Store: badgerlog.Values{Store: n.store},
		Alive:  func(node cluster.NodeID) bool { return n.gossip.View().Alive(node) },
		Update: n.gossip.Update, Call: n.rpcTo, Logger: n.log,
		With: func(node cluster.NodeID) []string {
			// Not nil: it is JSON for admins.
			names := []string{}
			for _, m := range n.Modules() {
				if m.Peer(string(n.self())) == string(node) {
					names = append(names, m.Name)
				}
			}
			return names
		}})
}
