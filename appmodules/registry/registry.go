// Package registry has the modules of a node: what is stored of them, the Runner of each, and the way an edit reaches
// both nodes. What a kind of module runs is told to it in a table; it knows no kind by name.
//
// It promises that a module counts on this node exactly if its configuration is stored, which is written last and
// deleted together with what its engine has kept; that one call at a time makes, changes or removes the module of a
// name; and that an edit of the policy ends nothing that runs. It does not decide which node acts (package orders),
// nor what becomes of images.
//
// It has goroutines of Spawn only: one for each configuration that a peer has still to get. What makes or forgets a
// module is in store.go, what an edit may change in config.go.
//
//	registry.go  the list: load, start, stop, find
//	store.go     a module begins on a node, and is forgotten
//	message.go   what nodes tell each other of modules
//	config.go    configurations: shown, edited, sent to the peer
//	turns.go     one call at a time makes, changes or removes a module
package registry

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"

	"duet/appmodules"
	"duet/appmodules/engine"
	"duet/blockrepl/badgerlog"
	"duet/cluster"
	"duet/console/api"
	"duet/console/journal"
)

// Runner is one module on this node, whatever its kind. Any goroutine may call its methods.
type Runner interface {
	// Start runs it until Stop; it is called once.
	Start()
	// Stop ends it and leaves what it protects as it is; bounded by ctx plus local I/O. It is called once, after Start.
	Stop(ctx context.Context)
	// Evacuate gives away what runs here, because this computer goes down. It returns when
	// nothing is left to do or ctx ends.
	Evacuate(ctx context.Context)
	// Command gives it an operator's command; what follows shows in its status. yes confirms
	// what may give up data. An error wraps appmodules.ErrRefused or ErrConfirm where the state does not allow it.
	Command(ctx context.Context, ev appmodules.Event, yes bool) error
	// Configure gives it the configuration of an edit, which changes nothing of what it is
	// made of on this node.
	Configure(ctx context.Context, m appmodules.Module) error
	// Status is how it stands on the nodes, as far as this one knows; it asks nobody.
	Status() []api.NodeState
	// ViewChanged tells it to look at the cluster again.
	ViewChanged()
	// Alive returns nil when it has answered; Holds: something of it runs here, or may. The watchdog resets this computer
	// where the first fails while the second is so for any module.
	Alive(ctx context.Context) error
	Holds() bool
}

// Mirror is a Runner of a module that has volumes, epochs and a peer.
type Mirror interface {
	Runner
	// Core is the engine that the Runner has as long as it lives.
	Core() *engine.Engine
}

// Kind is what a node does for a kind of module.
type Kind struct {
	// Build makes the Runner of a module, while the one that it replaces still runs: it changes
	// nothing before its Start. log gets each of its transitions.
	Build func(m appmodules.Module, log func(engine.Transition)) (Runner, error)
	// Define stores the definition that a new module has on this node, and tells the Digest of what is there then.
	// Undefine forgets it when the module leaves to the other one. Nil: the kind has none.
	Define   func(ctx context.Context, m appmodules.Module, text []byte) (has string, err error)
	Undefine func(ctx context.Context, m appmodules.Module) error
}

// Entry is one module on this node: a value that does not change. An edit puts another one in its place.
type Entry struct {
	Module  appmodules.Module
	Version Version
	Run     Runner
	Engine  *engine.Engine // of Run, where the module is a mirror; nil: it is of another kind
	Journal *journal.Journal
}

// isMirror refuses a module that has no volumes, epochs and peer.
func (e *Entry) isMirror() error {
	if e.Engine == nil {
		return fmt.Errorf("%w: module %s is a %s, not a mirror", api.ErrInvalid, e.Module.Name, e.Module.Kind)
	}
	return nil
}

// Stored is what the store has of the entry.
func (e *Entry) Stored() Stored { return Stored{e.Version, e.Module} }

