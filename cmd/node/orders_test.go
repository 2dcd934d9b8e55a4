package node

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"duet/console/api"
	"duet/console/outcome"
	"duet/vmmanager"
)

// hurry is how much faster the clock of whoever follows an order goes in TestOrders: an order that comes to nothing is
// given up in half a second.
const hurry = 10

// follow gives an order at a member and follows it as the command line does.
func (p *pair) follow(at *member, module string, a api.Action, node string) (string, error) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), time.Minute)
	defer cancel()
	look := func() api.ModuleStatus {
		st, err := at.node.Status(ctx)
		must(p.t, err)
		m, err := st.Module(module)
		must(p.t, err)
		return m
	}
	o := outcome.New(look(), a, node)
	if _, err := at.node.Act(ctx, module, a, api.ActionRequest{Node: node, Yes: true}); err != nil {
		return "", fmt.Errorf("refused: %w", err)
	}
	began := time.Now()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		if l := o.At(look(), began.Add(hurry*time.Since(began))); l.Done {
			return l.Said, l.Err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return "", errors.New("it is still followed after a minute")
		}
	}
}

// obey gives an order until it is followed: a busy disk may not answer in time.
func (p *pair) obey(module string, a api.Action, node string) {
	p.t.Helper()
	until(p.t, fmt.Sprintf("%s %s %s", a, module, node), func() error {
		_, err := p.follow(p.a, module, a, node)
		return err
	})
}

// runsAt is where the hypervisors run a VM: "alpha", "beta", both or "".
func (p *pair) runsAt(vm string) (at string) {
	p.t.Helper()
	for _, m := range []*member{p.a, p.b} {
		now, err := m.hv.State(p.t.Context(), vm)
		must(p.t, err)
		if now == vmmanager.Running {
			at += m.name
		}
	}
	return at
}

// TestOrders gives every order in every state, for all nodes and for one, and asks the hypervisors what came of it:
// what is said, and whether it is called a success, is what happened.
func TestOrders(t *testing.T) {
	for _, state := range []struct {
		name   string
		policy string
		make   func(p *pair, module string)
	}{
		{"in step", available, func(*pair, string) {}},
		{"swapped", available, func(p *pair, m string) {
			p.obey(m, api.Swap, "")
			p.is(p.a, m, "SECOND")
			p.is(p.b, m, "PRIM")
		}},
		{"stopped", available, func(p *pair, m string) {
			p.obey(m, api.Stop, "")
		}},
		{"stopped on beta", available, func(p *pair, m string) {
			p.obey(m, api.Stop, "beta")
			p.is(p.a, m, "ALONE")
		}},
		{"starts nowhere", "policy: {arbitration: available, restart: {max: 1, pause: 1s}}", func(p *pair, m string) {
			p.obey(m, api.Stop, "")
			for _, at := range []*member{p.a, p.b} {
				at.hv.(unwilling).start.Store(false)
			}
		}},
	} {
		t.Run(state.name, func(t *testing.T) {
			p := newPair(t)
			p.unwilling()
			for i, o := range allOrders() {
				module := fmt.Sprintf("vm%02d", i)
				p.protectedBy(module, state.policy)
				state.make(p, module)
				p.judge(module, o, true)
				for _, at := range []*member{p.a, p.b} {
					at.hv.(unwilling).start.Store(true)
				}
				p.obey(module, api.Stop, "") // what runs costs time
			}
		})
	}
}

