package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"duet/console/api"
	"duet/console/client"
)

// A move shuts the guest down, which takes as long as the guest wants, and it may come to nothing:
// the command says what became of it.

const (
	moveTime = 5 * time.Minute        // longest that a move is followed
	moveLook = 200 * time.Millisecond // between two looks
	stillFor = 5 * time.Second        // nobody is primary for so long, and nobody is on the way: the move has failed
)

// move is one planned move that is followed.
type move struct {
	from, to string
	since    time.Time // when the state was last changed on from before the move
	nobody   time.Time // since when no node is primary or on its way; zero: one is
}

// begunMove says where a module runs and where it would go; nil if it runs nowhere.
func begunMove(m api.ModuleStatus) *move {
	var v move
	for _, n := range m.Nodes {
		if primary(n) {
			v.from, v.since = n.Node, n.Since
		} else {
			v.to = n.Node
		}
	}
	if v.from == "" || v.to == "" {
		return nil
	}
	return &v
}

func primary(n api.NodeState) bool { return !n.Stale && (n.Role == "PRIM" || n.Role == "ALONE") }

// ended looks at the module: done says that the move is over, and err why it failed.
func (v *move) ended(m api.ModuleStatus, now time.Time) (done bool, err error) {
	busy := false
	var last api.NodeState
	for _, n := range m.Nodes {
		ready := primary(n) && n.Status == "Ready"
		switch {
		case ready && n.Node == v.to:
			return true, nil
		case ready && !n.Since.Equal(v.since):
			return true, fmt.Errorf("%s runs on %s again and has not moved: %s: `duet log %s` has more", m.Name, n.Node, n.Why,
				m.Name)
		}
		busy = busy || primary(n) || n.Status == "Transient"
		if n.Since.After(last.Since) {
			last = n
		}
	}
	switch {
	case busy:
		v.nobody = time.Time{}
	case v.nobody.IsZero():
		v.nobody = now
	case now.Sub(v.nobody) >= stillFor:
		return true, fmt.Errorf("%s runs nowhere: %s on %s: %s", m.Name, last.Role, last.Node, last.Why)
	}
	return false, nil
}

// module finds one in the status.
func (a *app) module(ctx context.Context, c *client.Client, name string) (api.ModuleStatus, error) {
	st, err := c.Status(ctx)
	if err != nil {
		return api.ModuleStatus{}, err
	}
	return st.Module(name)
}

// followMove waits for the end of a move.
func (a *app) followMove(ctx context.Context, c *client.Client, name string, v *move) error {
	ctx, cancel := context.WithTimeout(ctx, moveTime)
	defer cancel()
	for {
		m, err := a.module(ctx, c, name)
		if err == nil { // a node that does not answer for the moment may do so again
			done, err := v.ended(m, time.Now())
			if err != nil {
				return err
			}
			if done {
				return a.emit(api.ActionResult{Module: name, Said: "runs on " + v.to}, func(w io.Writer) error {
					_, err := fmt.Fprintf(w, "%s runs on %s\n", clean(name), clean(v.to))
					return err
				})
			}
		}
		select {
		case <-time.After(moveLook):
		case <-ctx.Done():
			return fmt.Errorf("the move of %s goes on without you: `duet status %s` shows where it is", name, name)
		}
	}
}
