package main

import (
	"strings"
	"testing"
	"time"

	"duet/console/api"
)

// TestMoveEnds: a move is over when the module runs where it should, or when it does not and will not.
func TestMoveEnds(t *testing.T) {
	began := time.Unix(1000, 0)
	at := func(role, status string, since int) api.NodeState {
		return api.NodeState{Role: role, Status: status, Why: "because", Since: began.Add(time.Duration(since) * time.Second)}
	}
	module := func(alpha, beta api.NodeState) api.ModuleStatus {
		alpha.Node, beta.Node = "alpha", "beta"
		return api.ModuleStatus{Name: "web", Nodes: []api.NodeState{alpha, beta}}
	}
	stale := at("PRIM", "Ready", 0)
	stale.Stale = true
	for _, c := range []struct {
		what  string
		state api.ModuleStatus
		after time.Duration
		done  bool
		err   string
	}{
		{"nothing has happened yet", module(at("PRIM", "Ready", 0), at("SECOND", "Ready", 0)), 0, false, ""},
		{"the guest shuts down", module(at("PRIM", "Transient", 1), at("SECOND", "Ready", 0)), 0, false, ""},
		{"the other one starts", module(at("SECOND", "Transient", 2), at("ALONE", "Transient", 2)), 0, false, ""},
		{"it runs there", module(at("SECOND", "Ready", 3), at("PRIM", "Ready", 3)), 0, true, ""},
		{"it runs there, and the first is gone", module(stale, at("ALONE", "Ready", 3)), 0, true, ""},
		{"it came back", module(at("ALONE", "Ready", 3), at("WAIT", "NotReady", 2)), 0, true, "runs on alpha again"},
		{"nobody runs it for a moment", module(at("WAIT", "NotReady", 3), at("STOP", "NotReady", 2)), time.Second, false, ""},
		{"nobody runs it", module(at("WAIT", "NotReady", 3), at("STOP", "NotReady", 4)), 10 * time.Second, true,
			"runs nowhere: STOP on beta: because"},
	} {
		v := begunMove(module(at("PRIM", "Ready", 0), at("SECOND", "Ready", 0)))
		if v == nil || v.from != "alpha" || v.to != "beta" {
			t.Fatalf("the move is %+v", v)
		}
		done, err := v.ended(c.state, began)
		if c.after > 0 {
			done, err = v.ended(c.state, began.Add(c.after))
		}
		if done != c.done || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: %v, %v", c.what, done, err)
		}
	}
	if v := begunMove(module(at("STOP", "NotReady", 0), at("WAIT", "NotReady", 0))); v != nil {
		t.Errorf("a module that runs nowhere moves: %+v", v)
	}
}
