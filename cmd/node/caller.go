package node

import (
	"context"

	"duet/cluster"
)

// rpcTo calls another node; all calls may be repeated.
func (n *Node) rpcTo(ctx context.Context, node cluster.NodeID, path string, in, out any) error {
	return n.plane.Call(ctx, node, path, in, out)
}

// ask calls another node with a request that says nothing.
func (n *Node) ask(ctx context.Context, node cluster.NodeID, path string, out any) error {
	return n.rpcTo(ctx, node, path, nil, out)
}
