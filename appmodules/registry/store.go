package registry

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"duet/appmodules"
	"duet/appmodules/engine"
	"duet/blockrepl"
	"duet/blockrepl/badgerlog"
	"duet/cluster"
	"duet/console/api"
)

// prefix is that of all that the store has of modules, and of nothing else.
const prefix = "module/"

// configKey is where a module's configuration is, which is written last and makes it count.
func configKey(name string) string { return prefix + name + "/config" }

// values are those of the store by their whole keys.
func (r *Registry) values() badgerlog.Values { return badgerlog.Values{Store: r.cfg.Store} }

// EngineStore is where the engine of a module keeps what it has to know after the daemon's end.
func (r *Registry) EngineStore(name string) engine.Store { return EngineStore(r.cfg.Store, name) }

// EngineStore is that of a Registry on a store.
func EngineStore(s *badgerlog.Store, name string) badgerlog.Values {
	return badgerlog.Values{Store: s, Prefix: prefix + name + "/engine/"}
}

// Create stores a module that another node begins, as that asks for, and runs it. Repeating it is fine, also while the
// first call is at work. made tells whether this node has made the image of a volume for the module: nothing else is
// used.
func (r *Registry) Create(ctx context.Context, from cluster.NodeID, n Fresh,
	made func(m appmodules.Module, v appmodules.Volume) (bool, error)) error {
	name := n.Stored.Module.Name
	done, err := r.turns.take(ctx, name)
	if err != nil {
		return err
	}
	defer done()
	if err := r.mayCreate(from, n, made); err != nil {
		return err
	}
	if e, err := r.Find(name); err == nil {
		if e.Version == n.Stored.Version && e.Module.Identity() == n.Stored.Module.Identity() {
			return nil
		}
		return fmt.Errorf("%w: module %s exists on %s: `duet vm release %s` gives it back", api.ErrConflict, name,
			r.self(), name)
	}
	if err := r.store(ctx, n); err != nil {
		return err
	}
	return r.begin(n.Stored)
}

// mayCreate refuses a module that is not between this node and from, or whose images are not
// those that this node made for it.
func (r *Registry) mayCreate(from cluster.NodeID, n Fresh,
	made func(m appmodules.Module, v appmodules.Volume) (bool, error)) error {
	m, self := n.Stored.Module, string(r.self())
	if !slices.Contains(m.Nodes, self) || m.Peer(self) != string(from) || n.Source != from {
		return fmt.Errorf("%w: module %s is between %s, with the data of %s: it is not for %s to give it to %s",
			api.ErrInvalid, m.Name, strings.Join(m.Nodes, " and "), n.Source, from, self)
	}
	for _, v := range m.Volumes() {
		ours, err := made(m, v)
		if err != nil {
			return err
		}
		if !ours && !r.has(m, v) {
			return fmt.Errorf("%w: volume %s: %s has not made %s for module %s", api.ErrInvalid, v.Target, self,
				v.Paths[self], m.Name)
		}
	}
	return nil
}

// has reports whether this node has the module on that image already: the request is repeated.
func (r *Registry) has(m appmodules.Module, v appmodules.Volume) bool {
	have, err := r.Find(m.Name)
	self := string(r.self())
	return err == nil && have.Module.Identity() == m.Identity() &&
		slices.ContainsFunc(have.Module.Volumes(), func(o appmodules.Volume) bool {
			return o.ID == v.ID && o.Paths[self] == v.Paths[self]
		})
}

// Store makes a module durable: the first generation of its data, the workload's definition, its first record and,
// last, its configuration, which makes it count. A failed Store leaves nothing of that name. It is for a module that
// does not run: what an engine of that name has kept is overwritten.
func (r *Registry) Store(ctx context.Context, n Fresh) error {
	return r.inTurn(ctx, n.Stored.Module.Name, func() error { return r.store(ctx, n) })
}

// store is Store in the turn of its name: on an error everything of that name is forgotten, with the logs.
func (r *Registry) store(ctx context.Context, n Fresh) error {
	m, self := n.Stored.Module, r.self()
	var err error
	for _, v := range m.Replicated() {
		if err == nil {
			err = r.SeedLog(ctx, v, n.Source)
		}
	}
	has := ""
	if define := r.cfg.Kinds[m.Kind].Define; err == nil && define != nil {
		has, err = define(ctx, m, n.Definition.Text)
	}
	if err == nil {
		err = engine.Create(r.EngineStore(m.Name), self, n.Source, n.Definition, has)
	}
	if err == nil {
		err = r.values().Save(configKey(m.Name), n.Stored)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("store module %s on %s: %w", m.Name, self, err), r.forget(m))
	}
	return nil
}

// IsStored tells whether a module is durable here.
func (r *Registry) IsStored(name string) (bool, error) {
	return r.values().Load(configKey(name), &Stored{})
}

