// Package fitness says what a host would refuse when a VM is needed there. That is asked before: at a protect, and all
// the time for the modules whose VM does not run here. Definitions and hosts change in many ways that nobody reports (a
// bridge that goes, a file that is moved), so each node looks every few seconds; what has not changed is not tried out
// again. What the peer would refuse it tells with its state.
//
// What is found is told, and asked for a confirmation when an operator moves a VM; no takeover depends on it. Watch
// has a goroutine for each module that is being judged, so that one whose dry run takes minutes keeps the look at
// the others going (their dry runs wait: libvirt's go one at a time).
package fitness

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"duet/appmodules"
	"duet/appmodules/engine"
	"duet/appmodules/protect"
	"duet/cluster"
	"duet/console/api"
	"duet/vmmanager"
)

// Engine is what this room needs of a module's engine. Its Definition is the one that it keeps, and not the
// hypervisor's.
type Engine interface {
	State() engine.State
	Definition(ctx context.Context) (engine.Definition, error)
}

// Module is one whose VM is judged.
type Module struct {
	Name   string
	VM     string
	Engine Engine
}

// Config says what a Room works with; all fields are needed.
type Config struct {
	Self       cluster.NodeID
	Sockets    string // directory of the volumes' sockets
	Hypervisor protect.Hypervisor
	Modules    func() []Module            // whose engines run here
	All        func() []appmodules.Module // of this node
	Left       func() []appmodules.Module // that some work of this node has half way
	// MayClear and MayHost are nil where what a node has under the name of a module may go, and the images of another
	// one's be made.
	MayClear func(module string, from cluster.NodeID) error
	MayHost  func(module string, places []protect.Place) error
	// Call asks another node for its Answer.
	Call   func(ctx context.Context, node cluster.NodeID, q Question, found *[]vmmanager.Finding) error
	Logger *slog.Logger
}

// Room is what the hosts of modules say of their VMs. Any number of goroutines may use it.
type Room struct {
	cfg Config

	mu     sync.Mutex
	busy   map[string]string       // by module that is being judged: the Digest of its definition then
	mine   map[string]judgement    // of this host, by module
	theirs map[string][]api.Notice // of the peer's, as it told last
}

// judgement is what this host says of one text of a definition. Of another text it says nothing.
type judgement struct {
	of     Engine
	digest string
	found  []api.Notice
}

// counts: the text is still the one that its engine keeps, and the VM does not run here.
func (j judgement) counts() bool {
	now := j.of.State()
	return now.Digest == j.digest && isOff(now)
}

// isOff: the VM does not run here. Of one that does nothing is said: what it needs is here.
func isOff(s engine.State) bool {
	return s.Status.Workload == vmmanager.Off.String() || s.Status.Workload == vmmanager.Absent.String()
}

// New returns a Room that knows nothing yet.
func New(cfg Config) *Room {
	return &Room{cfg: cfg, busy: map[string]string{}, mine: map[string]judgement{}, theirs: map[string][]api.Notice{}}
}

const (
	// fitLook is the time between two looks; a change is told within it, a Tell and the look itself: 5 s.
	fitLook = 2 * time.Second
	// fitTime limits one judgement; a dry run on a busy host takes long. It is longer than libvirt's own limit of that,
	// which says more.
	fitTime = 4 * time.Minute
	// answerTime is how long a node that is asked looks before it says that it is still looking, askTime how long the
	// one that asks waits for that. Who asks for an admin has to answer within api.WorkTime, and has other things to do.
	answerTime = askTime - 10*time.Second
	askTime    = api.WorkTime * 3 / 4
)

// begin says that a module is to be judged, with the definition of that Digest; false: it is already.
func (r *Room) begin(module, digest string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if was, busy := r.busy[module]; busy && was == digest {
		return false
	}
	r.busy[module] = digest
	return true
}

// end takes over what came of what began with that Digest, unless another text is being judged by now; nil: nothing.
func (r *Room) end(module, digest string, j *judgement) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if was, busy := r.busy[module]; !busy || was != digest {
		return
	}
	delete(r.busy, module)
	if j != nil {
		r.mine[module] = *j
	}
}

