package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"duet/appmodules"
	"duet/blockrepl/wire"
	"duet/cluster/doctor"
	"duet/cluster/support"
	"duet/cluster/survey"
	"duet/cluster/witness"
	"duet/console/api"
)

// newLookout is what looks at this node, for the doctor and for support of any node.
func (n *Node) newLookout() *survey.Lookout {
	return survey.New(survey.Config{Cluster: n.cluster, View: n.gossip.View, Dir: n.cfg.Dir, Version: n.cfg.Version,
		Protocol: wire.Version, Watchdog: n.cfg.Watchdog, Hypervisor: n.cfg.Hypervisor, Modules: n.known,
		Standing: n.stands, Witnesses: n.seen, Devices: n.Desk.Look, API: n.servedAt,
		Guard: func() *bool { return n.sentry.Answers() }, More: n.more, Call: n.ask, Logger: n.log})
}

// stands is how a module stands on this node.
func (n *Node) stands(module string) api.NodeState {
	st, _ := n.Status(context.Background()) // what is said of a node that is no member any more is not in it
	m, _ := st.Module(module)
	at, _ := m.On(string(n.self()))
	return at
}

// known are the modules of this node, and those that a work which does not end has taken off it.
func (n *Node) known() []appmodules.Module {
	all := n.Modules()
	for _, t := range n.Works.Troubles() {
		if !slices.ContainsFunc(all, func(m appmodules.Module) bool { return m.Name == t.Module.Name }) {
			all = append(all, t.Module)
		}
	}
	return all
}

// seen are the witnesses as the doctor judges them.
func (n *Node) seen() (out []doctor.Witness) {
	for _, h := range n.voting.All() {
		w := n.voting.Status(h)
		_, why := h.Silent()
		out = append(out, doctor.Witness{Addr: w.Addr, Spare: w.Spare, Alive: w.Alive, Refuses: witness.Refused(why),
			Removed: errors.Is(why, witness.ErrRemoved)})
	}
	return out
}

// more is what goes to support beside what was found out. The caller takes the secrets out of all of it. What
// cannot be had is left out: support is wanted most when something is broken.
func (n *Node) more(ctx context.Context, p *support.Part) {
	if st, err := n.Status(ctx); err == nil {
		p.AddJSON("status.json", st)
	}
	p.Add("metrics.txt", n.figures.Text(ctx))
	for _, m := range n.All() {
		if c, err := m.Stored().API(); err == nil {
			p.Add("modules/"+m.Module.Name+".yaml", []byte(c.YAML))
		}
	}
}

// servedAt is where the API is served over TLS, "" before it is or if it is not; where every address is, the first
// one of this node counts.
func (n *Node) servedAt() string {
	at, _ := n.served.Load().(string)
	if a, err := netip.ParseAddrPort(at); err == nil && a.Addr().IsUnspecified() {
		if paths := n.cluster().Paths(n.self(), false); len(paths) > 0 {
			return net.JoinHostPort(paths[0], fmt.Sprint(a.Port()))
		}
	}
	return at
}
