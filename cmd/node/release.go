package node

import (
	"context"
	"errors"
	"fmt"

	"duet/appmodules"
	"duet/cluster"
	"duet/console/api"
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
	case appmodules.Running:
	case appmodules.Stopped:
		return n.newestHere(m)
	default:
		return fmt.Errorf("%w: module %s is %s (%s): release it when it is running or stopped", api.ErrConflict, name, st.Status.Role, st.Status.Status)
	}
	return nil
}

// newestHere returns nil if a module that is stopped has its newest data on this node for certain. Where that is not
// known, as after a power loss, a start finds out: it brings the module to where they are, or says what it waits for.
func (n *Node) newestHere(m *module) error {
	name, record := m.cfg.Name, m.engine.State().Record
	if record.Holds(n.self()) && record.IsComplete() {
		return nil
	}
	theirs, heard := m.engine.PeerState()
	if holder := record.Holder; holder != n.self() && !heard.IsZero() && theirs.Record.Holds(holder) && theirs.Record.IsComplete() {
		return fmt.Errorf("%w: the newest data of %s are on %s: release it there", api.ErrConflict, name, holder)
	}
	return fmt.Errorf("%w: it is not certain which copy of %s is the newest, because %s, which had it, has lost power or does not answer: "+
		"`duet start %s` finds out, and then release it where `duet status` shows PRIM or ALONE", api.ErrConflict, name, record.Holder, name)
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
	done, err := n.turns.take(ctx, name)
	if err != nil {
		return err
	}
	defer done()
	m, err := n.mirror(name)
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
	case st.Status.Role.Acts():
		return fmt.Errorf("%w: module %s is %s on %s", api.ErrConflict, name, st.Status.Role, n.self())
	case st.Record.Epoch > r.Epoch || st.Record.Epoch == r.Epoch && st.Record.Holds(n.self()):
		return fmt.Errorf("%w: %s has data of module %s that %s does not know: `duet vm release %s` there", api.ErrConflict, n.self(), name, from, name)
	}
	if err := errors.Join(n.removeModule(ctx, name), n.works.End(name)); err != nil {
		return err
	}
	if undefine := runners[m.cfg.Kind].undefine; undefine != nil {
		if err := undefine(ctx, n, m.cfg); err != nil {
			return err
		}
	}
	return n.retireImages(m.cfg)
}