// Of is what this host says of a module.
func (r *Room) Of(module string) []api.Notice {
	r.mu.Lock()
	j, ok := r.mine[module]
	r.mu.Unlock()
	if !ok || !j.counts() {
		return nil
	}
	return slices.Clone(j.found)
}

// Peer is what the peer said last.
func (r *Room) Peer(module string) []api.Notice {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.theirs[module])
}

// Hear takes over what the peer says. The slice is its own from then on.
func (r *Room) Hear(module string, notices []api.Notice) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.theirs[module] = notices
}

// keep forgets all modules but those.
func (r *Room) keep(modules []Module) {
	gone := func(name string) bool {
		return !slices.ContainsFunc(modules, func(m Module) bool { return m.Name == name })
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	maps.DeleteFunc(r.mine, func(name string, _ judgement) bool { return gone(name) })
	maps.DeleteFunc(r.theirs, func(name string, _ []api.Notice) bool { return gone(name) })
}

// Watch judges the VMs of this node's modules until ctx ends. A module is judged again only when its last judgement
// has ended, or its definition is another one; Watch returns when all have.
func (r *Room) Watch(ctx context.Context) {
	tick := time.NewTicker(fitLook)
	defer tick.Stop()
	var judged sync.WaitGroup
	defer judged.Wait()
	for {
		modules := r.cfg.Modules()
		r.keep(modules)
		for _, m := range modules {
			if digest := m.Engine.State().Digest; r.begin(m.Name, digest) {
				judged.Go(func() { r.end(m.Name, digest, r.judge(ctx, m)) })
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// judge is what this host says of the VM of a module; nil: nothing, as where its engine is being exchanged, or ends.
func (r *Room) judge(ctx context.Context, m Module) *judgement {
	ctx, cancel := context.WithTimeout(ctx, fitTime)
	defer cancel()
	if !isOff(m.Engine.State()) {
		return nil
	}
	def, err := m.Engine.Definition(ctx)
	if err != nil {
		return nil
	}
	found, err := r.cfg.Hypervisor.Judge(ctx, vmmanager.Definition{Name: m.VM, Text: def.Text})
	if err != nil {
		if ctx.Err() == nil {
			r.cfg.Logger.Debug("a VM cannot be judged", "module", m.Name, "err", err)
		}
		found = []vmmanager.Finding{notJudged("whether it would run here is not known: "+err.Error(), "")}
	}
	found = slices.Clone(found) // the hypervisor may keep it
	for i := range found {
		found[i].Remedy = strings.ReplaceAll(found[i].Remedy, vmmanager.OnItsHost, "on either host") // both have the VM
	}
	return &judgement{m.Engine, appmodules.Digest(def.Text), protect.Notices("", found)}
}

// notJudged says that there is no judgement.
func notJudged(fact, remedy string) vmmanager.Finding {
	return vmmanager.Finding{Level: vmmanager.Warning, Code: "not-judged", Fact: fact, Remedy: remedy}
}

// Question asks a node what it would say to a VM that it does not have.
type Question struct {
	VM   string `json:"vm"`
	Text []byte `json:"text"` // of the definition that it would get
	// Module and Places are those of the images that it is to make; an older release does not ask.
	Module string          `json:"module,omitempty"`
	Places []protect.Place `json:"places,omitempty"`
}

// Answer is what this host says to a VM that is to be protected, with its second copy here. What a lost module has
// left under the name is no refusal: it would be replaced. What this node would refuse of the module and its images is
// the error. Where the hypervisor takes longer than answerTime it is ErrConflict, and can be asked again: the
// hypervisor goes on.
func (r *Room) Answer(ctx context.Context, from cluster.NodeID, q Question) ([]vmmanager.Finding, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	taken, err := r.Taken(ctx, q.VM, false)
	if err != nil {
		return nil, err
	}
	if taken == nil && q.Module != "" {
		if err := cmp.Or(r.cfg.MayClear(q.Module, from), r.cfg.MayHost(q.Module, q.Places)); err != nil {
			return nil, err
		}
	}
	found, err := r.cfg.Hypervisor.Judge(ctx, vmmanager.Definition{Name: q.VM, Text: q.Text})
	if errors.Is(err, context.DeadlineExceeded) {
		return nil, fmt.Errorf("%w: whether VM %s would run on %s is still being looked at there, its hypervisor is slow: "+
			"ask again in a minute", api.ErrConflict, q.VM, r.cfg.Self)
	}
	if err != nil || taken == nil {
		return found, err
	}
	found = slices.DeleteFunc(found, func(f vmmanager.Finding) bool { return f.Code == taken.Code })
	return append([]vmmanager.Finding{*taken}, found...), nil
}

// Taken says that a VM of that name is defined here; nil: none is, or only what a module has left that this node knows
// no more. That a guest of it is still here is in the way too, but of the same module that comes back.
func (r *Room) Taken(ctx context.Context, vm string, back bool) (*vmmanager.Finding, error) {
	def, err := r.cfg.Hypervisor.Definition(ctx, vm)
	switch {
	case errors.Is(err, vmmanager.ErrNotFound):
		return nil, nil
	case err != nil:
		return nil, err
	}
	if left, err := r.leftover(ctx, def, back); err != nil || left {
		return nil, err
	}
	return &vmmanager.Finding{Level: vmmanager.Refused, Code: "name-taken",
		Fact: fmt.Sprintf("a VM %s is defined on %s too, and would be replaced", vm, r.cfg.Self),
		Remedy: fmt.Sprintf("if it is an old copy, `virsh undefine %s` there; otherwise `virsh domrename` one of them",
			vm)}, nil
}

// leftover: every disk of the VM is on a volume of Duet's, and no module or work here has it. Such a definition holds
// nothing: its data are where the module is. It is off, or the module comes back: then the engine ends what is still
// there, as after a removal of the node on which it ran; nobody has served its disks since.
func (r *Room) leftover(ctx context.Context, def vmmanager.Definition, back bool) (bool, error) {
	has := func(m appmodules.Module) bool { return m.Subject() == def.Name }
	on := r.cfg.Hypervisor.On(def)
	// Other tools serve disks on sockets too.
	foreign := func(e vmmanager.Endpoint) bool { return filepath.Dir(e.Socket) != r.cfg.Sockets }
	// A hypervisor may list the disks on volumes among those with images, or not.
	elsewhere := func(d vmmanager.Disk) bool {
		return !slices.ContainsFunc(on, func(e vmmanager.Endpoint) bool { return e.Target == d.Target })
	}
	if len(on) == 0 || slices.ContainsFunc(on, foreign) || slices.ContainsFunc(def.Disks, elsewhere) ||
		slices.ContainsFunc(r.cfg.Left(), has) || slices.ContainsFunc(r.cfg.All(), has) {
		return false, nil
	}
	state, err := r.cfg.Hypervisor.State(ctx, def.Name)
	return (back || state == vmmanager.Off) && !def.Saved, err
}

// Ask asks the node that would get the second copy of a VM what it says to it.
func (r *Room) Ask(ctx context.Context, peer cluster.NodeID, q Question) (found []vmmanager.Finding, err error) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	err = r.cfg.Call(ctx, peer, q, &found)
	if errors.Is(err, cluster.ErrOlder) {
		return []vmmanager.Finding{notJudged("its duetd is older and cannot say whether the VM would run there",
			"bring both nodes to one release")}, nil
	}
	return found, err
}

// MayMove wants a confirmation where a VM is moved to a node that would not start it. It goes by what was said last
// and asks nobody: of a module that was not judged yet nothing is known, and it may move. The error is ErrConfirm
// with all refusals.
func (r *Room) MayMove(module, to string, yes bool) error {
	if yes {
		return nil
	}
	said := r.Peer(module)
	if to == string(r.cfg.Self) {
		said = r.Of(module)
	}
	if err := protect.Refusal(api.ErrConfirm, to+" would not start the VM", said); err != nil {
		return fmt.Errorf("%s: %w", module, err)
	}
	return nil
}

// Check refuses what is no VM, or no place for an image.
func (q Question) Check() error {
	if err := vmmanager.CheckName(q.VM); err != nil || q.Module == "" {
		return err
	}
	return protect.CheckPlaces(q.Module, q.Places)
}