// Config says what a Registry works with; all fields are needed.
type Config struct {
	Cluster  func() cluster.Config
	Journals string // directory
	Store    *badgerlog.Store
	Kinds    map[appmodules.Kind]Kind // of appmodules.Kinds
	// Send has another node Take a configuration.
	Send func(ctx context.Context, node cluster.NodeID, s Stored) error
	// Transition gets each transition of each module, after it is in the journal. It never waits.
	Transition func(t engine.Transition)
	// Closed removes what is left of the volumes of a module that is forgotten: nobody serves them any more.
	Closed func(m appmodules.Module) error
	// Gone is told the name of a module that was removed.
	Gone   func(name string)
	Life   context.Context                 // ends with the node
	Spawn  func(func(ctx context.Context)) // a goroutine that ends with Life
	Logger *slog.Logger
}

// Registry has the modules. Any number of goroutines may use it.
//
// The locks are taken in this order: a turn, one of exchange, mu. Under mu nothing waits; the others are held while a
// Runner stops, takes an edit or a command, so a call that has one must not call another node.
type Registry struct {
	cfg Config

	turns turns // of whoever makes, changes or removes a module

	exchange turns // of whoever exchanges a module's Runner for one with a new configuration, or gives it an order

	mu  sync.Mutex
	all map[string]*Entry // by name
}

// New returns an empty one; Load fills it.
func New(cfg Config) *Registry { return &Registry{cfg: cfg, all: make(map[string]*Entry)} }

// self may not be kept: the configuration of the cluster is exchanged as a whole.
func (r *Registry) self() cluster.NodeID { return r.cfg.Cluster().Self }

// Load builds the Runners of all modules in the store but of those that are held: some work has them half way. Nothing
// runs yet. An error of any of them is one of all, and the node does not start. What has no configuration stays in
// the store until a module of that name is forgotten.
func (r *Registry) Load(held func(name string) bool) error {
	found, err := r.cfg.Store.List(prefix)
	if err != nil {
		return fmt.Errorf("list modules: %w", err)
	}
	for key := range found {
		name, isConfig := strings.CutSuffix(strings.TrimPrefix(key, prefix), "/config")
		// What has no configuration was cut short while it was stored or forgotten: it does not count.
		if !isConfig || held(name) {
			continue
		}
		var s Stored
		if _, err := r.values().Load(key, &s); err != nil {
			return err
		}
		if _, err := r.add(s); err != nil {
			return fmt.Errorf("load module %s: %w", name, err)
		}
	}
	return nil
}

// add builds the Runner of s and lists it; it does not start.
func (r *Registry) add(s Stored) (*Entry, error) {
	j, err := journal.Open(r.cfg.Journals, s.Module.Name)
	if err != nil {
		return nil, err
	}
	e := &Entry{Module: s.Module, Version: s.Version, Journal: j}
	if err := r.build(e); err != nil {
		return nil, errors.Join(err, j.Close())
	}
	r.list(e)
	return e, nil
}

// build gives e a Runner of its configuration, which does not start, beside one that may run. Its transitions go to
// e's journal, which an entry that replaces this one has too.
func (r *Registry) build(e *Entry) error {
	kind, ok := r.cfg.Kinds[e.Module.Kind]
	if !ok {
		return fmt.Errorf("%w: this node cannot run modules of kind %q", api.ErrInvalid, e.Module.Kind)
	}
	node := string(r.self())
	run, err := kind.Build(e.Module, func(t engine.Transition) {
		if !t.Again { // who reads the journal knows of the to and fro already
			e.Journal.Add(api.LogEntry{Time: t.Time, Node: node, Module: t.Module, From: t.From, To: t.To, On: t.On,
				Why: t.Why})
		}
		r.cfg.Transition(t)
	})
	if err != nil {
		return err
	}
	e.Run, e.Engine = run, nil
	if m, ok := run.(Mirror); ok {
		e.Engine = m.Core()
	}
	return nil
}

// list puts e among the modules of this node, in place of one of its name.
func (r *Registry) list(e *Entry) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all[e.Module.Name] = e
}

