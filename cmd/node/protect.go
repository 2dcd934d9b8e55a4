package node

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"duet/appmodules"
	"duet/appmodules/config"
	"duet/appmodules/engine"
	"duet/blockrepl"
	"duet/blockrepl/backing"
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
	def, err := n.cfg.Hypervisor.Definition(ctx, vm)
	switch {
	case errors.Is(err, vmmanager.ErrNotFound):
		return api.Task{}, fmt.Errorf("%w: VM %q is not defined on %s: `virsh list --all` shows what is", api.ErrNotFound, vm, n.self())
	case err != nil:
		return api.Task{}, err
	}
	m, err := n.plan(def, r)
	if err != nil {
		return api.Task{}, err
	}
	state, err := n.cfg.Hypervisor.State(ctx, vm)
	if err != nil {
		return api.Task{}, err
	}
	if state != vmmanager.Off && state != vmmanager.Running {
		return api.Task{}, fmt.Errorf("%w: VM %s is %s: start it or shut it down first", api.ErrConflict, vm, state)
	}
	p := &protection{n: n, m: m, def: def, running: state == vmmanager.Running}
	if err := p.layout(); err != nil {
		return api.Task{}, err
	}
	return n.run("protect", m.Name, p.run)
}

// plan makes the module's configuration from the request.
func (n *Node) plan(def vmmanager.Definition, r api.ProtectRequest) (appmodules.Module, error) {
	c := n.cluster()
	peer, err := choosePeer(c, r.Peer)
	if err != nil {
		return appmodules.Module{}, err
	}
	m := appmodules.Default()
	m.Name, m.VM.Domain, m.Nodes = strings.ToLower(def.Name), def.Name, []string{string(c.Self), peer}
	if r.Config != "" {
		if m, err = config.ParseOnto(m, "config", []byte(r.Config)); err != nil {
			return m, fmt.Errorf("%w: %v", api.ErrInvalid, err)
		}
		m.VM.Domain, m.Nodes, m.Volumes = def.Name, []string{string(c.Self), peer}, nil
	}
	if r.Module != "" {
		m.Name = r.Module
	}
	if have, err := n.module(m.Name); err == nil {
		return m, fmt.Errorf("%w: module %s exists and protects VM %s; choose another name with --module", api.ErrConflict, m.Name, have.cfg.VM.Domain)
	}
	for _, have := range n.all() {
		if have.cfg.VM.Domain == def.Name {
			return m, fmt.Errorf("%w: VM %s is protected by module %s", api.ErrConflict, def.Name, have.cfg.Name)
		}
	}
	if len(def.Disks) == 0 {
		return m, fmt.Errorf("%w: VM %s has no disk that can be replicated", api.ErrInvalid, def.Name)
	}
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

// protection is one run of Protect.
type protection struct {
	n       *Node
	m       appmodules.Module
	def     vmmanager.Definition
	running bool
	made    []string // images made here
	copies  []*seeding
}

// inPlace: the image stays where it is.
func (p *protection) inPlace(d vmmanager.Disk) bool { return !p.running && d.Format == "raw" }

// layout decides where each volume lies and checks what can be checked without changing anything.
func (p *protection) layout() error {
	self := string(p.n.self())
	for _, d := range p.def.Disks {
		v := appmodules.Volume{Target: d.Target, ID: strings.ToLower(rand.Text()), Size: d.Size, Paths: map[string]string{}}
		for _, node := range p.m.Nodes {
			v.Paths[node] = p.n.imagePath(p.m.Name, d.Target)
		}
		if p.inPlace(d) {
			v.Paths[self] = d.Path
		} else if !p.running {
			return fmt.Errorf("%w: disk %s of the stopped VM is %s, which is taken in while the VM runs: start the VM and repeat, or convert it with `qemu-img convert -O raw`",
				api.ErrInvalid, d.Target, d.Format)
		}
		p.m.Volumes = append(p.m.Volumes, v)
	}
	if faults := p.m.Validate(); len(faults) > 0 {
		return fmt.Errorf("%w: %s", api.ErrInvalid, faults[0].Error())
	}
	_, err := p.n.cfg.Hypervisor.Rewire(p.def, p.endpoints())
	if err != nil {
		return fmt.Errorf("%w: %v", api.ErrInvalid, err)
	}
	return nil
}

func (p *protection) endpoints() []vmmanager.Endpoint {
	var out []vmmanager.Endpoint
	for _, v := range p.m.Volumes {
		out = append(out, vmmanager.Endpoint{Target: v.Target, Socket: p.n.socket(p.m.Name, v.Target)})
	}
	return out
}

func (p *protection) run(ctx context.Context, t *task) (result string, err error) {
	defer func() {
		if err != nil {
			p.undo()
		}
	}()
	peer := cluster.NodeID(p.m.Peer(string(p.n.self())))
	t.step("makes the images on %s and %s", p.n.self(), peer)
	if err := p.images(ctx, peer); err != nil {
		return "", err
	}
	rewired, err := p.n.cfg.Hypervisor.Rewire(p.def, p.endpoints())
	if err != nil {
		return "", err
	}
	if p.running {
		if err := p.adopt(ctx, t); err != nil {
			return "", err
		}
	}
	t.step("stores the module on both nodes")
	if err := p.create(ctx, peer, rewired); err != nil {
		return "", err
	}
	if !p.running {
		return fmt.Sprintf("VM %s is protected as module %s and off: `duet start %s` starts it%s", p.def.Name, p.m.Name, p.m.Name, caution(p.m)), nil
	}
	m, err := p.n.module(p.m.Name)
	if err != nil {
		return "", err
	}
	if _, err := p.n.startOn(ctx, m, api.ActionRequest{}); err != nil {
		return "", err
	}
	return fmt.Sprintf("VM %s is protected as module %s and runs; its old images are no longer used: %s%s", p.def.Name, p.m.Name, oldImages(p.def), caution(p.m)), nil
}

// caution says what an admin might not expect of the safe policy.
func caution(m appmodules.Module) string {
	if cluster.Arbitration(m.Policy.Arbitration) != cluster.Safe {
		return ""
	}
	return fmt.Sprintf(". Its arbitration is safe and there is no witness: when either node dies, the VM stands still until that node is back or `duet prim %s` says otherwise; "+
		"`available` in `duet config show %s` goes on by itself", m.Name, m.Name)
}

func oldImages(def vmmanager.Definition) string {
	var paths []string
	for _, d := range def.Disks {
		paths = append(paths, d.Path)
	}
	return strings.Join(paths, ", ")
}

// images makes the volumes' images where there are none yet.
func (p *protection) images(ctx context.Context, peer cluster.NodeID) error {
	for i, v := range p.m.Volumes {
		if !p.inPlace(p.def.Disks[i]) {
			path, err := p.n.newImage(image{p.m.Name, v})
			if err != nil {
				return err
			}
			p.made = append(p.made, path)
		}
		if err := p.n.rpcTo(ctx, peer, "images", image{p.m.Name, v}, nil); err != nil {
			return fmt.Errorf("image of volume %s on %s: %w", v.Target, peer, err)
		}
	}
	return nil
}

// newImage makes the image of a volume on this node and returns its path.
func (n *Node) newImage(i image) (string, error) {
	path := i.Volume.Paths[string(n.self())]
	return path, makeImage(path, i.Volume.Size, func(path string, size int64) error {
		f, err := backing.CreateFile(path, size)
		if err != nil {
			return err
		}
		return f.Close()
	})
}

// seeding serves a volume alone, while a running VM's disk is copied into it.
type seeding struct {
	image *backing.File
	prim  *blockrepl.Primary
	front blockrepl.Frontend
	ended chan struct{}
}

func (s *seeding) close() error {
	s.prim.Close()
	err := s.front.Close()
	<-s.ended
	return errors.Join(err, s.image.Close())
}

// adopt copies the disks of the running VM into the volumes and switches it over.
func (p *protection) adopt(ctx context.Context, t *task) error {
	t.step("lets the VM pause, not fail, when a disk does not answer")
	if err := p.harden(ctx); err != nil {
		return err
	}
	for _, v := range p.m.Volumes {
		s, err := p.seed(ctx, v)
		if err != nil {
			return err
		}
		p.copies = append(p.copies, s)
	}
	for i, e := range p.endpoints() {
		t.step("copies disk %s into its volume while the VM runs", e.Target)
		began := time.Now()
		err := p.n.cfg.Hypervisor.Adopt(ctx, p.def.Name, e, func(done, total int64) { t.progress(rate("adopt", done, total, began)) })
		if err != nil {
			return errors.Join(err, p.giveBack(ctx, i))
		}
	}
	return nil
}

// harden has the running VM's disks pause it on errors, which the hypervisor can
// change only while the VM stands still.
func (p *protection) harden(ctx context.Context) error {
	same, err := p.n.cfg.Hypervisor.Restore(p.def, p.def.Disks)
	if err != nil {
		return err
	}
	return p.n.cfg.Hypervisor.Refit(ctx, same, func() error { return nil })
}

// giveBack returns the first count disks to their old images after a later one failed.
func (p *protection) giveBack(ctx context.Context, count int) error {
	var errs []error
	for _, d := range p.def.Disks[:count] {
		errs = append(errs, p.n.cfg.Hypervisor.Release(context.WithoutCancel(ctx), p.def.Name, d, func(int64, int64) {}))
	}
	return errors.Join(errs...)
}

// seed serves one empty volume, writable here alone, on the socket that its module will use.
func (p *protection) seed(ctx context.Context, v appmodules.Volume) (*seeding, error) {
	n := p.n
	if err := n.seedLog(ctx, v, n.self()); err != nil {
		return nil, err
	}
	img, err := backing.OpenFile(v.Paths[string(n.self())], v.Size)
	if err != nil {
		return nil, err
	}
	prim, err := blockrepl.NewPrimary(blockrepl.PrimaryConfig{Volume: p.m.Name + "/" + v.Target, Node: string(n.self()), Identity: v.ID,
		Device: img, Log: n.store.Log(v.ID), Logger: n.log, Events: func(blockrepl.Event) {}})
	if err != nil {
		return nil, errors.Join(err, img.Close())
	}
	front, err := disks{n}.Frontend(p.m.Name, v)
	if err != nil {
		return nil, errors.Join(err, img.Close())
	}
	s := &seeding{image: img, prim: prim, front: front, ended: make(chan struct{})}
	prim.Start()
	go func() {
		defer close(s.ended)
		if err := front.Serve(prim); err != nil {
			n.log.Error("frontend ended", "volume", v.Target, "err", err)
		}
	}()
	if err := prim.GoAlone(1); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

// create stores the module on the peer, then here. Until it is durable here a
// running VM can be given back; from the end of the seeding to the start of the
// engine it waits for its disks.
func (p *protection) create(ctx context.Context, peer cluster.NodeID, rewired vmmanager.Definition) error {
	n := p.n
	nm := newModule{
		Stored:     stored{version{1, time.Now().UTC(), string(n.self())}, p.m},
		Source:     n.self(),
		Definition: engine.Definition{Module: p.m.Name, Version: 1, Text: rewired.Text},
	}
	err := n.rpcTo(ctx, peer, "modules", nm, nil)
	if err != nil {
		err = fmt.Errorf("store module on %s: %w", peer, err)
	} else if err = n.storeModule(ctx, nm); err != nil {
		err = errors.Join(err, n.rpcTo(ctx, peer, "modules/"+p.m.Name+"/remove", nil, nil))
	}
	if err != nil {
		if p.running {
			err = errors.Join(err, p.giveBack(ctx, len(p.def.Disks)))
		}
		return errors.Join(err, n.cfg.Hypervisor.Define(context.WithoutCancel(ctx), p.def))
	}
	p.made = nil // they are the module's from here on
	if err := p.closeCopies(); err != nil {
		n.log.Warn("a volume did not close cleanly", "module", p.m.Name, "err", err)
	}
	return n.beginModule(nm.Stored)
}

func (p *protection) closeCopies() error {
	var errs []error
	for _, s := range p.copies {
		errs = append(errs, s.close())
	}
	p.copies = nil
	return errors.Join(errs...)
}

// undo removes what a failed run has made.
func (p *protection) undo() {
	_ = p.closeCopies() // the error that led here is reported
	for _, path := range p.made {
		if err := os.Remove(path); err != nil {
			p.n.log.Warn("an image of a failed protect is left", "path", path, "err", err)
		}
	}
}
