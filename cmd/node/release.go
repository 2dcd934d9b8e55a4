package node

import (
	"context"
	"errors"
	"fmt"

	"duet/appmodules"
	"duet/cluster"
	"duet/console/api"
	"duet/vmmanager"
)

// mayLeave returns nil if the VM of a module can be taken off its volumes on this node as they are.
func (n *Node) mayLeave(ctx context.Context, m *module) error {
	name := m.cfg.Name
	if err := m.engine.Booted(ctx); err != nil {
		return fmt.Errorf("release %s: it is not known yet whether its VM runs: %w", name, err)
	}
	st := m.engine.State()
	if primary, _ := n.roles(m); primary != "" && primary != string(n.self()) {
		return fmt.Errorf("%w: module %s is primary on %s: release it there, or `duet swap %s` first", api.ErrConflict, name, primary, name)
	}
	switch st.Status.Phase {
	case appmodules.Running.String():
	case appmodules.Stopped.String():
		if !st.Record.Holds(n.self()) || !st.Record.IsComplete() {
			return fmt.Errorf("%w: the newest data of %s are on %s: release it there", api.ErrConflict, name, st.Record.Holder)
		}
	default:
		return fmt.Errorf("%w: module %s is %s (%s): release it when it is running or stopped", api.ErrConflict, name, st.Status.Role, st.Status.Status)
	}
	return nil
}

// removal asks a node to forget a module whose VM stays on the asking node.
type removal struct {
	Epoch cluster.Epoch `json:"epoch"` // that the asking node knows
	// Module is the identity of the one that is meant; empty: whichever has the name.
	Module string `json:"module,omitempty"`
}

// dropModule forgets a module on the node that does not keep its VM, at the wish of from.
// It refuses where this node has data that from does not know of.
func (n *Node) dropModule(ctx context.Context, name string, from cluster.NodeID, r removal) error {
	m, err := n.module(name)
	if errors.Is(err, api.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	if r.Module != "" && r.Module != m.cfg.Identity() {
		return nil // that one is gone; its name was used again
	}
	st := m.engine.State()
	switch {
	case m.cfg.Peer(string(n.self())) != string(from):
		return fmt.Errorf("%w: module %s on %s has its other copy on %s: choose another name with --module", api.ErrConflict, name, n.self(), m.cfg.Peer(string(n.self())))
	case st.Status.Role == "PRIM" || st.Status.Role == "ALONE":
		return fmt.Errorf("%w: module %s is %s on %s", api.ErrConflict, name, st.Status.Role, n.self())
	case st.Record.Epoch > r.Epoch || st.Record.Epoch == r.Epoch && st.Record.Holds(n.self()):
		return fmt.Errorf("%w: %s has data of module %s that %s does not know: `duet vm release %s` there", api.ErrConflict, n.self(), name, from, name)
	}
	if err := errors.Join(n.removeModule(ctx, name), n.works.End(name)); err != nil {
		return err
	}
	if err := n.cfg.Hypervisor.Undefine(ctx, m.cfg.VM.Domain); err != nil && !errors.Is(err, vmmanager.ErrNotFound) {
		return err
	}
	return n.retireImages(m.cfg)
}
