package orders

import (
	"context"
	"fmt"

	"duet/appmodules"
	"duet/appmodules/registry"
	"duet/cluster"
	"duet/console/api"
)

// MayLeave returns nil if the VM of a module can be taken off its volumes on this node as they are: where it runs
// here on the newest data, or is stopped and they are here for certain. It waits until the engine has found out how
// it ended last. The answer is of now: who acts on it asks again when the module cannot change any more.
func (o *Desk) MayLeave(ctx context.Context, m *registry.Entry) error {
	name := m.Module.Name
	if err := m.Engine.Booted(ctx); err != nil {
		return fmt.Errorf("it is not known yet whether the VM of %s runs: %w", name, err)
	}
	st := m.Engine.State()
	if primary, _ := o.Roles(m); primary != "" && primary != o.self() {
		return fmt.Errorf("%w: module %s is primary on %s: release it there, or `duet swap %s` first", api.ErrConflict,
			name, primary, name)
	}
	switch st.Status.Phase {
	case appmodules.Running:
	case appmodules.Stopped:
		return o.newestHere(m)
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
func (o *Desk) newestHere(m *registry.Entry) error {
	name, record := m.Module.Name, m.Engine.State().Record
	if record.Holds(o.cfg.Self) && record.IsComplete() {
		return nil
	}
	theirs, heard := m.Engine.PeerState()
	if holder := record.Holder; holder != o.cfg.Self && !heard.IsZero() && theirs.Record.Holds(holder) &&
		theirs.Record.IsComplete() {
		return fmt.Errorf("%w: the newest data of %s are on %s: release it there", api.ErrConflict, name, holder)
	}
	return fmt.Errorf("%w: it is not certain which copy of %s is the newest, because %s, which had it, has lost power "+
		"or does not answer: "+
		"`duet start %s` finds out, and then release it where `duet status` shows PRIM or ALONE", api.ErrConflict, name,
		record.Holder, name)
}

// cleared is the epoch of what a protect that was cut short has left: it has never run.
const cleared = 1

// MayClear refuses where a module of that name here is more than what a protect of from has left.
func (o *Desk) MayClear(name string, from cluster.NodeID) error {
	m, err := o.cfg.Registry.Find(name)
	if err != nil { // there is none
		return nil
	}
	return o.MayDrop(m, from, cleared)
}

// MayDrop refuses where this node has data that from, which knows that epoch, does not know of: where the module
// acts here, a newer epoch, or the same one held by this node. The order matters for the words only.
func (o *Desk) MayDrop(m *registry.Entry, from cluster.NodeID, epoch cluster.Epoch) error {
	name, st, self := m.Module.Name, m.Engine.State(), o.cfg.Self
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
