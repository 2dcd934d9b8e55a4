package registry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"duet/appmodules"
	"duet/appmodules/engine"
	"duet/blockrepl/badgerlog"
	"duet/cluster"
	"duet/console/api"
)

// runner is a Runner that writes down what is done with it.
type runner struct {
	said func(string)
	log  func(engine.Transition)
}

func (r *runner) Start()                   { r.said("start") }
func (r *runner) Stop(context.Context)     { r.said("stop") }
func (r *runner) Evacuate(context.Context) { r.said("evacuate") }
func (r *runner) Command(_ context.Context, ev appmodules.Event, yes bool) error {
	r.said(fmt.Sprint(ev, yes))
	return nil
}
func (r *runner) Configure(_ context.Context, m appmodules.Module) error {
	r.said("configure " + time.Duration(m.Policy.StallBudget).String())
	return nil
}
func (r *runner) Status() []api.NodeState     { return nil }
func (r *runner) ViewChanged()                {}
func (r *runner) Alive(context.Context) error { return nil }
func (r *runner) Holds() bool                 { return false }

// mirrored is a runner of a mirror, whose engine nobody asks.
type mirrored struct {
	*runner
	core engine.Engine
}

func (m *mirrored) Core() *engine.Engine { return &m.core }

// node is a registry of alpha on a real store.
type node struct {
	*Registry
	t      *testing.T
	broken error // why nothing can be built
	away   error // why the peer takes no configuration
	ctx    context.Context
	wg     sync.WaitGroup

	mu   sync.Mutex
	done []string // with Runners, definitions, the peer
	last *runner
}

func (n *node) say(what string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.done = append(n.done, what)
}

// said is what was done since it was asked last.
func (n *node) said() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	out := strings.Join(n.done, ", ")
	n.done = nil
	return out
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func newNode(t *testing.T) *node {
	t.Helper()
	store, err := badgerlog.Open(badgerlog.Config{Dir: t.TempDir(), MinFree: 1 << 20})
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	n := &node{t: t, ctx: ctx}
	t.Cleanup(func() {
		cancel()
		n.wg.Wait()
		n.Registry.Stop(context.Background())
		must(t, store.Close())
	})
	n.Registry = n.on(store, t.TempDir())
	return n
}

// on is a run of the daemon on what an earlier one left.
func (n *node) on(store *badgerlog.Store, journals string) *Registry {
	return New(Config{Journals: journals, Store: store, Logger: slog.New(slog.DiscardHandler),
		Cluster: func() cluster.Config {
			return cluster.Config{Name: "office", Self: "alpha", Members: []cluster.Member{{Node: "alpha"}, {Node: "beta"}}}
		},
		Kinds: map[appmodules.Kind]Kind{appmodules.KindVM: {
			Build: func(m appmodules.Module, log func(engine.Transition)) (Runner, error) {
				n.last = &runner{n.say, log}
				return &mirrored{runner: n.last}, n.broken
			},
			Define: func(_ context.Context, m appmodules.Module, text []byte) (string, error) {
				n.say("define " + string(text))
				return "digest", nil
			},
			Undefine: func(_ context.Context, m appmodules.Module) error {
				n.say("undefine " + m.Subject())
				return nil
			}}},
		Send: func(_ context.Context, node cluster.NodeID, s Stored) error {
			n.say(fmt.Sprintf("%s gets %s %d", node, s.Module.Name, s.Version.Number))
			return n.away
		},
		Transition: func(t engine.Transition) { n.say("transition " + t.To) },
		Closed:     func(m appmodules.Module) error { n.say("closed " + m.Name); return nil },
		Gone:       func(name string) { n.say("gone " + name) },
		Life:       n.ctx, Spawn: func(fn func(context.Context)) { n.wg.Go(func() { fn(n.ctx) }) }})
}

// web is a module of alpha and beta that begins on alpha.
func web(name string) Fresh {
	m := appmodules.Default()
	m.Name, m.ID, m.Nodes = name, "abcdefghijklmnopqrst"+name, []string{"alpha", "beta"}
	m.Spec = appmodules.VM{Domain: name, Disks: []appmodules.Volume{{Target: "vda", ID: "0123" + name, Size: 1 << 20,
		Paths: map[string]string{"alpha": "/a/vda.raw", "beta": "/b/vda.raw"}}}}
	return Fresh{Stored: Stored{Version{1, time.Unix(1000, 0).UTC(), "alpha"}, m}, Source: "alpha",
		Definition: engine.Definition{Module: name, Version: 1, Text: []byte("vm " + name)}}
}

