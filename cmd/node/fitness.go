package node

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"duet/appmodules"
	"duet/appmodules/engine"
	"duet/appmodules/protect"
	"duet/cluster"
	"duet/console/api"
	"duet/vmmanager"
)

// What a host would refuse when a VM is needed there is asked before: at a protect, and
// all the time for the modules whose VM does not run here. Definitions and hosts change in
// many ways that nobody reports (a bridge that goes, a file that is moved), so each node
// looks every few seconds; what has not changed is not tried out again.

const (
	// fitLook is the time between two looks; a change is told within it, a Tell and the look itself: 5 s.
	fitLook = 2 * time.Second
	// fitTime limits one judgement; a dry run on a busy host takes long. It is longer than libvirt's own limit of that,
	// which says more.
	fitTime = 4 * time.Minute
)

// fitness is what the hosts of modules say of their VMs.
type fitness struct {
	mu     sync.Mutex
	busy   map[string]bool         // modules that are being judged
	mine   map[string][]api.Notice // of this host, by module
	theirs map[string][]api.Notice // of the peer's, as it told last
}

func newFitness() *fitness {
	return &fitness{busy: map[string]bool{}, mine: map[string][]api.Notice{}, theirs: map[string][]api.Notice{}}
}

// begin says that a module is to be judged; false: it is already.
func (f *fitness) begin(module string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.busy[module] {
		return false
	}
	f.busy[module] = true
	return true
}

// end takes over what came of it.
func (f *fitness) end(module string, found []api.Notice) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.busy, module)
	f.mine[module] = found
}

// of is what this host says.
func (f *fitness) of(module string) []api.Notice {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.mine[module])
}

// peer is what the peer said last.
func (f *fitness) peer(module string) []api.Notice {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.theirs[module])
}

// hear takes over what the peer says.
func (f *fitness) hear(module string, notices []api.Notice) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.theirs[module] = notices
}

