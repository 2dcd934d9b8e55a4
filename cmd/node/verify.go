package node

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"duet/appmodules/mirror"
	"duet/console/api"
	"duet/console/tasks"
)

// cutVolume splits MODULE/TARGET.
func cutVolume(s string) (module, target string, ok bool) {
	module, target, ok = strings.Cut(s, "/")
	return module, target, ok && module != "" && target != ""
}

// Verify compares both copies of a volume, as a task of the node that has the primary: api.ErrConflict names it.
// Where no primary is known this node tries, and its engine refuses. A task that leaves copies that differ has failed.
func (n *Node) Verify(_ context.Context, volume string, repair bool) (api.Task, error) {
	name, target, ok := cutVolume(volume)
	if !ok {
		return api.Task{}, fmt.Errorf("%w: volume %q: write MODULE/TARGET, as `duet volume list` shows them",
			api.ErrInvalid, volume)
	}
	m, err := n.Mirror(name)
	if err != nil {
		return api.Task{}, err
	}
	var known []string
	for _, v := range m.Module.Volumes() {
		known = append(known, name+"/"+v.Target)
	}
	switch {
	case len(known) == 0:
		return api.Task{}, fmt.Errorf("volume %s: %w: module %s has none", volume, api.ErrNotFound, name)
	case !slices.Contains(known, name+"/"+target):
		return api.Task{}, fmt.Errorf("volume %s: %w%s", volume, api.ErrNotFound, api.Known(volume, known))
	}
	if primary, _ := n.orders.Roles(m); primary != "" && primary != string(n.self()) {
		return api.Task{}, fmt.Errorf("%w: module %s is primary on %s: verify it there", api.ErrConflict, name, primary)
	}
	return n.run("verify", name, func(ctx context.Context, t *tasks.Task) (string, error) {
		return mirror.Verify(ctx, m.Engine, volume, target, repair, t)
	})
}
