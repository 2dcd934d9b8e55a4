package node

import (
	"context"
	"errors"
	"fmt"

	"duet/appmodules"
	"duet/appmodules/registry"
	"duet/cluster"
	"duet/console/api"
)

// mayLeave returns nil if the VM of a module can be taken off its volumes on this node as they are: where it runs
// here on the newest data, or is stopped and they are here for certain. It waits until the engine has found out how
// it ended last. The answer is of now: who acts on it asks again when the module cannot change any more.
func (n *Node) mayLeave(ctx context.Context, m *registry.Entry) error {
	name := m.Module.Name
	if err := m.Engine.Booted(ctx); err != nil {
		return fmt.Errorf("it is not known yet whether the VM of %s runs: %w", name, err)
	}
	st := m.Engine.State()
	if primary, _ := n.orders.Roles(m); primary != "" && primary != string(n.self()) {
		return fmt.Errorf("%w: module %s is primary on %s: release it there, or `duet swap %s` first", api.ErrConflict,
			name, primary, name)
	}
	switch st.Status.Phase {
	case appmodules.Running:
	case appmodules.Stopped:
		return n.newestHere(m)
	default:
		return fmt.Errorf("%w: module %s is %s (%s): release it when it is running or stopped", api.ErrConflict, name,
			st.Status.Role, st.Status.Status)
	}
	return nil
}

// newestHere returns nil if a module that is stopped has its newest data on this node for certain: by its own
// record, as holder of the newest epoch with a complete copy (cluster/DESIGN.md, rules 1 and 4). Where that is not
// known, as after a power loss, a start finds out: it brings the module to where they are, or says what it waits
// for.
func (n *Node) newestHere(m *registry.Entry) error {
	name, record := m.Module.Name, m.Engine.State().Record
	if record.Holds(n.self()) && record.IsComplete() {
		return nil
	}
	theirs, heard := m.Engine.PeerState()
	if holder := record.Holder; holder != n.self() && !heard.IsZero() && theirs.Record.Holds(holder) &&
		theirs.Record.IsComplete() {
		return fmt.Errorf("%w: the newest data of %s are on %s: release it there", api.ErrConflict, name, holder)
	}
	return fmt.Errorf("%w: it is not certain which copy of %s is the newest, because %s, which had it, has lost power "+
		"or does not answer: "+
		"`duet start %s` finds out, and then release it where `duet status` shows PRIM or ALONE", api.ErrConflict, name,
		record.Holder, name)
}

// removal asks a node to forget a module whose VM stays on the asking node. It is on the wire.
type removal struct {
	Epoch cluster.Epoch `json:"epoch"` // that the asking node knows
	// Module is the identity of the one that is meant; empty: whichever has the name.
	Module string `json:"module,omitempty"`
}

// dropModule forgets a module on the node that does not keep its VM, at the wish of from. It refuses where this
// node has data that from does not know of. Asked again it does nothing: nobody has the name then, or another
// module has it. The images get another name, so that nobody takes them for the newest data; they are not deleted.
func (n *Node) dropModule(ctx context.Context, name string, from cluster.NodeID, r removal) error {
	return n.RemoveIf(ctx, name, func(m *registry.Entry) (bool, error) {
		if r.Module != "" && r.Module != m.Module.Identity() {
			return false, nil // that one is gone; its name was used again
		}
		return true, n.mayDrop(m, from, r.Epoch)
	}, func(m appmodules.Module, removed error) error {
		// A plan that is left would keep the name from another protect.
		if err := errors.Join(removed, n.works.End(name)); err != nil {
			return err
		}
		if err := n.Undefine(ctx, m); err != nil {
			return err
		}
		return n.images.Retire(m)
	})
}

// mayDrop refuses where this node has data that from, which knows that epoch, does not know of: where the module
// acts here, a newer epoch, or the same one held by this node. The order matters for the words only.
func (n *Node) mayDrop(m *registry.Entry, from cluster.NodeID, epoch cluster.Epoch) error {
	name, st, self := m.Module.Name, m.Engine.State(), n.self()
	peer := m.Module.Peer(string(self))
	switch {
	case peer != string(from):
		return fmt.Errorf("%w: module %s on %s has its other copy on %s: choose another name with --module",
			api.ErrConflict, name, self, peer)
	case st.Status.Role.Acts():
		return fmt.Errorf("%w: module %s is %s on %s", api.ErrConflict, name, st.Status.Role, self)
	case st.Record.Epoch > epoch || st.Record.Epoch == epoch && st.Record.Holds(self):
		return fmt.Errorf("%w: %s has data of module %s that %s does not know: `duet vm release %s` there",
			api.ErrConflict, self, name, from, name)
	}
	return nil
}
