package node

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"duet/cluster/doctor"
	"duet/console/api"
	"duet/vmmanager"
)

// asleep is a hypervisor whose VM does not go on from its saved memory while it lacks something.
type asleep struct {
	hypervisor
	lacks *atomic.Bool
}

var errLacks = errors.New("go on from saved memory: Network not found")

func (h asleep) Refit(_ context.Context, name string, _ vmmanager.Edit, between func() error) error {
	return errors.Join(h.CutRefit(name), between(), errLacks)
}

func (h asleep) Reload(ctx context.Context, name string, edit vmmanager.Edit, between func() error) error {
	if h.lacks.Load() {
		return errLacks
	}
	return h.hypervisor.Reload(ctx, name, edit, between)
}

// TestUnfinishedReleaseShows: a release whose VM does not go on has taken the module off the node, which looked well
// then. Status, the doctor and a release again say how the VM is, until it goes on by itself.
func TestUnfinishedReleaseShows(t *testing.T) {
	p := newPair(t)
	ctx := t.Context()
	p.protected("web01")
	var lacks atomic.Bool
	lacks.Store(true)
	sound := p.a.hv.(hypervisor)
	p.stop(p.a)
	p.a.hv = asleep{sound, &lacks}
	p.start(p.a)
	p.is(p.a, "web01", "PRIM")
	p.is(p.b, "web01", "SECOND")
	task, err := p.a.node.Release(ctx, "web01", api.ReleaseRequest{})
	const asIs = "VM web01 is off and its memory is saved"
	if end := p.ended(p.a, task, err); !strings.HasPrefix(end.Error, asIs) {
		t.Errorf("its task says %q", end.Error)
	}
	st, err := p.a.node.Status(ctx)
	must(t, err)
	if len(st.Modules) != 1 || st.Verdict.Level != api.Down || !strings.HasPrefix(st.Modules[0].Nodes[0].Why, asIs) {
		t.Errorf("its status is %+v: %+v", st.Verdict, st.Modules)
	}
	if _, err := p.a.node.Release(ctx, "web01", api.ReleaseRequest{}); !errors.Is(err, api.ErrConflict) ||
		!strings.Contains(err.Error(), asIs) {
		t.Errorf("a release again: %v", err)
	}
	d, err := p.a.node.Doctor(ctx)
	must(t, err)
	if !slices.ContainsFunc(d.Findings, func(f api.Finding) bool {
		return f.About == "modules" && f.Level == doctor.Problem && strings.Contains(f.Fact, asIs)
	}) {
		t.Errorf("the doctor does not say it: %+v", d.Findings)
	}
	lacks.Store(false)
	p.settled()
	if st, err = p.a.node.Status(ctx); err != nil || len(st.Modules) != 0 {
		t.Errorf("after it went on: %+v, %v", st.Modules, err)
	}
	if state, err := sound.State(ctx, "web01"); err != nil || state != vmmanager.Running {
		t.Errorf("the VM is %s, %v", state, err)
	}
}
