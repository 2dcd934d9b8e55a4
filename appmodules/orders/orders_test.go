package orders

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"duet/appmodules"
	"duet/appmodules/engine"
	"duet/appmodules/registry"
	"duet/blockrepl/badgerlog"
	"duet/cluster"
	"duet/console/api"
)

// runner is a Runner that takes commands.
type runner struct{ o *office }

func (runner) Start()                                             {}
func (runner) Stop(context.Context)                               {}
func (runner) Evacuate(context.Context)                           {}
func (runner) Configure(context.Context, appmodules.Module) error { return nil }
func (runner) Status() []api.NodeState                            { return nil }
func (runner) ViewChanged()                                       {}
func (runner) Alive(context.Context) error                        { return nil }
func (runner) Holds() bool                                        { return false }
func (r runner) Command(_ context.Context, ev appmodules.Event, yes bool) error {
	return r.o.take("alpha", ev, yes)
}

// office is a desk on alpha, with a module that is on beta too.
type office struct {
	*Desk
	t      *testing.T
	roles  map[string]string // of the nodes; none: it has not answered
	away   map[string]error  // nodes that take no command, and why
	unfit  map[string]error  // nodes that would not start the VM
	holder string            // of the newest epoch that is known

	stopped map[string]bool // by an operator
	orders  []string
}

func (o *office) take(node string, ev appmodules.Event, yes bool) error {
	if err := o.away[node]; err != nil {
		return err
	}
	o.orders = append(o.orders, fmt.Sprintf("%s: %s", node, NewMessage(ev, yes).Name))
	return nil
}

