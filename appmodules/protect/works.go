package protect

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"duet/appmodules"
	"duet/cluster"
	"duet/console/api"
	"duet/vmmanager"
)

// Works are the plans of this node. Its methods may be called by several goroutines. What goes on is in the store, and
// a question about it waits for the disk; only what a protect owns before its plan is stored is in memory.
type Works struct {
	cfg  Config
	left map[string]record // by an earlier run, by module, or by module and peer; does not change

	mu       sync.Mutex               // held while a protect is accepted, which waits for the store
	accepted map[*protection]struct{} // in this run, and not ended

	told     sync.Mutex         // held for moments
	troubles map[string]Trouble // what keeps plans from ending, by module
}

// Trouble is a plan that has not ended although it was tried, and is tried again until it does.
type Trouble struct {
	Module appmodules.Module
	Since  time.Time // when that was found
	Text   string    // how the VM is, what keeps the plan, and what becomes of it: a sentence
}

// record is a plan as it is stored, until it has ended. There is one for each name of a module, and beside it one for
// each peer that has still to hear of an earlier module of that name (later). Other versions read it: keys stay.
type record struct {
	Task   string            `json:"task"` // its ID, and that of the request by which the peer made images
	Kind   string            `json:"kind"` // protect, install or release
	Module appmodules.Module `json:"module"`
	// Definition is what the VM has when it is not protected. A VM that went off on its volumes while it was being
	// protected has their images from then on, see redefine.
	Definition vmmanager.Definition `json:"definition"`
	Images     []vmmanager.Disk     `json:"images"`  // that the VM is put on, of a release
	Running    bool                 `json:"running"` // the VM ran when it began
	Mine       []Made               `json:"mine"`    // images made on this node, which an undo drops
	Theirs     []Made               `json:"theirs"`  // and on the peer, as far as this node was told
	// Back: the VM has its own disks; the peer still has to forget the module.
	Back  bool          `json:"back"`
	Epoch cluster.Epoch `json:"epoch"` // of a release: the newest known here; see Peers.Forget
	Mark  Mark          `json:"mark"`
}

// The kinds of plans, and their steps. They are stored, so a word that was used once keeps its meaning.
const (
	protecting = "protect"
	installing = "install"
	releasing  = "release"

	stepImages = "images"
	stepMove   = "move"
	stepFill   = "fill"
	stepStore  = "store"
	stepBegin  = "begin"

	stepPart  = "part"
	stepRefit = "refit"
)

// prefix is that of the plans in the store.
const prefix = "unfinished/"

// NewWorks reads what an earlier run left; Resume takes it up. A plan that cannot be read is an error, and the node
// does not start.
func NewWorks(cfg Config) (*Works, error) {
	w := &Works{cfg: cfg, accepted: map[*protection]struct{}{}, troubles: map[string]Trouble{}}
	var err error
	w.left, err = w.stored()
	return w, err
}

func (w *Works) self() cluster.NodeID { return w.cfg.Cluster().Self }

// peer is the other node of the module.
func (w *Works) peer(m appmodules.Module) cluster.NodeID {
	return cluster.NodeID(m.Peer(string(w.self())))
}

// stored are the plans that have not ended, by what follows prefix in the key.
func (w *Works) stored() (map[string]record, error) {
	keys, err := w.cfg.Store.Keys(prefix)
	if err != nil {
		return nil, fmt.Errorf("list unfinished works: %w", err)
	}
	all := make(map[string]record, len(keys))
	for _, key := range keys {
		var r record
		if _, err := w.cfg.Store.Load(key, &r); err != nil {
			return nil, err
		}
		if r.Mark.At == "" { // of a version that had no marks: it was stored in the midst of this step
			r.Mark.At = map[string]string{protecting: stepMove, releasing: stepRefit}[r.Kind]
		}
		all[strings.TrimPrefix(key, prefix)] = r
	}
	return all, nil
}

// keep makes a plan durable, in place of the one that its module's name has.
func (w *Works) keep(r record) error { return w.cfg.Store.Save(prefix+r.Module.Name, r) }

// End forgets the plan of a module that is gone, durably; none is no error. What is kept for a peer (later) stays.
func (w *Works) End(module string) error { return w.cfg.Store.Delete(prefix + module) }

// Unfinished lists what has not ended, in words.
func (w *Works) Unfinished() ([]string, error) {
	all, err := w.stored()
	var out []string
	for key, r := range all {
		out = append(out, r.Kind+" of "+key)
	}
	return out, err
}

// Held: a release of the module was cut short, and decides whether it has an engine: an engine would open volumes
// whose VM may be back on their images. It is what NewWorks has read, also when that release has ended since.
func (w *Works) Held(module string) bool { return w.left[module].Kind == releasing }

