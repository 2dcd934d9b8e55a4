package node

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"duet/appmodules"
	"duet/appmodules/engine"
	"duet/appmodules/protect"
	"duet/appmodules/registry"
	"duet/blockrepl"
	"duet/blockrepl/badgerlog"
	"duet/cluster"
	"duet/console/api"
	"duet/console/tasks"
	"duet/vmmanager"
	"duet/vmmanager/fitness"
	"duet/vmmanager/images"
)

// The node as package protect sees it.

// newWorks reads what an earlier run left. The contracts of what it is given are those of package protect's
// interfaces (site.go there); here stands what differs.
func (n *Node) newWorks() (*protect.Works, error) {
	return protect.NewWorks(protect.Config{Cluster: n.cluster, Hypervisor: n.cfg.Hypervisor,
		Modules: modules{n.Registry, n}, Volumes: volumes{n}, Files: n.stages,
		Peers: peers{n}, Store: badgerlog.Values{Store: n.store}, Tasks: board{n}, Spawn: n.spawn, Logger: n.log})
}

// Release gives the VM of a module back as an ordinary VM of this node, if that has its newest data.
func (n *Node) Release(ctx context.Context, name string, r api.ReleaseRequest) (api.Task, error) {
	m, err := n.Mirror(name)
	if err != nil { // a release forgets the module before its VM goes on
		return api.Task{}, cmp.Or(n.Works.Unended(name), err)
	}
	return n.Works.Release(ctx, m.Module, r)
}

// Return copies the disks of a running VM that somebody has moved off their volumes back onto them, on the node
// where it runs: api.ErrConflict names it.
func (n *Node) Return(ctx context.Context, name string) (api.Task, error) {
	m, err := n.Mirror(name)
	if err != nil {
		return api.Task{}, err
	}
	if primary, _ := n.orders.Roles(m); primary != "" && primary != string(n.self()) {
		return api.Task{}, fmt.Errorf("%w: module %s is primary on %s: return it there", api.ErrConflict, name, primary)
	}
	return n.Works.Return(ctx, m.Module)
}

// board is a protect.Tasks.
type board struct{ n *Node }

func (b board) Run(
	kind, module string, work func(context.Context, string, protect.Task) (string, error),
) (api.Task, error) {
	return b.n.run(kind, module, func(ctx context.Context, t *tasks.Task) (string,
		error) {
		return work(ctx, t.State().ID, t)
	})
}

// Again lists a task that an earlier run of the daemon began, under the ID that its followers know.
func (b board) Again(id, kind, module string) func(string, error) {
	return b.n.tasks.Again(id, kind, module).End
}

// modules is a protect.Modules: what the registry has, and what works need to know of engines.
type modules struct {
	*registry.Registry
	n *Node
}

// What only needs another name here.
func (a modules) All() []appmodules.Module { return a.Modules() }

func (a modules) Endpoints(m appmodules.Module) []vmmanager.Endpoint { return a.n.volumes.Endpoints(m) }

func (a modules) Stored(name string) (bool, error) { return a.IsStored(name) }

func (a modules) Store(ctx context.Context, s protect.New) error {
	f, err := a.n.fresh(s)
	if err != nil {
		return err
	}
	return a.Registry.Store(ctx, f)
}

// Run leaves it to the desk of orders which node is first.
func (a modules) Run(ctx context.Context, name string) error {
	m, err := a.Mirror(name)
	if err == nil {
		_, err = a.n.orders.Start(ctx, m, api.ActionRequest{})
	}
	return err
}

// Forgotten tells them by identity: the name may be used again at once.
func (a modules) Forgotten(ctx context.Context, m appmodules.Module) {
	a.n.voting.Forget(ctx, m.Identity())
}

func (a modules) Leaves(ctx context.Context, name string) error {
	m, err := a.Mirror(name)
	if err != nil {
		return err
	}
	return a.n.orders.MayLeave(ctx, m)
}

// Runs is the engine's word, of its last step; the hypervisor is not asked.
func (a modules) Runs(name string) bool {
	m, err := a.Mirror(name)
	return err == nil && m.Engine.State().Status.Phase == appmodules.Running
}

// Part tells in the error how the module stands, since the reason is the engine's.
func (a modules) Part(ctx context.Context, name, why string) error {
	m, err := a.Mirror(name)
	if err != nil {
		return err
	}
	if err = m.Engine.Part(ctx, why); err != nil {
		err = fmt.Errorf("%w: release %s: the VM stays protected (%s): %w", api.ErrConflict, name,
			m.Engine.State().Status.Why, err)
	}
	return err
}

// Rejoin does nothing for a module that is gone, or was never parted.
func (a modules) Rejoin(name string) {
	if m, err := a.Mirror(name); err == nil {
		m.Engine.Rejoin()
	}
}

// Kept is the engine's, not the hypervisor's, which has the definition on the volumes.
func (a modules) Kept(ctx context.Context, name string) ([]byte, vmmanager.Definition, error) {
	m, err := a.Mirror(name)
	if err != nil {
		return nil, vmmanager.Definition{}, err
	}
	def, err := m.Engine.Definition(ctx)
	var own vmmanager.Definition
	if err == nil && len(def.Own) > 0 { // else an older version of Duet made the module
		err = json.Unmarshal(def.Own, &own)
	}
	return def.Text, own, err
}

// Epoch is 0 for a module that has no engine: no node knows an older one.
func (a modules) Epoch(name string) cluster.Epoch {
	m, err := a.Mirror(name)
	if err != nil {
		return 0
	}
	return m.Engine.State().Record.Epoch
}

