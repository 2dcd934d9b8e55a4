package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"duet/appmodules"
	"duet/blockrepl/badgerlog"
	"duet/cluster"
	"duet/console/api"
	"duet/vmmanager"
)

// unfinished is a protect or a release that has begun to change its VM. It is durable
// until it has ended, so that a daemon that dies in between leaves no VM on disks that
// nobody serves: the next one undoes the protect, or ends the release.
type unfinished struct {
	Task   string            `json:"task"`
	Kind   string            `json:"kind"` // protect or release
	Module appmodules.Module `json:"module"`
	// Definition is what the VM has when it is not protected.
	Definition vmmanager.Definition `json:"definition"`
	Images     []vmmanager.Disk     `json:"images"`  // that the VM is put on, of a release
	Running    bool                 `json:"running"` // the VM ran when it began
	Mine       []made               `json:"mine"`    // images made on this node
	Theirs     []made               `json:"theirs"`  // and on the peer
	// Back: the VM has its own disks again; the peer still has to forget the module.
	Back  bool          `json:"back"`
	Told  bool          `json:"told"`  // the peer has forgotten it, of a release
	Epoch cluster.Epoch `json:"epoch"` // of a release
}

const unfinishedPrefix = "unfinished/"

func (n *Node) values() badgerlog.Values { return badgerlog.Values{Store: n.store} }

func (n *Node) keepUnfinished(u unfinished) error {
	return n.values().Save(unfinishedPrefix+u.Module.Name, u)
}

func (n *Node) endUnfinished(module string) error {
	return n.values().Delete(unfinishedPrefix + module)
}

// onlyPeer notes that the VM has its own disks and only the peer must be told. The name
// is free for another protect from then on.
func (n *Node) onlyPeer(u unfinished) error {
	u.Back = true
	return errors.Join(n.values().Save(unfinishedPrefix+n.later(u), u), n.endUnfinished(u.Module.Name))
}

// later names a work of which only the peer must be told.
func (n *Node) later(u unfinished) string {
	return u.Module.Name + "@" + u.Module.Peer(string(n.self()))
}

// loadUnfinished reads what is not ended, by module, or by module and peer.
func (n *Node) loadUnfinished() (map[string]unfinished, error) {
	keys, err := n.values().Keys(unfinishedPrefix)
	if err != nil {
		return nil, fmt.Errorf("list unfinished works: %w", err)
	}
	all := make(map[string]unfinished, len(keys))
	for _, key := range keys {
		var u unfinished
		if _, err := n.values().Load(key, &u); err != nil {
			return nil, err
		}
		all[strings.TrimPrefix(key, unfinishedPrefix)] = u
	}
	return all, nil
}

// mayBegin refuses a protect while an earlier one of the VM or of its name goes on.
func (n *Node) mayBegin(m appmodules.Module) error {
	all, err := n.loadUnfinished()
	if err != nil {
		return err
	}
	for _, u := range all {
		if !u.Back && (u.Module.Name == m.Name || u.Definition.Name == m.VM.Domain) {
			return fmt.Errorf("%w: a %s of VM %s as module %s goes on or is being undone: the log of duetd has more", api.ErrConflict, u.Kind, u.Definition.Name, u.Module.Name)
		}
	}
	return nil
}

// resumeWorks takes up what an earlier run left.
func (n *Node) resumeWorks() {
	for _, u := range n.left {
		n.log.Warn("the daemon ended during a "+u.Kind+", which is taken up", "module", u.Module.Name, "vm", u.Definition.Name)
		n.spawn(func(ctx context.Context) { n.resumeWork(ctx, u) })
	}
}

