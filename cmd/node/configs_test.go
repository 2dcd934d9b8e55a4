package node

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"duet/appmodules"
	"duet/appmodules/engine"
	"duet/appmodules/registry"
	"duet/blockrepl/badgerlog"
	"duet/console/api"
)

// edited is the YAML of a module with one part of it exchanged.
func (p *pair) edited(name, from, to string) string {
	p.t.Helper()
	c, err := p.a.node.Config(p.t.Context(), name)
	must(p.t, err)
	if !strings.Contains(c.YAML, from) {
		p.t.Fatalf("no %q in\n%s", from, c.YAML)
	}
	return strings.Replace(c.YAML, from, to, 1)
}

// says are the last things that a member tells of a pair that forms.
func (m *member) says() []appmodules.Event {
	if m.name == "alpha" {
		return []appmodules.Event{appmodules.Up, appmodules.PeerCompleted}
	}
	return []appmodules.Event{appmodules.Completed}
}

// TestApplyLetsAllGoOn: an edit of the policy exchanges neither engine nor link, on neither node.
func TestApplyLetsAllGoOn(t *testing.T) {
	p := newPair(t)
	p.protected("web01")
	ctx := t.Context()
	was := map[*member]*registry.Entry{}
	log := map[*member]int{}
	for _, m := range []*member{p.a, p.b} {
		var err error
		was[m], err = m.node.Find("web01")
		must(t, err)
		until(t, m.name+" has said all", func() error {
			said, err := was[m].Journal.Last(1000)
			log[m] = len(said)
			for _, what := range m.says() {
				if err == nil && !slices.ContainsFunc(said, func(e api.LogEntry) bool { return e.On == what.String() }) {
					err = fmt.Errorf("no %s yet", what)
				}
			}
			return err
		})
	}
	_, err := p.a.node.Apply(ctx, p.edited("web01", "stall_budget: 2s", "stall_budget: 7s"), 0)
	must(t, err)
	for _, m := range []*member{p.a, p.b} {
		until(t, m.name+" has the edit", func() error {
			now, err := m.node.Find("web01")
			if err == nil && now.Version.Number != 2 {
				err = errors.New("it has not")
			}
			if err == nil && now.Engine != was[m].Engine {
				t.Fatalf("%s has another engine", m.name)
			}
			return err
		})
		must(t, was[m].Engine.Alive(ctx))
		if said, err := was[m].Journal.Last(1000); err != nil || len(said) != log[m] {
			t.Errorf("%s went through %d transitions: %v, %v", m.name, len(said)-log[m], said[min(log[m], len(said)):], err)
		}
	}
	// Where the Runner has to be exchanged and cannot be, the one that runs stays.
	now, err := p.a.node.Find("web01")
	must(t, err)
	moved := registry.Stored{Version: registry.Version{Number: 3, Changed: now.Version.Changed, By: "alpha"},
		Module: now.Module}
	v := now.Module.Volumes()[0]
	link := filepath.Join(p.a.dir, "elsewhere.img")
	must(t, os.Symlink(v.Paths["alpha"], link))
	v.Paths = map[string]string{"alpha": link, "beta": v.Paths["beta"]}
	moved.Module.Spec = now.Module.Spec.On([]appmodules.Volume{v})
	kinds := p.a.node.kinds
	good := kinds[appmodules.KindVM]
	kinds[appmodules.KindVM] = registry.Kind{
		Build: func(appmodules.Module, func(engine.Transition)) (registry.Runner, error) {
			return nil, errors.New("it cannot be built")
		}}
	err = p.a.node.Registry.Take(ctx, moved)
	kinds[appmodules.KindVM] = good
	if err == nil || !strings.Contains(err.Error(), "cannot be built") {
		t.Fatalf("a Runner that cannot be built: %v", err)
	}
	p.is(p.a, "web01", "PRIM")
	must(t, now.Engine.Alive(ctx))
	must(t, p.a.node.Registry.Take(ctx, moved))
	p.is(p.a, "web01", "PRIM")
	p.is(p.b, "web01", "SECOND")
	if again, err := p.a.node.Find("web01"); err != nil || again.Engine == now.Engine {
		t.Errorf("the image has another place and the engine is the old one, %v", err)
	}
}

// TestApplyRefusesVolumes: what the VM's disks are is not edited, and no name leaves its directory.
func TestApplyRefusesVolumes(t *testing.T) {
	p := newPair(t)
	p.protected("web01")
	m, err := p.a.node.Find("web01")
	must(t, err)
	v := m.Module.Volumes()[0]
	for what, edit := range map[string]struct{ from, to, want string }{
		"target":        {"target: vda", "target: vdb", "release the VM and protect it anew"},
		"target's path": {"target: vda", "target: ../../vda", "no plain name"},
		"identity":      {v.ID, "other", "release the VM and protect it anew"},
		"size":          {"size: 8388608", "size: 4194304", "release the VM and protect it anew"},
		"path":          {v.Paths["beta"], "/elsewhere", "release the VM and protect it anew"},
	} {
		if _, err := p.a.node.Apply(t.Context(), p.edited("web01", edit.from, edit.to), 0); !errors.Is(err, api.ErrInvalid) ||
			!strings.Contains(err.Error(), edit.want) {
			t.Errorf("%s: %v", what, err)
		}
	}
	// Nor is what comes from the peer taken as it is.
	bad := registry.Stored{Version: registry.Version{Number: 9, Changed: m.Version.Changed, By: "beta"}, Module: m.Module}
	v.Target = "../../vda"
	bad.Module.Spec = m.Module.Spec.On([]appmodules.Volume{v})
	if err := p.a.node.Registry.Take(t.Context(), bad); !errors.Is(err, api.ErrInvalid) {
		t.Errorf("from the peer: %v", err)
	}
}

// TestReleaseAfterPowerLoss: a stopped module whose last primary lost power says on both nodes how it can be
// released, and that works.
func TestReleaseAfterPowerLoss(t *testing.T) {
	p := newPair(t)
	p.protected("web01")
	ctx := t.Context()
	_, err := p.a.node.Act(ctx, "web01", api.Stop, api.ActionRequest{})
	must(t, err)
	p.is(p.a, "web01", "STOP")
	p.is(p.b, "web01", "STOP")
	p.stop(p.a)
	p.powerLoss(p.a, "web01")
	p.start(p.a)
	way := "`duet start web01` finds out"
	for _, m := range []*member{p.a, p.b} {
		until(t, m.name+" says the way out", func() error {
			if _, err := m.node.Release(ctx, "web01", api.ReleaseRequest{}); err == nil {
				t.Fatalf("%s releases what it cannot know", m.name)
			} else if !strings.Contains(err.Error(), way) {
				return err
			}
			return nil
		})
	}
	_, err = p.b.node.Act(ctx, "web01", api.Start, api.ActionRequest{})
	must(t, err)
	p.is(p.b, "web01", "PRIM") // its copy was flushed
	task, err := p.b.node.Release(ctx, "web01", api.ReleaseRequest{})
	p.finish(p.b, task, err)
}

// powerLoss has the next daemon of a member find that its computer lost power while it had written.
func (p *pair) powerLoss(m *member, name string) {
	p.t.Helper()
	s, err := badgerlog.Open(badgerlog.Config{Dir: filepath.Join(m.dir, "db"), MinFree: 1 << 20})
	must(p.t, err)
	kept := map[string]any{}
	values := registry.EngineStore(s, name)
	_, err = values.Load("kept", &kept)
	must(p.t, err)
	kept["boot"] = "the one before"
	must(p.t, values.Save("kept", kept))
	must(p.t, s.Close())
}
