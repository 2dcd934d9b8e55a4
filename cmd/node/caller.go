package node

import (
	"context"

	"duet/cluster"
)

// rpcTo calls another node and returns when that has done it. A node that does not answer is api.ErrUnreach, one
// that took this node off the cluster control.ErrRemoved, an older one that does not know the request
// cluster.ErrOlder; what else went wrong there comes with its kind and its words (newPlane). All calls may be
// repeated, and are, over another path, when one falls silent: an error does not say that nothing was done. Without
// a deadline in ctx it takes as long as the work there, which package control bounds, while a path answers.
func (n *Node) rpcTo(ctx context.Context, node cluster.NodeID, path string, in, out any) error {
	return n.plane.Call(ctx, node, path, in, out)
}

// ask calls another node with a request that says nothing.
func (n *Node) ask(ctx context.Context, node cluster.NodeID, path string, out any) error {
	return n.rpcTo(ctx, node, path, nil, out)
}
