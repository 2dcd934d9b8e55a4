package engine

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"time"

	"duet/appmodules"
	"duet/blockrepl"
	"duet/blockrepl/proof"
	"duet/cluster"
)

// Peer is the Engine of the same module on the other node, reached over any
// heartbeat path. Every call may be repeated; an error means that it is not known
// whether it arrived. The counterparts are the engine's On methods. Goroutines call these, each with a ctx that ends.
type Peer interface {
	// Ask asks for its vote. With a yes the peer acknowledges nothing any more, and its vote is durable (rule 5). Where
	// its metadata disk does not answer the error says so soon.
	Ask(ctx context.Context, a cluster.Ask) (cluster.Answer, error)
	// Handover gives it the right to write. A nil error is its durable confirmation. After an error the right may be the
	// peer's all the same: this node has promised it and must not act.
	Handover(ctx context.Context, h Handover) error
	// Complete tells it that its data are complete. A nil error means that it durably said so itself.
	Complete(ctx context.Context, c Complete) error
	// Tell tells it how this node stands and returns how the peer stands.
	Tell(ctx context.Context, mine State) (State, error)
	// Define stores a new definition of the workload on the peer. ErrUnfit: the peer could not run it and stays with
	// what it has. Another error may be that of its hypervisor, after which the peer keeps the definition and its next
	// start stores it.
	Define(ctx context.Context, d Definition) error
	// Dial opens a replication connection for one volume. The caller owns it; the Hello says whose volume it is for.
	Dial(ctx context.Context) (net.Conn, error)
}

// ErrUnfit is why a node does not take a definition; what follows in its text says what its host would refuse.
var ErrUnfit = errors.New("it would not run there")

// Witness is one voter without data (cluster/DESIGN.md, rule 3b). Its methods may be called by any
// goroutine. Equal values are the same witness with the same memory: one that was registered
// anew, also at the same address, is another value.
type Witness interface {
	Name() string // for people, and the key of its answer in cluster.Evidence
	// Ask asks for its vote, which is durable when the answer comes. An error is no vote: where there is a witness
	// nothing stands in for it (rule 3).
	Ask(ctx context.Context, a cluster.Ask) (cluster.Answer, error)
}

// Handover is the planned change of the holder (cluster/DESIGN.md, rule 9).
type Handover struct {
	Module string        `json:"module"`
	From   cluster.Epoch `json:"from"`  // epoch at which both are complete
	Epoch  cluster.Epoch `json:"epoch"` // promised to the receiver
	// Why the giver gives it away, for people; empty: a release that does not say it.
	Why string `json:"why,omitempty"`
}

// Complete ends a resync (cluster/DESIGN.md, rule 7).
type Complete struct {
	Module  string                      `json:"module"`
	Epoch   cluster.Epoch               `json:"epoch"`
	Tickets map[string]blockrepl.Ticket `json:"tickets"` // by volume target
}

// Definition is a version of a workload's definition. The newest version wins.
type Definition struct {
	Module  string `json:"module"`
	Version uint64 `json:"version"` // counted up by each edit, on either node
	Text    []byte `json:"text"`
	// Own is what there was before the module, for whoever gives it back, as the kind writes it:
	// of a VM its vmmanager.Definition before it was protected. Modules that an older version of
	// Duet made have none, or one without a text.
	Own json.RawMessage `json:"own,omitempty"`
}

// State is what one node tells the other of a module.
type State struct {
	Module string `json:"module"`
	// Incarnation and Seq order the states of one run of an engine; an older one that arrives late is dropped. Those of
	// two runs have no order: a new Incarnation is believed in an answer only, see OnTell.
	Incarnation int64          `json:"incarnation"`
	Seq         uint64         `json:"seq"`
	Record      cluster.Record `json:"record"`
	Active      bool           `json:"active"`     // the module is started there
	Ending      bool           `json:"ending"`     // its holder stops it on purpose: nobody is to take over
	Definition  uint64         `json:"definition"` // the newest version that it keeps; it is sent a newer one
	// Digest is that of its text; empty: an older release does not tell it, or there is none.
	Digest string `json:"digest,omitempty"`
	Status Status `json:"status"`
	// Balked: what the module runs did not start there when it was tried last, and since then it ran nowhere and nobody
	// has had a word.
	Balked bool `json:"balked,omitempty"`
}