func newOffice(t *testing.T) *office {
	t.Helper()
	o := &office{t: t, roles: map[string]string{"alpha": "PRIM", "beta": "SECOND"}, away: map[string]error{},
		unfit: map[string]error{}}
	store, err := badgerlog.Open(badgerlog.Config{Dir: t.TempDir(), MinFree: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	reg := registry.New(registry.Config{Store: store, Journals: t.TempDir(), Life: context.Background(),
		Logger:  slog.New(slog.DiscardHandler),
		Cluster: func() cluster.Config { return cluster.Config{Self: "alpha"} },
		Kinds: map[appmodules.Kind]registry.Kind{appmodules.KindVM: {
			Build: func(appmodules.Module, func(engine.Transition)) (registry.Runner, error) { return runner{o}, nil }}}})
	t.Cleanup(func() {
		reg.Stop(context.Background())
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	m := appmodules.Default()
	m.ID = "abcdefghijklmnopqrstweb01" // commands say it: the name may be another module's there
	m.Name, m.Nodes, m.Spec = "web01", []string{"alpha", "beta"}, appmodules.VM{Domain: "web01"}
	f := registry.Fresh{Stored: registry.Stored{Module: m}, Source: "alpha"}
	if err := errors.Join(reg.Store(t.Context(), f), reg.Begin("web01")); err != nil {
		t.Fatal(err)
	}
	o.Desk = New(Config{Self: "alpha", Registry: reg,
		Status: func(*registry.Entry) (out []api.NodeState) {
			for _, node := range m.Nodes {
				role, status, _ := strings.Cut(o.roles[node], "/")
				out = append(out, api.NodeState{Node: node, Role: role, Status: status, Stale: role == "", Epoch: 3,
					Holder: o.holder, Stopped: o.stopped[node]})
			}
			return out
		},
		MayMove: func(_, to string, yes bool) error {
			if yes {
				return nil
			}
			return o.unfit[to]
		},
		Call: func(_ context.Context, node cluster.NodeID, path string, in, _ any) error {
			if path != "modules/web01/command?id=abcdefghijklmnopqrstweb01" {
				t.Errorf("%s is asked for %s", node, path)
			}
			msg := in.(Message)
			if err := msg.Check(); err != nil {
				t.Error(err)
			}
			return o.take(string(node), msg.Order(), msg.Yes)
		}})
	return o
}

// does fails unless an action leads to those commands.
func (o *office) does(a api.Action, r api.ActionRequest, want, said string) {
	o.t.Helper()
	o.orders = nil
	res, err := o.Act(o.t.Context(), "web01", a, r)
	if err != nil || res.Module != "web01" || res.Said != said || strings.Join(o.orders, ", ") != want {
		o.t.Errorf("%s %+v: %q, said %q, %v; want %q, %q", a, r, o.orders, res.Said, err, want, said)
	}
}

// TestWhoActs: each action goes to the node that has to act.
func TestWhoActs(t *testing.T) {
	o := newOffice(t)
	on := func(node string) api.ActionRequest { return api.ActionRequest{Node: node} }
	o.does(api.Start, on(""), "alpha: start, beta: start", "starts on alpha beta")
	o.holder = "beta" // which is to be found by the other
	o.does(api.Start, on(""), "beta: start, alpha: start", "starts on beta alpha")
	o.roles["beta"] = "WAIT"
	o.does(api.Start, on("beta"), "beta: start", "starts on beta")
	o.roles["beta"] = "SECOND"
	o.does(api.Start, on("alpha"), "alpha: start", "starts on alpha")
	o.does(api.Stop, on(""), "alpha: stop-all", "stops")
	o.does(api.Stop, on("beta"), "beta: stop", "stops on beta")
	o.does(api.Restart, on(""), "alpha: restart", "restarts on alpha")
	o.does(api.Swap, on(""), "alpha: swap", "moves from alpha to beta")
	o.does(api.Prim, on(""), "alpha: prim", "is primary already on alpha")
	o.does(api.Prim, on("beta"), "beta: prim", "becomes primary on beta")
	o.does(api.Swap, on("alpha"), "alpha: swap", "moves from alpha to beta")
	o.does(api.Restart, on("alpha"), "alpha: restart", "restarts on alpha")
	o.does(api.Second, on("beta"), "beta: second", "becomes secondary on beta")
	o.does(api.Second, on("alpha"), "alpha: swap", "moves from alpha to beta")
	o.roles = map[string]string{"alpha": "SECOND", "beta": "ALONE"}
	o.does(api.Swap, on(""), "beta: swap", "moves from beta to alpha")
	o.does(api.Second, on(""), "alpha: second", "becomes secondary on alpha")
	o.roles = map[string]string{"alpha": "ALONE", "beta": "ALONE"} // a split brain
	o.does(api.Second, on(""), "alpha: second", "becomes secondary on alpha")
	o.does(api.Second, on("beta"), "beta: second", "becomes secondary on beta")
	o.roles = map[string]string{"alpha": "SECOND", "beta": "ALONE"}
	o.does(api.Stop, on(""), "beta: stop-all", "stops")
	o.roles = map[string]string{"alpha": "STOP"} // beta has not answered
	o.does(api.Stop, on(""), "alpha: stop-all, beta: stop-all", "stops")
	o.does(api.Restart, on(""), "alpha: restart", "restarts on alpha")
	o.does(api.Swap, on("beta"), "beta: swap", "moves from beta to alpha")
}

// TestStopWhereRemoved: on a node that was removed from the cluster a stop is of that node; the others do not listen.
func TestStopWhereRemoved(t *testing.T) {
	o := newOffice(t)
	o.away["beta"] = errors.New("beta was asked")
	o.cfg.Status = func(*registry.Entry) []api.NodeState {
		return []api.NodeState{{Node: "alpha", Role: "WAIT"}, {Node: "beta", Role: "PRIM", Stale: true, Parted: true}}
	}
	o.does(api.Stop, api.ActionRequest{}, "alpha: stop-all",
		"stops; beta does not take alpha for a member of the cluster: what runs there goes on")
}

// TestHalfDone: what one node takes is done, and what the other says is told; nobody takes it: that is an error.
func TestHalfDone(t *testing.T) {
	o := newOffice(t)
	o.roles = map[string]string{}
	o.away["beta"] = errors.New("beta does not answer")
	o.does(api.Start, api.ActionRequest{}, "alpha: start", "starts on alpha; beta does not answer")
	o.does(api.Stop, api.ActionRequest{}, "alpha: stop-all", "stops; beta does not answer")
	o.away["alpha"] = errors.New("alpha refuses")
	for _, a := range []api.Action{api.Start, api.Stop} {
		if _, err := o.Act(t.Context(), "web01", a, api.ActionRequest{}); !errors.Is(err, o.away["alpha"]) ||
			!errors.Is(err, o.away["beta"]) {
			t.Errorf("%s that nobody takes: %v", a, err)
		}
	}
}

// TestStartWhileItStops: a start that meets a stop on its way fails with the refusal, and nobody is told to start, for
// the one node that may would not have the other's data.
func TestStartWhileItStops(t *testing.T) {
	o := newOffice(t)
	o.holder = "alpha"
	o.roles = map[string]string{"alpha": "WAIT/Transient", "beta": "SECOND/Ready"}
	o.away["alpha"] = fmt.Errorf("%w: the guest shuts down", appmodules.ErrRefused)
	said, err := o.Act(t.Context(), "web01", api.Start, api.ActionRequest{})
	if !errors.Is(err, appmodules.ErrRefused) || strings.Contains(err.Error(), "beta") {
		t.Errorf("the holder stops: %q, %v", said.Said, err)
	}
	delete(o.away, "alpha")
	o.roles, o.stopped = map[string]string{"alpha": "STOP/NotReady", "beta": "WAIT/Transient"},
		map[string]bool{"alpha": true, "beta": true}
	said, err = o.Act(t.Context(), "web01", api.Start, api.ActionRequest{})
	if !errors.Is(err, api.ErrConflict) || !strings.Contains(err.Error(), "is still being stopped on beta") {
		t.Errorf("the other node stops: %q, %v", said.Said, err)
	}
	if len(o.orders) > 0 {
		t.Errorf("it ordered %q", o.orders)
	}
	o.roles["beta"] = "STOP/NotReady"
	o.does(api.Start, api.ActionRequest{}, "alpha: start, beta: start", "starts on alpha beta")
}

// TestRefused: what is not there, and what would not start, is refused before anybody is told.
func TestRefused(t *testing.T) {
	o := newOffice(t)
	o.unfit["beta"] = api.ErrConfirm
	for what, c := range map[string]struct {
		module string
		action api.Action
		r      api.ActionRequest
		want   error
	}{
		"a module":                 {"db01", api.Start, api.ActionRequest{}, api.ErrNotFound},
		"a node":                   {"web01", api.Start, api.ActionRequest{Node: "gamma"}, api.ErrInvalid},
		"an action":                {"web01", "jump", api.ActionRequest{}, api.ErrInvalid},
		"a start where it follows": {"web01", api.Start, api.ActionRequest{Node: "beta"}, api.ErrConflict},
		"a swap from elsewhere":    {"web01", api.Swap, api.ActionRequest{Node: "beta"}, api.ErrConflict},
		"a restart elsewhere":      {"web01", api.Restart, api.ActionRequest{Node: "beta"}, api.ErrConflict},
		"this primary as a second": {"web01", api.Second, api.ActionRequest{}, api.ErrConflict},
		"a swap to who is not fit": {"web01", api.Swap, api.ActionRequest{}, api.ErrConfirm},
		"the primary as a second":  {"web01", api.Second, api.ActionRequest{Node: "alpha"}, api.ErrConfirm},
	} {
		if _, err := o.Act(t.Context(), c.module, c.action, c.r); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", what, err, c.want)
		}
	}
	if len(o.orders) != 0 {
		t.Errorf("it ordered %q", o.orders)
	}
	o.does(api.Swap, api.ActionRequest{Yes: true}, "alpha: swap", "moves from alpha to beta")
}

// TestMessage: commands travel by name, and version 1 reads their numbers; nothing else is a command.
func TestMessage(t *testing.T) {
	for _, o := range orders {
		m := NewMessage(o.event, true)
		if m.Name != o.name || m.Event != o.number || m.Check() != nil || m.Order() != o.event {
			t.Errorf("%s is sent as %+v", o.name, m)
		}
		if old := (Message{Event: o.number}); old.Check() != nil || old.Order() != o.event {
			t.Errorf("%s of version 1 is %v", o.name, old.Order())
		}
	}
	for _, m := range []Message{{}, {Name: "granted"}, {Event: int(appmodules.Granted)}, {Name: "granted", Event: 1}} {
		if m.Check() == nil {
			t.Errorf("%+v is a command", m)
		}
	}
}
