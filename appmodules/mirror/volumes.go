package mirror

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"duet/appmodules"
	"duet/appmodules/engine"
	"duet/blockrepl"
	"duet/blockrepl/backing"
	"duet/blockrepl/divergence"
	"duet/blockrepl/nbd"
	"duet/cluster"
	"duet/vmmanager"
)

// Sockets keeps listening sockets beyond a run of the daemon: QEMU finds its volume again without an error, as its
// connect waits in the backlog. Any goroutine may call it.
type Sockets interface {
	nbd.Keeper
	// Drop lets the socket of a path go: who waits for it is cut off, and who comes is refused.
	Drop(path string)
	// Paths lists what is kept.
	Paths() []string
}

// VolumesConfig says what volumes are made of; all fields are needed but Sockets.
type VolumesConfig struct {
	Self    cluster.NodeID
	Dir     string  // of the sockets
	Sockets Sockets // nil: the sockets end with this process
	// Runs returns nil if a process is that of a VM.
	Runs func(vm string, pid int) error
	// Behind returns nil if a process is the one behind the block device of a module that is no VM.
	Behind func(module string, pid int) error
	// Root lets programs of root open a volume beside the process that runs its VM.
	Root   bool
	Keeper *divergence.Keeper // versions that lost a split brain
	Log    func(volume string) blockrepl.DirtyLog
	Logger *slog.Logger
}

// Volumes are what the volumes of a node are made of there: an image, a log and a socket. Any number of goroutines may
// use it.
type Volumes struct{ cfg VolumesConfig }

// NewVolumes returns them; nothing is opened yet.
func NewVolumes(cfg VolumesConfig) *Volumes { return &Volumes{cfg} }

// Of are the volumes of one module.
func (s *Volumes) Of(m appmodules.Module) engine.Disks { return disks{s, m} }

// disks opens the parts of the volumes of one module. It is an engine.Disks.
type disks struct {
	*Volumes
	module appmodules.Module
}

// Open opens the image of a volume together with all versions that are kept of it: what is overwritten is saved into
// them first. It refuses an image whose size is not the volume's. The caller closes what it gets.
func (d disks) Open(v appmodules.Volume) (engine.Image, error) {
	file, err := backing.OpenFile(d.path(v), v.Size)
	if err != nil {
		return nil, d.grown(v, err)
	}
	img, err := d.cfg.Keeper.Open(v.ID, file)
	if err != nil {
		return nil, err // and not a nil image in an interface
	}
	return img, nil
}

// path is where the image of a volume lies on this node.
func (s *Volumes) path(v appmodules.Volume) string { return v.Paths[string(s.cfg.Self)] }

// grown adds to an error of opening an image the way for one that was made larger: a volume
// has one size on both nodes, which is agreed when it is protected.
func (d disks) grown(v appmodules.Volume, err error) error {
	if !errors.Is(err, backing.ErrSize) {
		return err
	}
	path := d.path(v)
	if size, sizeErr := backing.SizeOf(path); sizeErr != nil || size < v.Size {
		return fmt.Errorf("%w: the end of %s is gone: what is on the other node is whole", err, path)
	}
	return fmt.Errorf("%w: a protected disk keeps its size. To grow it: `duet vm release %s`, give its image on that "+
		"node the new size, `duet vm protect %s`; to go on as before, give %s its %d bytes again", err,
		d.module.Name, d.module.Subject(), path, v.Size)
}

// Log is the dirty log, by the identity of the data.
func (d disks) Log(v appmodules.Volume) blockrepl.DirtyLog { return d.cfg.Log(v.ID) }

// Written is when the image was last written.
func (d disks) Written(v appmodules.Volume) time.Time { return backing.Written(d.path(v)) }

