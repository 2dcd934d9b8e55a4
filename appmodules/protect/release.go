package protect

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"duet/appmodules"
	"duet/cluster"
	"duet/console/api"
	"duet/vmmanager"
)

// leave is one run of a release, or of ending one that was cut short. It belongs to one goroutine at a time: that of
// the task, then that which insists.
type leave struct {
	record
	w    *Works
	task Task // nil: nobody follows
}

// Release gives the VM of a module back as an ordinary VM of this node, which has its newest data, on the raw image
// that lies there. A running VM goes on; its guest sees a pause. The other node keeps its image and forgets the rest.
// It returns when that was begun, with the task that does it; what forbids a release is said by that, but for Leaves.
func (w *Works) Release(ctx context.Context, m appmodules.Module, r api.ReleaseRequest) (api.Task, error) {
	if err := w.cfg.Modules.Leaves(ctx, m.Name); err != nil {
		return api.Task{}, err
	}
	return w.cfg.Tasks.Run(releasing, m.Name, func(ctx context.Context, id string, t Task) (string, error) {
		if err := w.mayRelease(ctx, m, r); err != nil {
			return "", err
		}
		l, err := w.releaseOf(ctx, m)
		if err != nil {
			return "", err
		}
		if err := w.cfg.Modules.Leaves(ctx, m.Name); err != nil { // it may have begun to start since this was asked for
			return "", err
		}
		l.Task, l.task = id, t
		return l.run(ctx)
	})
}

