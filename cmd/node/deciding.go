package node

import (
	"slices"
	"strings"

	"duet/appmodules"
	"duet/cluster"
	"duet/console/api"
	"duet/vmmanager/fitness"
)

// decides is what lets a node go on with a module when its nodes lose each other (cluster/DESIGN.md, rule 3). The
// order is that of the rule: where there is a witness a fence agent never stands in for it.
func (n *Node) decides(m appmodules.Module) string {
	switch {
	case len(n.witnesses()) > 0:
		return "witness"
	case n.Desk.Can(cluster.NodeID(m.Peer(string(n.self())))):
		return "fence"
	case m.Policy.Arbitration == "available":
		return "ping"
	}
	return api.Nobody
}

// undecided says that what decides could not do so for this node at present: the VM would stand still here if the
// peer were lost. It is noticed before that happens, as a spare that nobody has looked at for a year is none.
func (n *Node) undecided(m appmodules.Module) []api.Notice {
	peer := m.Peer(string(n.self()))
	still := func(what, remedy string) []api.Notice {
		return []api.Notice{api.CannotDecide(what, peer, m.Kind.Words().Noun, remedy)}
	}
	decides := n.decides(m)
	switch decides {
	case "witness":
		var silent []string
		active := n.voting.Active()
		for _, h := range active {
			if since, _ := h.Silent(); !since.IsZero() {
				silent = append(silent, h.Name())
			}
		}
		if len(silent) < len(active) {
			break // one that answers is enough
		}
		return still("the witness "+strings.Join(silent, ", ")+" is silent", "duet cluster witness list")
	case "ping":
		if n.beyond.Silent() {
			return still("no ping target answers", "this host's gateway, or what `duet cluster ping list` names, has to "+
				"answer a ping; `duet cluster ping set` names others")
		}
	}
	if decides != "fence" && m.Policy.Fence != appmodules.FenceBeforeStart {
		return nil
	}
	if failing := n.Desk.Failing(cluster.NodeID(peer)); len(failing) > 0 {
		return still("the fence device "+strings.Join(failing, ", ")+" of "+peer+" failed its last test",
			"duet cluster fence test "+peer)
	}
	return nil
}

// goesByPing: a module would go by the ping targets, and which they are.
func (n *Node) goesByPing() ([]string, bool) {
	return n.cluster().Ping, slices.ContainsFunc(n.Modules(),
		func(m appmodules.Module) bool { return n.decides(m) == "ping" })
}

// notices are what this host says of a module beside its state, and what the peer said: they travel with it.
type notices struct {
	*fitness.Room
	n *Node
}

// Of are those of this host.
func (x notices) Of(module string) []api.Notice {
	out := x.Room.Of(module)
	if e, err := x.n.Find(module); err == nil {
		out = append(out, x.n.undecided(e.Module)...)
	}
	return out
}
