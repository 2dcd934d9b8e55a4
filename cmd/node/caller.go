package node

import (
	"context"
	"errors"
	"net"
	"net/url"

	"duet/appmodules"
	"duet/appmodules/engine"
	"duet/cluster"
	"duet/cluster/mux"
	"duet/console/api"
)

// rpcTo calls another node; all calls may be repeated.
func (n *Node) rpcTo(ctx context.Context, node cluster.NodeID, path string, in, out any) error {
	return n.plane.Call(ctx, node, path, in, out)
}

// ask calls another node with a request that says nothing.
func (n *Node) ask(ctx context.Context, node cluster.NodeID, path string, out any) error {
	return n.rpcTo(ctx, node, path, nil, out)
}

// caller reaches the engine of a module on another node. It is an engine.Peer.
type caller struct {
	n      *Node
	node   cluster.NodeID
	module appmodules.Module
}

var _ engine.Peer = caller{}

// do asks the module of that identity: another one may have its name by now.
func (c caller) do(ctx context.Context, what string, in, out any) error {
	path := "modules/" + c.module.Name + "/" + what + "?id=" + url.QueryEscape(c.module.Identity())
	return c.n.rpcTo(ctx, c.node, path, in, out)
}

// Ask asks for a vote.
func (c caller) Ask(ctx context.Context, a cluster.Ask) (ans cluster.Answer, err error) {
	err = c.do(ctx, "ask", a, &ans)
	return ans, err
}

// Handover gives the right to write away.
func (c caller) Handover(ctx context.Context, h engine.Handover) error {
	return c.do(ctx, "handover", h, nil)
}

// Complete ends a resync.
func (c caller) Complete(ctx context.Context, m engine.Complete) error {
	return c.do(ctx, "complete", m, nil)
}

// Tell exchanges states.
func (c caller) Tell(ctx context.Context, mine engine.State) (theirs engine.State, err error) {
	var answer told
	err = c.do(ctx, "tell", told{mine, c.n.fitness.of(c.module.Name)}, &answer)
	switch {
	case err == nil:
		c.n.fitness.hear(c.module.Name, answer.Notices)
	case errors.Is(err, api.ErrNotFound):
		c.n.unknownTo(c.node, c.module.Name)
	}
	return answer.State, err
}

// Define sends a VM's definition.
func (c caller) Define(ctx context.Context, d engine.Definition) error {
	return c.do(ctx, "define", d, nil)
}

// Dial opens a replication connection.
func (c caller) Dial(ctx context.Context) (net.Conn, error) {
	return c.n.mux.Dial(ctx, c.node, serviceReplication, mux.Replication)
}
