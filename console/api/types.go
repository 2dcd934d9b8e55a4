package api

import "time"

// Status is the view one node gives of the whole cluster.
type Status struct {
	Cluster string  `json:"cluster" doc:"name of the cluster"`
	Self    string  `json:"self" doc:"node that answered"`
	Version string  `json:"version" doc:"version of its daemon"`
	Verdict Verdict `json:"verdict" doc:"how the cluster stands"`
	// Removed: this node was taken off the cluster; what it shows is what it knew before.
	Removed string       `json:"removed,omitempty" doc:"who says that this node is no member any more, and the way back"`
	Nodes   []NodeStatus `json:"nodes"`
	// Gone are nodes that were removed, until another one joins.
	Gone    []GoneNode     `json:"gone,omitempty" doc:"nodes that were removed and in whose place none has come"`
	Modules []ModuleStatus `json:"modules"`
	// Tasks that go on, the oldest first: also those of a VM that is no module yet.
	Tasks []Task `json:"tasks,omitempty" doc:"long works that go on on the node that answers"`
	// Witnesses: the voter first, then the spares.
	Witnesses []WitnessStatus `json:"witnesses,omitempty" doc:"the third voter, if there is one, and its spares"`
}

// WitnessStatus is one witness as the answering node sees it.
type WitnessStatus struct {
	Addr   string     `json:"addr"`
	Spare  bool       `json:"spare,omitempty" doc:"it does not vote: it takes the voter's place when that one is gone"`
	Alive  bool       `json:"alive" doc:"it answered this node's last question"`
	Why    string     `json:"why,omitempty" doc:"what is wrong with it, and what follows"`
	Silent *time.Time `json:"silent,omitempty" doc:"since when it does not answer"`
}

// WitnessRequest adds a witness.
type WitnessRequest struct {
	Addr  string `json:"addr" doc:"host:port of the witness"`
	Token string `json:"token" doc:"what duetd witness token said there"`
}

// NodeStatus is one node as the answering node sees it.
type NodeStatus struct {
	Name    string          `json:"name"`
	Alive   bool            `json:"alive" doc:"any heartbeat path answers"`
	Leaving bool            `json:"leaving,omitempty" doc:"it said that it stops on purpose"`
	Quiet   bool            `json:"quiet,omitempty" doc:"its heartbeats are overdue, too short to take it for dead"`
	Paths   map[string]bool `json:"paths,omitempty" doc:"heartbeat network to whether it answers there"`
	Silent  *time.Time      `json:"silent,omitempty" doc:"since when no path answers"`
	// Awaited: nobody takes over before, what decides or not.
	Awaited *time.Time `json:"awaited,omitempty" doc:"it left on purpose and is silent: until when the others wait for its return"`
	// Version: what a node that is away said last.
	Version string `json:"version,omitempty" doc:"version of its daemon, as last heard; none: not known"`
	// API is where the node serves this over TLS, unless its admin chose another address.
	API string `json:"api,omitempty" doc:"address and port of the node's API over TLS"`
}

// GoneNode is a node that was taken off the cluster.
type GoneNode struct {
	Name string     `json:"name"`
	At   *time.Time `json:"at,omitempty" doc:"when, by the clock of the node that removed it; none: not known"`
}

// ModuleStatus is one module on all its nodes.
type ModuleStatus struct {
	Name  string `json:"name"`
	Kind  string `json:"kind" enum:"vm"`
	VM    string `json:"vm,omitempty" doc:"name of the hypervisor's VM"`
	Level Level  `json:"level" enum:"ok,degraded,down" doc:"how it stands; one that an operator has stopped is ok"`
	// Decides is what decides whether a node may go on without the other.
	Decides string      `json:"decides" enum:"witness,fence,ping,nobody" doc:"what decides when its nodes lose each other; nobody: a human"`
	Nodes   []NodeState `json:"nodes" doc:"in the order of the module's configuration"`
	// Awaited are nodes that said that they stop on purpose, and the others wait for their return yet.
	Awaited []string `json:"awaited,omitempty" doc:"nodes where duetd was stopped; the other one does not take over yet"`
	Task    *Task    `json:"task,omitempty" doc:"long work going on for this module"`
}