// mayRelease refuses a release whose peer could not be told, unless an admin knows that it is gone: the module would
// come back from there. It asks for at most 2 s.
func (w *Works) mayRelease(ctx context.Context, m appmodules.Module, r api.ReleaseRequest) error {
	if r.WithoutPeer {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	if err := w.cfg.Peers.Answers(ctx, w.peer(m), m); err != nil {
		return fmt.Errorf("release needs %s, or the module would come back from there (if it is gone for good: "+
			"--without-peer): %w", w.peer(m), err)
	}
	return nil
}

// uninstallOf says what the end of an application's module does: its volume becomes a file with a file system on both
// nodes, and nothing is put back. Only a stopped one can go: what runs would lose its files.
func (w *Works) uninstallOf(m appmodules.Module) (*leave, error) {
	if w.cfg.Modules.Runs(m.Name) {
		return nil, fmt.Errorf("%w: module %s runs: `duet stop %s` first", api.ErrConflict, m.Name, m.Name)
	}
	l := &leave{w: w, record: record{Kind: releasing, Module: m}}
	for _, v := range m.Volumes() {
		l.Images = append(l.Images, w.cfg.Volumes.Disk(v))
	}
	return l, nil
}

// releaseOf says what a release does, and refuses what would lose data: a disk that has left its volume, whose newest
// data are not in the image that the VM would get. A VM whose definition somebody has deleted gets it back from the
// module.
func (w *Works) releaseOf(ctx context.Context, m appmodules.Module) (*leave, error) {
	if !m.Kind.Defined() {
		return w.uninstallOf(m)
	}
	hv, vm := w.cfg.Hypervisor, m.Subject()
	rewired, own, err := w.cfg.Modules.Kept(ctx, m.Name)
	if err != nil {
		return nil, err
	}
	if _, err := hv.Definition(ctx, vm); gone(err) {
		err = hv.Define(ctx, vmmanager.Definition{Name: vm, Text: rewired})
		if err != nil {
			return nil, fmt.Errorf("VM %s is not defined any more, and cannot be: %w", vm, err)
		}
	} else if err != nil {
		return nil, err
	}
	strays, err := hv.Strays(ctx, vm, w.cfg.Modules.Endpoints(m))
	if err != nil {
		return nil, err
	}
	for _, d := range strays {
		if !d.Extra && d.On != "" {
			return nil, fmt.Errorf("%w: disk %s of VM %s is on %s and not on its volume, and would be put back to what it was "+
				"before: "+
				"`duet status %s` says how to bring it back", api.ErrConflict, d.Target, vm, d.On, m.Name)
		}
	}
	l := &leave{w: w, record: record{Kind: releasing, Module: m, Definition: own}}
	l.Definition.Name = vm
	for _, v := range m.Volumes() {
		l.Images = append(l.Images, w.cfg.Volumes.Disk(v))
	}
	return l, nil
}

// plan takes the VM off its volumes first, and has the peer forget the module then: until nothing can fail any more
// the peer only counts as outdated, which a resync of what was written since mends.
func (l *leave) plan() *plan {
	return &plan{
		mark: l.Mark, noReturn: stepRefit,
		save: func(m Mark) error { l.Mark = m; return l.w.keep(l.record) },
		steps: []step{
			{name: stepPart, do: l.part, undo: l.rejoin},
			{name: stepRefit, do: l.refit, through: l.refitted},
		},
	}
}

// run is the work of the task. A release that fails before the VM was saved is undone; one that cannot be ended,
// either way, goes on beside it, and the task says so.
func (l *leave) run(ctx context.Context) (string, error) {
	err := l.plan().forward(ctx)
	if err == nil {
		var result string
		if result, err = l.released(ctx); err == nil {
			return result, nil
		}
	}
	if ctx.Err() != nil {
		return "", fmt.Errorf("the daemon stops; its next run decides: %w", err)
	}
	result, failed, again := l.resume(ctx)
	switch {
	case again != nil: // it goes on, or back, until it is through
		said := l.w.trouble(ctx, l.record, again) // of both it is the one that counts now
		l.w.cfg.Spawn(func(ctx context.Context) {
			l.w.insist(ctx, l.record, func(ctx context.Context) error { _, _, err := l.resume(ctx); return err })
		})
		return "", said
	case failed != nil:
		return "", fmt.Errorf("the VM is protected as before: %w", err)
	}
	return result, nil
}

// resume ends a release that was cut short or has failed: once the VM was saved it goes forward; before, the module
// simply goes on, and failed says so. With err it is to be called again.
func (l *leave) resume(ctx context.Context) (result string, failed, err error) {
	pl := l.plan()
	on, err := pl.committed(ctx)
	switch {
	case err != nil:
	case on:
		if err = pl.forward(ctx); err == nil {
			result, err = l.released(ctx)
		}
	default:
		if err = pl.back(ctx); err == nil {
			l.w.cfg.Logger.Warn("the module is as before: repeat the command", "module", l.Module.Name)
			failed = fmt.Errorf("the daemon ended during it: module %s is as before: repeat the command", l.Module.Name)
			err = l.w.End(l.Module.Name)
		}
	}
	return result, failed, err
}

func (l *leave) say(format string, args ...any) {
	if l.task != nil {
		l.task.Step(format, args...)
	}
}

// partTime bounds getting the right to go on alone, for which the guest's writes wait.
const partTime = 15 * time.Second

// part has the module go on without its peer before its VM leaves the volumes: from then on the peer's copy lacks
// what the VM writes, and must not be taken for complete. The epoch is read after that, as it may have got a new one
// by it.
func (l *leave) part(ctx context.Context) error {
	name := l.Module.Name
	if l.w.cfg.Modules.Runs(name) {
		l.say("goes on without %s", l.w.peer(l.Module))
		ctx, cancel := context.WithTimeout(ctx, partTime)
		defer cancel()
		if err := l.w.cfg.Modules.Part(ctx, name, "the VM is being released"); err != nil {
			return err
		}
	}
	l.Epoch = l.w.cfg.Modules.Epoch(name)
	return nil
}

// rejoin has the module go on as before, in the run after it too. A VM that was off may have the definition of the
// released one already.
func (l *leave) rejoin(ctx context.Context) error {
	hv, mods := l.w.cfg.Hypervisor, l.w.cfg.Modules
	if !l.Module.Kind.Defined() {
		return mods.Begin(l.Module.Name)
	}
	now, err := hv.Definition(ctx, l.Definition.Name)
	if err == nil && len(hv.On(now)) < len(l.Module.Volumes()) {
		if now, err = hv.Rewire(now, mods.Endpoints(l.Module)); err == nil {
			err = hv.Define(ctx, now)
		}
	}
	if err != nil && !errors.Is(err, vmmanager.ErrNotFound) {
		return err
	}
	if err := mods.Begin(l.Module.Name); err != nil {
		return err
	}
	mods.Rejoin(l.Module.Name)
	return nil
}

// refit puts the VM back on its images and forgets the module while it stands still, so that nobody else serves or
// writes the images when it goes on. In the first run the module has an engine, which serves the VM if that fails.
// After a cut it has none (Held): a VM that is off, its memory saved or not, is reloaded, and one that runs says that
// all was done.
func (l *leave) refit(ctx context.Context) error {
	hv, vm, mods := l.w.cfg.Hypervisor, l.Definition.Name, l.w.cfg.Modules
	if !l.Module.Kind.Defined() {
		if l.w.begun(l.Module.Name) {
			return mods.Remove(ctx, l.Module.Name)
		}
		return mods.Forget(l.Module)
	}
	l.say("puts the VM back on its images")
	restore := func(def vmmanager.Definition) (vmmanager.Definition, error) {
		return hv.Restore(def, l.Definition, l.Images)
	}
	if l.w.begun(l.Module.Name) {
		return hv.Refit(ctx, vm, restore, l.after(ctx, func() error { return mods.Remove(ctx, l.Module.Name) }))
	}
	state, err := l.w.settled(ctx, vm)
	if err != nil {
		return err
	}
	now, err := hv.Definition(ctx, vm)
	if gone(err) {
		return mods.Forget(l.Module) // somebody has deleted the VM meanwhile
	}
	if err != nil || !now.Saved && state != vmmanager.Off {
		return err // it runs: that was the last of it
	}
	return hv.Reload(ctx, vm, restore, l.after(ctx, func() error { return mods.Forget(l.Module) }))
}

// after forgets the module once the VM's process may open its images, and not before: a VM that goes on as before
// needs the module that serves its disks.
func (l *leave) after(ctx context.Context, forget func() error) func() error {
	return func() error {
		if err := l.letIn(ctx); err != nil {
			return err
		}
		failed := forget()
		if failed == nil {
			return nil
		}
		// What is forgotten cannot serve the VM any more: from here on it only goes forward, and what is left of the
		// module is litter.
		if stored, err := l.w.cfg.Modules.Stored(l.Module.Name); err != nil || stored {
			return failed
		}
		l.w.cfg.Logger.Warn("something of the module is left", "module", l.Module.Name, "err", failed)
		return nil
	}
}

// gone: there is no such VM.
func gone(err error) bool {
	return errors.Is(err, vmmanager.ErrNotFound) && !errors.Is(err, vmmanager.ErrUnsupported)
}

// begun: the module has an engine.
func (w *Works) begun(name string) bool {
	return slices.ContainsFunc(w.cfg.Modules.All(), func(m appmodules.Module) bool { return m.Name == name })
}

// refitted: the module is forgotten, or the VM saved to be put back. Where the module has an engine nothing was lost
// by a Refit that failed, so the plan goes back; after a cut a VM whose memory is saved is put back on its images,
// and the plan goes forward.
func (l *leave) refitted(ctx context.Context) (bool, error) {
	stored, err := l.w.cfg.Modules.Stored(l.Module.Name)
	if err != nil || !stored {
		return !stored, err
	}
	if l.w.begun(l.Module.Name) || !l.Module.Kind.Defined() {
		return false, nil // a Refit that fails leaves the VM running as before
	}
	if _, err := l.w.settled(ctx, l.Definition.Name); err != nil {
		return false, err
	}
	now, err := l.w.cfg.Hypervisor.Definition(ctx, l.Definition.Name)
	if gone(err) {
		return false, nil // nothing was saved of it
	}
	return now.Saved, err
}

// letIn gives the images that this node has made to whom the VM's process runs as: an admin's own have an owner.
func (l *leave) letIn(ctx context.Context) error {
	var mine []string
	for _, d := range l.Images {
		if l.w.cfg.Volumes.Made(l.Module, d.Path) {
			mine = append(mine, d.Path)
		}
	}
	if len(mine) == 0 {
		return nil
	}
	return l.w.cfg.Hypervisor.Grant(ctx, l.Definition.Name, mine)
}

// released ends a release whose VM is an ordinary one again. A peer that cannot be told is told later; an error is of
// the store on this node, and it is to be called again.
func (l *leave) released(ctx context.Context) (string, error) {
	peer := l.w.peer(l.Module)
	l.say("has %s forget the module", peer)
	told, err := l.w.depart(ctx, l.record)
	if err != nil {
		return "", err
	}
	return l.result(ctx, peer, told), nil
}

// result is what became of it, for its task. Somebody may have deleted the VM meanwhile: the data are there all the
// same.
func (l *leave) result(ctx context.Context, peer cluster.NodeID, told bool) string {
	var where []string
	for _, d := range l.Images {
		where = append(where, d.Path)
	}
	if !l.Module.Kind.Defined() {
		return l.uninstalled(peer, told, where)
	}
	form := "VM %s is an ordinary VM of %s again, on %s; "
	if _, err := l.w.cfg.Hypervisor.Definition(ctx, l.Definition.Name); gone(err) {
		form = "VM %s is protected no more; it was deleted from %s meanwhile, its data are in %s; "
	}
	said := fmt.Sprintf(form, l.Definition.Name, l.w.self(), strings.Join(where, ", "))
	if !told {
		return said + fmt.Sprintf("%s is told when it answers, unless it is removed from the cluster", peer)
	}
	return said + fmt.Sprintf("%s keeps the copies it made as *%s until you delete them", peer, Retired)
}

// uninstalled is what became of an application.
func (l *leave) uninstalled(peer cluster.NodeID, told bool, where []string) string {
	said := fmt.Sprintf("Module %s is uninstalled", l.Module.Name)
	if len(where) > 0 {
		said += fmt.Sprintf(". Its files are in %s (`mount -o loop` shows them); the directories have what they had before "+
			"the install", strings.Join(where, ", "))
	}
	if !told {
		return said + fmt.Sprintf(". %s is told when it answers, unless it is removed from the cluster", peer)
	}
	return said
}

// Retired is what follows the name of an image whose module is gone and whose VM has its newest data elsewhere.
const Retired = ".old"
