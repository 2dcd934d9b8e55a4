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
	"duet/cluster/ping"
	"duet/console/api"
	"duet/console/journal"
	"duet/vmmanager"
)

// module is one module on this node.
type module struct {
	cfg     appmodules.Module
	version version
	engine  *engine.Engine
	journal *journal.Journal
	meter   *meter
	// restored is when the peer was last given the module that it did not know, and trouble
	// why that failed; both guarded by Node.mu.
	restored time.Time
	trouble  string
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

// newEngine builds the engine of a module of this node.
func (n *Node) newEngine(m appmodules.Module, log func(engine.Transition)) (*engine.Engine, error) {
	c := n.cluster()
	peer := cluster.NodeID(m.Peer(string(c.Self)))
	return engine.New(engine.Config{
		Module: m, Endpoints: n.endpoints(m), Self: c.Self,
		Peer:       caller{n: n, node: peer, module: m},
		Fence:      func(ctx context.Context) error { return n.fenceOff(ctx, peer) },
		CanFence:   func() bool { return n.canFence(peer) },
		Store:      n.engineStore(m.Name),
		Storage:    engine.NewStorage(engine.StorageConfig{Module: m, Node: string(c.Self), Disks: disks{n, m.VM.Domain}, Logger: n.log}),
		Hypervisor: n.cfg.Hypervisor,
		Runtime:    engine.Real{},
		Witnesses:  n.witnesses,
		Gate:       n.gate,
		Withdraw:   func() { n.withdraw(m) },
		View:       n.gossip.View,
		Ping:       func(ctx context.Context) bool { return ping.Any(ctx, n.cluster().Ping) },
		Boot:       bootID(),
		Log:        log,
		Logger:     n.log,
		Times:      engine.DefaultTimes(c.Detection),
	})
}

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

// addModule builds the engine of s and lists it; it does not start.
func (n *Node) addModule(s stored) error {
	j, err := journal.Open(filepath.Join(n.cfg.Dir, "log"), s.Module.Name)
	if err != nil {
		return err
	}
	met := &meter{}
	e, err := n.newEngine(s.Module, func(t engine.Transition) {
		if !t.Again {
			j.Add(api.LogEntry{Time: t.Time, Node: string(n.self()), Module: t.Module, From: t.From, To: t.To, On: t.On, Why: t.Why})
		}
		met.add(t)
	})
	if err != nil {
		return errors.Join(err, j.Close())
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.modules[s.Module.Name] = &module{cfg: s.Module, version: s.Version, engine: e, journal: j, meter: met}
	return nil
}

func (n *Node) startModules() {
	for _, m := range n.all() {
		m.engine.Start()
		// The peer may have missed an edit while it or this node was away.
		n.spawn(func(ctx context.Context) { n.sendConfig(ctx, m.cfg.Name) })
	}
}

func (n *Node) stopModules(ctx context.Context) {
	var wg sync.WaitGroup
	for _, m := range n.all() {
		wg.Go(func() {
			m.engine.Stop(ctx)
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
		wg.Go(func() { m.engine.Evacuate(ctx) })
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

func (n *Node) moduleOfVolume(id string) *module {
	for _, m := range n.all() {
		for _, v := range m.cfg.Volumes {
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

// createModule stores a module that begins and starts its engine. Repeating it is fine.
func (n *Node) createModule(ctx context.Context, from cluster.NodeID, nm newModule) error {
	name := nm.Stored.Module.Name
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
// record, the VM's definition and, last, its configuration, which makes it count.
func (n *Node) storeModule(ctx context.Context, nm newModule) error {
	m := nm.Stored.Module
	for _, v := range m.Volumes {
		if err := n.seedLog(ctx, v, nm.Source); err != nil {
			return err
		}
	}
	err := engine.Create(n.engineStore(m.Name), n.self(), nm.Source, nm.Definition)
	if err == nil {
		err = n.cfg.Hypervisor.Define(ctx, vmmanager.Definition{Name: m.VM.Domain, Text: nm.Definition.Text})
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
	m.engine.Start()
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
// reachable until it has stopped: its peer may have to hear that it may go on alone.
func (n *Node) removeModule(ctx context.Context, name string) error {
	m, err := n.module(name)
	if err != nil {
		return nil
	}
	m.engine.Stop(ctx)
	n.mu.Lock()
	delete(n.modules, name)
	n.mu.Unlock()
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
	for _, v := range m.Volumes {
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

// applyConfig replaces the configuration of a module on this node if s is newer.
// The engine is exchanged while its VM runs: its I/O pauses for the moment.
func (n *Node) applyConfig(ctx context.Context, s stored) error {
	n.exchange.Lock()
	defer n.exchange.Unlock()
	m, err := n.module(s.Module.Name)
	if err != nil {
		return err
	}
	if !s.Version.newer(m.version) {
		return nil
	}
	if err := n.values().Save(configKey(s.Module.Name), s); err != nil {
		return err
	}
	m.engine.Stop(ctx)
	_ = m.journal.Close() // it is opened again below
	return n.beginModule(s)
}

// formatYAML is the text of a module for admins.
func formatYAML(m appmodules.Module) (string, error) {
	text, err := config.Format(m)
	return string(text), err
}

func (n *Node) values() badgerlog.Values { return badgerlog.Values{Store: n.store} }
