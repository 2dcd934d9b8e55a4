package node

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"duet/appmodules"
	"duet/appmodules/config"
	"duet/appmodules/engine"
	"duet/cluster"
	"duet/console/api"
	"duet/vmmanager"
)

// Protect makes a module of a VM that is defined on this node.
//
// A VM that is off keeps its raw images in place. A running one, or one with
// images in another format, gets raw ones: the running VM's disks are copied into
// them while it runs and the VM is switched over. What fails leaves the VM as it was.
func (n *Node) Protect(ctx context.Context, vm string, r api.ProtectRequest) (api.Task, error) {
	def, err := n.definedHere(ctx, vm)
	if err != nil {
		return api.Task{}, err
	}
	if err := refusal(api.ErrInvalid, "VM "+vm+" cannot be protected", notices(n.self(), n.cfg.Hypervisor.Obstacles(def))); err != nil {
		return api.Task{}, err
	}
	p, err := n.begun(ctx, def, r)
	if err != nil {
		return api.Task{}, err
	}
	return n.run("protect", p.Module.Name, p.run)
}

// definedHere is the definition of a VM of this node.
func (n *Node) definedHere(ctx context.Context, vm string) (vmmanager.Definition, error) {
	def, err := n.cfg.Hypervisor.Definition(ctx, vm)
	switch {
	case errors.Is(err, vmmanager.ErrUnsupported):
		err = fmt.Errorf("%w: VM %s is transient: it is gone when it ends, and has no definition to protect. "+
			"`virsh dumpxml --migratable %s >%s.xml && virsh define %s.xml` makes it persistent while it runs", api.ErrConflict, vm, vm, vm, vm)
	case errors.Is(err, vmmanager.ErrNotFound):
		err = fmt.Errorf("%w: VM %q is not defined on %s: `virsh list --all` shows what is", api.ErrNotFound, vm, n.self())
	}
	return def, err
}

// begun is a protect that may begin, and has changed nothing yet.
func (n *Node) begun(ctx context.Context, def vmmanager.Definition, r api.ProtectRequest) (*protection, error) {
	vm := def.Name
	m, err := n.plan(def, r)
	if err != nil {
		return nil, err
	}
	state, err := n.cfg.Hypervisor.State(ctx, vm)
	if err != nil {
		return nil, err
	}
	switch {
	case state != vmmanager.Off && state != vmmanager.Running:
		return nil, fmt.Errorf("%w: VM %s is %s: start it or shut it down first", api.ErrConflict, vm, state)
	case def.Saved:
		return nil, fmt.Errorf("%w: the memory of VM %s is saved, and would not fit its disks later: `virsh start %s` first, or `virsh managedsave-remove %s` if it is not needed",
			api.ErrConflict, vm, vm, vm)
	}
	if err := n.mayBegin(m); err != nil {
		return nil, err
	}
	p := &protection{n: n, unfinished: unfinished{Kind: "protect", Module: m, Definition: def, Running: state == vmmanager.Running}}
	return p, p.layout(r.Images)
}

// plan makes the module's configuration from the request.
func (n *Node) plan(def vmmanager.Definition, r api.ProtectRequest) (appmodules.Module, error) {
	c := n.cluster()
	peer, err := choosePeer(c, r.Peer)
	if err != nil {
		return appmodules.Module{}, err
	}
	m := appmodules.Default()
	m.Name, m.VM.Domain, m.Nodes = cmp.Or(r.Module, n.freeName(def.Name)), def.Name, []string{string(c.Self), peer}
	if r.Config != "" {
		if m, err = config.ParseOnto(m, "config", []byte(r.Config)); err != nil {
			return m, fmt.Errorf("%w: %v", api.ErrInvalid, err)
		}
		m.VM.Domain, m.Nodes, m.Volumes = def.Name, []string{string(c.Self), peer}, nil
	}
	for _, have := range n.all() {
		if have.cfg.VM.Domain == def.Name {
			return m, fmt.Errorf("%w: VM %s is protected already: `duet status %s`", api.ErrConflict, def.Name, have.cfg.Name)
		}
	}
	if have, err := n.module(m.Name); err == nil {
		return m, fmt.Errorf("%w: module %s exists and protects VM %s; choose another name with --module", api.ErrConflict, m.Name, have.cfg.VM.Domain)
	}
	m.ID = strings.ToLower(rand.Text())
	if faults := m.Validate(); len(faults) > 0 {
		return m, fmt.Errorf("%w: %s", api.ErrInvalid, faults[0].Error())
	}
	return m, nil
}