// Begin builds and runs a module that is stored. One that runs is left alone. It returns when the Runner was started,
// which has decided nothing yet.
func (r *Registry) Begin(name string) error {
	return r.inTurn(r.cfg.Life, name, func() error {
		if _, err := r.Find(name); err == nil {
			return nil
		}
		var s Stored
		if _, err := r.values().Load(configKey(name), &s); err != nil {
			return err
		}
		return r.begin(s)
	})
}

// inTurn does something to a module in the turn of its name.
func (r *Registry) inTurn(ctx context.Context, name string, do func() error) error {
	done, err := r.turns.take(ctx, name)
	if err != nil {
		return err
	}
	defer done()
	return do()
}

// Calls is how many are making, changing or removing the module of a name now, or wait to.
func (r *Registry) Calls(name string) int { return r.turns.wanted(name) }

// begin builds and runs a module that is stored, in the turn of its name.
func (r *Registry) begin(s Stored) error {
	e, err := r.add(s)
	if err != nil {
		return err
	}
	e.Run.Start()
	return nil
}

// SeedLog writes the first lineage of a volume: the source's copy belongs to the
// first generation, the other is empty, so that it can only be overwritten.
// A log that has begun is left alone. It is durable when it returns nil; after the error of ctx it may become so.
func (r *Registry) SeedLog(ctx context.Context, v appmodules.Volume, source cluster.NodeID) error {
	if _, have, err := r.cfg.Store.Log(v.ID).Load(); err != nil || have != nil {
		return err
	}
	l := blockrepl.Lineage{Volume: v.ID}
	if r.self() == source {
		l = l.With(blockrepl.Generation{Epoch: 1, Holder: string(source)})
	}
	done := make(chan error, 1)
	r.cfg.Store.Log(v.ID).Commit(nil, &l, func(err error) { done <- err })
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

// Remove stops the Runner and forgets the module; images stay. The Runner is
// reachable until it has stopped: its peer may have to hear that it may go on alone. One that does not run is no
// error, and what is stored of it stays: see Forget. After an error of forgetting the module is not listed any more.
func (r *Registry) Remove(ctx context.Context, name string) error {
	return r.inTurn(ctx, name, func() error { return r.remove(ctx, name) })
}

// RemoveIf is Remove for the one that has the name, if may says so, and does after, with what came of that, in the
// same turn. A name that nobody has is fine.
func (r *Registry) RemoveIf(ctx context.Context, name string, may func(*Entry) (bool, error),
	after func(m appmodules.Module, removed error) error) error {
	return r.inTurn(ctx, name, func() error {
		e, err := r.Mirror(name)
		if errors.Is(err, api.ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		if yes, err := may(e); err != nil || !yes {
			return err
		}
		return after(e.Module, r.remove(ctx, name))
	})
}

// remove is Remove in the turn of its name.
func (r *Registry) remove(ctx context.Context, name string) error {
	e, err := r.Find(name)
	if err != nil {
		return nil
	}
	e.Run.Stop(ctx)
	r.mu.Lock()
	delete(r.all, name)
	r.mu.Unlock()
	r.cfg.Gone(name)
	return errors.Join(e.Journal.Close(), r.forget(e.Module))
}

// Undefine forgets the definition of a module that left to the other node, where its kind has one.
func (r *Registry) Undefine(ctx context.Context, m appmodules.Module) error {
	if undefine := r.cfg.Kinds[m.Kind].Undefine; undefine != nil {
		return undefine(ctx, m)
	}
	return nil
}

// Forget deletes what the store has of a module that does not run.
func (r *Registry) Forget(m appmodules.Module) error {
	return r.inTurn(r.cfg.Life, m.Name, func() error { return r.forget(m) })
}

// forget is Forget in the turn of its name. The configuration and what the engine kept go in one step, the sockets
// and logs after it: when those fail the module is gone all the same, and forget may be repeated. It waits for the
// store.
func (r *Registry) forget(m appmodules.Module) error {
	kept, err := r.cfg.Store.List(prefix + m.Name + "/")
	if err != nil {
		return err
	}
	keys := make([]string, 0, len(kept))
	for k := range kept {
		keys = append(keys, k)
	}
	// At once: a half of it would be another module.
	if err := r.cfg.Store.Put(nil, keys...); err != nil {
		return fmt.Errorf("forget module %s: %w", m.Name, err)
	}
	if err := r.cfg.Closed(m); err != nil {
		return fmt.Errorf("forget module %s: %w", m.Name, err)
	}
	for _, v := range m.Replicated() {
		done := make(chan error, 1)
		r.cfg.Store.Forget(v.ID, func(err error) { done <- err })
		if err := <-done; err != nil {
			return fmt.Errorf("forget log of volume %s: %w", v.Target, err)
		}
	}
	return nil
}
