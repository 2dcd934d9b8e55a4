package mirror

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"sync"
	"time"

	"duet/appmodules"
	"duet/appmodules/engine"
	"duet/cluster"
	"duet/console/api"
)

// caller reaches the engine of a module on another node. It is an engine.Peer.
type caller struct {
	cfg     Config
	node    cluster.NodeID
	module  appmodules.Module
	joining *joining
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

// Told is an engine's state on its way between nodes, with what its host says of the VM, and whether the work that
// protects the module goes on there. Older nodes neither send nor read these.
type Told struct {
	engine.State
	Notices []api.Notice `json:"notices,omitempty"`
	Joins   bool         `json:"joins,omitempty"`
}

// joining is of which modules the peer says that it is protecting them. Any goroutine may use it.
type joining struct {
	mu   sync.Mutex
	told map[string]time.Time // when it last said so, by module
}

// hear takes what a peer says of a module.
func (j *joining) hear(module string, joins bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if joins {
		j.told[module] = time.Now()
	} else {
		delete(j.told, module)
	}
}

// of: the peer says so, and no exchange has failed to say it again.
func (j *joining) of(module string) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	at, ok := j.told[module]
	return ok && time.Since(at) < overdueAfter
}

// begins: a peer has just made the module here, or this daemon has just started, and the peer has told nothing yet. The
// record is as engine.Create makes it on the node without the data.
func (m *Mirror) begins(s engine.State) bool {
	r := s.Record
	return time.Since(m.built) < staleAfter && r.Epoch == 1 && string(r.Holder) == m.peer && !r.IsComplete() &&
		s.Status.Stopped && s.Status.Ended == ""
}

// unstarted is how the reason begins of a module that nobody has started since it was made (engine.idle).
const unstarted = "it was put under protection "

// protected has a module that is being protected, and whose engine was not told to run it yet, say that: nobody has to
// start it.
func protected(n *api.NodeState, on string) {
	switch {
	case !strings.HasPrefix(n.Why, unstarted):
	case n.Node == on:
		n.Why = "it is being protected here"
	default:
		n.Why = fmt.Sprintf("it is being protected on %s; its second copy comes here after that", on)
	}
}

// Tell exchanges states.
func (c caller) Tell(ctx context.Context, mine engine.State) (theirs engine.State, err error) {
	var answer Told
	name := c.module.Name
	err = c.do(ctx, "tell", Told{mine, c.cfg.Notices.Of(name), c.cfg.Joins(name)}, &answer)
	switch {
	case err == nil:
		c.joining.hear(name, answer.Joins)
		c.cfg.Notices.Hear(name, answer.Notices)
	case errors.Is(err, api.ErrNotFound):
		c.cfg.Unknown(c.node, name)
	}
	return answer.State, err
}

// OnTell answers the peer's Tell. The notices are taken as they come: unlike states they have no order, and a late
// one is gone with the next exchange.
func (s *Workshop) OnTell(e *engine.Engine, theirs Told) Told {
	module := e.State().Module
	s.cfg.Notices.Hear(module, theirs.Notices)
	s.joining.hear(module, theirs.Joins)
	return Told{e.OnTell(theirs.State), s.cfg.Notices.Of(module), s.cfg.Joins(module)}
}

// Define sends a VM's definition.
func (c caller) Define(ctx context.Context, d engine.Definition) error {
	return c.do(ctx, "define", d, nil)
}

// Dial opens a replication connection.
func (c caller) Dial(ctx context.Context) (net.Conn, error) { return c.cfg.Dial(ctx, c.node) }
