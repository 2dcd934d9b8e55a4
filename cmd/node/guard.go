package node

import (
	"context"
	"errors"
	"time"

	"duet/appmodules"
	"duet/appmodules/engine"
	"duet/cluster"
	"duet/cluster/guard"
	"duet/console/api"
	"duet/vmmanager"
)

// newSentry is what keeps the guard told; nil where there is none: its methods know that.
func (n *Node) newSentry() *guard.Sentry {
	if n.cfg.Guard == "" {
		return nil
	}
	c := guard.SentryConfig{Socket: n.cfg.Guard, Cluster: n.cluster, View: n.gossip.View, Charges: n.charges,
		Ask: n.confirmed, LeaveGrace: engine.DefaultTimes(n.cluster().Detection).LeaveGrace, Logger: n.log}
	if hv, ok := n.cfg.Hypervisor.(vmmanager.Locator); ok {
		c.Process = hv.Process
	}
	return guard.NewSentry(c)
}

// guardGuests keeps the guard told until this node has left: it is the last to end of all that peers hear, and
// begins before the heartbeats.
func (n *Node) guardGuests() {
	if n.sentry != nil {
		n.outlive("guard", n.sentry.Run)
	}
}

// charges are the modules whose guests the guard watches over, all VMs of this node. It is called on each beat
// of the sentry and never waits: hence Published, the standing of the last step.
func (n *Node) charges() (out []guard.Charge) {
	for _, m := range n.Guests() {
		st := m.Engine.Published()
		out = append(out, guard.Charge{Module: m.Module.Name, ID: m.Module.Identity(), VM: m.Module.Subject(),
			Peer: cluster.NodeID(m.Module.Peer(string(n.self()))), Record: st.Record, Connected: st.Role == appmodules.Prim})
	}
	return out
}

// confirmed asks a peer how it stands with a module, for the guard. The sentry lets a guest go on only by an answer
// that was made after its question; so what is concluded without the peer's word has to be newer than the call.
func (n *Node) confirmed(ctx context.Context, peer cluster.NodeID, name string) (guard.Standing, error) {
	begun := time.Now()
	st, err := askStanding(ctx, n.plane, peer, name)
	if m, missing := n.Mirror(name); missing == nil && errors.Is(err, cluster.ErrOlder) {
		if _, heard := m.Engine.PeerState(); heard.After(begun) {
			return guard.Standing{Alive: true}, nil // of an older release: that it exchanges states has to do
		}
	}
	if errors.Is(err, api.ErrNotFound) {
		return guard.Standing{Alive: true}, nil // who does not know the module takes nothing over
	}
	return st, err
}

// guardNotices are what status shows of the guard.
func (n *Node) guardNotices(module string) (out []api.Notice) {
	for _, x := range n.sentry.Notices(module) {
		out = append(out, api.Notice{Level: "warning", Code: x.Code, Text: x.Text, Remedy: x.Remedy})
	}
	return out
}
