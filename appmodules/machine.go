package appmodules

import (
	"fmt"
	"math"
	"slices"
	"strings"
)

// Phase is where a module stands on one node, finer than its Role. It travels by name, so the numbers may change.
type Phase uint8

// The phases of a mirror.
const (
	Stopped    Phase = iota // not taking part
	Waiting                 // wants to run or follow, something is missing
	Asking                  // asks for the right to write, to take over
	Opening                 // holds the right; the volumes open, the peer confirms
	Starting                // the workload starts
	Running                 // the workload runs
	Frozen                  // the peer was lost; writes wait while the right to go on alone is asked for
	Restarting              // the workload goes down to be started again here
	Leaving                 // the workload goes down to be started on the peer
	Handing                 // writes are held, the right goes to the peer
	Following               // secondary: resync, or complete and waiting for the primary's connection
	Standby                 // secondary in step: may take over
	Stopping                // the workload goes down
	Killing                 // the right is lost: the workload is ended at once
	phaseCount
)

var phaseNames = [...]string{"Stopped", "Waiting", "Asking", "Opening", "Starting", "Running", "Frozen",
	"Restarting", "Leaving", "Handing", "Following", "Standby", "Stopping", "Killing"}

// String is the name in the table and the diagram.
func (p Phase) String() string { return name(phaseNames[:], int(p), "phase") }

// MarshalText writes the name.
func (p Phase) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText reads a name; one of a newer version makes a Phase that is none of these.
func (p *Phase) UnmarshalText(b []byte) error {
	*p = Phase(position(phaseNames[:], b))
	return nil
}

// Link is the replication of a holder's volumes to its peer.
type Link uint8

// The links. KeepLink stands in rows that leave it as it is.
const (
	KeepLink Link = iota
	NoLink        // no peer: writes go to this node only
	Syncing       // the peer gets every new write and catches up; it may not take over
	InStep        // the peer has everything; it may take over, and losing it needs arbitration
)

var linkNames = [...]string{"", "none", "syncing", "in step"}

// String is the name in the table.
func (l Link) String() string { return name(linkNames[:], int(l), "link") }

// Event is what a machine is told.
type Event uint8

// The events.
const (
	Boot       Event = iota // the daemon starts and the module was running before
	CmdStart                // an operator
	CmdStop                 // an operator stops it on this node; its peer goes on
	CmdStopAll              // an operator stops it on both nodes
	CmdRestart              // an operator
	CmdSwap                 // an operator
	CmdPrim                 // an operator overrides arbitration
	CmdSecond               // an operator lets the peer's version win
	Look                    // the facts may have changed
	Granted                 // the epoch asked for was chosen
	Denied                  // it was not
	Opened                  // the volumes are open as primary
	OpenFailed              // they could not be opened
	LinkUp                  // the peer is connected and catches up
	LinkInStep              // the peer is connected and complete at this epoch
	// the peer answers that it is not complete, to a volume that may not go on without a complete one
	PeerStale
	Agreed         // the peer has agreed to be outdated; its yes was lost on the way
	Drained        // everything that differed is on the peer; every write now needs it
	PeerCompleted  // the peer durably marked itself complete
	LinkLost       // a peer that was not in step is gone
	PeerLost       // a peer that was needed is gone; writes wait
	Deposed        // somebody holds a newer epoch
	Followed       // a primary connected to this secondary
	Completed      // this secondary is complete at the primary's epoch
	FollowLost     // the primary's connection is gone
	Split          // the peer went on in the same epoch; this node is the one that stays
	Diverged       // this node wrote without the peer, which won: its version is kept aside
	Outvoted       // this node agreed to be outdated
	TakeOver       // the peer handed the right over to this node
	Up             // the workload runs
	Down           // the workload is down, as asked
	StartFailed    // the workload did not start
	Failed         // the workload ended; policy: restart it
	Move           // the workload ended; policy: fail over
	Ended          // the workload ended; policy: stop the module
	Held           // no write is in flight and both copies are flushed
	HoldFailed     // that could not be reached
	HandedOver     // the peer confirmed that it holds the right
	HandoverFailed // it did not confirm; the right is given away all the same
	StorageFailed  // the local image does not take writes
	DiskHung       // an operation on the disk of a volume does not end
	Timeout        // the phase took too long
	eventCount
)

var eventNames = [...]string{"Boot", "CmdStart", "CmdStop", "CmdStopAll", "CmdRestart", "CmdSwap", "CmdPrim",
	"CmdSecond", "Look", "Granted", "Denied", "Opened", "OpenFailed", "LinkUp", "LinkInStep", "PeerStale", "Agreed",
	"Drained", "PeerCompleted", "LinkLost", "PeerLost", "Deposed", "Followed", "Completed", "FollowLost", "Split",
	"Diverged", "Outvoted", "TakeOver", "Up", "Down", "StartFailed", "Failed", "Move", "Ended", "Held", "HoldFailed",
	"HandedOver", "HandoverFailed", "StorageFailed", "DiskHung", "Timeout"}

// String is the name in the log and the table.
func (e Event) String() string { return name(eventNames[:], int(e), "event") }

// Action is what a machine wants done. The engine does the actions of a row in
// order; those that take time end with an Event.
type Action uint8

