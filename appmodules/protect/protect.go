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

// protection is one run of a protect, or of ending one that was cut short. It belongs to one goroutine.
type protection struct {
	record
	w       *Works
	task    Task               // nil: nobody follows
	notices []api.Notice       // what the peer says of the VM
	places  map[string][]Place // images to make, by node
	copies  []*seeding
}

func (p *protection) peer() cluster.NodeID { return p.w.peer(p.Module) }

func (p *protection) plan() *plan {
	return &plan{
		mark: p.Mark, noReturn: stepStore,
		save: func(m Mark) error { p.Mark = m; return p.w.keep(p.record) },
		steps: []step{
			{name: stepImages, do: p.makeImages, undo: func(context.Context) error {
				return errors.Join(p.w.cfg.Modules.Forget(p.Module), p.w.cfg.Volumes.Drop(p.Module, p.Mine))
			}},
			{name: stepMove, do: p.move, undo: p.giveBack},
			{name: stepStore, do: p.store, through: func(context.Context) (bool,
				error) {
				return p.w.cfg.Modules.Stored(p.Module.Name)
			}},
			{name: stepBegin, do: p.begin},
		},
	}
}

// run protects the VM. What fails before the module is durable is undone, if need be later.
func (p *protection) run(ctx context.Context, id string, t Task) (string, error) {
	p.Task, p.task = id, t
	t.Step("asks %s what it would say to the VM", p.peer())
	if err := p.fit(ctx); err != nil {
		return "", err // nothing was begun
	}
	err := p.plan().forward(ctx)
	through := err == nil
	if through {
		if err = p.w.End(p.Module.Name); err == nil {
			return p.result(), nil
		}
	}
	switch {
	case p.Mark.At == "":
		return "", err
	case ctx.Err() != nil:
		return "", errors.Join(err, p.closeCopies(), errors.New("the daemon stops; its next run undoes the rest"))
	}
	if !through {
		t.Step("undoes what was begun")
	}
	result, failed, again := p.resume(ctx)
	switch {
	case again != nil && ctx.Err() != nil:
		return "", errors.Join(err, errors.New("the daemon stops; its next run undoes the rest"))
	case again != nil:
		p.w.cfg.Spawn(func(ctx context.Context) {
			p.w.insist(ctx, p.record, func(ctx context.Context) error { _, _, err := p.resume(ctx); return err })
		})
		if through {
			return "", fmt.Errorf("VM %s is protected; ending the work goes on: %w", p.Definition.Name, again)
		}
		return "", fmt.Errorf("%w; undoing it goes on: %w", err, again)
	case failed != nil:
		return "", err
	}
	return result, nil
}

// resume ends a protect that was cut short or has failed: it goes on where the module is durable, and is undone where
// it is not. failed tells why it did not come to its result; with err it is to be called again.
func (p *protection) resume(ctx context.Context) (result string, failed, err error) {
	pl := p.plan()
	on, err := pl.committed(ctx)
	switch {
	case err != nil:
	case on:
		if err = pl.forward(ctx); err == nil {
			return p.result(), nil, p.w.End(p.Module.Name)
		}
	default:
		if err = pl.back(ctx); err == nil {
			failed = fmt.Errorf("the daemon ended during it: VM %s has its own disks again: repeat the command",
				p.Definition.Name)
			_, err = p.w.depart(ctx, p.record)
		}
	}
	if err != nil && ctx.Err() != nil { // nobody calls it again in this run
		err = errors.Join(err, p.closeCopies())
	}
	return "", failed, err
}

func (p *protection) say(format string, args ...any) {
	if p.task != nil {
		p.task.Step(format, args...)
	}
}

// rewired is the VM's definition on its volumes.
func (p *protection) rewired() (vmmanager.Definition, error) {
	return p.w.cfg.Hypervisor.Rewire(p.Definition, p.w.cfg.Modules.Endpoints(p.Module))
}

// makeImages makes the volumes' images where there are none yet.
func (p *protection) makeImages(ctx context.Context) error {
	self, peer := string(p.w.self()), string(p.peer())
	p.say("makes the images on %s and %s", self, peer)
	// An earlier protect of this VM may have been cut short.
	err := p.w.cfg.Peers.Clear(ctx, p.peer(), p.Module.Name)
	if err == nil {
		var known bool
		if known, err = p.w.cfg.Peers.Identities(ctx, p.peer()); !known {
			p.Module.ID = "" // the peer would vote by the name
		}
	}
	if err == nil {
		p.Theirs, err = p.w.cfg.Peers.Make(ctx, p.peer(), p.Task, p.Module, p.places[peer])
	}
	if err == nil {
		p.Mine, err = p.w.cfg.Volumes.Make(p.Module, p.places[self])
	}
	if err != nil {
		return err
	}
	for node, images := range map[string][]Made{self: p.Mine, peer: p.Theirs} {
		for i, image := range images {
			at := slices.IndexFunc(p.Module.Volumes(), func(
				v appmodules.Volume) bool {
				return v.Target == p.places[node][i].Target
			})
			p.Module.Volumes()[at].Paths[node] = image.Path
		}
	}
	if faults := p.Module.Validate(); len(faults) > 0 {
		return fmt.Errorf("%w: %s", api.ErrInvalid, faults[0].Error())
	}
	return nil
}

