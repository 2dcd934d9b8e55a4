package node

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"duet/appmodules"
	"duet/appmodules/engine"
	"duet/appmodules/registry"
	"duet/console/api"
)

// spec and document are a kind without keys of its own.
type spec struct{}
type document struct{ Name, Kind string }

func (spec) Volumes() []appmodules.Volume           { return nil }
func (spec) On([]appmodules.Volume) appmodules.Spec { return spec{} }
func (spec) Subject() string                        { return "" }
func (spec) Validate([]string) []appmodules.Fault   { return nil }
func (spec) Keeps(appmodules.Spec) error            { return nil }
func (d *document) Module() appmodules.Module {
	return appmodules.Module{Name: d.Name, Kind: appmodules.Kind(d.Kind), Nodes: []string{"alpha", "beta"},
		Policy: appmodules.DefaultPolicy(), Spec: spec{}}
}

// files is a Workload: a directory that is there where the module runs.
type files struct{ dir string }

func (f files) State(context.Context) (appmodules.Condition, error) {
	_, err := os.Stat(f.dir)
	return appmodules.Condition{Up: err == nil, Text: map[bool]string{true: "mounted"}[err == nil]}, nil
}
func (f files) Start(context.Context, bool) (appmodules.Condition, error) {
	return appmodules.Condition{Up: true, Text: "mounted"}, os.MkdirAll(f.dir, 0o755)
}
func (f files) Stop(context.Context) error                   { return os.RemoveAll(f.dir) }
func (f files) Kill(context.Context) error                   { return os.RemoveAll(f.dir) }
func (files) Watch(context.Context, func(appmodules.Report)) {}

// farm is a Runner with a table of its own: up or not, on every node.
type farm struct {
	up   atomic.Bool
	self string
}

func (f *farm) Start()                                             { f.up.Store(true) }
func (f *farm) Stop(context.Context)                               { f.up.Store(false) }
func (f *farm) Evacuate(context.Context)                           { f.up.Store(false) }
func (f *farm) Configure(context.Context, appmodules.Module) error { return nil }
func (f *farm) ViewChanged()                                       {}
func (f *farm) Alive(context.Context) error                        { return nil }
func (f *farm) Holds() bool                                        { return f.up.Load() }
func (f *farm) Command(_ context.Context, ev appmodules.Event, _ bool) error {
	f.up.Store(ev == appmodules.CmdStart)
	return nil
}
func (f *farm) Status() []api.NodeState {
	return []api.NodeState{{Node: f.self, Role: map[bool]string{true: "UP", false: "STOP"}[f.up.Load()], Status: "Ready"}}
}

type build = func(appmodules.Module, func(engine.Transition)) (registry.Runner, error)

// TestOtherKinds: other kinds of modules need a Spec, and a Workload or a Runner.
func TestOtherKinds(t *testing.T) {
	about := appmodules.About{Document: func(m appmodules.Module) appmodules.Document {
		return &document{m.Name,
			string(m.Kind)}
	}}
	p := newPair(t)
	for _, kind := range []appmodules.Kind{"files", "farm"} {
		appmodules.Register(kind, about)
		for _, n := range []*Node{p.a.node, p.b.node} {
			n.kinds[kind] = registry.Kind{Build: map[appmodules.Kind]build{
				"files": func(m appmodules.Module, log func(engine.Transition)) (registry.Runner, error) {
					return n.mirrors.Build(m, files{filepath.Join(n.cfg.Dir, "files")}, log)
				},
				"farm": func(appmodules.Module, func(engine.Transition)) (registry.Runner, error) {
					return &farm{self: string(n.self())}, nil
				}}[kind]}
		}
		m := (&document{string(kind), string(kind)}).Module()
		f := registry.Fresh{Stored: registry.Stored{Version: registry.Version{Number: 1, Changed: time.Now().UTC(),
			By: "alpha"}, Module: m}, Source: "alpha"}
		must(t, errors.Join(p.a.node.Registry.Store(t.Context(), f), p.a.node.Begin(m.Name)))
		must(t, p.a.node.rpcTo(t.Context(), "beta", "modules", f, nil))
	}
	act := func(name string, a api.Action) {
		_, err := p.b.node.Act(t.Context(), name, a, api.ActionRequest{})
		must(t, err)
	}
	act("files", api.Start)
	p.is(p.a, "files", "PRIM")
	p.is(p.b, "files", "SECOND")
	act("files", api.Swap)
	p.is(p.b, "files", "PRIM")
	p.is(p.a, "files", "SECOND")
	if exists(filepath.Join(p.a.dir, "files")) || !exists(filepath.Join(p.b.dir, "files")) {
		t.Error("the directory is not where the module runs")
	}
	must(t, p.a.node.heard(time.Minute)) // a farm has no peer that a change of voters waits for
	act("farm", api.Stop)
	p.is(p.a, "farm", "STOP")
	act("farm", api.Start)
	p.is(p.a, "farm", "UP")
}
