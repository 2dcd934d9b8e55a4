package node

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"net/url"
	"slices"
	"time"

	"duet/appmodules"
	"duet/appmodules/mirror"
	"duet/appmodules/registry"
	"duet/cluster"
	"duet/console/api"
)

var _ api.Backend = (*Node)(nil)

// Status is this node's view of the cluster; it asks nobody and waits for no peer and no disk. What a node that is
// away said last is in it as Stale. The levels are judged here, so that each caller gets the same.
func (n *Node) Status(context.Context) (api.Status, error) {
	c, view := n.cluster(), n.gossip.View()
	out := api.Status{Cluster: c.Name, Self: string(c.Self), Version: n.cfg.Version, Nodes: []api.NodeStatus{},
		Modules: []api.ModuleStatus{}}
	for _, m := range c.Members {
		st := api.NodeStatus{Name: string(m.Node), Alive: m.Node == c.Self || view.Alive(m.Node),
			Version: n.plane.Release(m.Node)}
		if paths := c.Paths(m.Node, false); len(paths) > 0 {
			st.API = net.JoinHostPort(paths[0], fmt.Sprint(c.Port+2))
		}
		if p, ok := view.Peers[m.Node]; ok && m.Node != c.Self {
			st.Paths, st.Leaving, st.Quiet = p.Paths, p.Leaving, p.Quiet
			if !p.Silent.IsZero() {
				st.Silent, st.Awaited = &p.Silent, mirror.Awaited(p)
			}
		}
		out.Nodes = append(out.Nodes, st)
	}
	out.Removed, out.Gone, out.Tasks = n.removed(), n.Missed(), n.tasks.GoingOn()
	for _, t := range n.voting.All() {
		out.Witnesses = append(out.Witnesses, n.voting.Status(t))
	}
	out.Modules = n.moduleStatuses()
	if out.Removed != "" {
		removedFrom(out.Modules, out.Removed)
	}
	return out.Judged(time.Now()), nil
}

// moduleStatuses are those of all modules, and of those that a work which does not end has taken off this node already:
// their VMs do not run as somebody has asked for.
func (n *Node) moduleStatuses() []api.ModuleStatus {
	out := []api.ModuleStatus{}
	for _, m := range n.All() {
		out = append(out, n.moduleStatus(m))
	}
	for _, t := range n.Works.Troubles() {
		i := slices.IndexFunc(out, func(m api.ModuleStatus) bool { return m.Name == t.Module.Name })
		if i < 0 {
			i = len(out)
			out = append(out, api.ModuleStatus{Name: t.Module.Name, Kind: string(t.Module.Kind), VM: t.Module.Subject(),
				Decides: n.decides(t.Module), Task: n.tasks.Of(t.Module.Name), Nodes: []api.NodeState{{
					Node: string(n.self()), Role: appmodules.Stop.String(), Status: appmodules.NotReady.String(),
					Why: t.Text, Since: t.Since}}})
			continue
		}
		for j := range out[i].Nodes {
			if at := &out[i].Nodes[j]; at.Node == string(n.self()) {
				at.Why += "; " + t.Text
			}
		}
	}
	return out
}

// removed says that this node was taken off the cluster, and the way back; empty: it is a member.
func (n *Node) removed() string {
	who := n.plane.Refusals()
	if len(who) == 0 {
		return ""
	}
	return fmt.Sprintf("this node was removed from cluster %s, says %s: `duet cluster token` there, then `systemctl stop "+
		"duetd` and `duet cluster rejoin` here bring it back; `duet cluster leave` ends it here", n.cluster().Name, who[0])
}

// removedFrom has the modules of a node that was removed say that: whatever they would advise is refused here.
func removedFrom(modules []api.ModuleStatus, why string) {
	for _, m := range modules {
		for i := range m.Nodes {
			m.Nodes[i].Why, m.Nodes[i].Notices = why, nil
		}
	}
}

// moduleStatus is what the Runner says, with what other rooms know of the module; nothing of it is asked for. What
// this host says of the VM is put to this node, what the peer said of it to the peer's.
func (n *Node) moduleStatus(m *registry.Entry) api.ModuleStatus {
	out := api.ModuleStatus{Name: m.Module.Name, Kind: string(m.Module.Kind), VM: m.Module.Subject(),
		Task: n.tasks.Of(m.Module.Name), Nodes: m.Run.Status(), Decides: n.decides(m.Module)}
	refuse, view := n.plane.Refusals(), n.gossip.View()
	for i := range out.Nodes {
		at := &out.Nodes[i]
		at.Parted = slices.Contains(refuse, cluster.NodeID(at.Node))
		at.Stale = at.Stale || at.Parted || at.Node != string(n.self()) && !view.Alive(cluster.NodeID(at.Node))
		if at.Node == string(n.self()) {
			at.Notices = append(at.Notices, n.restores.Notices(m.Module.Name)...)
			at.Notices = append(at.Notices, notices{n.fitness, n}.Of(m.Module.Name)...)
			// Where nothing runs there is nothing to guard.
			if m.Run.Holds() {
				at.Notices = append(at.Notices, n.guardNotices(m.Module.Name)...)
			}
		} else if at.Role != mirror.Unknown {
			at.Notices = append(at.Notices, n.fitness.Peer(m.Module.Name)...)
		}
	}
	// The same order on both nodes: that of the configuration, not own first.
	slices.SortStableFunc(out.Nodes, func(a, b api.NodeState) int {
		return cmp.Compare(slices.Index(m.Module.Nodes, a.Node), slices.Index(m.Module.Nodes, b.Node))
	})
	return out
}

// Log merges the newest transitions of both nodes, sorted by their clocks, which may differ. A node that does not
// answer within two seconds, or has another module of that name, is left out.
func (n *Node) Log(ctx context.Context, name string, count int) ([]api.LogEntry, error) {
	m, err := n.Find(name)
	if err != nil {
		return nil, err
	}
	out, err := m.Journal.Last(count)
	if err != nil {
		return nil, err
	}
	for _, node := range m.Module.Nodes {
		if node == string(n.self()) {
			continue
		}
		// A node that is away must not keep the admin from what is known here.
		ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
		var theirs []api.LogEntry
		path := "modules/" + name + "/log?id=" + url.QueryEscape(m.Module.Identity())
		err := n.rpcTo(ctx, cluster.NodeID(node), path, count, &theirs)
		cancel()
		if err == nil {
			out = append(out, theirs...)
		}
	}
	slices.SortStableFunc(out, func(a, b api.LogEntry) int { return cmp.Compare(a.Time.UnixNano(), b.Time.UnixNano()) })
	if len(out) > count {
		out = out[len(out)-count:]
	}
	return out, nil
}

// Act begins what an operator asked for, on the node that has to act, and returns when that has accepted it. A node
// that was taken off the cluster only stops modules.
func (n *Node) Act(ctx context.Context, name string, a api.Action, r api.ActionRequest) (api.ActionResult, error) {
	// Whoever took it off has gone on without it: what starts here would write beside that.
	if why := n.removed(); why != "" && a != api.Stop {
		return api.ActionResult{}, fmt.Errorf("%w: %s", api.ErrConflict, why)
	}
	done, err := n.orders.Act(ctx, name, a, r)
	return done, translate(err)
}