// Left are the modules whose VMs may be on volumes that nobody serves until Resume.
func (w *Works) Left() []appmodules.Module {
	var out []appmodules.Module
	for _, r := range w.left {
		out = append(out, r.Module)
	}
	return out
}

// Busy tells whether a plan of the module goes on; an error counts as yes.
func (w *Works) Busy(module string) bool {
	all, err := w.stored()
	return err != nil || all[module].Kind != ""
}

// Troubles are the plans that do not come to an end, by the names of their modules. It waits for nothing.
func (w *Works) Troubles() (all []Trouble) {
	w.told.Lock()
	defer w.told.Unlock()
	for _, module := range slices.Sorted(maps.Keys(w.troubles)) {
		all = append(all, w.troubles[module])
	}
	return all
}

// Unended refuses what is asked for of a module while its plan does not come to an end, in the words of that: it is
// api.ErrConflict. nil: none is known. It waits for nothing.
func (w *Works) Unended(module string) error {
	w.told.Lock()
	defer w.told.Unlock()
	if t, is := w.troubles[module]; is {
		return fmt.Errorf("%w: %s", api.ErrConflict, t.Text)
	}
	return nil
}

// trouble notes what keeps a plan from ending, and returns it with how the VM is and what becomes of it. What only its
// peer has to hear is none.
func (w *Works) trouble(ctx context.Context, r record, err error) error {
	left := "what is left of the " + r.Kind + " goes on"
	how := left + ", and is tried again"
	if def, err := w.cfg.Hypervisor.Definition(ctx, r.Definition.Name); err == nil && def.Saved {
		how = fmt.Sprintf("VM %s is off and its memory is saved: nothing of its guest is lost; %s by itself",
			r.Definition.Name, left)
	}
	err = fmt.Errorf("%s within %s of this being mended: %w", how, insistLongest, err)
	if r.Back {
		return err
	}
	w.told.Lock()
	defer w.told.Unlock()
	since := time.Now()
	if before, is := w.troubles[r.Module.Name]; is {
		since = before.Since
	}
	w.troubles[r.Module.Name] = Trouble{Module: r.Module, Since: since, Text: err.Error()}
	return err
}

// over forgets the trouble of a plan that has ended.
func (w *Works) over(r record) {
	w.told.Lock()
	defer w.told.Unlock()
	if !r.Back {
		delete(w.troubles, r.Module.Name)
	}
}

// mayBegin refuses a protect while an earlier one of the VM or of its name goes on, or a module has either. What a peer
// has still to hear of an earlier one is in nobody's way. The modules are asked last: who ends a plan has begun its
// module.
func (w *Works) mayBegin(m appmodules.Module) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.refuse(m)
}

// refuse is mayBegin with w.mu held.
func (w *Works) refuse(m appmodules.Module) error {
	goes := func(r record) error {
		if r.Back || r.Module.Name != m.Name && !sameVM(r.Definition.Name, m.Subject()) {
			return nil
		}
		if err := w.Unended(r.Module.Name); err != nil {
			return err
		}
		what := "of module " + r.Module.Name
		if r.Definition.Name != "" {
			what = "of VM " + r.Definition.Name + " as module " + r.Module.Name
		}
		return fmt.Errorf("%w: a %s %s goes on or is being undone: the log of duetd has more", api.ErrConflict, r.Kind, what)
	}
	for p := range w.accepted {
		if err := goes(p.asked); err != nil {
			return err
		}
	}
	all, err := w.stored()
	if err != nil {
		return err
	}
	for _, r := range all {
		if err := goes(r); err != nil {
			return err
		}
	}
	return w.free(m)
}

// free refuses a module whose VM or whose name another module has.
func (w *Works) free(m appmodules.Module) error {
	for _, have := range w.cfg.Modules.All() {
		switch {
		case sameVM(have.Subject(), m.Subject()):
			return fmt.Errorf("%w: VM %s is protected already: `duet status %s`", api.ErrConflict, m.Subject(), have.Name)
		case have.Name == m.Name:
			what := have.Kind.Words().One
			if have.Subject() != "" {
				what = "VM " + have.Subject()
			}
			return fmt.Errorf("%w: module %s exists and protects %s; choose another name (--module, of a VM)", api.ErrConflict,
				m.Name, what)
		}
	}
	return nil
}

// sameVM: both are one VM; what is no VM has an empty name.
func sameVM(a, b string) bool { return a != "" && a == b }

// accept gives a protect the names of its VM and of its module, until end: the plan is stored only once the peer has
// judged the VM.
func (w *Works) accept(p *protection) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.refuse(p.Module); err != nil {
		return err
	}
	p.asked = p.record
	w.accepted[p] = struct{}{}
	return nil
}

// end ends accept.
func (w *Works) end(p *protection) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.accepted, p)
}