// begun stores and begins modules and forgets what that took.
func (n *node) begun(names ...string) {
	n.t.Helper()
	for _, name := range names {
		must(n.t, errors.Join(n.Store(n.t.Context(), web(name)), n.Begin(name)))
	}
	n.said()
}

// TestBegin: a module is durable before it runs, runs once, and is there again in the next run of the daemon, unless
// some work holds it.
func TestBegin(t *testing.T) {
	n := newNode(t)
	if is, err := n.IsStored("web01"); is || err != nil {
		t.Errorf("nothing is stored: %v, %v", is, err)
	}
	must(t, n.Store(t.Context(), web("web01")))
	if is, err := n.IsStored("web01"); !is || err != nil || len(n.All()) != 0 {
		t.Errorf("stored: %v, %v, and %d run", is, err, len(n.All()))
	}
	must(t, errors.Join(n.Begin("web01"), n.Begin("web01")))
	if got := n.said(); got != "define vm web01, start" {
		t.Errorf("beginning did %q", got)
	}
	n.last.log(engine.Transition{Module: "web01", To: "PRIM/Ready"})
	n.last.log(engine.Transition{Module: "web01", To: "ALONE/Ready", Again: true})
	e, err := n.Find("web01")
	must(t, err)
	if all, err := e.Journal.Last(9); err != nil || len(all) != 1 || all[0].To != "PRIM/Ready" || all[0].Node != "alpha" {
		t.Errorf("the journal has %+v, %v", all, err)
	}
	if got := n.said(); got != "transition PRIM/Ready, transition ALONE/Ready" {
		t.Errorf("transitions did %q", got)
	}
	n.begun("held")
	next := n.on(n.cfg.Store, t.TempDir())
	must(t, next.Load(func(name string) bool { return name == "held" }))
	if all := next.Modules(); len(all) != 1 || all[0].Identity() != "abcdefghijklmnopqrstweb01" ||
		next.All()[0].Version != e.Version {
		t.Errorf("the next run has %+v", all)
	}
	if got := n.said(); got != "" {
		t.Errorf("loading did %q", got)
	}
	n.away = errors.New("it is sick") // else it is tried again
	next.Start()
	n.wg.Wait()
	if got := n.said(); got != "start, beta gets web01 1" {
		t.Errorf("the start did %q", got)
	}
	next.Evacuate(t.Context())
	next.Stop(t.Context())
	if got := n.said(); got != "evacuate, stop" {
		t.Errorf("the end did %q", got)
	}
}

// TestFind: what is not there is said with what is.
func TestFind(t *testing.T) {
	n := newNode(t)
	if _, err := n.Find("web01"); !errors.Is(err, api.ErrNotFound) || !strings.Contains(err.Error(), "duet vm protect") {
		t.Errorf("of none: %v", err)
	}
	n.begun("web01", "db01")
	if _, err := n.Mirror("web02"); !errors.Is(err, api.ErrNotFound) || !strings.Contains(err.Error(), "db01, web01") {
		t.Errorf("of others: %v", err)
	}
	if len(n.Mirrors()) != 2 || n.OfVolume("0123db01").Module.Name != "db01" || n.OfVolume("nobody") != nil {
		t.Error("mirrors are not found by their volumes")
	}
	e, err := n.Find("web01")
	must(t, err)
	farm := *e
	farm.Engine = nil
	n.list(&farm)
	if _, err := n.Mirror("web01"); !errors.Is(err, api.ErrInvalid) || len(n.Mirrors()) != 1 {
		t.Errorf("what is no mirror: %v", err)
	}
	must(t, n.Order(t.Context(), "db01", appmodules.CmdSwap, true))
	if got := n.said(); got != fmt.Sprint(appmodules.CmdSwap, true) {
		t.Errorf("the command was %q", got)
	}
	if err := n.Order(t.Context(), "nobody", appmodules.CmdSwap, true); !errors.Is(err, api.ErrNotFound) {
		t.Errorf("a command for nobody: %v", err)
	}
}

