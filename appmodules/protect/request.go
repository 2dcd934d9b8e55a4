package protect

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"duet/appmodules"
	"duet/appmodules/config"
	"duet/cluster"
	"duet/console/api"
	"duet/vmmanager"
)

// Protect makes a module of a VM that is defined on this node.
//
// A VM that is off keeps its raw images in place. A running one, or one with images in another format, gets raw ones:
// the running VM's disks are copied into them while it runs and the VM is switched over. What fails leaves the VM as
// it was.
func (w *Works) Protect(ctx context.Context, vm string, r api.ProtectRequest) (api.Task, error) {
	def, err := w.defined(ctx, vm)
	if err != nil {
		return api.Task{}, err
	}
	obstacles := Notices(w.self(), w.cfg.Hypervisor.Obstacles(def))
	if err := Refusal(api.ErrInvalid, "VM "+vm+" cannot be protected", obstacles); err != nil {
		return api.Task{}, err
	}
	p, err := w.requested(ctx, def, r)
	if err == nil {
		err = w.accept(p)
	}
	if err != nil {
		return api.Task{}, err
	}
	t, err := w.cfg.Tasks.Run(protecting, p.Module.Name, p.run)
	if err != nil {
		w.end(p)
	}
	return t, err
}

// CheckProtect tells what would come of Protect and changes nothing. What Protect would refuse of the VM's devices, and
// what the peer says of it, are notices; whatever else it would refuse is an error.
func (w *Works) CheckProtect(ctx context.Context, vm string, r api.ProtectRequest) (api.ProtectCheck, error) {
	def, err := w.defined(ctx, vm)
	if err != nil {
		return api.ProtectCheck{}, err
	}
	out := api.ProtectCheck{VM: vm, Notices: []api.Notice{}}
	out.Notices = append(out.Notices, Notices(w.self(), w.cfg.Hypervisor.Obstacles(def))...)
	var p *protection
	if out.OK = len(out.Notices) == 0; out.OK {
		p, err = w.requested(ctx, def, r)
	} else {
		p = &protection{w: w}
		p.Module, err = w.module(def, r)
	}
	if err != nil {
		return out, err
	}
	out.Module, out.Peer = p.Module.Name, string(p.peer())
	if !out.OK {
		return out, nil // there is no definition that the peer could judge
	}
	if err := p.judge(ctx); err != nil {
		return out, err
	}
	out.Notices = append(out.Notices, p.notices...)
	out.OK = !slices.ContainsFunc(p.notices, func(x api.Notice) bool { return x.Level == string(vmmanager.Refused) })
	return out, nil
}

// defined is the definition of a VM of this node.
func (w *Works) defined(ctx context.Context, vm string) (vmmanager.Definition, error) {
	def, err := w.cfg.Hypervisor.Definition(ctx, vm)
	switch {
	case errors.Is(err, vmmanager.ErrUnsupported):
		err = fmt.Errorf("%w: VM %s is transient: it is gone when it ends, and has no definition to protect. "+
			"`virsh dumpxml --migratable %s >%s.xml && virsh define %s.xml` makes it persistent while it runs", api.ErrConflict,
			vm, vm, vm, vm)
	case errors.Is(err, vmmanager.ErrNotFound):
		err = w.elsewhere(ctx, vm)
	}
	return def, err
}

// elsewhere is why a VM that this node does not have is not found, and where it is. The command is not passed on: its
// task is on the node that has the VM, and is followed there.
func (w *Works) elsewhere(ctx context.Context, vm string) error {
	on, missing := w.cfg.Peers.Elsewhere(ctx, vm)
	if len(on) > 0 {
		return fmt.Errorf("%w: VM %q is not defined on %s, but on %s: `duet vm protect %s` there", api.ErrNotFound, vm,
			w.self(), strings.Join(on, " and "), vm)
	}
	return fmt.Errorf("%w: VM %q is not defined on %s: `virsh list --all` shows what is%s", api.ErrNotFound, vm, w.self(),
		strings.Join(append([]string{""}, missing...), "; "))
}

// requested is a protect that may begin, and has changed nothing yet. Its findings are those of this moment: accept
// looks again for others, and the plan whether the VM runs (move).
func (w *Works) requested(ctx context.Context, def vmmanager.Definition, r api.ProtectRequest) (*protection, error) {
	vm := def.Name
	m, err := w.module(def, r)
	if err != nil {
		return nil, err
	}
	// First: memory that a plan has saved is not an admin's to remove.
	if err := w.mayBegin(m); err != nil {
		return nil, err
	}
	state, err := w.cfg.Hypervisor.State(ctx, vm)
	if err != nil {
		return nil, err
	}
	switch {
	case state != vmmanager.Off && state != vmmanager.Running:
		return nil, fmt.Errorf("%w: VM %s is %s: start it or shut it down first", api.ErrConflict, vm, state)
	case def.Saved:
		return nil, fmt.Errorf("%w: the memory of VM %s is saved, and would not fit its disks later: "+
			"`virsh start %s` first, or `virsh managedsave-remove %s` if it is not needed", api.ErrConflict, vm, vm, vm)
	}
	if err := w.notOfOthers(def); err != nil {
		return nil, err
	}
	p := &protection{w: w, record: record{Kind: protecting, Module: m, Definition: def,
		Running: state == vmmanager.Running}}
	return p, p.layout(r.Images)
}

