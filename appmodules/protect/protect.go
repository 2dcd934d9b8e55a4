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

// protection is one run of a protect, or of ending one that was cut short. It belongs to one goroutine at a time:
// that of the task, then that which insists.
type protection struct {
	record
	asked   record // as it was accepted; does not change, see Works.accept
	w       *Works
	task    Task               // nil: nobody follows
	notices []api.Notice       // what the peer says of the VM; an earlier run's are gone
	places  map[string][]Place // images to make, by node; not stored, as no later run makes images
	copies  []*seeding         // volumes that are served, the first ones of the module in order
}

func (p *protection) peer() cluster.NodeID { return p.w.peer(p.Module) }

// plan is made anew for each way, from the record as it is by then. The order: images come first, as they are in
// nobody's way; the VM is moved while the module does not exist yet, so that a failure leaves an ordinary VM; the
// module counts once it is stored here, and the peer, which is told first, only follows it.
func (p *protection) plan() *plan {
	return &plan{
		mark: p.Mark, noReturn: stepStore,
		// The mark is set before it is saved: a save that failed may be durable, and is to be undone.
		save: func(m Mark) error { p.Mark = m; return p.w.keep(p.record) },
		steps: []step{
			{name: stepImages, do: p.makeImages, undo: func(context.Context) error {
				return errors.Join(p.w.cfg.Modules.Forget(p.Module), p.w.cfg.Volumes.Drop(p.Module, p.Mine))
			}},
			p.takeIn(),
			{name: stepStore, do: p.store, through: func(context.Context) (bool,
				error) {
				return p.w.cfg.Modules.Stored(p.Module.Name)
			}},
			{name: stepBegin, do: p.begin},
		},
	}
}

// takeIn is the step by which what the module protects gets onto its volumes.
func (p *protection) takeIn() step {
	if p.Kind == installing {
		return step{name: stepFill, do: p.fill}
	}
	return step{name: stepMove, do: p.move, undo: p.giveBack}
}

// run protects the VM. What fails before the module is durable is undone, if need be later. It is the work of the
// task: id is the task's, and of the images that the peer makes. When ctx ends, as the daemon stops, nothing is
// undone any more but that volumes are no longer served; a VM on them waits for the next run.
func (p *protection) run(ctx context.Context, id string, t Task) (_ string, err error) {
	p.Task, p.task = id, t
	goesOn := false // beside the task, which ends
	defer func() {
		if !goesOn {
			p.w.end(p)
		}
	}()
	t.Step("asks %s what it would say to the VM", p.peer())
	if err := p.fit(ctx); err != nil {
		return "", err // nothing was begun
	}
	err = p.plan().forward(ctx)
	through := err == nil
	if through {
		if err = p.w.End(p.Module.Name); err == nil {
			return p.result(ctx), nil
		}
	}
	switch {
	case p.Mark.At == "":
		return "", err
	case ctx.Err() != nil:
		return "", errors.Join(err, p.closeCopies(), p.nextRun(ctx))
	}
	if !through {
		t.Step("undoes what was begun")
	}
	result, failed, again := p.resume(ctx)
	switch {
	case again != nil && ctx.Err() != nil:
		return "", errors.Join(err, p.nextRun(ctx))
	case again != nil:
		goesOn = true
		p.w.cfg.Spawn(func(ctx context.Context) {
			defer p.w.end(p)
			p.w.insist(ctx, p.record, func(ctx context.Context) error { _, _, err := p.resume(ctx); return err })
		})
		if through {
			return "", fmt.Errorf("module %s is stored; ending the work goes on: %w", p.Module.Name, again)
		}
		return "", fmt.Errorf("%w; undoing it goes on: %w", err, again)
	case failed != nil:
		return "", err
	}
	return result, nil
}

// nextRun says what becomes of a plan in whose midst the daemon stops.
func (p *protection) nextRun(ctx context.Context) error {
	switch on, err := p.plan().committed(ctx); {
	case err != nil:
		return fmt.Errorf("the daemon stops; its next run finds out whether module %s is stored: %w", p.Module.Name, err)
	case on:
		return fmt.Errorf("the daemon stops; module %s is stored, and its next run begins it", p.Module.Name)
	}
	return errors.New("the daemon stops; its next run undoes the rest")
}

