package node

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"duet/appmodules"
	"duet/appmodules/engine"
	"duet/blockrepl"
	"duet/cluster"
	"duet/console/api"
	"duet/vmmanager"
)

// Release gives the VM of a module back as an ordinary VM of the node that has its
// newest data, on the raw image that lies there. A running VM goes on; its guest
// sees a pause. The other node keeps its image and forgets the rest.
func (n *Node) Release(ctx context.Context, name string, r api.ReleaseRequest) (api.Task, error) {
	m, err := n.module(name)
	if err != nil {
		return api.Task{}, err
	}
	if err := n.mayLeave(ctx, m); err != nil {
		return api.Task{}, err
	}
	return n.run("release", name, func(ctx context.Context, t *task) (string, error) { return n.release(ctx, t, m, r) })
}

// mayLeave returns nil if the VM of a module can be taken off its volumes on this node as they are.
func (n *Node) mayLeave(ctx context.Context, m *module) error {
	name := m.cfg.Name
	if err := m.engine.Booted(ctx); err != nil {
		return fmt.Errorf("release %s: it is not known yet whether its VM runs: %w", name, err)
	}
	st := m.engine.State()
	if primary, _ := n.roles(m); primary != "" && primary != string(n.self()) {
		return fmt.Errorf("%w: module %s is primary on %s: release it there, or `duet swap %s` first", api.ErrConflict, name, primary, name)
	}
	switch st.Status.Phase {
	case appmodules.Running.String():
	case appmodules.Stopped.String():
		if !st.Record.Holds(n.self()) || !st.Record.IsComplete() {
			return fmt.Errorf("%w: the newest data of %s are on %s: release it there", api.ErrConflict, name, st.Record.Holder)
		}
	default:
		return fmt.Errorf("%w: module %s is %s (%s): release it when it is running or stopped", api.ErrConflict, name, st.Status.Role, st.Status.Status)
	}
	return nil
}

// release takes the VM off its volumes first, and has the peer forget the module then: until nothing can fail any more
// the peer only counts as outdated, which a resync of what was written since mends.
func (n *Node) release(ctx context.Context, t *task, m *module, r api.ReleaseRequest) (string, error) {
	name, vm := m.cfg.Name, m.cfg.VM.Domain
	peer := cluster.NodeID(m.cfg.Peer(string(n.self())))
	if err := n.mayRelease(ctx, name, peer, r); err != nil {
		return "", err
	}
	u, err := n.planRelease(ctx, t, m)
	if err != nil {
		return "", err
	}
	if err := n.mayLeave(ctx, m); err != nil { // it may have begun to start since this was asked for
		return "", err
	}
	if m.engine.State().Status.Phase == appmodules.Running.String() {
		t.step("goes on without %s", peer)
		if err := n.leavePeer(ctx, m); err != nil {
			return "", err
		}
	}
	u.Epoch = m.engine.State().Record.Epoch
	t.step("puts the VM back on its images")
	if err := n.keepUnfinished(u); err != nil {
		return "", err
	}
	err = n.cfg.Hypervisor.Refit(ctx, vm, n.restoring(u), func() error {
		return errors.Join(n.letIn(ctx, u), n.removeModule(ctx, name))
	})
	if err != nil && ctx.Err() != nil {
		return "", fmt.Errorf("release %s: the daemon stops; its next run decides: %w", name, err)
	}
	if _, gone := n.module(name); err != nil && gone != nil {
		// It cannot come back, so it must get through.
		n.spawn(func(ctx context.Context) {
			n.insist(ctx, "release of "+name, func(ctx context.Context) error { return n.endRelease(ctx, u) })
		})
		return "", fmt.Errorf("release %s: it goes on: %w", name, err)
	}
	if err != nil {
		m.engine.Rejoin()
		return "", fmt.Errorf("release %s: the VM is protected as before: %w", name, errors.Join(err, n.endUnfinished(name)))
	}
	t.step("has %s forget the module", peer)
	u.Told = n.removeAt(ctx, peer, name, u.removal()) == nil
	if err := n.released(ctx, u); err != nil {
		return "", fmt.Errorf("release %s: %w", name, err)
	}
	var where []string
	for _, d := range u.Images {
		where = append(where, d.Path)
	}
	if !u.Told {
		return fmt.Sprintf("VM %s is an ordinary VM of %s again, on %s; %s is told when it answers, unless it is removed from the cluster", vm, n.self(), strings.Join(where, ", "), peer), nil
	}
	return fmt.Sprintf("VM %s is an ordinary VM of %s again, on %s; %s keeps the copies it made as *%s until you delete them", vm, n.self(),
		strings.Join(where, ", "), peer, retired), nil
}