// resumeWork ends one work that was cut short, and the task that it was.
func (n *Node) resumeWork(ctx context.Context, u unfinished) {
	name, what := u.Module.Name, u.Kind+" of "+u.Module.Name
	if u.Back {
		p := &protection{n: n, unfinished: u}
		work := p.goBack
		if u.Kind == "release" {
			work = func(ctx context.Context) error { return n.tellReleased(ctx, u) }
		}
		n.insist(ctx, what, work)
		return
	}
	t := n.tasks.again(u.Task, u.Kind, name)
	p := &protection{n: n, unfinished: u}
	var result string
	var failed error
	switch _, err := n.module(name); {
	case u.Kind == "release":
		n.insist(ctx, what, func(ctx context.Context) error { return n.endRelease(ctx, u) })
		result = fmt.Sprintf("VM %s is an ordinary VM of %s again", u.Definition.Name, n.self())
		if _, err := n.module(name); err == nil {
			failed = fmt.Errorf("the daemon ended during it: VM %s is protected as before: repeat the command", u.Definition.Name)
		}
	case err == nil:
		n.insist(ctx, what, p.started)
		result = p.result()
	default:
		n.insist(ctx, what, p.leave)
		failed = fmt.Errorf("the daemon ended during it: VM %s has its own disks again: repeat the command", u.Definition.Name)
	}
	t.end(result, errors.Join(failed, ctx.Err()))
	if p.Back {
		n.insist(ctx, what, p.goBack)
	}
}

// insist repeats work until it succeeds or ctx ends.
func (n *Node) insist(ctx context.Context, what string, work func(context.Context) error) {
	const longest = 15 * time.Second
	var said string
	for wait := time.Second; ; wait = min(2*wait, longest) {
		err := work(ctx)
		if err == nil {
			n.log.Info("what was cut short is in order again", "work", what)
			return
		}
		if ctx.Err() != nil {
			return
		}
		if text := err.Error(); text != said { // it may go on for days
			n.log.Warn("what was cut short is not in order yet, trying again", "work", what, "err", err)
			said = text
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return
		}
	}
}

// undo gives the VM back after a protect has failed: now or, if that cannot be done now,
// later, or when the daemon runs again.
func (p *protection) undo(ctx context.Context) error {
	err := p.goBack(ctx)
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return errors.New("the daemon stops; its next run undoes the rest")
	}
	p.n.spawn(func(ctx context.Context) { p.n.insist(ctx, "protect of "+p.Module.Name, p.goBack) })
	return fmt.Errorf("undoing it goes on: %w", err)
}

// leave undoes a protect on this node, from wherever it got to. It may be repeated.
func (p *protection) leave(ctx context.Context) error {
	if p.Back {
		return nil
	}
	if err := p.giveBack(ctx); err != nil {
		if ctx.Err() != nil {
			err = errors.Join(err, p.closeCopies())
		}
		return fmt.Errorf("give VM %s its disks back: %w", p.Definition.Name, err)
	}
	if err := p.n.onlyPeer(p.unfinished); err != nil {
		return err
	}
	p.Back = true
	return nil
}

// goBack is leave, and has the peer forget the module. It may be repeated.
func (p *protection) goBack(ctx context.Context) error {
	n := p.n
	if err := p.leave(ctx); err != nil {
		return err
	}
	if len(p.Theirs) > 0 { // it may have heard of the module
		if err := n.removeAt(ctx, p.peer(), p.Module.Name, removal{1, p.Module.Identity()}); err != nil {
			return err
		}
		if err := n.undoHosting(ctx, p.peer(), p.Task, p.Theirs); err != nil {
			return fmt.Errorf("images on %s: %w", p.peer(), err)
		}
	}
	return n.endUnfinished(n.later(p.unfinished))
}

// giveBack returns the VM to the disks it had and forgets the rest of this node.
func (p *protection) giveBack(ctx context.Context) error {
	n, hv, vm := p.n, p.n.cfg.Hypervisor, p.Definition.Name
	state, err := n.settled(ctx, vm)
	if err != nil {
		return err
	}
	if state != vmmanager.Absent { // else somebody has undefined it
		on, err := hv.Endpoints(ctx, vm)
		if err == nil && state != vmmanager.Off && len(on) > 0 {
			err = p.copyBack(ctx, state, on)
		}
		if err == nil {
			err = p.redefine(ctx, state, on)
		}
		if err != nil {
			return err
		}
	}
	err = p.closeCopies()
	return errors.Join(err, n.forgetModule(p.Module), n.dropImages(p.Mine))
}

// settled is what the VM does. A paused one may be on its way: its memory is still being
// saved for a daemon that is dead.
func (n *Node) settled(ctx context.Context, vm string) (vmmanager.State, error) {
	state, err := n.cfg.Hypervisor.State(ctx, vm)
	if err == nil && state == vmmanager.Paused {
		err = fmt.Errorf("VM %s is paused: it has to run or be off", vm)
	}
	return state, err
}