// hasIdentities is the version from which nodes tell modules of one name apart.
const hasIdentities cluster.Version = 2

// freeName makes the name of a module of that of its VM.
func (n *Node) freeName(vm string) string {
	taken := func(name string) bool {
		m, err := n.module(name)
		return err == nil && m.cfg.VM.Domain != vm
	}
	return appmodules.NameFor(vm, taken)
}

// choosePeer takes the named node, or the only other one.
func choosePeer(c cluster.Config, want string) (string, error) {
	var others []string
	for _, m := range c.Members {
		if m.Node != c.Self {
			others = append(others, string(m.Node))
		}
	}
	switch {
	case len(others) == 0:
		return "", fmt.Errorf("%w: cluster %s has one node: `duet cluster token` here, then `duet cluster join` on the other", api.ErrConflict, c.Name)
	case want == "" && len(others) == 1:
		return others[0], nil
	case want == "":
		return "", fmt.Errorf("%w: say which node gets the second copy: --peer %s", api.ErrInvalid, strings.Join(others, " or "))
	}
	for _, o := range others {
		if o == want {
			return want, nil
		}
	}
	return "", fmt.Errorf("%w: --peer %q: there is %s", api.ErrInvalid, want, strings.Join(others, ", "))
}

// protection is one run of Protect, or of undoing one that was cut short.
type protection struct {
	unfinished
	n       *Node
	notices []api.Notice       // what the peer says of the VM
	places  map[string][]place // images to make, by node
	copies  []*seeding
}

// peer is the other node of the module.
func (p *protection) peer() cluster.NodeID {
	return cluster.NodeID(p.Module.Peer(string(p.n.self())))
}

// layout decides where each volume lies and checks what can be checked without changing anything.
func (p *protection) layout(chosen []api.ImageChoice) error {
	self := string(p.n.self())
	p.places = map[string][]place{}
	for _, d := range p.Definition.Disks {
		v := appmodules.Volume{Target: d.Target, ID: strings.ToLower(rand.Text()), Size: d.Size, Paths: map[string]string{}}
		switch {
		case p.Running:
			p.places[self] = append(p.places[self], place{Target: d.Target, Size: d.Size})
		case d.Format == "raw":
			v.Paths[self] = d.Path // it stays where it is
		default:
			return fmt.Errorf("%w: disk %s of the stopped VM is %s, which is taken in while the VM runs: start the VM and repeat, or convert it with `qemu-img convert -O raw`",
				api.ErrInvalid, d.Target, d.Format)
		}
		p.places[string(p.peer())] = append(p.places[string(p.peer())], place{Target: d.Target, Size: d.Size})
		p.Module.Volumes = append(p.Module.Volumes, v)
	}
	for _, c := range chosen {
		if err := p.choose(c); err != nil {
			return fmt.Errorf("%w: image %s:%s: %w", api.ErrInvalid, c.Node, c.Target, err)
		}
	}
	if _, err := p.n.cfg.Hypervisor.Rewire(p.Definition, p.n.endpoints(p.Module)); err != nil {
		return fmt.Errorf("%w: %v", api.ErrInvalid, err)
	}
	return nil
}

