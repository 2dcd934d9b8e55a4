package node

import (
	"context"
	"log/slog"
	"time"

	"duet/appmodules/registry"
	"duet/cluster"
	"duet/cluster/control"
	"duet/cluster/guard"
	"duet/cluster/mux"
)

// standingTime is how long a node may take to say how it stands: after that it does not know. The asker gives it a
// second.
const standingTime = 500 * time.Millisecond

// standing tells the peer, whose daemon or guard asks, how this node stands with a module. The asker lets a guest
// go on, or ends it, by the answer; so a node that cannot find out between two steps of its engine says that it may
// be taking the right (Taking), which confirms nothing, beside what it has stored, which stays true.
func (n *Node) standing(ctx context.Context, m *registry.Entry, _ none) (guard.Standing, error) {
	ctx, cancel := context.WithTimeout(ctx, standingTime)
	defer cancel()
	alive := n.gossip.View().Alive(mux.PeerFrom(ctx))
	st, err := m.Engine.Standing(ctx)
	if err != nil { // what it stores is known all the same
		st = m.Engine.Published()
		st.Taking = true
	}
	return guard.Standing{ID: m.Module.Identity(), Epoch: st.Record.Epoch, Holder: st.Record.Holder, Taking: st.Taking,
		Alive: alive}, nil
}

// askStanding asks another node how it stands with a module. The request has the module's name only; the answer says
// which identity has it there, and the asker compares (package guard).
func askStanding(ctx context.Context, p *control.Plane, node cluster.NodeID, module string) (guard.Standing, error) {
	var s guard.Standing
	err := p.Call(ctx, node, "modules/"+module+"/standing", none{}, &s)
	return s, err
}

// Standings is how a process beside the daemon asks a peer how it stands, over a mux that was not started: it dials
// and accepts nothing, so it needs none of the node's ports.
func Standings(
	c func() cluster.Config, m *mux.Mux, log *slog.Logger,
) func(context.Context, cluster.NodeID, string) (guard.Standing, error) {
	p := newPlane(c, m, "", log)
	return func(ctx context.Context, peer cluster.NodeID, module string) (guard.Standing, error) {
		return askStanding(ctx, p, peer, module)
	}
}
