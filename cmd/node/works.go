package node

import (
	"context"

	"duet/console/api"
	"duet/console/tasks"
)

// run begins a task; one module has one task at a time, api.ErrConflict names the other. work runs on a goroutine
// that ends with the node, not with the request that asked for it, and its error is what whoever follows the task
// is told. A task is in memory only: what has to survive the daemon keeps a plan of its own (package protect).
func (n *Node) run(kind, module string, work tasks.Work) (api.Task, error) {
	t, err := n.tasks.Begin(kind, module)
	if err != nil {
		return api.Task{}, err
	}
	n.spawn(func(ctx context.Context) {
		result, err := work(ctx, t)
		if err != nil {
			n.log.Warn("task failed", "kind", kind, "module", module, "err", err)
		}
		t.End(result, err)
	})
	return t.State(), nil
}

// Task returns a task of this node by its id.
func (n *Node) Task(_ context.Context, id string) (api.Task, error) { return n.tasks.Find(id) }

// TaskList is those of this node that go on or ended lately.
func (n *Node) TaskList(context.Context) ([]api.Task, error) { return n.tasks.List(), nil }
