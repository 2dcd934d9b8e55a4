package api

import (
	"context"
	"errors"
	"io"
	"time"
)

// WorkTime is how long a node may work on one call: after that the console cuts it. Clients of the calls that take long
// wait a little longer, and what a node asks of another one for a call ends a little sooner.
const WorkTime = 2 * time.Minute

// The kinds of failure a Backend tells apart. Each error wraps one of them and
// its text names the thing and the remedy.
var (
	// The order in which an error with two of them is told is that of problems.
	ErrNotFound = errors.New("not found")            // no such module, VM, node, task
	ErrInvalid  = errors.New("invalid")              // the request itself is wrong
	ErrConflict = errors.New("not possible now")     // the present state does not allow it
	ErrConfirm  = errors.New("confirmation needed")  // allowed only with Yes
	ErrUnreach  = errors.New("node does not answer") // a node that has to act cannot be reached
)

// Backend is what the handlers need; the node implements it. Methods may be called concurrently. ctx is the
// request's: it ends when the caller goes or the console cuts the connection. Lists may be nil, which is told as
// empty.
type Backend interface {
	// Status never waits for a dead peer: what it does not answer is marked Stale.
	Status(ctx context.Context) (Status, error)
	// Log returns the newest n transitions of a module on all reachable nodes, oldest first. A node that does not
	// answer soon is left out. n is 1 to maxLog.
	Log(ctx context.Context, module string, n int) ([]LogEntry, error)
	// Act begins an action and returns when it was accepted. ErrConfirm: only with r.Yes, after the operator has
	// seen the text.
	Act(ctx context.Context, module string, a Action, r ActionRequest) (ActionResult, error)
	Tasks
	Configs
	Versions
	Members
	Help
}

// Help is for when something is wrong or is to be found out.
type Help interface {
	// Doctor looks at all nodes that answer and says what is wrong and what to do; half a minute at worst.
	Doctor(ctx context.Context) (Doctor, error)
	// VMs lists the virtual machines of all nodes that answer, protected or not.
	VMs(ctx context.Context) (VMs, error)
	// Support gathers what somebody needs who is to help, of all nodes that answer, and
	// returns what writes it as a zip. It holds no secrets. What a node that is away has to say of itself is
	// missing in it, and that is said.
	Support(ctx context.Context) (func(io.Writer) error, error)
}

// Members is who takes part in the cluster.
type Members interface {
	// NewToken makes a one-time token for a joining node. life is above 0 and a week at most.
	NewToken(ctx context.Context, life time.Duration) (Token, error)
	// RemoveNode takes a node that is gone for good off the cluster.
	RemoveNode(ctx context.Context, node string) (NodeRemoval, error)
	// AddWitness makes a witness the third voter, or a spare if there is one; all nodes have to answer.
	AddWitness(ctx context.Context, r WitnessRequest) (WitnessStatus, error)
	// Fences lists how nodes can be switched off. Secret options are hidden.
	Fences(ctx context.Context) ([]FenceStatus, error)
	// SetFence says how; no levels: it cannot be. All nodes that answer know it at once.
	SetFence(ctx context.Context, node string, levels [][]FenceDevice) error
	// TestFence asks the devices of a node whether they could, and switches nothing.
	TestFence(ctx context.Context, node string) (FenceStatus, error)
	// PingTargets are what modules with "available" go by.
	PingTargets(ctx context.Context) (PingTargets, error)
	// SetPing exchanges them; none: the default gateway. Nodes that are away learn it later.
	SetPing(ctx context.Context, targets []string) (PingTargets, error)
	// RemoveWitness does without the one at addr, or the only one; all nodes have to answer.
	RemoveWitness(ctx context.Context, addr string) error
}

// Tasks is long work. Protect, Release, Return, Verify and ExportVersion return when the work has begun, with what it
// does first; Task tells of it until a while after its end. A module has one at a time: another is ErrConflict. A work
// lives as long as the daemon, not as the request.
type Tasks interface {
	Protect(ctx context.Context, vm string, r ProtectRequest) (Task, error)
	// CheckProtect tells what would come of Protect and changes nothing. Where the peer is still finding out it is
	// ErrConflict within WorkTime, and can be asked again.
	CheckProtect(ctx context.Context, vm string, r ProtectRequest) (ProtectCheck, error)
	Release(ctx context.Context, module string, r ReleaseRequest) (Task, error)
	// Install makes a module of an application, which the node that is asked starts.
	Install(ctx context.Context, r InstallRequest) (Task, error)
	// Return copies disks of a running VM that are not on their volumes back onto them.
	Return(ctx context.Context, module string) (Task, error)
	// Verify compares the copies of one volume ("module/target"); repair makes the peer's copy follow.
	Verify(ctx context.Context, volume string, repair bool) (Task, error)
	Task(ctx context.Context, id string) (Task, error)
	// TaskList is every Task that can be asked for on this node, the oldest first.
	TaskList(ctx context.Context) ([]Task, error)
}

// Versions are what is kept of volumes that lost a split brain.
type Versions interface {
	// Diverged lists them on all nodes that answer.
	Diverged(ctx context.Context) ([]Version, error)
	// Difference compares one with the volume as it is now. It reads the disk for as long as an admin waits, and
	// may end partly.
	Difference(ctx context.Context, id string) (Difference, error)
	// ExportVersion writes one to a new raw image on the node that keeps it.
	ExportVersion(ctx context.Context, id, path string) (Task, error)
	// DropVersion forgets one.
	DropVersion(ctx context.Context, id string) error
}

// Configs is the configuration of modules.
type Configs interface {
	Config(ctx context.Context, module string) (Config, error)
	// Check validates YAML and changes nothing.
	Check(ctx context.Context, yaml string) error
	// Apply stores YAML as the new configuration of the module it names. It is an edit of version base, and ErrConflict
	// if there is another by now; 0: of whatever there is.
	Apply(ctx context.Context, yaml string, base uint64) (Config, error)
}
