package workload

import (
	"context"
	"sync"

	"duet/appmodules"
)

// None is the Workload of a module that runs nothing: it is up while it was started. It is the
// Workload of tests, too, which say with Tell what happens to it. The zero None is down.
type None struct {
	mu     sync.Mutex
	up     bool
	report func(appmodules.Report)
}

var _ appmodules.Workload = (*None)(nil)

// condition is how it stands. mu is held.
func (n *None) condition() appmodules.Condition {
	if n.up {
		return appmodules.Condition{Up: true, Text: "running"}
	}
	return appmodules.Condition{Lost: appmodules.Incident{What: appmodules.HasFailed, Why: "it ended unseen"}}
}

// State tells whether it was started.
func (n *None) State(context.Context) (appmodules.Condition, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.condition(), nil
}

// Start brings it up.
func (n *None) Start(ctx context.Context, _ bool) (appmodules.Condition, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.up = n.up || ctx.Err() == nil
	return n.condition(), ctx.Err()
}

// Stop takes it down.
func (n *None) Stop(ctx context.Context) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.up = n.up && ctx.Err() != nil
	return ctx.Err()
}

// Kill takes it down.
func (n *None) Kill(context.Context) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.up = false
	return nil
}

// Watch has report called by Tell.
func (n *None) Watch(ctx context.Context, report func(appmodules.Report)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.report = func(r appmodules.Report) {
		if ctx.Err() == nil {
			report(r)
		}
	}
}

// Tell has something happen to it; what ends it takes it down. Before Watch nobody hears of it. report is called with
// the lock held, and must not call back.
func (n *None) Tell(what appmodules.Incident) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if _, ended := what.What.Event(); ended {
		n.up = false
	}
	if n.report != nil {
		n.report(appmodules.Report{Incident: what, Now: n.condition()})
	}
}
