package node

import (
	"context"
	"errors"
	"fmt"
	"strings"
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

// TestOrders gives every order in every state, for all nodes and for each, and asks the hypervisors what came of it:
// what is said, and whether it is called a success, is what happened.
func TestOrders(t *testing.T) {
	for _, state := range []struct {
		name string
		make func(p *pair, module string)
	}{
		{"in step", func(*pair, string) {}},
		{"swapped", func(p *pair, m string) {
			_, err := p.follow(p.a, m, api.Swap, "")
			must(p.t, err)
			p.is(p.a, m, "SECOND")
			p.is(p.b, m, "PRIM")
		}},
		{"stopped", func(p *pair, m string) {
			_, err := p.follow(p.a, m, api.Stop, "")
			must(p.t, err)
		}},
		{"stopped on beta", func(p *pair, m string) {
			_, err := p.follow(p.a, m, api.Stop, "beta")
			must(p.t, err)
			p.is(p.a, m, "ALONE")
		}},
	} {
		t.Run(state.name, func(t *testing.T) {
			p := newPair(t)
			n := 0
			for _, a := range []api.Action{api.Start, api.Stop, api.Restart, api.Swap, api.Prim, api.Second} {
				for _, node := range []string{"", "beta"} {
					n++
					module := fmt.Sprintf("vm%02d", n)
					p.protected(module)
					state.make(p, module)
					p.judge(module, a, node)
					_, err := p.follow(p.a, module, api.Stop, "") // what runs costs time
					must(t, err)
				}
			}
		})
	}
}

// judge gives one order, and compares what is said of it with what the hypervisors do.
func (p *pair) judge(module string, a api.Action, node string) {
	p.t.Helper()
	before := p.runsAt(module)
	said, err := p.follow(p.a, module, a, node)
	now := p.runsAt(module)
	what := fmt.Sprintf("%s %s %s, which ran on %q and runs on %q: %q, %v", a, module, node, before, now, said, err)
	if len(now) > len("alpha") {
		p.t.Fatalf("%s: it runs twice", what)
	}
	reached := map[api.Action]bool{
		api.Start: now != "", api.Stop: now == "" || node != "" && now != node, api.Restart: now != "" && now == before,
		api.Swap: now != "" && now != before && before != "", api.Prim: now == node || node == "" && now == "alpha",
		api.Second: now != "" && (node == "" || now != node),
	}[a]
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
