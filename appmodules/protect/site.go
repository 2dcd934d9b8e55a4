package protect

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"regexp"
	"time"

	"duet/appmodules"
	"duet/blockrepl"
	"duet/cluster"
	"duet/console/api"
	"duet/vmmanager"
)

// Hypervisor runs the VMs of this node and can change their disks.
type Hypervisor interface {
	vmmanager.Hypervisor
	vmmanager.Protector
}

// Modules are the modules of this node. All calls may be repeated, by any goroutine. Store, Begin, Remove and Forget
// take turns by the name of the module, and so wait for each other; what they have changed is durable when they
// return.
type Modules interface {
	// All are those whose engine runs.
	All() []appmodules.Module
	// Endpoints are where the VM of a module finds its volumes.
	Endpoints(m appmodules.Module) []vmmanager.Endpoint
	// Stored tells whether a module is durable here.
	Stored(name string) (bool, error)
	// Store makes a module durable here. A failed Store leaves nothing.
	Store(ctx context.Context, n New) error
	// Begin builds and starts the engine of a stored module; one that runs is left alone.
	Begin(name string) error
	// Run has a module run, where its newest data are. It returns when a node has accepted that, before anything runs.
	Run(ctx context.Context, name string) error
	// Remove ends the engine of a module and forgets it; images stay. An error may leave it forgotten: see Stored.
	Remove(ctx context.Context, name string) error
	// Forget deletes what is stored of a module that has no engine; images stay.
	Forget(m appmodules.Module) error
	// Forgotten tells all witnesses that a module is gone, best effort. Its peer must know it before: a witness that has
	// forgotten would let a stale copy become primary.
	Forgotten(ctx context.Context, m appmodules.Module)
	// Leaves returns nil if the VM of a module can be taken off its volumes here as they are: it runs here, or is stopped
	// and its newest data are here for certain. It waits, within ctx, until that is known after a start of the daemon.
	Leaves(ctx context.Context, name string) error
	// Runs tells whether the VM of a module runs here.
	Runs(name string) bool
	// Part has a module that runs go on without its peer until Rejoin; the error says why it does not. The peer's copy is
	// durably outdated when it returns nil. Another run of the daemon does not know of it.
	Part(ctx context.Context, name, why string) error
	// Rejoin ends Part.
	Rejoin(name string)
	// Kept is the VM's definition on its volumes, and the one it had before.
	Kept(ctx context.Context, name string) (rewired []byte, own vmmanager.Definition, err error)
	// Epoch is the newest that this node knows of a module; 0: it has no such module.
	Epoch(name string) cluster.Epoch
}

// Volumes are what volumes are made of on this node. Its calls wait for disks.
type Volumes interface {
	// Choose says what Make would make for each place, in their order, and changes nothing. It is Intended, and the
	// caller's to keep durably before Make.
	Choose(m appmodules.Module, places []Place) ([]Made, error)
	// Make makes what Choose has chosen for those places, or none, and returns it, Intended no more. It notes nothing.
	Make(m appmodules.Module, places []Place, chosen []Made) ([]Made, error)
	// Drop undoes Make, also one that was cut short. What is gone already is no error; what a module has by now stays.
	Drop(m appmodules.Module, all []Made) error
	// Disk is what a VM has that is on the image of a volume.
	Disk(v appmodules.Volume) vmmanager.Disk
	// Made tells whether this node has made the image for the module.
	Made(m appmodules.Module, path string) bool
	// Seed begins the log of a volume whose data are here; one that has begun is left alone.
	Seed(ctx context.Context, v appmodules.Volume) error
	// Log is that log.
	Log(v appmodules.Volume) blockrepl.DirtyLog
	// Frontend serves a volume to the VM of a module; it listens when it returns, as a hypervisor that is told to use it
	// tries once. A volume has one at a time.
	Frontend(m appmodules.Module, v appmodules.Volume) (blockrepl.Frontend, error)
}