// resume ends a protect that was cut short or has failed: it goes on where the module is durable, and is undone where
// it is not. failed tells why it did not come to its result; with err it is to be called again. Undoing ends with the
// VM on its own disks and the plan forgotten here; that the peer drops its images may follow later (depart).
func (p *protection) resume(ctx context.Context) (result string, failed, err error) {
	pl := p.plan()
	on, err := pl.committed(ctx)
	switch {
	case err != nil:
	case on:
		if err = pl.forward(ctx); err == nil {
			if err = p.w.End(p.Module.Name); err == nil {
				return p.result(ctx), nil, nil
			}
		}
	default:
		if err = pl.back(ctx); err == nil {
			failed = fmt.Errorf("the daemon ended during it: %s: repeat the command", p.backAgain())
			_, err = p.w.depart(ctx, p.record)
		}
	}
	if err != nil && ctx.Err() != nil { // nobody calls it again in this run
		err = errors.Join(err, p.closeCopies())
	}
	return "", failed, err
}

// backAgain is how things are once all is undone.
func (p *protection) backAgain() string {
	if p.Kind == installing {
		return "what was made for module " + p.Module.Name + " is gone again"
	}
	return "VM " + p.Definition.Name + " has its own disks again"
}

// say tells whoever follows.
func (p *protection) say(format string, args ...any) {
	if p.task != nil {
		p.task.Step(format, args...)
	}
}

// rewired is the VM's definition on its volumes; none of what has no definition.
func (p *protection) rewired() (vmmanager.Definition, error) {
	if !p.Module.Kind.Defined() {
		return vmmanager.Definition{}, nil
	}
	return p.w.cfg.Hypervisor.Rewire(p.Definition, p.w.cfg.Modules.Endpoints(p.Module))
}

// makeImages makes the volumes' images where there are none yet, the peer's first, and puts their paths into the
// module. What it is about to make here is stored before, so that an undo finds it wherever the daemon died, and what
// was made with the end of the step. A peer that knows modules by name only gets one without
// an identity, as both nodes and the witness have to vote by the same.
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
		p.Mine, err = p.w.cfg.Volumes.Choose(p.Module, p.places[self])
	}
	if err == nil {
		err = p.w.keep(p.record)
	}
	if err != nil {
		return err
	}
	made, err := p.w.cfg.Volumes.Make(p.Module, p.places[self], p.Mine)
	if err != nil {
		return err // an undo drops what it could not take back itself
	}
	p.Mine = made
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

