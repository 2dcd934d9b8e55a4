package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"duet/appmodules"
	"duet/appmodules/engine"
	"duet/cluster"
	"duet/console/api"
)

var _ api.Backend = (*Node)(nil)

// staleAfter is the age from which another node's state counts as old.
const staleAfter = 3 * time.Second

// Status is this node's view of the cluster; it asks nobody.
func (n *Node) Status(context.Context) (api.Status, error) {
	c, view := n.cluster(), n.gossip.View()
	out := api.Status{Cluster: c.Name, Self: string(c.Self), Version: n.cfg.Version, Nodes: []api.NodeStatus{}, Modules: []api.ModuleStatus{}}
	for _, m := range c.Members {
		st := api.NodeStatus{Name: string(m.Node), Alive: m.Node == c.Self || view.Alive(m.Node)}
		if p, ok := view.Peers[m.Node]; ok && m.Node != c.Self {
			st.Paths, st.Leaving = p.Paths, p.Leaving
			if !p.Silent.IsZero() {
				st.Silent = &p.Silent
			}
		}
		out.Nodes = append(out.Nodes, st)
	}
	for _, t := range n.voting.All() {
		out.Witnesses = append(out.Witnesses, n.witnessStatus(t))
	}
	for _, m := range n.all() {
		out.Modules = append(out.Modules, n.moduleStatus(m))
	}
	return out, nil
}

func (n *Node) moduleStatus(m *module) api.ModuleStatus {
	out := api.ModuleStatus{Name: m.cfg.Name, Kind: string(m.cfg.Kind), VM: m.cfg.Subject(), Task: n.tasks.Of(m.cfg.Name), Nodes: m.run.Status()}
	for i := range out.Nodes {
		at := &out.Nodes[i]
		if at.Node == string(n.self()) {
			if trouble := m.mending.problem(); trouble != "" {
				at.Why += "; " + trouble
			}
			at.Notices = append(at.Notices, n.fitness.of(m.cfg.Name)...)
			if m.run.Holds() {
				at.Notices = append(at.Notices, n.sentry.notices(m.cfg.Name)...)
			}
		} else if at.Role != unknown {
			at.Notices = append(at.Notices, n.fitness.peer(m.cfg.Name)...)
		}
	}
	slices.SortStableFunc(out.Nodes, func(a, b api.NodeState) int {
		return cmp.Compare(slices.Index(m.cfg.Nodes, a.Node), slices.Index(m.cfg.Nodes, b.Node))
	})
	return out
}

// unknown is the role of a node that has not answered yet.
const unknown = "UNKNOWN"

// nodeState turns the engine's words into the API's.
func nodeState(node, module string, s engine.Status) api.NodeState {
	out := api.NodeState{Node: node, Role: s.Role.String(), Status: s.Status.String(), Why: s.Why, Since: s.Since,
		Epoch: uint64(s.Epoch), Holder: string(s.Holder), Complete: s.Complete, VM: s.Workload}
	for _, x := range s.Notices {
		level := "warning"
		if x.Alarm {
			level = "alarm"
		}
		out.Notices = append(out.Notices, api.Notice{Level: level, Code: x.Code, Text: x.Text, Remedy: x.Remedy})
	}
	for _, v := range s.Volumes {
		out.Volumes = append(out.Volumes, volumeStatus(module, v))
		if v.Problem != "" {
			out.Why += "; " + v.Problem
		}
	}
	return out
}

func volumeStatus(module string, v engine.VolumeStatus) api.VolumeStatus {
	out := api.VolumeStatus{Name: module + "/" + v.Target, Target: v.Target, Path: v.Path, Size: v.Size, State: v.State,
		Generation: v.Generation, DirtyBytes: v.Dirty, Compared: v.Compared, Moved: v.Moved, LagMicros: v.Lag.Microseconds(),
		WriteOps: uint64(v.Stats.Writes), ReadOps: uint64(v.Stats.Reads)}
	out.Proven, out.Written, out.Proof = known(v.Proven), known(v.Written), proofStatus(v.Proof)
	switch {
	case v.Verifying:
		out.Sync = &api.Sync{Kind: "verify", Total: v.Size, Compared: v.Verified, ETA: -1}
	case v.ToCompare > 0:
		out.Sync = &api.Sync{Kind: "resync", Total: v.Compared + v.ToCompare, Compared: v.Compared, Moved: v.Moved, Differed: v.Moved, Rate: int64(v.Rate), ETA: v.ETA.Seconds()}
		if v.Rate == 0 {
			out.Sync.ETA = -1
		}
	}
	return out
}

