package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"duet/cluster"
	"duet/cluster/fence"
	"duet/console/api"
)

// fencing switches nodes off, each once at a time: all modules that lost a peer ask in
// the same moment, and management controllers take few sessions.
type fencing struct {
	agents *fence.Fencer
	mu     sync.Mutex
	calls  map[cluster.NodeID]*fenceCall
}

// fenceCall is one order under way, for all who want it.
type fenceCall struct {
	done chan struct{} // closed when err is set
	err  error
}

// canFence: there are devices for the node.
func (n *Node) canFence(node cluster.NodeID) bool { return len(n.cluster().Fence[node]) > 0 }

// fenceOff switches a node off and returns nil when its devices confirmed that.
func (n *Node) fenceOff(ctx context.Context, node cluster.NodeID) error {
	levels, err := n.levels(node)
	if err != nil {
		return err
	}
	f := n.fencing
	f.mu.Lock()
	c := f.calls[node]
	if c == nil {
		c = &fenceCall{done: make(chan struct{})}
		f.calls[node] = c
		n.spawn(func(life context.Context) {
			life, cancel := context.WithTimeout(life, levels.Longest())
			defer cancel()
			n.log.Warn("fence: the node is switched off", "node", node)
			c.err = f.agents.Off(life, levels)
			f.mu.Lock()
			delete(f.calls, node)
			f.mu.Unlock()
			if c.err == nil {
				n.log.Warn("fence: the node is off", "node", node)
			} else {
				n.log.Error("fence: the node could not be switched off", "node", node, "err", c.err)
			}
			close(c.done)
		})
	}
	f.mu.Unlock()
	select {
	case <-c.done:
		return c.err
	case <-ctx.Done():
		return fmt.Errorf("fence %s: %w", node, ctx.Err())
	}
}

func (n *Node) levels(node cluster.NodeID) (fence.Levels, error) {
	raw := n.cluster().Fence[node]
	if len(raw) == 0 {
		return nil, fmt.Errorf("%w: %s has no fence device: `duet cluster fence set %s`", api.ErrNotFound, node, node)
	}
	return fence.Decode(raw)
}

// Fences lists the devices, without their secrets.
func (n *Node) Fences(context.Context) ([]api.FenceStatus, error) {
	var out []api.FenceStatus
	for _, node := range slices.Sorted(maps.Keys(n.cluster().Fence)) {
		levels, err := n.levels(node)
		if err != nil {
			return nil, err
		}
		st, err := fenceStatus(node, levels)
		if err != nil {
			return nil, err
		}
		out = append(out, st)
	}
	return out, nil
}

// fenceStatus goes through JSON, where secrets are hidden.
func fenceStatus(node cluster.NodeID, levels fence.Levels) (api.FenceStatus, error) {
	st := api.FenceStatus{Node: string(node)}
	b, err := json.Marshal(levels)
	if err == nil {
		err = json.Unmarshal(b, &st.Levels)
	}
	return st, err
}

// SetFence makes the devices of a node known to every member that answers. One that is
// away gets them when this node or another one meets it.
func (n *Node) SetFence(ctx context.Context, node string, levels [][]api.FenceDevice) error {
	c := n.cluster()
	if _, ok := c.Member(cluster.NodeID(node)); !ok {
		return fmt.Errorf("%w: no node %q: `duet cluster status`", api.ErrNotFound, node)
	}
	var raw json.RawMessage
	if len(levels) > 0 {
		var own fence.Levels
		for _, l := range levels {
			var devices []fence.Device
			for _, d := range l {
				devices = append(devices, fence.Device{Name: d.Name, Agent: d.Agent, Options: d.Options})
			}
			own = append(own, devices)
		}
		b, err := fence.Encode(own)
		if err = errors.Join(own.Validate(), err); err != nil {
			return fmt.Errorf("%w: %v", api.ErrInvalid, err)
		}
		raw = b
	}
	set := fenceSet{Node: cluster.NodeID(node), Levels: raw}
	if err := n.applyFence(ctx, set); err != nil {
		return err
	}
	var errs []error
	for _, m := range c.Members {
		if m.Node != c.Self {
			errs = append(errs, n.rpcTo(ctx, m.Node, "fence", set, nil))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("this node knows it, not all others do, repeat the command: %w", err)
	}
	return nil
}

// fenceSet is a change of the devices of one node.
type fenceSet struct {
	Node   cluster.NodeID  `json:"node"`
	Levels json.RawMessage `json:"levels,omitempty"`
}

// applyFence stores the devices of a node. A node that would use them first asks their
// agents, on this computer, whether they are complete.
func (n *Node) applyFence(ctx context.Context, set fenceSet) error {
	if set.Node != n.self() && len(set.Levels) > 0 {
		levels, err := fence.Decode(set.Levels)
		if err != nil {
			return fmt.Errorf("%w: %v", api.ErrInvalid, err)
		}
		for _, d := range slices.Concat(levels...) {
			if err := n.fencing.agents.Inspect(ctx, d); err != nil {
				return fmt.Errorf("%w: on %s: %v", api.ErrInvalid, n.self(), err)
			}
		}
	}
	_, err := n.members.Change(func(c *cluster.Config) bool {
		c.Fence = maps.Clone(c.Fence)
		if c.Fence == nil {
			c.Fence = make(map[cluster.NodeID]json.RawMessage)
		}
		if len(set.Levels) == 0 {
			delete(c.Fence, set.Node)
		} else {
			c.Fence[set.Node] = set.Levels
		}
		return true
	})
	return err
}

// TestFence looks whether the devices could switch the node off.
func (n *Node) TestFence(ctx context.Context, node string) (api.FenceStatus, error) {
	levels, err := n.levels(cluster.NodeID(node))
	if err != nil {
		return api.FenceStatus{}, err
	}
	st, err := fenceStatus(cluster.NodeID(node), levels)
	if err != nil {
		return st, err
	}
	var said []string
	for _, l := range levels {
		for _, d := range l {
			if err := n.fencing.agents.Inspect(ctx, d); err != nil {
				return st, fmt.Errorf("%w: %v", api.ErrConflict, err)
			}
			on, err := n.fencing.agents.Check(ctx, d)
			if err != nil {
				return st, fmt.Errorf("%w: %v", api.ErrConflict, err)
			}
			said = append(said, fmt.Sprintf("%s: %s", d.Name, map[bool]string{true: "on", false: "off"}[on]))
		}
	}
	st.Result = strings.Join(said, ", ")
	return st, nil
}