// choose puts one image where the admin wants it.
func (p *protection) choose(c api.ImageChoice) error {
	if !filepath.IsAbs(c.Path) {
		return fmt.Errorf("%q is not a whole path", c.Path)
	}
	at := p.places[c.Node]
	i := slices.IndexFunc(at, func(pl place) bool { return pl.Target == c.Target })
	switch {
	case !slices.Contains(p.Module.Nodes, c.Node):
		return fmt.Errorf("the module runs on %s", strings.Join(p.Module.Nodes, " and "))
	case i < 0 && slices.ContainsFunc(p.Definition.Disks, func(d vmmanager.Disk) bool { return d.Target == c.Target }):
		return errors.New("the disk of a VM that is off stays where it is")
	case i < 0:
		return errors.New("the VM has no such disk")
	case at[i].Path != "":
		return errors.New("named twice")
	}
	at[i].Path = c.Path
	return nil
}

func (p *protection) run(ctx context.Context, t *task) (string, error) {
	p.Task = t.state.ID
	t.step("asks %s what it would say to the VM", p.peer())
	if err := p.fit(ctx); err != nil {
		return "", err // nothing was begun
	}
	t.step("makes the images on %s and %s", p.n.self(), p.peer())
	err := p.images(ctx)
	if err == nil {
		err = p.take(ctx, t)
	}
	if err != nil {
		t.step("undoes what was begun")
		return "", errors.Join(err, p.undo(ctx))
	}
	// The module is durable: nothing is undone from here on.
	return p.result(), p.begin(ctx)
}

// result is what a protect has led to, in a sentence.
func (p *protection) result() string {
	name, vm := p.Module.Name, p.Definition.Name
	if !p.Running {
		return fmt.Sprintf("VM %s is protected as module %s and off: `duet start %s` starts it%s%s", vm, name, name, p.caution(), p.noticed())
	}
	return fmt.Sprintf("VM %s is protected as module %s and runs; its old images are no longer used: %s%s%s", vm, name, p.oldImages(), p.caution(), p.noticed())
}

// take brings the VM onto its volumes and makes the module durable on both nodes.
func (p *protection) take(ctx context.Context, t *task) error {
	rewired, err := p.n.cfg.Hypervisor.Rewire(p.Definition, p.n.endpoints(p.Module))
	if err != nil {
		return err
	}
	if p.Running {
		if err := p.adopt(ctx, t); err != nil {
			return err
		}
	}
	t.step("stores the module on both nodes")
	return p.create(ctx, rewired)
}

// caution says what an admin might not expect of the safe policy.
func (p *protection) caution() string {
	m := p.Module
	if cluster.Arbitration(m.Policy.Arbitration) != cluster.Safe || len(p.n.witnesses()) > 0 || p.n.canFence(p.peer()) {
		return ""
	}
	return fmt.Sprintf(". Its arbitration is safe and there is neither witness nor fence agent: when either node dies, the VM stands still until that node is back or `duet prim %s` says otherwise. "+
		"`duet cluster witness add` mends that; `available` in `duet config show %s` goes on by itself", m.Name, m.Name)
}

func (p *protection) oldImages() string {
	var paths []string
	for _, d := range p.Definition.Disks {
		paths = append(paths, d.Path)
	}
	return strings.Join(paths, ", ")
}

// images makes the volumes' images where there are none yet, and notes what was begun.
func (p *protection) images(ctx context.Context) error {
	self, peer := string(p.n.self()), string(p.peer())
	// An earlier protect of this VM may have been cut short.
	if err := p.n.removeAt(ctx, p.peer(), p.Module.Name, removal{Epoch: 1}); err != nil {
		return err
	}
	speaks, err := p.n.plane.Version(ctx, p.peer())
	if err != nil {
		return err
	}
	if speaks < hasIdentities {
		p.Module.ID = "" // the peer would vote by the name
	}
	err = p.n.rpcTo(ctx, p.peer(), "images", hosting{p.Task, p.Module.Name, p.Definition.Name, p.places[peer]}, &p.Theirs)
	if err == nil {
		p.Mine, err = p.n.makeImages(p.Module.Name, p.places[self])
	}
	if err != nil {
		return err
	}
	for node, images := range map[string][]made{self: p.Mine, peer: p.Theirs} {
		for i, image := range images {
			at := slices.IndexFunc(p.Module.Volumes, func(v appmodules.Volume) bool { return v.Target == p.places[node][i].Target })
			p.Module.Volumes[at].Paths[node] = image.Path
		}
	}
	if faults := p.Module.Validate(); len(faults) > 0 {
		return fmt.Errorf("%w: %s", api.ErrInvalid, faults[0].Error())
	}
	return p.n.keepUnfinished(p.unfinished)
}