// mayRelease refuses a release whose peer could not be told, unless an admin knows that it is gone.
func (n *Node) mayRelease(ctx context.Context, name string, peer cluster.NodeID, r api.ReleaseRequest) error {
	if r.WithoutPeer {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	var said []api.LogEntry
	if err := n.rpcTo(ctx, peer, "modules/"+name+"/log", 1, &said); err != nil && !errors.Is(err, api.ErrNotFound) {
		return fmt.Errorf("release needs %s, or the module would come back from there (if it is gone for good: --without-peer): %w", peer, err)
	}
	return nil
}

// planRelease says what a release does, and refuses what would lose data. A VM whose definition somebody has deleted
// gets it back from the module.
func (n *Node) planRelease(ctx context.Context, t *task, m *module) (unfinished, error) {
	hv, vm := n.cfg.Hypervisor, m.cfg.VM.Domain
	kept, err := m.engine.Definition(ctx)
	if err != nil {
		return unfinished{}, err
	}
	if _, err := hv.Definition(ctx, vm); errors.Is(err, vmmanager.ErrNotFound) && !errors.Is(err, vmmanager.ErrUnsupported) {
		err = hv.Define(ctx, vmmanager.Definition{Name: vm, Text: kept.Text})
		if err != nil {
			return unfinished{}, fmt.Errorf("VM %s is not defined any more, and cannot be: %w", vm, err)
		}
	} else if err != nil {
		return unfinished{}, err
	}
	strays, err := hv.Strays(ctx, vm, n.endpoints(m.cfg))
	if err != nil {
		return unfinished{}, err
	}
	for _, d := range strays {
		if !d.Extra && d.On != "" {
			return unfinished{}, fmt.Errorf("%w: disk %s of VM %s is on %s and not on its volume, and would be put back to what it was before: "+
				"`duet status %s` says how to bring it back", api.ErrConflict, d.Target, vm, d.On, m.cfg.Name)
		}
	}
	u := unfinished{Task: t.state.ID, Kind: "release", Module: m.cfg, Definition: kept.Own}
	u.Definition.Name = vm
	for _, v := range m.cfg.Volumes {
		u.Images = append(u.Images, n.imageOf(v))
	}
	return u, nil
}

// imageOf is the disk that a VM has when it is on the image of a volume.
func (n *Node) imageOf(v appmodules.Volume) vmmanager.Disk {
	path := v.Paths[string(n.self())]
	return vmmanager.Disk{Target: v.Target, Path: path, Format: "raw", Block: isBlock(path), Size: v.Size}
}

// restoring puts a VM on its images, and all else as it was before it was protected.
func (n *Node) restoring(u unfinished) vmmanager.Edit {
	return func(def vmmanager.Definition) (vmmanager.Definition, error) {
		return n.cfg.Hypervisor.Restore(def, u.Definition, u.Images)
	}
}

// letIn gives the images that this node has made to whom the VM's process runs as: an admin's own have an owner.
func (n *Node) letIn(ctx context.Context, u unfinished) error {
	var mine []string
	for _, d := range u.Images {
		if filepath.Dir(d.Path) == n.imageDir(u.Module.Name) {
			mine = append(mine, d.Path)
		}
	}
	if len(mine) == 0 {
		return nil
	}
	return n.cfg.Hypervisor.Grant(ctx, u.Definition.Name, mine)
}

// leavePeer has the module go on without its peer before its VM leaves the volumes.
func (n *Node) leavePeer(ctx context.Context, m *module) error {
	ctx, cancel := context.WithTimeout(ctx, partTime)
	defer cancel()
	err := m.engine.Part(ctx, "the VM is being released")
	if err == nil {
		return nil
	}
	why := m.engine.State().Status.Why
	return fmt.Errorf("%w: release %s: the VM stays protected (%s): %w", api.ErrConflict, m.cfg.Name, why, err)
}

// partTime bounds getting the right to go on alone.
const partTime = 15 * time.Second

// released ends a release whose VM is an ordinary one again. A peer that was not told is told later.
func (n *Node) released(ctx context.Context, u unfinished) error {
	if u.Told {
		n.voting.Forget(ctx, u.Module.Identity())
		return n.endUnfinished(u.Module.Name)
	}
	if err := n.onlyPeer(u); err != nil {
		return err
	}
	n.spawn(func(ctx context.Context) {
		n.insist(ctx, "release of "+u.Module.Name, func(ctx context.Context) error { return n.tellReleased(ctx, u) })
	})
	return nil
}

// tellReleased has the peer forget a module that was released without it. Only then may the witness forget it too: it
// would let a stale copy become primary.
func (n *Node) tellReleased(ctx context.Context, u unfinished) error {
	peer := cluster.NodeID(u.Module.Peer(string(n.self())))
	if _, member := n.cluster().Member(peer); member {
		if err := n.removeAt(ctx, peer, u.Module.Name, u.removal()); err != nil {
			return err
		}
	}
	n.voting.Forget(ctx, u.Module.Identity())
	return n.endUnfinished(n.later(u))
}

// removal asks a node to forget a module whose VM stays on the asking node.
type removal struct {
	Epoch cluster.Epoch `json:"epoch"` // that the asking node knows
	// Module is the identity of the one that is meant; empty: whichever has the name.
	Module string `json:"module,omitempty"`
}

// removal is how the peer is told of a release.
func (u unfinished) removal() removal { return removal{u.Epoch, u.Module.Identity()} }

// removeAt has another node forget a module.
func (n *Node) removeAt(ctx context.Context, node cluster.NodeID, module string, r removal) error {
	if err := n.rpcTo(ctx, node, "modules/"+module+"/remove", r, nil); err != nil {
		return fmt.Errorf("have %s forget module %s: %w", node, module, err)
	}
	return nil
}

// dropModule forgets a module on the node that does not keep its VM, at the wish of from.
// It refuses where this node has data that from does not know of.
func (n *Node) dropModule(ctx context.Context, name string, from cluster.NodeID, r removal) error {
	m, err := n.module(name)
	if errors.Is(err, api.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	if r.Module != "" && r.Module != m.cfg.Identity() {
		return nil // that one is gone; its name was used again
	}
	st := m.engine.State()
	switch {
	case m.cfg.Peer(string(n.self())) != string(from):
		return fmt.Errorf("%w: module %s on %s has its other copy on %s: choose another name with --module", api.ErrConflict, name, n.self(), m.cfg.Peer(string(n.self())))
	case st.Status.Role == "PRIM" || st.Status.Role == "ALONE":
		return fmt.Errorf("%w: module %s is %s on %s", api.ErrConflict, name, st.Status.Role, n.self())
	case st.Record.Epoch > r.Epoch || st.Record.Epoch == r.Epoch && st.Record.Holds(n.self()):
		return fmt.Errorf("%w: %s has data of module %s that %s does not know: `duet vm release %s` there", api.ErrConflict, n.self(), name, from, name)
	}
	if err := errors.Join(n.removeModule(ctx, name), n.endUnfinished(name)); err != nil {
		return err
	}
	if err := n.cfg.Hypervisor.Undefine(ctx, m.cfg.VM.Domain); err != nil && !errors.Is(err, vmmanager.ErrNotFound) {
		return err
	}
	return n.retireImages(m.cfg)
}

// Verify compares both copies of a volume.
func (n *Node) Verify(_ context.Context, volume string, repair bool) (api.Task, error) {
	name, target, ok := cutVolume(volume)
	if !ok {
		return api.Task{}, fmt.Errorf("%w: volume %q: write MODULE/TARGET, as `duet volume list` shows them", api.ErrInvalid, volume)
	}
	m, err := n.module(name)
	if err != nil {
		return api.Task{}, err
	}
	if primary, _ := n.roles(m); primary != "" && primary != string(n.self()) {
		return api.Task{}, fmt.Errorf("%w: module %s is primary on %s: verify it there", api.ErrConflict, name, primary)
	}
	return n.run("verify", name, func(ctx context.Context, t *task) (string, error) {
		t.step("compares both copies of %s", volume)
		stop := make(chan struct{})
		defer close(stop)
		n.spawn(func(ctx context.Context) { watchVerify(ctx, stop, m.engine, target, t) })
		done, err := m.engine.Verify(ctx, target, repair)
		return verdict(volume, done), err
	})
}

// verdict is the result of a verify in a sentence.
func verdict(volume string, d blockrepl.VerifyDone) string {
	switch {
	case d.Err != nil:
		return ""
	case d.Count == 0:
		return fmt.Sprintf("both copies of %s are identical, proven at %s", volume, d.At.Format(time.TimeOnly))
	case d.Repaired == d.Count:
		return fmt.Sprintf("%d regions of %s differed and were repaired", d.Count, volume)
	}
	return fmt.Sprintf("%d regions of %s differ, the first at byte %d: `duet volume verify %s --repair` makes the peer's copy follow", d.Count, volume, d.Differs[0], volume)
}

// watchVerify shows how far a verify is.
func watchVerify(ctx context.Context, stop <-chan struct{}, e *engine.Engine, target string, t *task) {
	began := time.Now()
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-stop:
			return
		case <-ctx.Done():
			return
		}
		for _, v := range e.State().Status.Volumes {
			if v.Target == target && v.Verifying {
				t.progress(rate("verify", v.Verified, v.Size, began))
			}
		}
	}
}
