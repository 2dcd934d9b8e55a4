package node

import (
	"context"
	"errors"

	"duet/appmodules"
	"duet/appmodules/registry"
	"duet/cluster"
)

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
		return true, n.orders.MayDrop(m, from, r.Epoch)
	}, func(m appmodules.Module, removed error) error {
		// A plan that is left would keep the name from another protect.
		if err := errors.Join(removed, n.Works.End(name)); err != nil {
			return err
		}
		if err := n.Undefine(ctx, m); err != nil {
			return err
		}
		return n.images.Retire(m)
	})
}