// Start runs all modules.
func (r *Registry) Start() {
	for _, e := range r.All() {
		e.Run.Start()
		// The peer may have missed an edit while it or this node was away.
		r.send(e.Module)
	}
}

// Stop ends all Runners at once; what they run goes on. The modules stay listed. Their Start was called before.
func (r *Registry) Stop(ctx context.Context) {
	r.each(func(e *Entry) {
		e.Run.Stop(ctx)
		_ = e.Journal.Close() // the last transition is in the log too
	})
}

// Evacuate gives the modules that run here to their peers, because this computer goes
// down. It returns when none is left or ctx ends; Stop follows.
func (r *Registry) Evacuate(ctx context.Context) {
	r.each(func(e *Entry) { e.Run.Evacuate(ctx) })
}

// each does something with all modules at once and returns when it is done.
func (r *Registry) each(do func(*Entry)) {
	var wg sync.WaitGroup
	for _, e := range r.All() {
		wg.Go(func() { do(e) })
	}
	wg.Wait()
}

// All lists the modules of this node by name.
func (r *Registry) All() []*Entry {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]*Entry, 0, len(r.all))
	for _, e := range r.all {
		out = append(out, e)
	}
	slices.SortFunc(out, func(a, b *Entry) int { return cmp.Compare(a.Module.Name, b.Module.Name) })
	return out
}

// Modules are the configurations of All.
func (r *Registry) Modules() []appmodules.Module {
	var out []appmodules.Module
	for _, e := range r.All() {
		out = append(out, e.Module)
	}
	return out
}

// Find returns a module by name; the error says what exists.
func (r *Registry) Find(name string) (*Entry, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e := r.all[name]; e != nil {
		return e, nil
	}
	names := make([]string, 0, len(r.all))
	for have := range r.all {
		names = append(names, have)
	}
	slices.Sort(names)
	if len(names) == 0 {
		return nil, fmt.Errorf("%w: module %q: no VM is protected yet: `duet vm protect NAME`", api.ErrNotFound, name)
	}
	return nil, fmt.Errorf("module %s: %w%s", name, api.ErrNotFound, api.Known(name, names))
}

// Mirror is Find for what only mirrors can do.
func (r *Registry) Mirror(name string) (*Entry, error) {
	e, err := r.Find(name)
	if err == nil {
		err = e.isMirror()
	}
	if err != nil {
		return nil, err
	}
	return e, nil
}

// Mirrors lists the modules that are mirrors by name.
func (r *Registry) Mirrors() []*Entry {
	return slices.DeleteFunc(r.All(), func(e *Entry) bool { return e.Engine == nil })
}

// Guests lists those that are VMs.
func (r *Registry) Guests() []*Entry {
	return slices.DeleteFunc(r.Mirrors(), func(e *Entry) bool { return !e.Module.Kind.Defined() })
}

// OfVolume is the mirror that a replicated volume belongs to; nil: none here.
func (r *Registry) OfVolume(id string) *Entry {
	for _, e := range r.Mirrors() {
		if slices.ContainsFunc(e.Module.Replicated(), func(v appmodules.Volume) bool { return v.ID == id }) {
			return e
		}
	}
	return nil
}

// Order gives the module on this node a command, but not to a Runner that a new
// configuration is about to replace: it would be lost. It waits for that, and for another order of the module, as
// long as ctx lasts, and then as Command does.
func (r *Registry) Order(ctx context.Context, name string, ev appmodules.Event, yes bool) error {
	done, err := r.exchange.take(ctx, name)
	if err != nil {
		return err
	}
	defer done()
	e, err := r.Find(name)
	if err != nil {
		return err
	}
	return e.Run.Command(ctx, ev, yes)
}

// CloseJournals closes those of all modules, when nothing of them is to be told any more; of modules that were ended
// they are closed already. It waits for what was told before, as long as the disk does.
func (r *Registry) CloseJournals() error {
	var errs []error
	for _, e := range r.All() {
		errs = append(errs, e.Journal.Close())
	}
	return errors.Join(errs...)
}