// NodeState is one module on one node. That of a node which does not answer is what was heard of it last, with
// Stale.
type NodeState struct {
	Node   string    `json:"node"`
	Role   string    `json:"role" enum:"STOP,WAIT,ALONE,PRIM,SECOND,UNKNOWN" doc:"UNKNOWN: not heard of yet, or of a newer release"`
	Status string    `json:"status" doc:"NotReady, Transient or Ready; another word is of a newer release"`
	Why    string    `json:"why" doc:"one sentence: why it is in this state and what would change that"`
	Since  time.Time `json:"since"`
	// Stopped: an operator has stopped the module on this node; otherwise it is to run or to follow.
	Stopped bool `json:"stopped,omitempty"`
	// Ended: otherwise than by Duet or by its guest, and the policy is to start it nowhere. Stopped is set, too.
	Ended string `json:"ended,omitempty" doc:"how what it runs ended past Duet or failed; it stands still since"`
	Passing
	Epoch  uint64 `json:"epoch" doc:"newest epoch it knows"`
	Holder string `json:"holder" doc:"node that epoch was granted to"`
	// Complete: the data here hold every write acknowledged at Epoch.
	Complete bool           `json:"complete"`
	VM       string         `json:"vm,omitempty" doc:"what the hypervisor says: absent, off, running, paused, io-error, crashed; frozen: it runs, and its writes wait"`
	Volumes  []VolumeStatus `json:"volumes,omitempty"`
	// Came: how the right to write came to this node, where it is.
	Came *Arrival `json:"came,omitempty"`
	// Notices say what does not show in the state and an admin should know, the worst first.
	Notices []Notice `json:"notices,omitempty"`
	Stale   bool     `json:"stale,omitempty" doc:"the node does not answer; this is the last that was heard"`
	// Quiet: too short to take the node for dead, too long to take what it said last for what is so now.
	Quiet bool `json:"quiet,omitempty" doc:"its word or its heartbeats are overdue: what it said last may have changed"`
	// Unheard: it is Stale or Quiet, and taken to be there, as after the one that tells this has stood still itself.
	Unheard bool `json:"unheard,omitempty" doc:"the node is taken to be there, and has not said how the module stands now"`
	// Parted: the node says that the one which tells this was removed from the cluster. It is Stale too.
	Parted bool `json:"parted,omitempty" doc:"the node takes the answering one for no member: nothing more is heard of it"`
}

// Passing is what goes on with a module on a node for a while.
type Passing struct {
	// Stopping: it ends here, and stands at STOP then.
	Stopping bool `json:"stopping,omitempty"`
	// KillIn: the workload was asked to end, and is ended after so many seconds if it has not by itself.
	KillIn float64 `json:"kill_in_s,omitempty"`
	// Joins: the work that protects the module goes on on this node, or is taken to on the one that has made it here.
	Joins bool `json:"joins,omitempty" doc:"the module is being protected, as this node knows"`
}

// Arrival is how a node became the one where a module may run.
type Arrival struct {
	At  *time.Time `json:"at,omitempty" doc:"by that node's clock; none: when the module was made"`
	Why string     `json:"why" doc:"one sentence: what happened, and by which rule"`
}

// Notice is something that an admin should know or mend before it matters.
type Notice struct {
	// Level: alarm, data are not on both nodes; refused, the VM would not run there; warning, it would run otherwise than
	// here, or may not; note, good to know.
	Level string `json:"level" enum:"alarm,refused,warning,note"`
	Code  string `json:"code" doc:"kind of notice; it stays when words change"`
	Node  string `json:"node,omitempty" doc:"where it was found; empty: the node whose state it is in"`
	Text  string `json:"text" doc:"what was found, a sentence"`
	// Remedy is for the node where it was found.
	Remedy string `json:"remedy,omitempty" doc:"what mends it, a command where there is one"`
}

// VolumeStatus is one volume on one node.
type VolumeStatus struct {
	Name       string     `json:"name" doc:"module/target"`
	Target     string     `json:"target"`
	Path       string     `json:"path" doc:"image on this node"`
	Size       int64      `json:"size" doc:"bytes"`
	State      string     `json:"state" doc:"closed, alone, syncing, connected, frozen, second"`
	Generation string     `json:"generation"`
	DirtyBytes int64      `json:"dirty_bytes" doc:"bytes that may differ from the peer"`
	Written    *time.Time `json:"written,omitempty" doc:"last write to the image, by the clock of its node"`
	Sync       *Sync      `json:"sync,omitempty" doc:"resync or verify going on"`
	Compared   int64      `json:"resync_compared,omitempty" doc:"bytes the present or last resync compared"`
	Moved      int64      `json:"resync_moved,omitempty" doc:"bytes the present or last resync sent"`
	LagMicros  int64      `json:"lag_us" doc:"age of the oldest write that the peer has not answered, microseconds; 0: none waits"`
	Proven     *time.Time `json:"proven,omitempty" doc:"when the oldest part was last compared and found the same on both nodes"`
	Proof      *Proof     `json:"proof,omitempty" doc:"the proof in the background, on the node that leads"`
	WriteOps   uint64     `json:"write_ops"`
	ReadOps    uint64     `json:"read_ops"`
}