// fresh is the first version of a module that this node begins. Made again from the same plan it is the same, so a
// repeated Store on the peer is taken for what it is.
func (n *Node) fresh(s protect.New) (registry.Fresh, error) {
	own, err := json.Marshal(s.Own)
	if err != nil {
		return registry.Fresh{}, fmt.Errorf("keep the definition that VM %s had: %w", s.Own.Name, err)
	}
	return registry.Fresh{Stored: registry.Stored{Version: registry.Version{Number: 1, Changed: s.Made,
		By: string(n.self())}, Module: s.Module}, Source: s.Source,
		Definition: engine.Definition{Module: s.Module.Name, Version: 1, Text: s.Rewired, Own: own}}, nil
}

// volumes is a protect.Volumes.
type volumes struct{ n *Node }

func (a volumes) Choose(m appmodules.Module, places []protect.Place) ([]protect.Made, error) {
	return a.n.images.Choose(m.Name, places)
}

func (a volumes) Make(m appmodules.Module, places []protect.Place, chosen []protect.Made) ([]protect.Made, error) {
	return a.n.images.Make(m.Name, places, chosen)
}

func (a volumes) Drop(_ appmodules.Module, all []protect.Made) error { return a.n.images.Drop(all) }

func (a volumes) Disk(v appmodules.Volume) vmmanager.Disk { return a.n.images.Disk(v) }

func (a volumes) Made(m appmodules.Module, path string) bool { return a.n.images.Made(m.Name, path) }

// Seed: the data of the volume are here, so this node is the holder of the log's first generation.
func (a volumes) Seed(ctx context.Context, v appmodules.Volume) error {
	return a.n.SeedLog(ctx, v, a.n.self())
}

func (a volumes) Log(v appmodules.Volume) blockrepl.DirtyLog { return a.n.store.Log(v.ID) }

// Frontend is the one that engines use: the VM finds its volume at the same place afterwards.
func (a volumes) Frontend(m appmodules.Module, v appmodules.Volume) (blockrepl.Frontend, error) {
	return a.n.volumes.Of(m).Frontend(m.Name, v)
}

// peers is a protect.Peers.
type peers struct{ n *Node }

func (a peers) Judge(ctx context.Context, node cluster.NodeID, def vmmanager.Definition, m appmodules.Module,
	places []protect.Place) ([]vmmanager.Finding, error) {
	return a.n.fitness.Ask(ctx, node, fitness.Question{VM: def.Name, Text: def.Text, Module: m.Name, Places: places})
}

func (a peers) Elsewhere(ctx context.Context, vm string) (on, missing []string) {
	return a.n.Lookout.Elsewhere(ctx, vm)
}

func (a peers) Make(ctx context.Context, node cluster.NodeID, id string, m appmodules.Module,
	places []protect.Place) ([]protect.Made, error) {
	var made []protect.Made
	err := a.n.rpcTo(ctx, node, "images", images.Hosting{ID: id, Module: m.Name, VM: m.Subject(), Places: places}, &made)
	return made, err
}

func (a peers) Drop(ctx context.Context, node cluster.NodeID, id string, all []protect.Made) error {
	if err := a.undo(ctx, node, id, all); err != nil {
		return fmt.Errorf("images on %s: %w", node, err)
	}
	return nil
}

// undo has another node undo a hosting. One that is not known there, or was used by then, is left alone.
func (a peers) undo(ctx context.Context, node cluster.NodeID, id string, all []protect.Made) error {
	err := a.n.rpcTo(ctx, node, "hostings/"+id+"/drop", nil, nil)
	if errors.Is(err, cluster.ErrOlder) { // which knows them by their paths
		err = a.n.rpcTo(ctx, node, "images/drop", all, nil)
	}
	return err
}

func (a peers) Store(ctx context.Context, node cluster.NodeID, s protect.New) error {
	nm, err := a.n.fresh(s)
	if err != nil {
		return err
	}
	return a.n.rpcTo(ctx, node, "modules", nm, nil)
}

// Identities: a node of version 1 would take a new module for an older one of its name.
func (a peers) Identities(ctx context.Context, node cluster.NodeID) (bool, error) {
	speaks, err := a.n.plane.Version(ctx, node)
	return speaks >= registry.HasIdentities, err
}

// Clear leaves alone what has run: that knows an epoch after the first.
func (a peers) Clear(ctx context.Context, node cluster.NodeID, name string) error {
	return a.remove(ctx, node, name, removal{Epoch: 1})
}

func (a peers) Forget(ctx context.Context, node cluster.NodeID, m appmodules.Module, epoch cluster.Epoch) error {
	return a.remove(ctx, node, m.Name, removal{epoch, m.Identity()})
}

// remove is answered when the peer has forgotten it, or has none. A refusal (orders.MayDrop) is api.ErrConflict.
func (a peers) remove(ctx context.Context, node cluster.NodeID, name string, r removal) error {
	if err := a.n.rpcTo(ctx, node, "modules/"+name+"/remove", r, nil); err != nil {
		return fmt.Errorf("have %s forget module %s: %w", node, name, err)
	}
	return nil
}

// Answers asks for something small that every release knows; a node that has no such module has answered too.
func (a peers) Answers(ctx context.Context, node cluster.NodeID, m appmodules.Module) error {
	var said []api.LogEntry
	if err := a.n.rpcTo(ctx, node, "modules/"+m.Name+"/log", 1, &said); err != nil && !errors.Is(err, api.ErrNotFound) {
		return err
	}
	return nil
}

// Decided is only of now: a witness may be added or removed while a work goes on.
func (a peers) Decided(node cluster.NodeID) bool {
	return len(a.n.witnesses()) > 0 || a.n.Desk.Can(node)
}