// notOfOthers refuses a VM that has a module's volume for a disk, as the copy of a protected VM's definition does.
func (w *Works) notOfOthers(def vmmanager.Definition) error {
	on := w.cfg.Hypervisor.On(def)
	for _, m := range w.cfg.Modules.All() {
		for _, e := range w.cfg.Modules.Endpoints(m) {
			i := slices.IndexFunc(on, func(o vmmanager.Endpoint) bool { return o.Socket == e.Socket })
			if i >= 0 {
				return fmt.Errorf("%w: disk %s of VM %s is the volume %s of module %s, which VM %s has: give it a disk of its own",
					api.ErrConflict, on[i].Target, def.Name, e.Target, m.Name, m.Subject())
			}
		}
	}
	return nil
}

// module makes the module's configuration from the request, with a new identity, which no earlier module of its name
// has. The YAML of a request may set name and policy; nodes and VM are those of the request.
func (w *Works) module(def vmmanager.Definition, r api.ProtectRequest) (appmodules.Module, error) {
	c, all := w.cfg.Cluster(), w.cfg.Modules.All()
	peer, err := choosePeer(c, r.Peer)
	if err != nil {
		return appmodules.Module{}, err
	}
	taken := func(name string) bool {
		return slices.ContainsFunc(all, func(m appmodules.Module) bool { return m.Name == name && m.Subject() != def.Name })
	}
	m := appmodules.Default()
	m.Name, m.Nodes = cmp.Or(r.Module, appmodules.NameFor(def.Name, taken)), []string{string(c.Self), peer}
	m.Spec = appmodules.VM{Domain: def.Name}
	if r.Config != "" {
		if m, err = config.ParseOnto(m, "config", []byte(r.Config)); err != nil {
			return m, fmt.Errorf("%w: %v", api.ErrInvalid, err)
		}
		m.Nodes, m.Spec = []string{string(c.Self), peer}, appmodules.VM{Domain: def.Name}
	}
	if err := w.free(m); err != nil {
		return m, err
	}
	m.ID = strings.ToLower(rand.Text())
	if faults := m.Validate(); len(faults) > 0 {
		return m, fmt.Errorf("%w: %s", api.ErrInvalid, faults[0].Error())
	}
	return m, nil
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
		return "", fmt.Errorf("%w: cluster %s has one node: `duet cluster token` here, then `duet cluster join` on the other",
			api.ErrConflict, c.Name)
	case want == "" && len(others) == 1:
		return others[0], nil
	case want == "":
		return "", fmt.Errorf("%w: say which node gets the second copy: --peer %s", api.ErrInvalid,
			strings.Join(others, " or "))
	case !slices.Contains(others, want):
		return "", fmt.Errorf("%w: --peer %q: there is %s", api.ErrInvalid, want, strings.Join(others, ", "))
	}
	return want, nil
}

// layout decides where each volume lies and checks what can be checked without changing anything.
func (p *protection) layout(chosen []api.ImageChoice) error {
	self, peer := string(p.w.self()), string(p.peer())
	p.places = map[string][]Place{}
	var volumes []appmodules.Volume
	for _, d := range p.Definition.Disks {
		v := appmodules.Volume{Target: d.Target, ID: strings.ToLower(rand.Text()), Size: d.Size, Paths: map[string]string{}}
		switch {
		case p.Running:
			p.places[self] = append(p.places[self], Place{Target: d.Target, Size: d.Size})
		case d.Format == "raw":
			v.Paths[self] = d.Path // it stays where it is
		default:
			return fmt.Errorf("%w: disk %s of the stopped VM is %s, which is taken in while the VM runs: "+
				"start the VM and repeat, or convert it with `qemu-img convert -O raw`", api.ErrInvalid, d.Target, d.Format)
		}
		p.places[peer] = append(p.places[peer], Place{Target: d.Target, Size: d.Size})
		volumes = append(volumes, v)
	}
	p.Module.Spec = p.Module.Spec.On(volumes)
	for _, c := range chosen {
		if err := p.choose(c); err != nil {
			return fmt.Errorf("%w: image %s:%s: %w", api.ErrInvalid, c.Node, c.Target, err)
		}
	}
	if _, err := p.rewired(); err != nil {
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
	i := slices.IndexFunc(at, func(pl Place) bool { return pl.Target == c.Target })
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
	at[i].Path = filepath.Clean(c.Path) // a node takes no other from another one
	return nil
}
