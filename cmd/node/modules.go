package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"duet/appmodules"
	"duet/appmodules/config"
	"duet/appmodules/engine"
	"duet/blockrepl"
	"duet/blockrepl/badgerlog"
	"duet/cluster"
	"duet/console/api"
	"duet/console/journal"
)

// module is one module on this node: a value that does not change. An edit puts another one in its place.
type module struct {
	cfg     appmodules.Module
	version version
	run     Runner
	engine  *engine.Engine // of run, where the module is a mirror; nil: it is of another kind
	journal *journal.Journal
	mending *mending
}

// isMirror refuses a module that has no volumes, epochs and peer.
func (m *module) isMirror() error {
	if m.engine == nil {
		return fmt.Errorf("%w: module %s is a %s, not a mirror", api.ErrInvalid, m.cfg.Name, m.cfg.Kind)
	}
	return nil
}

// version says when a configuration was made; the higher number wins, and of two
// equal ones that of the node whose name sorts last.
type version struct {
	Number  uint64    `json:"number"`
	Changed time.Time `json:"changed"`
	By      string    `json:"by"`
}

// newer reports whether v replaces o on every node.
func (v version) newer(o version) bool {
	return v.Number > o.Number || (v.Number == o.Number && v.By > o.By)
}

// stored is a module's configuration in the store.
type stored struct {
	Version version           `json:"version"`
	Module  appmodules.Module `json:"module"`
}

const modulePrefix = "module/"

func configKey(name string) string { return modulePrefix + name + "/config" }

func (n *Node) engineStore(name string) engine.Store {
	return badgerlog.Values{Store: n.store, Prefix: modulePrefix + name + "/engine/"}
}

// loadModules builds the engines of all modules in the store, but of those that were
// being released.
func (n *Node) loadModules() error {
	found, err := n.store.List(modulePrefix)
	if err != nil {
		return fmt.Errorf("list modules: %w", err)
	}
	for key := range found {
		name, isConfig := strings.CutSuffix(strings.TrimPrefix(key, modulePrefix), "/config")
		if !isConfig || n.works.Held(name) {
			continue
		}
		var s stored
		if _, err := n.values().Load(key, &s); err != nil {
			return err
		}
		if err := n.addModule(s); err != nil {
			return fmt.Errorf("load module %s: %w", name, err)
		}
	}
	return nil
}

// addModule builds the Runner of s and lists it; it does not start.
func (n *Node) addModule(s stored) error {
	j, err := journal.Open(filepath.Join(n.cfg.Dir, "log"), s.Module.Name)
	if err != nil {
		return err
	}
	m := &module{cfg: s.Module, version: s.Version, journal: j, mending: &mending{}}
	if err := n.buildRunner(m); err != nil {
		return errors.Join(err, j.Close())
	}
	n.list(m)
	return nil
}

// buildRunner gives m a Runner of its configuration, which does not start.
func (n *Node) buildRunner(m *module) error {
	run, err := n.runner(m.cfg, func(t engine.Transition) {
		if !t.Again {
			m.journal.Add(api.LogEntry{Time: t.Time, Node: string(n.self()), Module: t.Module, From: t.From, To: t.To, On: t.On, Why: t.Why})
		}
		n.figures.Count(t)
		n.sentry.Changed()
	})
	if err != nil {
		return err
	}
	m.run, m.engine = run, nil
	if r, ok := run.(*mirror); ok {
		m.engine = r.Engine
	}
	return nil
}

// list puts m among the modules of this node, in place of one of its name.
func (n *Node) list(m *module) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.modules[m.cfg.Name] = m
}

func (n *Node) startModules() {
	for _, m := range n.all() {
		m.run.Start()
		// The peer may have missed an edit while it or this node was away.
		n.sendConfig(m.cfg)
	}
}

func (n *Node) stopModules(ctx context.Context) {
	var wg sync.WaitGroup
	for _, m := range n.all() {
		wg.Go(func() {
			m.run.Stop(ctx)
			_ = m.journal.Close() // the last transition is in the log too
		})
	}
	wg.Wait()
}

// Evacuate gives the modules that run here to their peers, because this computer goes
// down. It returns when none is left or ctx ends; Stop follows.
func (n *Node) Evacuate(ctx context.Context) {
	var wg sync.WaitGroup
	for _, m := range n.all() {
		wg.Go(func() { m.run.Evacuate(ctx) })
	}
	wg.Wait()
}