// Peers are the other nodes. All calls may be repeated; an error means that it is not known whether they arrived.
// They wait for the network and for what the peer does, as long as ctx lasts.
type Peers interface {
	// Judge is what a node says to a VM that it would get. What Clear and Make would refuse, of that module and with those
	// places, is its error; a node of an older release says nothing of that.
	Judge(ctx context.Context, node cluster.NodeID, def vmmanager.Definition, m appmodules.Module, places []Place) (
		[]vmmanager.Finding, error)
	// Elsewhere are the nodes that have a VM of that name; missing says, in sentences, of which that is not known. The
	// slowest of them has half a minute.
	Elsewhere(ctx context.Context, vm string) (on, missing []string)
	// Make has a node make the images of a VM that it does not have. A request with the same ID gets the same answer:
	// the node has noted durably what it made for it.
	Make(ctx context.Context, node cluster.NodeID, id string, m appmodules.Module, places []Place) ([]Made, error)
	// Drop has a node undo the Make of that ID; one that it does not know was undone. all is for nodes of version 1.
	Drop(ctx context.Context, node cluster.NodeID, id string, all []Made) error
	// Identities tells whether a node knows modules by their identity, and not by their name only.
	Identities(ctx context.Context, node cluster.NodeID) (bool, error)
	// Clear has a node forget what a protect that was cut short has left under a name. It refuses where a module of that
	// name has run, as it knows an epoch after the first then.
	Clear(ctx context.Context, node cluster.NodeID, name string) error
	// Store has a node store a module and begin it.
	Store(ctx context.Context, node cluster.NodeID, n New) error
	// Forget has a node forget a module whose VM stays here, as far as it knows no newer epoch than that. Another module
	// that has its name by now is left alone.
	Forget(ctx context.Context, node cluster.NodeID, m appmodules.Module, epoch cluster.Epoch) error
	// Answers returns nil if a node can be told of a module now.
	Answers(ctx context.Context, node cluster.NodeID, m appmodules.Module) error
	// Decided: a third one than the two nodes decides when that node is silent.
	Decided(node cluster.NodeID) bool
}

// Store keeps the plans durably: Save and Delete return when what they did survives power loss. To delete what is not
// there is no error.
type Store interface {
	Load(key string, v any) (found bool, err error)
	Save(key string, v any) error
	Delete(key string) error
	Keys(prefix string) ([]string, error)
}

// Task is a work as people follow it.
type Task interface {
	// Step says what is done now.
	Step(format string, args ...any)
	// Copied says how many bytes of how many were copied since began; kind is that of api.Sync.
	Copied(kind string, done, total int64, began time.Time)
}

// Tasks is the board of works.
type Tasks interface {
	// Run begins one, on a goroutine of its own, and returns at once; a module has one at a time. work gets the task's
	// ID, and a ctx that ends with the node, not with the request.
	Run(kind, module string, work func(ctx context.Context, id string, t Task) (string, error)) (api.Task, error)
	// Again lists one of an earlier run of the daemon, which end ends.
	Again(id, kind, module string) (end func(result string, err error))
}

// Config is what Works are made of. All fields are needed.
type Config struct {
	Cluster    func() cluster.Config
	Hypervisor Hypervisor
	Modules    Modules
	Volumes    Volumes
	Files      Files
	Peers      Peers
	Store      Store
	Tasks      Tasks
	Spawn      func(func(ctx context.Context)) // a goroutine that ends with the node, whose Stop waits for it
	Logger     *slog.Logger
}

// New is what a node needs to know of a module that begins.
type New struct {
	Module  appmodules.Module
	Made    time.Time            // its first version
	Source  cluster.NodeID       // has the data
	Rewired []byte               // the VM's definition on its volumes
	Own     vmmanager.Definition // the one it had before
}

// Place says where the image of a volume shall lie on a node.
type Place struct {
	Target string `json:"target"`
	Size   int64  `json:"size"`           // bytes
	Path   string `json:"path,omitempty"` // an admin's choice; empty: the node chooses
}

// Names of modules and disks are parts of paths: no path fits these.
var (
	diskTarget = regexp.MustCompile(`^[a-zA-Z0-9]{1,32}$`)
	moduleForm = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,38}$`)
)

// maxImage is the largest image that another node may ask for, in bytes: 1 PiB.
const maxImage = 1 << 50

// CheckPlaces refuses what makes no sense when another node asks for it: a member is trusted with its own modules, not
// with this node's files.
func CheckPlaces(module string, places []Place) error {
	if !moduleForm.MatchString(module) {
		return fmt.Errorf("module %q: that is no name", module)
	}
	for _, p := range places {
		switch {
		case !diskTarget.MatchString(p.Target):
			return fmt.Errorf("%q is no disk", p.Target)
		case p.Size <= 0 || p.Size%512 != 0 || p.Size > maxImage:
			return fmt.Errorf("disk %s: %d bytes", p.Target, p.Size)
		case p.Path != "" && (!filepath.IsAbs(p.Path) || filepath.Clean(p.Path) != p.Path):
			return fmt.Errorf("disk %s: %q is no whole path", p.Target, p.Path)
		}
	}
	return nil
}

// Made is an image that a protect has made or is about to make, and how to undo that.
type Made struct {
	Path string `json:"path"`
	// Was is the file that it was before, whose name an undo gives back to it; Path: it stays where it is, as the admin's
	// own, or as what a VM has by now; empty: there was none, and an undo deletes it.
	Was string `json:"was,omitempty"`
	// Intended: it was noted before it was made, so what has its name may be a file of somebody else. An undo takes one
	// that holds nothing, and leaves every other.
	Intended bool `json:"intended,omitempty"`
}
