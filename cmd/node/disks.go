package node

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	"duet/appmodules"
	"duet/appmodules/engine"
	"duet/blockrepl"
	"duet/blockrepl/backing"
	"duet/blockrepl/nbd"
	"duet/vmmanager"
)

// disks opens the parts of the volumes of one VM on this node. It is an engine.Disks.
type disks struct {
	n  *Node
	vm string
}

// Open opens the image.
func (d disks) Open(v appmodules.Volume) (engine.Image, error) {
	return d.n.openImage(v)
}

// Log is the dirty log, by the identity of the data.
func (d disks) Log(v appmodules.Volume) blockrepl.DirtyLog { return d.n.store.Log(v.ID) }

// Frontend serves the volume on its socket, to the VM. The socket is there when it returns: a QEMU
// that is told of it next tries once.
func (d disks) Frontend(module string, v appmodules.Volume) (blockrepl.Frontend, error) {
	if err := passage(d.n.cfg.RunDir); err != nil {
		return nil, fmt.Errorf("make directory of sockets: %w", err)
	}
	o := nbd.Options{Socket: d.n.socket(module, v.Target), Name: v.Target, Admit: d.admit, Log: d.n.log}
	if d.n.cfg.Sockets != nil {
		o.Keeper = d.n.cfg.Sockets
	}
	s := nbd.New(o)
	return s, s.Listen()
}

// withdraw refuses who waits for the volumes of a module that this node does not serve.
func (n *Node) withdraw(m appmodules.Module) {
	if n.cfg.Sockets == nil {
		return
	}
	for _, v := range m.Volumes() {
		n.cfg.Sockets.Drop(n.socket(m.Name, v.Target))
	}
}

// withdrawOthers lets the sockets go that an earlier run kept for modules that are not there any more, nor among left.
func (n *Node) withdrawOthers(left []appmodules.Module) {
	if n.cfg.Sockets == nil {
		return
	}
	wanted := map[string]bool{}
	want := func(m appmodules.Module) {
		for _, v := range m.Volumes() {
			wanted[n.socket(m.Name, v.Target)] = true
		}
	}
	for _, m := range n.all() {
		want(m.cfg)
	}
	for _, m := range left { // its VM waits until the work is taken up
		want(m)
	}
	for _, path := range n.cfg.Sockets.Paths() {
		if !wanted[path] {
			n.cfg.Sockets.Drop(path)
		}
	}
}

// admit lets only the process in that runs the VM: another one with the same disks, of a copied definition say, would
// write the volume as well. This daemon itself knocks, to see whether the socket is served.
func (d disks) admit(p nbd.Peer) error {
	switch {
	case p.PID == os.Getpid():
		return nil
	case p.UID == 0 && d.n.cfg.AdmitRoot:
		return nil
	}
	return d.n.cfg.Hypervisor.Runs(d.vm, p.PID)
}

// Written is when the image was last written.
func (d disks) Written(v appmodules.Volume) time.Time {
	return backing.Written(v.Paths[string(d.n.self())])
}

// SetAside keeps the present content of an image.
func (d disks) SetAside(v appmodules.Volume, image engine.Image, div engine.Divergence) error {
	return d.n.setAside(v, image, div)
}

// socket is where a volume is served, the same path on every node.
func (n *Node) socket(module, target string) string {
	return filepath.Join(n.cfg.RunDir, module+"-"+target+".sock")
}

// endpoints are where the VM of a module finds its volumes.
func (n *Node) endpoints(m appmodules.Module) []vmmanager.Endpoint {
	out := make([]vmmanager.Endpoint, len(m.Volumes()))
	for i, v := range m.Volumes() {
		out[i] = vmmanager.Endpoint{Target: v.Target, Socket: n.socket(m.Name, v.Target)}
	}
	return out
}