// Store keeps small values durably; Save returns when v survives power loss. After an error v may be durable or not.
// Both may wait as long as the metadata disk does: put bounds that. Load leaves v alone where there is nothing.
// Several goroutines call them: the proofs save beside the owner, under other keys.
type Store interface {
	Load(key string, v any) (found bool, err error)
	Save(key string, v any) error
}

// Image is a Device that can be closed.
type Image interface {
	blockrepl.Device
	io.Closer
}

// Disks opens what the volumes of a module are made of on this node. Its methods may wait for a disk: the engine's own
// goroutine calls none of them.
type Disks interface {
	// Open opens the image of a volume. The caller closes it.
	Open(v appmodules.Volume) (Image, error)
	// Log is the dirty log of a volume.
	Log(v appmodules.Volume) blockrepl.DirtyLog
	// Frontend makes the frontend of a volume, to which the hypervisor can connect from then on. The caller
	// serves and closes it.
	Frontend(module string, v appmodules.Volume) (blockrepl.Frontend, error)
	// Written is when the image of a volume was last written, by this node's clock; zero if
	// that is not known.
	Written(v appmodules.Volume) time.Time
	// SetAside keeps the present content of an image that Open gave, durably, so that it
	// stays readable whatever is written to the image afterwards. After an error nothing may be overwritten.
	SetAside(v appmodules.Volume, image Image, d Divergence) error
}

// Divergence is two copies that both have data the other lacks (cluster/DESIGN.md, rule 11).
type Divergence struct {
	Module        string
	Epoch         cluster.Epoch     // of the winner
	Loser, Winner blockrepl.Lineage // the loser's copy is the one on this node
	WinnerWritten time.Time         // when the winner's was last written; zero if that is not known
}

// Config is what an Engine is made of. All fields are needed but those that say what nil means. Its functions may be
// called by any goroutine; none but Fence and Ping may wait, as the owner calls them too.
type Config struct {
	Module   appmodules.Module
	Self     cluster.NodeID
	Peer     Peer
	Store    Store // keys are the engine's own; the caller gives each module its own space, which an Engine alone uses
	Storage  Storage
	Workload appmodules.Workload // what runs where the right to write is
	Runtime  Runtime
	Gate     *Gate
	// Budget is what all engines of a node may use of its disks to prove in the background that copies
	// are the same; nil: one of its own.
	Budget *proof.Budget
	View   func() cluster.View
	// Witnesses are the voters without data whose yes is needed when the peer is silent,
	// as they are now; none: ping or fence decide.
	Witnesses func() []Witness
	// Fence switches the peer off and returns nil when that is confirmed; nil: there is no fence agent. It is given a
	// minute. Nil for a peer that may be alive makes two writers.
	Fence func(ctx context.Context) error
	// Withdraw ends the waiting for volumes that this node does not serve: who connects to them, or is waiting since an
	// earlier run, is refused. It is called when they are closed for good, not when the daemon ends. nil: nobody waits
	// where nobody serves.
	Withdraw func()
	// CanFence tells whether there is one at present; nil: if Fence is set.
	CanFence func() bool
	// Ping reports whether a ping target answers; it takes at most a second.
	Ping func(ctx context.Context) bool
	// Boot identifies the present run of the computer: it changes when power was lost
	// and does not when only the daemon ended. Empty: it always changes.
	Boot string
	// Log gets every transition, by the owner and in order. It does not wait.
	Log    func(Transition)
	Logger *slog.Logger
	Times  Times
}

// Times are the waiting times of an engine.
type Times struct {
	Detection  time.Duration // of the cluster: silence before a peer is suspected
	LeaveGrace time.Duration // a peer that left on purpose is given so long to come back
	Open       time.Duration // the peer answers but its volumes do not connect, until it is asked to be outdated
	Tell       time.Duration // between two exchanges of State; a peer not heard for three of them does not answer
	Rest       time.Duration // until a node whose storage failed while it followed tries again
}

// DefaultTimes fills in for a detection time.
func DefaultTimes(detection time.Duration) Times {
	return Times{
		Detection:  detection,
		LeaveGrace: 30 * time.Second,
		Open:       2 * detection,
		Tell:       500 * time.Millisecond,
		Rest:       30 * time.Second, // a full disk is mended by people or a log rotation, not in milliseconds
	}
}