// Resume takes up what an earlier run left. It is called once the modules of this node have begun, as a release may
// have to remove or rejoin one, and it returns at once.
func (w *Works) Resume() {
	for _, r := range w.left {
		w.cfg.Logger.Warn("the daemon ended during a "+r.Kind+", which is taken up", "module", r.Module.Name, "vm",
			r.Definition.Name)
		w.cfg.Spawn(func(ctx context.Context) { w.resume(ctx, r) })
	}
}

// resume ends one plan, however often that has to be tried, and then its task: its follower of the earlier run finds
// it by the same ID.
func (w *Works) resume(ctx context.Context, r record) {
	if r.Back {
		w.insist(ctx, r, func(ctx context.Context) error { return w.farewell(ctx, r) })
		return
	}
	end := w.cfg.Tasks.Again(r.Task, r.Kind, r.Module.Name)
	work := (&protection{w: w, record: r}).resume
	if r.Kind == releasing {
		work = (&leave{w: w, record: r}).resume
	}
	var result string
	var failed error
	w.insist(ctx, r, func(ctx context.Context) (err error) {
		result, failed, err = work(ctx)
		return err
	})
	end(result, errors.Join(failed, ctx.Err()))
}

// insistLongest is the longest time between two tries of a plan that does not come to an end.
const insistLongest = 15 * time.Second

// insist repeats work until it succeeds or ctx ends, after 1 s, 2 s and so on, and at last every insistLongest. What
// keeps it is logged when it changes, and is the plan's Trouble meanwhile. r is only for the words.
func (w *Works) insist(ctx context.Context, r record, work func(context.Context) error) {
	what := r.Kind + " of " + r.Module.Name
	defer w.over(r)
	var said string
	for wait := time.Second; ; wait = min(2*wait, insistLongest) {
		err := work(ctx)
		if err == nil {
			w.cfg.Logger.Info("what was cut short is in order again", "work", what)
			return
		}
		if ctx.Err() != nil {
			return
		}
		if text := err.Error(); text != said { // it may go on for days
			w.cfg.Logger.Warn("what was cut short is not in order yet, trying again", "work", what, "err", err)
			said = text
		}
		_ = w.trouble(ctx, r, err) // it is noted
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return
		}
	}
}

// The VM has its own disks again, and only the peer must hear of it: the name is free for another protect from then
// on.

// later is the key of a plan of which only that is left. A name of a module has no @, so it is no other plan's key.
func (w *Works) later(r record) string {
	return prefix + r.Module.Name + "@" + string(w.peer(r.Module))
}

// depart tells the peer, or has it told as soon as it can be. told says which. On an error the plan is as before, or
// is stored twice, and depart is to be called again. The plan under the new key is durable before the old one goes.
func (w *Works) depart(ctx context.Context, r record) (told bool, err error) {
	r.Back = true
	err = w.cfg.Store.Save(w.later(r), r)
	if err == nil { // else this plan is all that knows of the peer
		err = w.End(r.Module.Name)
	}
	if err != nil {
		return false, err
	}
	if w.farewell(ctx, r) == nil {
		return true, nil
	}
	if ctx.Err() == nil { // else the next run does it
		w.cfg.Spawn(func(ctx context.Context) {
			w.insist(ctx, r, func(ctx context.Context) error { return w.farewell(ctx, r) })
		})
	}
	return false, nil
}

// farewell has the peer forget the module, unless it was removed from the cluster, and then the witnesses. The order
// is that of Modules.Forgotten. It may be repeated; on an error the plan stays, and with it what the peer has to
// hear. Of a protect the witnesses know nothing yet.
func (w *Works) farewell(ctx context.Context, r record) error {
	peer := w.peer(r.Module)
	_, member := w.cfg.Cluster().Member(peer)
	if member && r.Kind == releasing {
		if err := w.cfg.Peers.Forget(ctx, peer, r.Module, r.Epoch); err != nil {
			return err
		}
	}
	if member && (r.Kind == protecting || r.Kind == installing) { // it may have made images although its answer was lost
		err := w.cfg.Peers.Forget(ctx, peer, r.Module, 1)
		if err == nil {
			err = w.cfg.Peers.Drop(ctx, peer, r.Task, r.Theirs)
		}
		if err != nil {
			return err
		}
	}
	if r.Kind == releasing {
		w.cfg.Modules.Forgotten(ctx, r.Module)
	}
	return w.cfg.Store.Delete(w.later(r))
}

// settled is what the VM does. A paused one may be on its way: its memory is still being saved for a daemon that is
// dead. That is an error, so that insist asks again; one that an admin has paused keeps the work waiting, and the log
// says so.
func (w *Works) settled(ctx context.Context, vm string) (vmmanager.State, error) {
	state, err := w.cfg.Hypervisor.State(ctx, vm)
	if err == nil && state == vmmanager.Paused {
		err = fmt.Errorf("VM %s is paused: it has to run or be off", vm)
	}
	return state, err
}