// copyBack moves the running VM from the volumes back to its own images.
func (p *protection) copyBack(ctx context.Context, state vmmanager.State, on []vmmanager.Endpoint) error {
	hv := p.n.cfg.Hypervisor
	if slices.ContainsFunc(p.copies, func(s *seeding) bool { return s.failure() != nil }) {
		_ = p.closeCopies() // what can still be read is served anew
	}
	if err := p.serve(ctx); err != nil {
		return err
	}
	if state == vmmanager.IOError {
		if err := hv.Start(ctx, p.Definition.Name); err != nil {
			return err
		}
	}
	for _, d := range p.Definition.Disks {
		for _, e := range on {
			if e.Target != d.Target {
				continue
			}
			if err := hv.Release(ctx, p.Definition.Name, d, func(int64, int64) {}); err != nil {
				return err
			}
		}
	}
	return nil
}

// redefine gives the VM its own definition. The images of a VM that went off while
// it was on the volumes are newer than its own: it keeps those.
func (p *protection) redefine(ctx context.Context, state vmmanager.State, on []vmmanager.Endpoint) error {
	hv, def := p.n.cfg.Hypervisor, p.Definition
	if state != vmmanager.Off {
		return hv.Define(ctx, def)
	}
	var newer []vmmanager.Disk
	for _, e := range on {
		for _, v := range p.Module.Volumes {
			if v.Target == e.Target {
				image := p.n.imageOf(v)
				newer = append(newer, image)
				p.keepImage(image.Path)
			}
		}
	}
	def, err := hv.Restore(def, def, newer)
	if err != nil {
		return err
	}
	def.Disks = placed(p.Definition.Disks, newer)
	if len(newer) > 0 {
		// From here on this is what the VM has, also for a run that begins after the
		// definition has changed: it could not see any more that the images are in use.
		p.Definition = def
		if err := p.n.keepUnfinished(p.unfinished); err != nil {
			return err
		}
	}
	now, err := hv.Definition(ctx, def.Name)
	if err != nil {
		return err
	}
	if now.Saved && p.Running { // the death came while its memory was saved, before any copy
		own := p.Definition
		back := func(now vmmanager.Definition) (vmmanager.Definition, error) { return hv.Restore(now, own, own.Disks) }
		return hv.Reload(ctx, def.Name, back, func() error { return nil })
	}
	return hv.Define(ctx, def)
}

// placed are the disks with those that lie elsewhere by now in their place.
func placed(all, newer []vmmanager.Disk) []vmmanager.Disk {
	out := slices.Clone(all)
	for _, d := range newer {
		if i := slices.IndexFunc(out, func(o vmmanager.Disk) bool { return o.Target == d.Target }); i >= 0 {
			out[i] = d
		}
	}
	return out
}

// keepImage takes an image off the list of those that are dropped.
func (p *protection) keepImage(path string) {
	for i, m := range p.Mine {
		if m.Path == path {
			p.Mine[i].Was = path
		}
	}
}

// endRelease ends a release whose daemon died; the module is not among the node's
// until then. Once the VM was saved it goes forward; before, the module simply goes on.
func (n *Node) endRelease(ctx context.Context, u unfinished) error {
	name := u.Module.Name
	var s stored
	durable, err := n.values().Load(configKey(name), &s)
	if err != nil {
		return err
	}
	state, err := n.settled(ctx, u.Definition.Name)
	if err != nil {
		return err
	}
	now, err := n.cfg.Hypervisor.Definition(ctx, u.Definition.Name)
	if err != nil {
		return err
	}
	if durable && !now.Saved {
		n.log.Warn("the VM is protected as before", "module", name, "remedy", "duet vm release "+name+" again")
		if err := n.endUnfinished(name); err != nil {
			return err // once more: an engine is begun once
		}
		return n.beginModule(s)
	}
	if now.Saved || state == vmmanager.Off {
		err = n.cfg.Hypervisor.Reload(ctx, u.Definition.Name, n.restoring(u), func() error {
			return errors.Join(n.letIn(ctx, u), n.forgetModule(u.Module))
		})
	} // else it runs: that was the last step
	if err != nil {
		return err
	}
	return n.released(ctx, u)
}