// known is nil for a time that is not known.
func known(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

// Log merges the newest transitions of both nodes; a node that is away is left out.
func (n *Node) Log(ctx context.Context, name string, count int) ([]api.LogEntry, error) {
	m, err := n.module(name)
	if err != nil {
		return nil, err
	}
	out, err := m.journal.Last(count)
	if err != nil {
		return nil, err
	}
	for _, node := range m.cfg.Nodes {
		if node == string(n.self()) {
			continue
		}
		ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
		var theirs []api.LogEntry
		err := n.rpcTo(ctx, cluster.NodeID(node), "modules/"+name+"/log", count, &theirs)
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

// Act begins what an operator asked for, on the node that has to act.
func (n *Node) Act(ctx context.Context, name string, a api.Action, r api.ActionRequest) (api.ActionResult, error) {
	m, err := n.module(name)
	if err != nil {
		return api.ActionResult{}, err
	}
	if r.Node != "" && !slices.Contains(m.cfg.Nodes, r.Node) {
		return api.ActionResult{}, fmt.Errorf("%w: module %s runs on %s, not on %q", api.ErrInvalid, name, strings.Join(m.cfg.Nodes, " and "), r.Node)
	}
	said, err := n.act(ctx, m, a, r)
	if err != nil {
		return api.ActionResult{}, translate(err)
	}
	return api.ActionResult{Module: name, Said: said}, nil
}

func (n *Node) act(ctx context.Context, m *module, a api.Action, r api.ActionRequest) (string, error) {
	primary, second := n.roles(m)
	switch a {
	case api.Start:
		return n.startOn(ctx, m, r)
	case api.Stop:
		return n.stopOn(ctx, m, r, primary)
	case api.Restart:
		node := cmp.Or(r.Node, primary, string(n.self()))
		return "restarts on " + node, n.command(ctx, m, node, appmodules.CmdRestart, r.Yes)
	case api.Swap:
		node := cmp.Or(primary, string(n.self()))
		if err := n.mayMove(m, m.cfg.Peer(node), r.Yes); err != nil {
			return "", err
		}
		return fmt.Sprintf("moves from %s to %s", node, m.cfg.Peer(node)), n.command(ctx, m, node, appmodules.CmdSwap, r.Yes)
	case api.Prim:
		node := cmp.Or(r.Node, string(n.self()))
		verb := "becomes primary on "
		if node == primary {
			verb = "is primary already on "
		}
		return verb + node, n.command(ctx, m, node, appmodules.CmdPrim, r.Yes)
	case api.Second:
		node := cmp.Or(r.Node, second, string(n.self()))
		if node == primary {
			if err := n.mayMove(m, m.cfg.Peer(node), r.Yes); err != nil {
				return "", err
			}
			return fmt.Sprintf("moves from %s to %s", node, m.cfg.Peer(node)), n.command(ctx, m, node, appmodules.CmdSwap, r.Yes)
		}
		return "becomes secondary on " + node, n.command(ctx, m, node, appmodules.CmdSecond, r.Yes)
	}
	return "", fmt.Errorf("%w: action %q", api.ErrInvalid, a)
}

// startOn starts the holder of the newest epoch first, so that the other finds it.
func (n *Node) startOn(ctx context.Context, m *module, r api.ActionRequest) (string, error) {
	if r.Node != "" {
		return "starts on " + r.Node, n.command(ctx, m, r.Node, appmodules.CmdStart, r.Yes)
	}
	var newest cluster.Record
	if m.engine != nil {
		newest = m.engine.State().Record
		if theirs, _ := m.engine.PeerState(); theirs.Record.Epoch > newest.Epoch {
			newest = theirs.Record
		}
	}
	nodes := slices.Clone(m.cfg.Nodes)
	slices.SortStableFunc(nodes, func(a, b string) int {
		rank := func(node string) int {
			if node == string(newest.Holder) {
				return 0
			}
			return 1
		}
		return cmp.Compare(rank(a), rank(b))
	})
	var errs []error
	started := ""
	for _, node := range nodes {
		if err := n.command(ctx, m, node, appmodules.CmdStart, r.Yes); err != nil {
			errs = append(errs, err)
			continue
		}
		started += " " + node
	}
	if started == "" {
		return "", errors.Join(errs...)
	}
	said := "starts on" + started
	if len(errs) > 0 {
		said += "; " + errors.Join(errs...).Error()
	}
	return said, nil
}

// stopOn stops one node, whose peer goes on, or both: then the primary ends the
// module and takes its secondary along.
func (n *Node) stopOn(ctx context.Context, m *module, r api.ActionRequest, primary string) (string, error) {
	if r.Node != "" {
		return "stops on " + r.Node, n.command(ctx, m, r.Node, appmodules.CmdStop, r.Yes)
	}
	if primary != "" {
		return "stops", n.command(ctx, m, primary, appmodules.CmdStopAll, r.Yes)
	}
	var errs []error
	stopped := 0
	for _, node := range m.cfg.Nodes {
		if err := n.command(ctx, m, node, appmodules.CmdStopAll, r.Yes); err != nil {
			errs = append(errs, err)
			continue
		}
		stopped++
	}
	if stopped == 0 {
		return "", errors.Join(errs...)
	}
	said := "stops"
	if len(errs) > 0 {
		said += "; " + errors.Join(errs...).Error()
	}
	return said, nil
}

// roles tells which node is primary and which is not, as far as is known; empty if unknown.
func (n *Node) roles(m *module) (primary, second string) {
	for _, s := range n.moduleStatus(m).Nodes {
		switch {
		case s.Stale:
		case s.Role == appmodules.Prim.String() || s.Role == appmodules.Alone.String():
			primary = s.Node
		default:
			second = s.Node
		}
	}
	return primary, second
}

// command gives a command to the engine on node.
func (n *Node) command(ctx context.Context, m *module, node string, ev appmodules.Event, yes bool) error {
	if node == string(n.self()) {
		return n.order(ctx, m.cfg.Name, ev, yes)
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	return n.rpcTo(ctx, cluster.NodeID(node), "modules/"+m.cfg.Name+"/command", newCommand(ev, yes), nil)
}

// order gives the module on this node a command, but not to an engine that a new
// configuration is about to replace: it would be lost.
func (n *Node) order(ctx context.Context, name string, ev appmodules.Event, yes bool) error {
	n.exchange.RLock()
	defer n.exchange.RUnlock()
	m, err := n.module(name)
	if err != nil {
		return err
	}
	return m.run.Command(ctx, ev, yes)
}