// TestCreate: another node's module is taken if it is between both, on images made for it, and once.
func TestCreate(t *testing.T) {
	n := newNode(t)
	ours := true
	create := func(from cluster.NodeID, f Fresh) error {
		return n.Create(t.Context(), from, f, func(m appmodules.Module, v appmodules.Volume) (bool, error) {
			return ours && v.Paths["alpha"] == "/a/vda.raw", nil
		})
	}
	theirs := func() Fresh {
		f := web("web01")
		f.Source, f.Stored.Version.By = "beta", "beta"
		return f
	}
	for what, spoil := range map[string]func(*Fresh){
		"of others":         func(f *Fresh) { f.Stored.Module.Nodes = []string{"beta", "gamma"} },
		"another's data":    func(f *Fresh) { f.Source = "alpha" },
		"a file of alpha's": func(f *Fresh) { f.Stored.Module.Volumes()[0].Paths["alpha"] = "/etc/passwd" },
	} {
		f := theirs()
		spoil(&f)
		if err := create("beta", f); !errors.Is(err, api.ErrInvalid) {
			t.Errorf("%s: %v", what, err)
		}
	}
	must(t, create("beta", theirs()))
	if got := n.said(); got != "define vm web01, start" {
		t.Errorf("it did %q", got)
	}
	ours = false // the note is gone by now
	must(t, create("beta", theirs()))
	if got := n.said(); got != "" {
		t.Errorf("repeated, it did %q", got)
	}
	other := theirs()
	ours, other.Stored.Module.ID = true, "another"
	if err := create("beta", other); !errors.Is(err, api.ErrConflict) {
		t.Errorf("another one of that name: %v", err)
	}
}

// TestForget: nothing is left of a module that is removed, or that could not be stored.
func TestForget(t *testing.T) {
	n := newNode(t)
	n.begun("web01", "db01")
	must(t, n.Remove(t.Context(), "web01"))
	must(t, n.Remove(t.Context(), "web01"))
	if got := n.said(); got != "stop, gone web01, closed web01" {
		t.Errorf("removing did %q", got)
	}
	if kept, err := n.cfg.Store.List(prefix + "web01"); err != nil || len(kept) != 0 {
		t.Errorf("the store has %v, %v", kept, err)
	}
	if _, have, err := n.cfg.Store.Log("0123web01").Load(); have != nil || err != nil {
		t.Errorf("its log is there: %v, %v", have, err)
	}
	if is, err := n.IsStored("db01"); !is || err != nil {
		t.Errorf("another module was forgotten: %v", err)
	}
	must(t, n.Undefine(t.Context(), web("web01").Stored.Module))
	n.cfg.Kinds[appmodules.KindVM] = Kind{Define: func(context.Context, appmodules.Module, []byte) (string, error) {
		return "", errors.New("libvirt is away")
	}}
	must(t, n.Undefine(t.Context(), web("web01").Stored.Module)) // of a kind without
	n.said()
	if err := n.Store(t.Context(), web("web02")); err == nil || !strings.Contains(err.Error(), "libvirt is away") {
		t.Errorf("a definition that cannot be stored: %v", err)
	}
	if kept, err := n.cfg.Store.List(prefix + "web02"); err != nil || len(kept) != 0 {
		t.Errorf("the store has %v, %v", kept, err)
	}
}

// TestSeedLog: the first lineage says who has the data, and a log that has begun is left alone.
func TestSeedLog(t *testing.T) {
	n := newNode(t)
	v := appmodules.Volume{Target: "vda", ID: "0123"}
	must(t, errors.Join(n.SeedLog(t.Context(), v, "alpha"), n.SeedLog(t.Context(), v, "beta")))
	_, l, err := n.cfg.Store.Log("0123").Load()
	must(t, err)
	if g, ok := l.Newest(); !ok || g.Holder != "alpha" || g.Epoch != 1 {
		t.Errorf("the source's lineage is %+v", l)
	}
	v.ID = "4567"
	must(t, n.SeedLog(t.Context(), v, "beta"))
	if _, l, err = n.cfg.Store.Log("4567").Load(); err != nil || l == nil {
		t.Fatal(l, err)
	}
	if _, ok := l.Newest(); ok {
		t.Errorf("the other's lineage is %+v", l)
	}
}
