package appmodules

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
)

// ErrRefused is returned when the present state does not allow a command; its text says what would.
var ErrRefused = errors.New("refused")

// ErrConfirm is returned when a command may give up data and was not confirmed; its text shows the facts.
var ErrConfirm = errors.New("confirmation needed")

// Workload is what a module runs on the node that holds the right to write: a VM, an
// application, or nothing. It knows the module's policy and tells what follows from what
// happens to it; whoever runs it knows neither its kind nor its causes. Checkers are sources
// of the same Reports.
//
// All methods may be called by several goroutines, and again when what they do is done
// already, which is no error. Each returns when done or soon after ctx ends; an error says
// that it is not known how far it got. The caller gives Start, Stop and Kill one at a time:
// it cancels the one under way and waits for its return before it calls the next. After the
// return of a method nothing that it began goes on by itself, but for what Start has brought
// up: a Start that was cancelled does not come up later.
type Workload interface {
	// State tells how it stands now and changes nothing.
	State(ctx context.Context) (Condition, error)
	// Start brings it up, or lets it go on where its storage did not answer. What somebody
	// has paused stays so, which is no error. resume: what it has left behind on this node,
	// see Saved, is fit and it goes on from there; otherwise it begins anew.
	Start(ctx context.Context, resume bool) (Condition, error)
	// Stop asks it to end by itself and waits for that. It may still end after an error.
	Stop(ctx context.Context) error
	// Kill ends it. It returns nil only when nothing of it can write to a volume or answer on
	// an address any more, also not later.
	Kill(ctx context.Context) error
	// Watch has report called, in order and by one goroutine at a time, with what happens to
	// the workload until ctx ends; then never again. It returns at once. report does not block.
	Watch(ctx context.Context, report func(Report))
}

// Condition is how a workload stands.
type Condition struct {
	Up bool // it has been started and not ended: something of it may write or answer
	// Stuck: its storage did not answer, and Start lets it go on once it does.
	Stuck bool
	// Held is what keeps it from going on, and from ending by itself, until an admin does what mends it; without a
	// Text nothing does.
	Held Notice
	Text string // the word admins see: running, off; empty: off
	// Lost is what follows when it is found like this although it should run and nobody told why.
	Lost Incident
}

// Word is what admins see.
func (c Condition) Word() string {
	if c.Text == "" {
		return "off"
	}
	return c.Text
}

// Incident is one thing that happened to a workload.
type Incident struct {
	What Happening
	Why  string // in words for an admin
}

// Report is an Incident and how the workload stands after it. Reports may be lost with a connection to a hypervisor:
// whoever goes by them asks State now and then.
type Report struct {
	Incident
	Now Condition
}

// Happening says what follows from an Incident. The policy has been applied to it.
type Happening uint8

// The happenings.
const (
	Changed   Happening = iota // its Condition, and nothing follows
	HasFailed                  // it ended: restart it
	HasToMove                  // it ended: run it on the other node
	HasEnded                   // it ended: stop the module
	IsEdited                   // its definition changed
	// it has left something behind that Start can resume, as long as nobody else had the right to write
	IsSaved
	IsStrayed // what one of its disks is on may have changed, see Straying
)

// Event is what the machine is told of a workload that ended.
func (h Happening) Event() (ev Event, ended bool) {
	switch h {
	case HasFailed:
		return Failed, true
	case HasToMove:
		return Move, true
	case HasEnded:
		return Ended, true
	}
	return 0, false
}

// Happening is what follows an end with this reaction.
func (r Reaction) Happening() Happening {
	switch r {
	case ReactMove:
		return HasToMove
	case ReactStop:
		return HasEnded
	}
	return HasFailed
}

// The following are what some workloads can do besides.

// Governed is a Workload to whose reports the policy matters. SetPolicy counts from its return on.
type Governed interface{ SetPolicy(p Policy) }

// Defined is a Workload with a definition that both nodes must have: the XML of a VM, a package.
type Defined interface {
	// Compare holds the definition that this node has against the one that the module keeps, and stores that where the
	// node has none, or one that is older or was made of such.
	Compare(ctx context.Context, kept Kept) (Edit, error)
	// Stored tells what this node has and changes nothing. The Text is nil where there is none, or none that a module
	// could have: a disk of it is not on its volume, as while it is taken off them.
	Stored(ctx context.Context) (Edit, error)
	// Judge tells why this node could not run a definition; empty: it could. It changes nothing. An error is no
	// judgement: whoever asks again may have one.
	Judge(ctx context.Context, text []byte) (refusal string, err error)
	// Define stores a definition. What runs is not touched.
	Define(ctx context.Context, text []byte) error
	// Retain keeps a text over which another one is stored, durably and for root only, and tells in which file.
	Retain(text []byte) (where string, err error)
}

// Kept is the definition that a module keeps, as a node holds its own against it.
type Kept struct {
	Text    []byte
	Known   bool   // this node has that, or an edit of it; otherwise it may have an older one
	Had     string // Digest of what this node had; another text is an edit. Empty: not known
	Strayed bool   // the newest data may be where the definition says and not on the volumes
}

// Edit is what a node has where the module keeps something else.
type Edit struct {
	Text  []byte // an admin's; nil: it is what the module keeps
	Unfit error  // why the peer must not get it
	Has   string // Digest of what the node has now; empty: not known
	// Replaced is an edit of an older definition over which Compare has stored the one that is kept; nil: it has not.
	Replaced []byte
}

// Digest is a number for a text of a definition, another one for another text; none of it can be read from that.
func Digest(text []byte) string {
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:16])
}

// Straying is a Workload whose disks may leave their volumes while it runs.
type Straying interface {
	// Strays are the disks that are not on their volumes, and those that have none; none of a workload that is down.
	Strays(ctx context.Context) ([]Stray, error)
}

// Stray is a disk of a running workload that is not as the module has it.
type Stray struct {
	Away   bool // it has left its volume: what is written there is not replicated
	Notice Notice
}

// Saving is a Workload that may have left something behind on this node, see IsSaved.
type Saving interface {
	// Saved tells what a start that does not resume would drop; empty: nothing.
	Saved(ctx context.Context) (string, error)
}

// Notice is one thing that an admin should mend.
type Notice struct {
	// Alarm: what was written is not on both nodes.
	Alarm  bool   `json:"alarm,omitempty"`
	Code   string `json:"code"` // kind of notice; it stays when words change
	Text   string `json:"text"`
	Remedy string `json:"remedy,omitempty"` // a command, or what to do
}

// DiskElsewhere is the code of the notice that a disk has left its volume.
const DiskElsewhere = "disk-elsewhere"