// TestOrdersAlone is TestOrders on a node whose peer has died: one that went on alone, and one that stands still.
func TestOrdersAlone(t *testing.T) {
	for _, state := range []struct {
		name, policy, role string
		can                func(order) bool // it can be reached without the peer, and be known
	}{
		{"the peer is dead", available, "ALONE (Ready)",
			func(o order) bool { return o != order{api.Stop, ""} }},
		{"it stands still", "policy: {arbitration: safe}", "PRIM (Transient)",
			func(o order) bool { return o.action == api.Prim }},
	} {
		t.Run(state.name, func(t *testing.T) {
			p := newPair(t)
			for i := range allOrders() {
				p.protectedBy(fmt.Sprintf("vm%02d", i), state.policy)
			}
			p.die(p.b)
			for i, o := range allOrders() {
				module := fmt.Sprintf("vm%02d", i)
				until(t, module+" is "+state.role, func() error {
					if n := p.on(p.a, module); fmt.Sprintf("%s (%s)", n.Role, n.Status) != state.role {
						return fmt.Errorf("%s (%s): %s", n.Role, n.Status, n.Why)
					}
					return nil
				})
				p.judge(module, o, state.can(o))
			}
		})
	}
}

const available = "policy: {arbitration: available}"

// order is one of all that are tried.
type order struct {
	action api.Action
	node   string
}

func allOrders() (all []order) {
	for _, a := range []api.Action{api.Start, api.Stop, api.Restart, api.Swap, api.Prim, api.Second} {
		all = append(all, order{a, ""}, order{a, "beta"})
	}
	return all
}

// unwilling is a hypervisor that may start nothing.
type unwilling struct {
	hypervisor
	start *atomic.Bool
}

func (u unwilling) Start(ctx context.Context, name string) error {
	if !u.start.Load() {
		return errors.New("it has no CPU of this model")
	}
	return u.hypervisor.Start(ctx, name)
}

// unwilling gives both members a hypervisor that can be told to start nothing.
func (p *pair) unwilling() {
	p.t.Helper()
	for _, m := range []*member{p.a, p.b} {
		p.stop(m)
		u := unwilling{m.hv.(hypervisor), new(atomic.Bool)}
		u.start.Store(true)
		m.hv = u
		p.start(m)
	}
}

// die ends a member without a word to anybody.
func (p *pair) die(m *member) {
	p.t.Helper()
	ctx, cancel := context.WithCancel(p.t.Context())
	cancel()
	_ = m.node.Stop(ctx) // it has no time for anything
	m.node = nil
}

// on is what a member says of itself.
func (p *pair) on(m *member, module string) api.NodeState {
	p.t.Helper()
	s, err := m.node.Status(p.t.Context())
	must(p.t, err)
	mod, err := s.Module(module)
	must(p.t, err)
	st, err := mod.On(m.name)
	must(p.t, err)
	return st
}

// judge gives one order, and compares what is said of it with what the hypervisors do; can: it can be reached at all.
func (p *pair) judge(module string, o order, can bool) {
	p.t.Helper()
	a, node := o.action, o.node
	before := p.runsAt(module)
	said, err := p.follow(p.a, module, a, node)
	now := p.runsAt(module)
	what := fmt.Sprintf("%s %s %s, which ran on %q and runs on %q: %q, %v", a, module, node, before, now, said, err)
	if len(now) > len("alpha") {
		p.t.Fatalf("%s: it runs twice", what)
	}
	reached := map[api.Action]bool{
		api.Start: now != "", api.Stop: now == "" || node != "" && now != node, api.Restart: now != "" && now == before,
		api.Swap:   now != "" && now != before && before != "",
		api.Prim:   now != "" && (now == node || node == "" && now == "alpha"),
		api.Second: now != "" && (node == "" || now != node),
	}[a]
	reached = reached && can
	refused := err != nil && strings.HasPrefix(err.Error(), "refused")
	switch {
	case err == nil && !reached:
		p.t.Errorf("%s: called a success", what)
	case refused && now != before:
		p.t.Errorf("%s: refused, and it moved", what)
	case err != nil && !refused && reached:
		p.t.Errorf("%s: called a failure", what)
	}
	if _, at, ok := strings.Cut(said, "runs on "); ok {
		if at, _, _ = strings.Cut(at, ";"); strings.TrimSuffix(at, " again") != now {
			p.t.Errorf("%s: it does not run there", what)
		}
	}
	if said == "is stopped" && now != "" {
		p.t.Errorf("%s: it runs", what)
	}
}