// move copies the disks of the running VM into the volumes and switches it over.
func (p *protection) move(ctx context.Context) error {
	if !p.Running {
		return nil
	}
	p.say("lets the VM pause, not fail, when a disk does not answer")
	if err := p.harden(ctx); err != nil {
		return err
	}
	if err := p.serve(ctx); err != nil {
		return err
	}
	for _, e := range p.w.cfg.Modules.Endpoints(p.Module) {
		p.say("copies disk %s into its volume while the VM runs", e.Target)
		began := time.Now()
		err := p.w.cfg.Hypervisor.Adopt(ctx, p.Definition.Name, e, func(done, total int64) { p.copied(done, total, began) })
		if err != nil {
			for _, s := range p.copies {
				err = errors.Join(err, s.failure())
			}
			return err
		}
	}
	return nil
}

func (p *protection) copied(done, total int64, began time.Time) {
	if p.task != nil {
		p.task.Copied("adopt", done, total, began)
	}
}

// harden has the running VM's disks pause it on errors, which the hypervisor can change only while the VM stands still.
func (p *protection) harden(ctx context.Context) error {
	hv := p.w.cfg.Hypervisor
	var targets []string
	for _, v := range p.Module.Volumes() {
		targets = append(targets, v.Target)
	}
	stop := func(def vmmanager.Definition) (vmmanager.Definition, error) { return hv.Harden(def, targets) }
	return hv.Refit(ctx, p.Definition.Name, stop, func() error { return nil })
}

// serve serves all volumes, unless that is done already.
func (p *protection) serve(ctx context.Context) error {
	for _, v := range p.Module.Volumes()[len(p.copies):] {
		s, err := p.w.seed(ctx, p.Module, v)
		if err != nil {
			return err
		}
		p.copies = append(p.copies, s)
	}
	return nil
}

func (p *protection) closeCopies() error {
	var errs []error
	for _, s := range p.copies {
		errs = append(errs, s.close())
	}
	p.copies = nil
	return errors.Join(errs...)
}

// store makes the module durable on the peer, then here, where it counts.
func (p *protection) store(ctx context.Context) error {
	p.say("stores the module on both nodes")
	rewired, err := p.rewired()
	if err != nil {
		return err
	}
	n := New{Module: p.Module, Made: time.Now().UTC(), Source: p.w.self(), Rewired: rewired.Text, Own: p.Definition}
	if err := p.w.cfg.Peers.Store(ctx, p.peer(), n); err != nil {
		return fmt.Errorf("store module on %s: %w", p.peer(), err)
	}
	return p.w.cfg.Modules.Store(ctx, n)
}

// begin has the module's engine take the volumes over. In between a running VM waits for its disks.
func (p *protection) begin(ctx context.Context) error {
	if err := p.closeCopies(); err != nil {
		p.w.cfg.Logger.Warn("a volume did not close cleanly", "module", p.Module.Name, "err", err)
	}
	if err := p.w.cfg.Modules.Begin(p.Module.Name); err != nil || !p.Running {
		return err
	}
	return p.w.cfg.Modules.Run(ctx, p.Module.Name)
}

// result is what a protect has led to, in a sentence.
func (p *protection) result() string {
	name, vm := p.Module.Name, p.Definition.Name
	if !p.Running {
		return fmt.Sprintf("VM %s is protected as module %s and off: `duet start %s` starts it, and %s gets its copy "+
			"then%s%s", vm, name, name, p.peer(), p.caution(), p.noticed())
	}
	var paths []string
	for _, d := range p.Definition.Disks {
		paths = append(paths, d.Path)
	}
	return fmt.Sprintf("VM %s is protected as module %s and runs. %s is getting its copy, and until that is complete "+
		"there is one: `duet status %s` shows how far it is. The old images are no longer used: %s%s%s", vm, name, p.peer(),
		name, strings.Join(paths, ", "), p.caution(), p.noticed())
}

// caution says what an admin might not expect of the safe policy.
func (p *protection) caution() string {
	m := p.Module
	if cluster.Arbitration(m.Policy.Arbitration) != cluster.Safe || p.w.cfg.Peers.Decided(p.peer()) {
		return ""
	}
	return fmt.Sprintf(". Its arbitration is safe and there is neither witness nor fence agent: when either node dies, "+
		"the VM stands still "+
		"until that node is back or `duet prim %s` says otherwise. `duet cluster witness add` mends that; `available` in "+
		"`duet config show %s` goes on by itself", m.Name, m.Name)
}