// Proof is how the proof in the background stands that both copies of a volume are the same.
type Proof struct {
	Age     float64      `json:"age_s" doc:"seconds since the oldest part was found the same; a part that never was counts from when the copies became a pair"`
	Pass    float64      `json:"pass_s" doc:"seconds a whole pass is wished to take, 0 if there is none"`
	Done    int64        `json:"done" doc:"bytes of the present pass that were compared"`
	Ended   *time.Time   `json:"ended,omitempty" doc:"end of the last whole pass"`
	Ends    *time.Time   `json:"ends,omitempty" doc:"when the present pass will end, if both copies stay in step"`
	Late    bool         `json:"late,omitempty" doc:"it takes longer than was wished: the disks' time that it may use does not suffice"`
	Differs int64        `json:"differs" doc:"bytes of regions known to differ"`
	Places  []ProofPlace `json:"places,omitempty" doc:"where, at most 64"`
}

// ProofPlace is a place where the copies are not proven the same although they were compared.
type ProofPlace struct {
	Off     int64      `json:"off" doc:"first byte"`
	Len     int64      `json:"len" doc:"bytes to the last region that differs"`
	Bytes   int64      `json:"bytes" doc:"of regions that differ; 0: it cannot be read, so nothing is known"`
	Changed string     `json:"changed,omitempty" doc:"node whose copy changed by itself, if that is known; both if both did"`
	Found   time.Time  `json:"found"`
	Proven  *time.Time `json:"proven,omitempty" doc:"when it was the same, at the least"`
}

// Sync is the progress of a resync or a verify, or of a copy: of a disk onto its volume (adopt), or of a kept version
// to an image (export).
type Sync struct {
	Kind     string  `json:"kind" enum:"resync,verify,adopt,export"`
	Total    int64   `json:"total" doc:"bytes to compare"`
	Compared int64   `json:"compared" doc:"bytes compared"`
	Differed int64   `json:"differed" doc:"bytes found to differ"`
	Moved    int64   `json:"moved" doc:"bytes sent to the peer"`
	Rate     int64   `json:"rate" doc:"bytes compared per second"`
	ETA      float64 `json:"eta_s" doc:"seconds to the end, -1 if unknown"`
}

// FenceDevice switches a node off, through an executable of the ClusterLabs fence-agents.
type FenceDevice struct {
	Name    string            `json:"name"`
	Agent   string            `json:"agent" doc:"as fence_ipmilan"`
	Options map[string]string `json:"options" doc:"the agent's; secret values are shown as ***"`
	Timeout string            `json:"timeout,omitempty" doc:"bounds each of its commands, as 45s or 2m; left out: 30s"`
}

// PingTargets are the addresses that modules go by that have neither witness nor fence device, under "available".
type PingTargets struct {
	Targets []string `json:"targets" doc:"IP addresses; none: the default gateway of each node"`
	Unaware []string `json:"unaware,omitempty" doc:"nodes that do not know them yet: they learn it when they are back"`
}

// FenceStatus is how one node can be switched off.
type FenceStatus struct {
	Node   string          `json:"node"`
	Levels [][]FenceDevice `json:"levels" doc:"the first level whose devices all confirm wins"`
	Result string          `json:"result,omitempty" doc:"what a test found"`
}

// Version is the content of one node's copy of a volume from before it lost a split brain.
type Version struct {
	ID      string    `json:"id"`
	Node    string    `json:"node" doc:"node that keeps it"`
	Module  string    `json:"module"`
	Target  string    `json:"target"`
	Size    int64     `json:"size" doc:"bytes of the whole version"`
	Saved   int64     `json:"saved" doc:"bytes that were overwritten since and are kept beside the image"`
	Loser   Side      `json:"loser" doc:"the version that is kept"`
	Winner  Side      `json:"winner" doc:"the version that goes on"`
	Epoch   uint64    `json:"epoch" doc:"of the winner"`
	Begun   time.Time `json:"begun" doc:"when it lost"`
	Until   time.Time `json:"until" doc:"when it is forgotten by itself"`
	Problem string    `json:"problem,omitempty"`
}

// Side is one of two versions that went apart. The times are by the clock of the node that
// wrote; one that is not known is missing.
type Side struct {
	Node       string     `json:"node"`
	FirstWrite *time.Time `json:"first_write,omitempty" doc:"since the versions went apart"`
	LastWrite  *time.Time `json:"last_write,omitempty" doc:"before they met again"`
}

// Difference is where a kept version differs from the volume as it is now.
type Difference struct {
	Version
	Bytes  int64   `json:"bytes" doc:"bytes that differ, in whole regions of 64 KiB"`
	Ranges []Range `json:"ranges" doc:"where, in order; at most 10000"`
	// Partly: the comparison took too long; Bytes and Ranges are of its beginning.
	Partly bool `json:"partly,omitempty"`
}

