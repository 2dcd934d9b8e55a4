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

// standingTime is how long a node may take to say how it stands: after that it does not know.
const standingTime = 500 * time.Millisecond

// standing tells the peer, whose daemon or guard asks, how this node stands with a module.
func (n *Node) standing(ctx context.Context, m *registry.Entry, _ none) (guard.Standing, error) {
	ctx, cancel := context.WithTimeout(ctx, standingTime)
	defer cancel()
	alive := n.gossip.View().Alive(mux.PeerFrom(ctx))
	st, err := m.Engine.Standing(ctx)
	if err != nil { // what it stores is known all the same
		st = m.Engine.Published()
		st.Taking = true
	}
	return guard.Standing{Epoch: st.Record.Epoch, Holder: st.Record.Holder, Taking: st.Taking, Alive: alive}, nil
}

// askStanding asks another node how it stands with a module.
func askStanding(ctx context.Context, p *control.Plane, node cluster.NodeID, module string) (guard.Standing, error) {
	var s guard.Standing
	err := p.Call(ctx, node, "modules/"+module+"/standing", none{}, &s)
	return s, err
}

// Standings is how a process beside the daemon asks a peer how it stands, over a mux that was not started.
func Standings(
	c func() cluster.Config, m *mux.Mux, log *slog.Logger,
) func(context.Context, cluster.NodeID, string) (guard.Standing, error) {
	p := newPlane(c, m, log)
	return func(ctx context.Context, peer cluster.NodeID, module string) (guard.Standing, error) {
		return askStanding(ctx, p, peer, module)
	}
}