// SetAside begins to keep the present content of an image, which lost a split brain. Nothing is copied now: from its
// return on each region is kept before it is overwritten, unless the version has to be given up (package divergence).
func (d disks) SetAside(v appmodules.Volume, image engine.Image, div engine.Divergence) error {
	img, ok := image.(*divergence.Image)
	if !ok {
		return errors.New("the image was not opened by this node")
	}
	self := string(d.cfg.Self)
	about := divergence.About{Volume: v.ID, Module: div.Module, Target: v.Target, Node: self, Epoch: uint64(div.Epoch),
		Size: v.Size,
		Loser: divergence.Side{Node: self, Lineage: div.Loser, FirstWrite: div.Loser.Parted(div.Winner),
			LastWrite: d.Written(v)},
		Winner: divergence.Side{Lineage: div.Winner, FirstWrite: div.Winner.Parted(div.Loser), LastWrite: div.WinnerWritten}}
	if newest, ok := div.Winner.Newest(); ok {
		about.Winner.Node = newest.Holder
	}
	version, err := img.Save(about)
	if err != nil || version == nil {
		return err
	}
	d.cfg.Logger.Error("SPLIT BRAIN: both nodes wrote without each other; this node's version is kept",
		"module", div.Module, "volume", v.Target, "version", version.About().ID,
		"until", time.Now().Add(divergence.Keep).Format(time.DateOnly),
		"remedy", "duet volume diverged shows it, duet volume export writes it to a file, duet volume drop forgets it")
	return nil
}

// Frontend serves the volume on its socket, to the VM. The socket is there when it returns: a QEMU
// that is told of it next tries once.
func (d disks) Frontend(module string, v appmodules.Volume) (blockrepl.Frontend, error) {
	if err := backing.Passage(d.cfg.Dir); err != nil {
		return nil, fmt.Errorf("make directory of sockets: %w", err)
	}
	o := nbd.Options{Socket: d.socket(module, v.Target), Name: v.Target, Admit: d.admit, Log: d.cfg.Logger}
	if d.cfg.Sockets != nil {
		o.Keeper = d.cfg.Sockets
	}
	s := nbd.New(o)
	return s, s.Listen()
}

// admit lets only the process in that runs the VM, or is behind the block device: another one with the same disks, of
// a copied definition say, would write the volume as well. This daemon itself knocks, to see whether the socket is
// served.
func (d disks) admit(p nbd.Peer) error {
	switch {
	case p.PID == os.Getpid():
		return nil
	case p.UID == 0 && d.cfg.Root:
		return nil
	}
	if d.module.Kind.Defined() {
		return d.cfg.Runs(d.module.Subject(), p.PID)
	}
	return d.cfg.Behind(d.module.Name, p.PID)
}

// socket is where a volume is served, the same path on every node, as the definition that has it goes to the other
// one.
func (s *Volumes) socket(module, target string) string {
	return filepath.Join(s.cfg.Dir, appmodules.SocketName(module, target))
}

// Endpoints are where the VM of a module finds its volumes.
func (s *Volumes) Endpoints(m appmodules.Module) []vmmanager.Endpoint {
	out := make([]vmmanager.Endpoint, len(m.Volumes()))
	for i, v := range m.Volumes() {
		out[i] = vmmanager.Endpoint{Target: v.Target, Socket: s.socket(m.Name, v.Target)}
	}
	return out
}

// Withdraw refuses who waits for the volumes of a module that this node does not serve.
func (s *Volumes) Withdraw(m appmodules.Module) {
	if s.cfg.Sockets == nil {
		return
	}
	for _, e := range s.Endpoints(m) {
		s.cfg.Sockets.Drop(e.Socket)
	}
}

// WithdrawOthers lets the sockets go that an earlier run kept for modules that are not among those.
func (s *Volumes) WithdrawOthers(wanted []appmodules.Module) {
	if s.cfg.Sockets == nil {
		return
	}
	keep := map[string]bool{}
	for _, m := range wanted {
		for _, e := range s.Endpoints(m) {
			keep[e.Socket] = true
		}
	}
	for _, path := range s.cfg.Sockets.Paths() {
		if !keep[path] {
			s.cfg.Sockets.Drop(path)
		}
	}
}

// Remove withdraws the volumes of a module that is forgotten and removes their sockets.
func (s *Volumes) Remove(m appmodules.Module) error {
	s.Withdraw(m)
	for _, v := range m.Replicated() {
		if err := os.Remove(s.socket(m.Name, v.Target)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}