// adopt copies the disks of the running VM into the volumes and switches it over.
func (p *protection) adopt(ctx context.Context, t *task) error {
	t.step("lets the VM pause, not fail, when a disk does not answer")
	if err := p.harden(ctx); err != nil {
		return err
	}
	if err := p.serve(ctx); err != nil {
		return err
	}
	for _, e := range p.n.endpoints(p.Module) {
		t.step("copies disk %s into its volume while the VM runs", e.Target)
		began := time.Now()
		err := p.n.cfg.Hypervisor.Adopt(ctx, p.Definition.Name, e, func(done, total int64) { t.progress(rate("adopt", done, total, began)) })
		if err != nil {
			for _, s := range p.copies {
				err = errors.Join(err, s.failure())
			}
			return err
		}
	}
	return nil
}

// harden has the running VM's disks pause it on errors, which the hypervisor can
// change only while the VM stands still.
func (p *protection) harden(ctx context.Context) error {
	hv := p.n.cfg.Hypervisor
	var targets []string
	for _, v := range p.Module.Volumes {
		targets = append(targets, v.Target)
	}
	stop := func(def vmmanager.Definition) (vmmanager.Definition, error) { return hv.Harden(def, targets) }
	return hv.Refit(ctx, p.Definition.Name, stop, func() error { return nil })
}

// serve serves all volumes, unless that is done already.
func (p *protection) serve(ctx context.Context) error {
	for _, v := range p.Module.Volumes[len(p.copies):] {
		s, err := p.seed(ctx, v)
		if err != nil {
			return err
		}
		p.copies = append(p.copies, s)
	}
	return nil
}

// create stores the module on the peer, then here, which makes it durable.
func (p *protection) create(ctx context.Context, rewired vmmanager.Definition) error {
	n := p.n
	nm := newModule{
		Stored:     stored{version{1, time.Now().UTC(), string(n.self())}, p.Module},
		Source:     n.self(),
		Definition: engine.Definition{Module: p.Module.Name, Version: 1, Text: rewired.Text, Own: p.Definition},
	}
	if err := n.rpcTo(ctx, p.peer(), "modules", nm, nil); err != nil {
		return fmt.Errorf("store module on %s: %w", p.peer(), err)
	}
	return n.storeModule(ctx, nm)
}

// begin has the module's engine take the volumes over. In between a running VM waits for its disks.
func (p *protection) begin(ctx context.Context) error {
	n := p.n
	if err := p.closeCopies(); err != nil {
		n.log.Warn("a volume did not close cleanly", "module", p.Module.Name, "err", err)
	}
	var s stored
	if _, err := n.values().Load(configKey(p.Module.Name), &s); err != nil {
		return err
	}
	if err := n.beginModule(s); err != nil {
		return err
	}
	return p.started(ctx)
}

// started starts the module of a VM that runs, and ends the protect.
func (p *protection) started(ctx context.Context) error {
	m, err := p.n.module(p.Module.Name)
	if err == nil && p.Running {
		_, err = p.n.startOn(ctx, m, api.ActionRequest{})
	}
	return errors.Join(err, p.n.endUnfinished(p.Module.Name))
}

func (p *protection) closeCopies() error {
	var errs []error
	for _, s := range p.copies {
		errs = append(errs, s.close())
	}
	p.copies = nil
	return errors.Join(errs...)
}