// move copies the disks of the running VM into the volumes and switches it over, one after the other. The volumes are
// served first, by this process alone and without an engine. Each disk is set to pause the VM on errors before: from
// the switch on a daemon that dies must look to the guest like a disk that is slow. Only whole copies count; a disk
// that is on its volume already is left there. A VM that is off only gets the definition on its volumes.
func (p *protection) move(ctx context.Context) error {
	if !p.Running {
		return p.hold(ctx)
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

// hold keeps a VM that is off from its images, which become those of its volumes: on these, which nobody serves yet, it
// does not start. One that was started since the protect was asked for writes its images by itself, and is refused.
func (p *protection) hold(ctx context.Context) error {
	hv, vm := p.w.cfg.Hypervisor, p.Definition.Name
	rewired, err := p.rewired()
	if err != nil {
		return err
	}
	if err := hv.Define(ctx, rewired); err != nil {
		return err
	}
	state, err := hv.State(ctx, vm)
	if err == nil && state != vmmanager.Off {
		err = fmt.Errorf("%w: VM %s was started meanwhile (it is %s): `duet vm protect %s` again takes it in while it runs",
			api.ErrConflict, vm, state, vm)
	}
	return err
}

func (p *protection) copied(done, total int64, began time.Time) {
	if p.task != nil {
		p.task.Copied("adopt", done, total, began)
	}
}

// harden has the running VM's disks pause it on errors, which the hypervisor can change only while the VM stands
// still.
func (p *protection) harden(ctx context.Context) error {
	hv := p.w.cfg.Hypervisor
	var targets []string
	for _, v := range p.Module.Volumes() {
		targets = append(targets, v.Target)
	}
	stop := func(def vmmanager.Definition) (vmmanager.Definition, error) { return hv.Harden(def, targets) }
	return hv.Refit(ctx, p.Definition.Name, stop, func() error { return nil })
}

// serve serves all volumes, unless that is done already. After an error those before are served.
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

// closeCopies ends the service of all volumes. A VM that is on them waits for its disks. An error says that what was
// written last may not be durable, or that a socket could not be closed.
func (p *protection) closeCopies() error {
	var errs []error
	for _, s := range p.copies {
		errs = append(errs, s.close())
	}
	p.copies = nil
	return errors.Join(errs...)
}

// store makes the module durable on the peer, then here, where it counts: with the configuration here the plan can
// only go forward (noReturn). Nothing of it runs yet on this node; the peer's engine does, and waits for this one.
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

// begin has the module's engine take the volumes over. In between a running VM waits for its disks. The copies are
// closed first: an image and its log have one user. A VM that is off stays so.
func (p *protection) begin(ctx context.Context) error {
	if err := p.closeCopies(); err != nil {
		p.w.cfg.Logger.Warn("a volume did not close cleanly", "module", p.Module.Name, "err", err)
	}
	if err := p.w.cfg.Modules.Begin(p.Module.Name); err != nil || !p.Running {
		return err
	}
	return p.w.cfg.Modules.Run(ctx, p.Module.Name)
}

// runsWithin is how long a module that was told to run may take until its protect says that it does not.
const runsWithin = 30 * time.Second

// runs waits until the module says that it runs: its VM has found its volumes again only then. It does not wait for
// ever, as what keeps it may last; the protect has its end all the same.
func (p *protection) runs(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, runsWithin)
	defer cancel()
	again := time.NewTicker(100 * time.Millisecond)
	defer again.Stop()
	p.say("waits until module %s runs", p.Module.Name)
	for !p.w.cfg.Modules.Runs(p.Module.Name) {
		select {
		case <-again.C:
		case <-ctx.Done():
			return false
		}
	}
	return true
}

// result is what a protect has led to, in a sentence.
func (p *protection) result(ctx context.Context) string {
	if p.Kind == installing {
		return p.installed(ctx)
	}
	name, vm := p.Module.Name, p.Definition.Name
	if !p.Running {
		return fmt.Sprintf("VM %s is protected as module %s and off: `duet start %s` starts it, and %s gets its copy "+
			"then%s%s", vm, name, name, p.peer(), p.caution(), p.noticed())
	}
	var paths []string
	for _, d := range p.Definition.Disks {
		paths = append(paths, d.Path)
	}
	images := fmt.Sprintf("The old images are no longer used: %s%s%s", strings.Join(paths, ", "), p.caution(), p.noticed())
	if !p.runs(ctx) {
		return fmt.Sprintf("VM %s is protected as module %s, was told to run, and does not say yet that it does: `duet "+
			"status %s` says what keeps it. %s", vm, name, name, images)
	}
	return fmt.Sprintf("VM %s is protected as module %s and runs. The first copy to %s goes on without this task, and "+
		"until it is complete there is one copy only: `duet status %s` shows how far it is. %s", vm, name, p.peer(), name,
		images)
}

// caution says what an admin might not expect of the safe policy.
func (p *protection) caution() string {
	m := p.Module
	if cluster.Arbitration(m.Policy.Arbitration) != cluster.Safe || p.w.cfg.Peers.Decided(p.peer()) {
		return ""
	}
	return fmt.Sprintf(". Its arbitration is safe and there is neither witness nor fence agent: when either node dies, "+
		"the %s stands still "+
		"until that node is back or `duet prim %s` says otherwise. `duet cluster witness add` mends that; "+
		"`duet config set %s policy.arbitration=available` has it go on by itself", m.Kind.Words().Noun, m.Name, m.Name)
}
