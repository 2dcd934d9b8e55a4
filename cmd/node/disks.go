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

// disks opens the parts of volumes on this node. It is an engine.Disks.
type disks struct{ n *Node }

// Open opens the image.
func (d disks) Open(v appmodules.Volume) (engine.Image, error) {
	return d.n.openImage(v)
}

// Log is the dirty log, by the identity of the data.
func (d disks) Log(v appmodules.Volume) blockrepl.DirtyLog { return d.n.store.Log(v.ID) }

// Frontend serves the volume on its socket.
func (d disks) Frontend(module string, v appmodules.Volume) (blockrepl.Frontend, error) {
	if err := os.MkdirAll(d.n.cfg.RunDir, 0o700); err != nil {
		return nil, fmt.Errorf("make directory of sockets: %w", err)
	}
	return nbd.New(nbd.Options{Socket: d.n.socket(module, v.Target), Name: v.Target, Log: d.n.log}), nil
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
	out := make([]vmmanager.Endpoint, len(m.Volumes))
	for i, v := range m.Volumes {
		out[i] = vmmanager.Endpoint{Target: v.Target, Socket: n.socket(m.Name, v.Target)}
	}
	return out
}
