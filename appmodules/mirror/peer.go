package mirror

import (
	"context"
	"errors"
	"net"
	"net/url"

	"duet/appmodules"
	"duet/appmodules/engine"
	"duet/cluster"
	"duet/console/api"
)

// caller reaches the engine of a module on another node. It is an engine.Peer.
type caller struct {
	cfg    Config
	node   cluster.NodeID
	module appmodules.Module
}

var _ engine.Peer = caller{}

// do asks the module of that identity: another one may have its name by now. The other node answers with a conflict
// then.
func (c caller) do(ctx context.Context, what string, in, out any) error {
	path := "modules/" + c.module.Name + "/" + what + "?id=" + url.QueryEscape(c.module.Identity())
	return c.cfg.Call(ctx, c.node, path, in, out)
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

// Told is an engine's state on its way between nodes, with what its host says of the VM.
// Older nodes neither send nor read that.
type Told struct {
	engine.State
	Notices []api.Notice `json:"notices,omitempty"`
}

// Tell exchanges states.
func (c caller) Tell(ctx context.Context, mine engine.State) (theirs engine.State, err error) {
	var answer Told
	err = c.do(ctx, "tell", Told{mine, c.cfg.Notices.Of(c.module.Name)}, &answer)
	switch {
	case err == nil:
		c.cfg.Notices.Hear(c.module.Name, answer.Notices)
	case errors.Is(err, api.ErrNotFound):
		c.cfg.Unknown(c.node, c.module.Name)
	}
	return answer.State, err
}

// OnTell answers the peer's Tell. The notices are taken as they come: unlike states they have no order, and a late
// one is gone with the next exchange.
func (s *Workshop) OnTell(e *engine.Engine, theirs Told) Told {
	module := e.State().Module
	s.cfg.Notices.Hear(module, theirs.Notices)
	return Told{e.OnTell(theirs.State), s.cfg.Notices.Of(module)}
}

// Define sends a VM's definition.
func (c caller) Define(ctx context.Context, d engine.Definition) error {
	return c.do(ctx, "define", d, nil)
}

// Dial opens a replication connection.
func (c caller) Dial(ctx context.Context) (net.Conn, error) { return c.cfg.Dial(ctx, c.node) }