// all lists the modules of this node by name.
func (n *Node) all() []*module {
	n.mu.Lock()
	defer n.mu.Unlock()
	out := make([]*module, 0, len(n.modules))
	for _, m := range n.modules {
		out = append(out, m)
	}
	slices.SortFunc(out, func(a, b *module) int { return cmp.Compare(a.cfg.Name, b.cfg.Name) })
	return out
}

// module returns a module by name; the error says what exists.
func (n *Node) module(name string) (*module, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if m := n.modules[name]; m != nil {
		return m, nil
	}
	names := make([]string, 0, len(n.modules))
	for have := range n.modules {
		names = append(names, have)
	}
	slices.Sort(names)
	if len(names) == 0 {
		return nil, fmt.Errorf("%w: module %q: no VM is protected yet: `duet vm protect NAME`", api.ErrNotFound, name)
	}
	return nil, fmt.Errorf("%w: module %q: there are %s", api.ErrNotFound, name, strings.Join(names, ", "))
}

// mirror is module for what only mirrors can do.
func (n *Node) mirror(name string) (*module, error) {
	m, err := n.module(name)
	if err == nil {
		err = m.isMirror()
	}
	if err != nil {
		return nil, err
	}
	return m, nil
}

// mirrors lists the modules that are mirrors by name.
func (n *Node) mirrors() []*module {
	return slices.DeleteFunc(n.all(), func(m *module) bool { return m.engine == nil })
}

// states are those of the mirrors here.
func (n *Node) states() (out []engine.State) {
	for _, m := range n.mirrors() {
		out = append(out, m.engine.State())
	}
	return out
}

func (n *Node) moduleOfVolume(id string) *module {
	for _, m := range n.mirrors() {
		for _, v := range m.cfg.Replicated() {
			if v.ID == id {
				return m
			}
		}
	}
	return nil
}

// newModule is what both nodes need to know of a module that begins.
type newModule struct {
	Stored     stored            `json:"stored"`
	Source     cluster.NodeID    `json:"source"` // has the data
	Definition engine.Definition `json:"definition"`
}

// createModule stores a module that begins and starts its engine. Repeating it is fine, also while the first call is at work.
func (n *Node) createModule(ctx context.Context, from cluster.NodeID, nm newModule) error {
	name := nm.Stored.Module.Name
	done, err := n.turns.take(ctx, name)
	if err != nil {
		return err
	}
	defer done()
	if err := n.mayCreate(from, nm); err != nil {
		return err
	}
	if m, err := n.module(name); err == nil {
		if m.version == nm.Stored.Version && m.cfg.Identity() == nm.Stored.Module.Identity() {
			return nil
		}
		return fmt.Errorf("%w: module %s exists on %s: `duet vm release %s` gives it back", api.ErrConflict, name, n.self(), name)
	}
	if err := n.storeModule(ctx, nm); err != nil {
		return err
	}
	return n.beginModule(nm.Stored)
}

// storeModule makes a module durable: the first generation of its data, its first
// record, the workload's definition and, last, its configuration, which makes it count.
// The caller has the turn of its name: on an error everything of that name is forgotten.
func (n *Node) storeModule(ctx context.Context, nm newModule) error {
	m := nm.Stored.Module
	for _, v := range m.Replicated() {
		if err := n.seedLog(ctx, v, nm.Source); err != nil {
			return err
		}
	}
	err := engine.Create(n.engineStore(m.Name), n.self(), nm.Source, nm.Definition)
	if define := runners[m.Kind].define; err == nil && define != nil {
		err = define(ctx, n, m, nm.Definition.Text)
	}
	if err == nil {
		err = n.values().Save(configKey(m.Name), nm.Stored)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("store module %s on %s: %w", m.Name, n.self(), err), n.forgetModule(m))
	}
	return nil
}

// beginModule builds and starts the engine of a stored module.
func (n *Node) beginModule(s stored) error {
	if err := n.addModule(s); err != nil {
		return err
	}
	m, err := n.module(s.Module.Name)
	if err != nil {
		return err
	}
	m.run.Start()
	return nil
}

