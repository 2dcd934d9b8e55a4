package orders

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"duet/appmodules"
	"duet/appmodules/registry"
	"duet/console/api"
)

// TestNothingToFollow: no node is made a secondary of one that does not answer or is stopped; the refusal says what may
// be started.
func TestNothingToFollow(t *testing.T) {
	o := newOffice(t)
	var alpha, beta api.NodeState
	o.cfg.Status = func(*registry.Entry) []api.NodeState { return []api.NodeState{alpha, beta} }
	for what, c := range map[string]struct {
		alpha, beta api.NodeState
		node        string
		want        []string // of the refusal; none: it is done
	}{
		"a primary that answers": {alpha: api.NodeState{Role: "PRIM"}, beta: api.NodeState{Role: "STOP"}, node: "beta"},
		"a primary that does not answer": {alpha: api.NodeState{Role: "PRIM", Stale: true},
			beta: api.NodeState{Role: "STOP"}, node: "beta", want: []string{"alpha does not answer", "`duet start web01`"}},
		"nobody": {alpha: api.NodeState{Role: "STOP"}, beta: api.NodeState{Role: "STOP", Stopped: true}, node: "alpha",
			want: []string{"web01 is stopped on beta", "`duet start web01 --node beta`"}},
	} {
		alpha, beta = c.alpha, c.beta
		alpha.Node, beta.Node = "alpha", "beta"
		o.orders = nil
		_, err := o.Act(t.Context(), "web01", api.Second, api.ActionRequest{Node: c.node})
		if (err == nil) != (c.want == nil) || (len(o.orders) == 1) != (c.want == nil) ||
			err != nil && !errors.Is(err, api.ErrConflict) {
			t.Errorf("%s: %v, it ordered %q", what, err, o.orders)
		}
		for _, text := range c.want {
			if err == nil || !strings.Contains(err.Error(), text) {
				t.Errorf("%s: %v does not say %q", what, err, text)
			}
		}
	}
}

// TestOrderThatNobodyTakes: what the node that has to act refuses is the error of the action, and nobody else is asked.
func TestOrderThatNobodyTakes(t *testing.T) {
	o := newOffice(t)
	o.away["alpha"], o.away["beta"] = errors.New("alpha refuses"), errors.New("beta does not answer")
	for action, want := range map[api.Action]string{api.Restart: "alpha", api.Swap: "alpha", api.Prim: "alpha",
		api.Second: "beta", api.Stop: "alpha"} {
		var r api.ActionRequest
		if action == api.Second {
			r.Node = "beta"
		}
		if _, err := o.Act(t.Context(), "web01", action, r); !errors.Is(err, o.away[want]) {
			t.Errorf("%s: %v", action, err)
		}
	}
	for action, node := range map[api.Action]string{api.Start: "alpha", api.Stop: "beta"} {
		_, err := o.Act(t.Context(), "web01", action, api.ActionRequest{Node: node})
		if !errors.Is(err, o.away[node]) {
			t.Errorf("%s on %s: %v", action, node, err)
		}
	}
	if len(o.orders) != 0 {
		t.Errorf("it ordered %q", o.orders)
	}
}

// TestNoCommand: what is no operator's command is never sent: a mistake of the caller shows on its own node.
func TestNoCommand(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("an event of the machine was sent as a command")
		}
	}()
	NewMessage(appmodules.Granted, false)
}

// FuzzMessage: what a peer sends is a command or is refused, and a command means the same when it is sent on.
func FuzzMessage(f *testing.F) {
	for _, o := range orders {
		b, err := json.Marshal(NewMessage(o.event, true))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte(`{"event":9}`))
	f.Add([]byte(`{"command":"granted","event":1}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		var m Message
		if json.Unmarshal(text, &m) != nil || m.Check() != nil {
			return
		}
		if again := NewMessage(m.Order(), m.Yes); again.Order() != m.Order() || m.Name != "" && again.Name != m.Name {
			t.Errorf("%q is sent on as %+v", text, again)
		}
	})
}
