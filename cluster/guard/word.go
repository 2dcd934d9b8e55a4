package guard

import (
	"path/filepath"
	"time"

	"duet/cluster"
)

// Dir is where the guard keeps its socket and its state, on a file system in memory.
const Dir = "/run/duet-guard"

// Socket is the guard's unix socket in its directory.
func Socket(dir string) string { return filepath.Join(dir, "guard.sock") }

// PauseAfter is how long after the last word that vouches for it a guest is paused, see the package's comment.
func PauseAfter(detection time.Duration) time.Duration { return detection * 3 / 5 }

// Beat is the time between two words of the daemon.
func Beat(detection time.Duration) time.Duration { return max(detection/20, 10*time.Millisecond) }

// Guest is a VM of this node as the daemon knows it. A process is named by PID and Start together: a number alone is
// used again.
type Guest struct {
	Module string         `json:"module"`
	ID     string         `json:"id,omitempty"` // the module's identity; empty: of an older daemon
	VM     string         `json:"vm"`
	PID    int            `json:"pid"`   // 0: it has no process
	Start  uint64         `json:"start"` // when that began, see StartOf
	Peer   cluster.NodeID `json:"peer"`  // the node that may take over
	Epoch  cluster.Epoch  `json:"epoch"` // the newest that this node holds, or knows
	// Right: the daemon vouches that this node has the right to write at that epoch.
	Right bool `json:"right"`
	// Limit is how long after this word the guest may run on without another; 0: the peer cannot take over.
	Limit time.Duration `json:"limit"`
}

// Word is what a daemon says, about all its modules.
type Word struct {
	At     time.Duration `json:"at"` // when it was said, by Now
	Guests []Guest       `json:"guests"`
}

// Report is the guard's answer to a Word.
type Report struct {
	Paused []string `json:"paused"` // modules whose guests it keeps paused
}

// Standing is what a node says of a module that the peer of its asker asks about.
type Standing struct {
	// ID is the identity of the module that has the name there; empty: of an older node.
	ID     string         `json:"id,omitempty"`
	Epoch  cluster.Epoch  `json:"epoch"` // the newest that is known there
	Holder cluster.NodeID `json:"holder"`
	// Taking: the node has the right there, or is asking for it.
	Taking bool `json:"taking"`
	// Alive: it hears the asker's heartbeats.
	Alive bool `json:"alive"`
}

// of reports whether the standing is of the module of that identity: its name may have been used again on either
// node. Where one side is of an older release, which says none, the name has to do.
func (s Standing) of(id string) bool { return s.ID == "" || id == "" || s.ID == id }

// Over reports whether the standing of peer proves that a guest of the other node has lost the right for ever. The
// epoch is durable at the peer before it says so, and no older one is ever granted again (rule 5).
func (s Standing) Over(peer cluster.NodeID, epoch cluster.Epoch) bool {
	return s.Holder == peer && s.Epoch > epoch
}

// Confirms reports whether the standing of peer shows that the holder of epoch has the right still, and will as long as
// its heartbeats are heard.
func (s Standing) Confirms(peer cluster.NodeID, epoch cluster.Epoch) bool {
	return s.Alive && !s.Taking && s.Epoch <= epoch && (s.Holder != peer || s.Epoch < epoch)
}