// Range is a piece of a volume.
type Range struct {
	Offset int64 `json:"offset" doc:"bytes"`
	Length int64 `json:"length" doc:"bytes"`
}

// LogEntry is one transition of a module on one node. Times of two nodes are by two clocks.
type LogEntry struct {
	Time   time.Time `json:"time"`
	Node   string    `json:"node"`
	Module string    `json:"module"`
	From   string    `json:"from" doc:"ROLE/Status before"`
	To     string    `json:"to" doc:"ROLE/Status after"`
	On     string    `json:"on" doc:"event"`
	Why    string    `json:"why"`
}

// Action is what an operator can ask of a module.
type Action string

// The actions.
const (
	Start   Action = "start"
	Stop    Action = "stop"
	Restart Action = "restart"
	Swap    Action = "swap"
	Prim    Action = "prim"
	Second  Action = "second"
)

// ActionRequest asks for an Action.
type ActionRequest struct {
	Node string `json:"node,omitempty" doc:"act on this node only; empty: where it makes sense for the action"`
	// Yes confirms what could throw data away: prim on a node that is not complete, second --discard.
	Yes bool `json:"yes,omitempty"`
}

// ActionResult tells what an action began. The state machine goes on afterwards.
type ActionResult struct {
	Module string `json:"module"`
	Said   string `json:"said" doc:"one sentence"`
}

// ProtectRequest puts a VM under protection.
type ProtectRequest struct {
	Peer   string `json:"peer,omitempty" doc:"node that gets the second copy; may be empty in a cluster of two"`
	Module string `json:"module,omitempty" doc:"name of the new module; default is the VM's"`
	// Config is the module's YAML; empty takes the defaults.
	Config string `json:"config,omitempty"`
	// Images says where images shall lie that Duet would make in its own directory.
	Images []ImageChoice `json:"images,omitempty"`
}

// ProtectCheck is what would come of a ProtectRequest.
type ProtectCheck struct {
	VM      string   `json:"vm"`
	Module  string   `json:"module" doc:"name of the module that it would be"`
	Peer    string   `json:"peer" doc:"node that would get the second copy"`
	OK      bool     `json:"ok" doc:"it would be protected"`
	Notices []Notice `json:"notices" doc:"the worst first"`
}

// InstallRequest makes a module of an application.
type InstallRequest struct {
	Config string `json:"config" doc:"the module's YAML"`
	Peer   string `json:"peer,omitempty" doc:"node that gets the second copy; may be empty in a cluster of two"`
	Size   int64  `json:"size,omitempty" doc:"of the volume that the directories lie on, in bytes; a multiple of 4096"`
}

// ReleaseRequest ends the protection of a VM.
type ReleaseRequest struct {
	WithoutPeer bool `json:"without_peer,omitempty" doc:"also if the other node cannot be told; it forgets the module when it answers again"`
}

// NodeRemoval says what follows the removal of a node.
type NodeRemoval struct {
	Node    string   `json:"node"`
	Modules []string `json:"modules" doc:"modules whose second copy was there; a node that joins under its name gets it anew"`
	Keeps   string   `json:"keeps,omitempty" doc:"what cannot be taken back from the node, and what to do about it"`
}

// ImageChoice is the place of the image of one disk on one node.
type ImageChoice struct {
	Node   string `json:"node"`
	Target string `json:"target" doc:"name of the disk inside the VM, such as vda"`
	Path   string `json:"path" doc:"whole path of a file to make, or of a file or block device of the disk's size, whose content is overwritten"`
}

// Task is long work. Done is set with Ended and with Result or Error; Sync is of the
// present step, and of the last one after the end.
type Task struct {
	ID     string     `json:"id"`
	Kind   string     `json:"kind" doc:"protect, install, release, return, restore, verify or export"`
	Module string     `json:"module"`
	Step   string     `json:"step" doc:"what it does now, one sentence"`
	Sync   *Sync      `json:"sync,omitempty"`
	Done   bool       `json:"done"`
	Error  string     `json:"error,omitempty"`
	Result string     `json:"result,omitempty"`
	Began  time.Time  `json:"began"`
	Ended  *time.Time `json:"ended,omitempty"`
}

// Joins: it is the work by which a module comes to be, and goes on.
func (t *Task) Joins() bool {
	return t != nil && !t.Done && (t.Kind == "protect" || t.Kind == "install")
}

// Config is the YAML text of one module and its version.
type Config struct {
	Module  string    `json:"module"`
	Version uint64    `json:"version"`
	Changed time.Time `json:"changed"`
	By      string    `json:"by" doc:"node where it was changed"`
	YAML    string    `json:"yaml"`
}

// Token lets one node join.
type Token struct {
	Token   string    `json:"token"`
	Expires time.Time `json:"expires"`
}