// The actions, with the event each ends in.
const (
	Ask           Action = iota // ask for the next epoch → Granted, Denied
	Override                    // take the next epoch on an operator's word
	OpenPrimary                 // open the volumes and their frontends; writes wait → Opened, OpenFailed
	OpenSecondary               // open the volumes for the peer's primary
	CloseVolumes                // after it nothing more is written or acknowledged
	Connect                     // keep connecting to the peer → LinkUp, LinkInStep, Deposed
	GoAlone                     // durably: the peer is not complete; writes go on here only
	CompletePeer                // durably: the peer is needed; tell it that it is complete → PeerCompleted
	ForgetDirty                 // the peer is complete: nothing differs
	Start                       // → Up, StartFailed
	StartLater                  // the same after policy.restart.pause
	ShutDown                    // ask the workload to end → Down, Timeout
	Kill                        // → Down
	Hold                        // let no new write in, finish and flush the others → Held, HoldFailed
	// close the volumes, durably promise the next epoch to the peer, tell it → HandedOver, HandoverFailed
	Handover
	Unwant // the module is to stay stopped, on both nodes
	actionCount
)

var actionNames = [...]string{"Ask", "Override", "OpenPrimary", "OpenSecondary", "CloseVolumes", "Connect", "GoAlone",
	"CompletePeer", "ForgetDirty", "Start", "StartLater", "ShutDown", "Kill", "Hold", "Handover", "Unwant"}

// String is the name in the table.
func (a Action) String() string { return name(actionNames[:], int(a), "action") }

// Facts are what is true when an event is handled. They are computed anew for each event.
type Facts struct {
	Tries
	Holder      bool // this node holds the newest epoch it knows
	Complete    bool // its data hold every write acknowledged at that epoch
	Alone       bool // it holds the epoch and the peer is known not to be complete
	Worse       bool // it holds the epoch, but lost power, and the peer's copy is complete and did not
	PeerAnswers bool // the peer's daemon answers
	PeerHolds   bool // as far as this node knows, the peer holds the newest epoch
	PeerActive  bool // the module is started on the peer
	PeerYields  bool // the peer says that this node may have a newer epoch than this node knows
	TakesBack   bool // the peer does not know of the right it was given, and takes no part or has the worse copy
	Silent      bool // all heartbeat paths have been silent for the detection time
	Up          bool // the workload is up on this node, if only waiting for its disk
	Home        bool // the policy wants the module on the peer, without being asked
	AtHome      bool // and here: it would move the module back from the peer
	Impaired    bool // this node cannot save what it decides
	Rests       bool // its storage failed while it followed, a moment ago
	Wanted      bool // an operator wants the module to run
	Open        bool // the volumes are open as primary
	EndsFrozen  bool // the policy ends a workload whose writes have waited for too long
}

// Tries are how often the workload may still be started, and what came of the last time.
type Tries struct {
	RestartsLeft bool // the policy allows one more restart here
	MovesLeft    bool // and one more move to the peer because of a failure
	GaveUp       bool // it was tried too often here and does not start
	Balked       bool // it did not start when it was tried here last
	PeerBalked   bool // nor on the peer
}

// Guard is a condition of a row. Its Name is its part of the table as text; two guards that differ have two names.
type Guard struct {
	Name  string
	Holds func(Facts, Link) bool
}

// Row is one transition. The first row of a phase and event whose guard holds applies. An event that has none in a
// phase is in testdata/mirror-ignored.txt.
type Row struct {
	From Phase
	On   Event
	If   Guard    // the zero Guard always holds
	Do   []Action // in this order; the rest is not done where one could not be made durable
	To   Phase    // it is entered before the first action
	Link Link     // KeepLink: as it was
	Why  string   // with the words of Words in braces; Words.Fill makes the sentence
}

// Machine is the state of one module on one node: a value.
type Machine struct {
	Phase Phase
	Link  Link
}

// Step returns the machine after e, what is to be done, and the row with its
// reason. A nil row means that e changes nothing here. Pure. The row is shared and not to be changed. A row that
// leads to where the machine is already still counts: its actions are done, its reason is told.
func (m Machine) Step(e Event, f Facts) (Machine, *Row) {
	rows := mirrorIndex(m.Phase, e)
	for i := range rows {
		r := &rows[i]
		if r.If.Holds != nil && !r.If.Holds(f, m.Link) {
			continue
		}
		next := Machine{Phase: r.To, Link: r.Link}
		if r.Link == KeepLink {
			next.Link = m.Link
		}
		return next, r
	}
	return m, nil
}

// Display is the state that users see. The engine shows NotReady instead of Ready where the workload runs but its
// disk has left its volume or gives it errors.
func (m Machine) Display() (Role, Status) {
	primary := Alone
	if m.Link == Syncing || m.Link == InStep {
		primary = Prim
	}
	switch m.Phase {
	case Stopped:
		return Stop, NotReady
	case Waiting:
		return Wait, NotReady
	case Opening, Starting, Restarting:
		return primary, Transient
	case Running:
		return primary, Ready
	case Frozen, Leaving, Handing:
		return Prim, Transient
	case Following:
		return Second, Transient
	case Standby:
		return Second, Ready
	}
	return Wait, Transient
}

// String is one line of the table: from, event, guard → to, actions, reason.
func (r Row) String() string {
	on := r.On.String()
	if r.If.Name != "" {
		on += " if " + r.If.Name
	}
	to := r.To.String()
	if r.Link != KeepLink {
		to += " (link " + r.Link.String() + ")"
	}
	var do []string
	for _, a := range r.Do {
		do = append(do, a.String())
	}
	return fmt.Sprintf("%s | %s | %s | %s | %s", r.From, on, to, strings.Join(do, ", "), r.Why)
}

// Table returns all rows, in order, for documents and tests.
func Table() []Row { return slices.Concat(mirrorTable()...) }

// position finds a name; what is not there has the place of none.
func position(names []string, b []byte) uint8 {
	if i := slices.Index(names, string(b)); i >= 0 {
		return uint8(i)
	}
	return math.MaxUint8
}

func name(names []string, i int, kind string) string {
	if i < len(names) {
		return names[i]
	}
	return fmt.Sprintf("%s %d", kind, i)
}
