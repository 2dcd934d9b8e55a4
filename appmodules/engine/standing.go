package engine

import (
	"context"
	"slices"

	"duet/appmodules"
	"duet/cluster"
)

// Standing is how a module stands on a node as far as the right to write is concerned.
type Standing struct {
	Record cluster.Record
	Role   appmodules.Role
	// Taking: the node has the right, or is asking for it.
	Taking bool
}

// idle are the phases in which a node neither has the right in use nor asks for it. The peer's daemon and its guard
// ask for that (cluster/guard).
var idle = []appmodules.Phase{appmodules.Stopped, appmodules.Waiting, appmodules.Following, appmodules.Standby,
	appmodules.Killing}

// Published is the standing as of the last step. Unlike State it waits for no volume. Any goroutine; an ask that was
// begun since is not in it, see Standing.
func (e *Engine) Published() Standing {
	e.status.mu.Lock()
	defer e.status.mu.Unlock()
	st := e.status.state
	return Standing{Record: st.Record, Role: st.Status.Role, Taking: !slices.Contains(idle, st.Status.Phase)}
}

// Standing is the standing between two steps: no ask is under way that it does not tell of. It waits for the owner,
// and so for a save that is under way, as long as ctx lasts.
func (e *Engine) Standing(ctx context.Context) (out Standing, err error) {
	err = e.call(ctx, func() { out = e.Published() })
	return out, err
}