// keep forgets all modules but those.
func (f *fitness) keep(modules []*module) {
	gone := func(name string, _ []api.Notice) bool {
		return !slices.ContainsFunc(modules, func(m *module) bool { return m.cfg.Name == name })
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	maps.DeleteFunc(f.mine, gone)
	maps.DeleteFunc(f.theirs, gone)
}

// watchFitness judges the VMs of this node's modules until ctx ends.
func (n *Node) watchFitness(ctx context.Context) {
	tick := time.NewTicker(fitLook)
	defer tick.Stop()
	for {
		modules := n.mirrors()
		n.fitness.keep(modules)
		for _, m := range modules {
			if n.fitness.begin(m.cfg.Name) {
				n.wg.Go(func() { n.fitness.end(m.cfg.Name, n.judgeModule(ctx, m)) })
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// judgeModule is what this host says of the VM of a module. Of one that runs here it says
// nothing: what it needs is here.
func (n *Node) judgeModule(ctx context.Context, m *module) []api.Notice {
	ctx, cancel := context.WithTimeout(ctx, fitTime)
	defer cancel()
	switch m.engine.State().Status.Workload {
	case vmmanager.Off.String(), vmmanager.Absent.String():
	default:
		return nil
	}
	def, err := m.engine.Definition(ctx)
	if err != nil {
		return n.fitness.of(m.cfg.Name) // its engine is being exchanged, or ends
	}
	found, err := n.cfg.Hypervisor.Judge(ctx, vmmanager.Definition{Name: m.cfg.Subject(), Text: def.Text})
	if err != nil {
		if ctx.Err() == nil {
			n.log.Debug("a VM cannot be judged", "module", m.cfg.Name, "err", err)
		}
		found = []vmmanager.Finding{notJudged("whether it would run here is not known: "+err.Error(), "")}
	}
	return protect.Notices("", found)
}

// notJudged says that there is no judgement.
func notJudged(fact, remedy string) vmmanager.Finding {
	return vmmanager.Finding{Level: vmmanager.Warning, Code: "not-judged", Fact: fact, Remedy: remedy}
}

// told is an engine's state on its way between nodes, with what its host says of the VM.
// Older nodes neither send nor read that.
type told struct {
	engine.State
	Notices []api.Notice `json:"notices,omitempty"`
}

// judging asks a node what it would say to a VM that it does not have.
type judging struct {
	VM   string `json:"vm"`
	Text []byte `json:"text"` // of the definition that it would get
}

// judgeNew is what this host says to a VM that is to be protected, with its second copy here.
func (n *Node) judgeNew(ctx context.Context, j judging) ([]vmmanager.Finding, error) {
	taken, err := n.nameTaken(ctx, j.VM)
	if err != nil {
		return nil, err
	}
	found, err := n.cfg.Hypervisor.Judge(ctx, vmmanager.Definition{Name: j.VM, Text: j.Text})
	if err != nil || taken == nil {
		return found, err
	}
	found = slices.DeleteFunc(found, func(f vmmanager.Finding) bool { return f.Code == taken.Code })
	return append([]vmmanager.Finding{*taken}, found...), nil
}

// nameTaken says that a VM of that name is defined here; nil: none is, or only what a module has left that this node knows
// no more.
func (n *Node) nameTaken(ctx context.Context, vm string) (*vmmanager.Finding, error) {
	def, err := n.cfg.Hypervisor.Definition(ctx, vm)
	switch {
	case errors.Is(err, vmmanager.ErrNotFound):
		return nil, nil
	case err != nil:
		return nil, err
	}
	if left, err := n.leftover(ctx, def); err != nil || left {
		return nil, err
	}
	return &vmmanager.Finding{Level: vmmanager.Refused, Code: "name-taken",
		Fact: fmt.Sprintf("a VM %s is defined on %s too, and would be replaced", vm, n.self()),
		Remedy: fmt.Sprintf("if it is an old copy, `virsh undefine %s` there; otherwise `virsh domrename` one of them",
			vm)}, nil
}

// leftover: every disk of the VM, which is off, is on a volume of Duet's, and no module or work here has it. Such a
// definition holds nothing: its data are where the module is.
func (n *Node) leftover(ctx context.Context, def vmmanager.Definition) (bool, error) {
	has := func(m appmodules.Module) bool { return m.Subject() == def.Name }
	if len(def.Disks) == 0 || len(n.cfg.Hypervisor.On(def)) < len(def.Disks) || slices.ContainsFunc(n.works.Left(), has) ||
		slices.ContainsFunc(modules{n}.All(), has) {
		return false, nil
	}
	state, err := n.cfg.Hypervisor.State(ctx, def.Name)
	return state == vmmanager.Off && !def.Saved, err
}

// judgedBy asks the node that would get the second copy of a VM what it says to it.
func (n *Node) judgedBy(ctx context.Context, peer cluster.NodeID, def vmmanager.Definition) (
	found []vmmanager.Finding, err error,
) {
	ctx, cancel := context.WithTimeout(ctx, fitTime)
	defer cancel()
	err = n.rpcTo(ctx, peer, "judge", judging{def.Name, def.Text}, &found)
	if errors.Is(err, cluster.ErrOlder) {
		return []vmmanager.Finding{notJudged("its duetd is older and cannot say whether the VM would run there",
			"bring both nodes to one release")}, nil
	}
	return found, err
}

// mayMove wants a confirmation where a VM is moved to a node that would not start it.
func (n *Node) mayMove(m *module, to string, yes bool) error {
	if yes {
		return nil
	}
	said := n.fitness.peer(m.cfg.Name)
	if to == string(n.self()) {
		said = n.fitness.of(m.cfg.Name)
	}
	if err := protect.Refusal(api.ErrConfirm, to+" would not start the VM", said); err != nil {
		return fmt.Errorf("%s: %w", m.cfg.Name, err)
	}
	return nil
}