// seedLog writes the first lineage of a volume: the source's copy belongs to the
// first generation, the other is empty, so that it can only be overwritten.
// A log that has begun is left alone.
func (n *Node) seedLog(ctx context.Context, v appmodules.Volume, source cluster.NodeID) error {
	if _, have, err := n.store.Log(v.ID).Load(); err != nil || have != nil {
		return err
	}
	l := blockrepl.Lineage{Volume: v.ID}
	if n.self() == source {
		l = l.With(blockrepl.Generation{Epoch: 1, Holder: string(source)})
	}
	done := make(chan error, 1)
	n.store.Log(v.ID).Commit(nil, &l, func(err error) { done <- err })
	select {
	case err := <-done:
		if err != nil {
			return fmt.Errorf("begin log of volume %s: %w", v.Target, err)
		}
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// removeModule stops the engine and forgets the module; images stay. The engine is
// reachable until it has stopped: its peer may have to hear that it may go on alone. The caller has the turn of name.
func (n *Node) removeModule(ctx context.Context, name string) error {
	m, err := n.module(name)
	if err != nil {
		return nil
	}
	m.run.Stop(ctx)
	n.mu.Lock()
	delete(n.modules, name)
	n.mu.Unlock()
	n.figures.Forget(name)
	return errors.Join(m.journal.Close(), n.forgetModule(m.cfg))
}

// forgetModule deletes what the store has of a module.
func (n *Node) forgetModule(m appmodules.Module) error {
	kept, err := n.store.List(modulePrefix + m.Name + "/")
	if err != nil {
		return err
	}
	keys := make([]string, 0, len(kept))
	for k := range kept {
		keys = append(keys, k)
	}
	if err := n.store.Put(nil, keys...); err != nil {
		return fmt.Errorf("forget module %s: %w", m.Name, err)
	}
	n.withdraw(m)
	for _, v := range m.Replicated() {
		if err := os.Remove(n.socket(m.Name, v.Target)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("forget module %s: %w", m.Name, err)
		}
		done := make(chan error, 1)
		n.store.Forget(v.ID, func(err error) { done <- err })
		if err := <-done; err != nil {
			return fmt.Errorf("forget log of volume %s: %w", v.Target, err)
		}
	}
	return nil
}

// applyConfig replaces the configuration of a module on this node if s is newer. What runs goes on:
// an edit of the policy is none of what it is made of. Only where an image of this node has
// another place the Runner is exchanged, and the new one is built before the old one goes.
func (n *Node) applyConfig(ctx context.Context, s stored) error {
	done, err := n.turns.take(ctx, s.Module.Name)
	if err != nil {
		return err
	}
	defer done()
	n.exchange.Lock()
	defer n.exchange.Unlock()
	m, err := n.module(s.Module.Name)
	if err != nil {
		return err
	}
	if !s.Version.newer(m.version) {
		return nil
	}
	if err := n.mayBecome(m.cfg, s.Module); err != nil {
		return err
	}
	next := *m
	next.cfg, next.version = s.Module, s.Version
	if n.sameHere(m.cfg, s.Module) {
		if err := n.values().Save(configKey(s.Module.Name), s); err != nil {
			return err
		}
		err := m.run.Configure(ctx, s.Module)
		n.list(&next)
		return err
	}
	if err := n.buildRunner(&next); err != nil {
		return err
	}
	if err := n.values().Save(configKey(s.Module.Name), s); err != nil {
		return err
	}
	m.run.Stop(ctx)
	n.list(&next)
	next.run.Start()
	return nil
}

// mayBecome validates what may come from another node: of the volumes only the place of an image
// may have changed, which a restore on a new computer does.
func (n *Node) mayBecome(have, want appmodules.Module) error {
	if faults := want.Validate(); len(faults) > 0 {
		return fmt.Errorf("%w: %s", api.ErrInvalid, faults[0].Error())
	}
	placed := slices.Clone(want.Volumes())
	for i, v := range have.Volumes() {
		if i < len(placed) {
			placed[i].Paths = v.Paths
		}
	}
	want.Spec = want.Spec.On(placed)
	return unchangeable(have, want)
}

// sameHere: what the module is made of on this node is the same.
func (n *Node) sameHere(a, b appmodules.Module) bool {
	self := string(n.self())
	return slices.EqualFunc(a.Volumes(), b.Volumes(), func(v, w appmodules.Volume) bool { return v.Paths[self] == w.Paths[self] })
}

// formatYAML is the text of a module for admins.
func formatYAML(m appmodules.Module) (string, error) {
	text, err := config.Format(m)
	return string(text), err
}

func (n *Node) values() badgerlog.Values { return badgerlog.Values{Store: n.store} }
