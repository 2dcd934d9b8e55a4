package engine

import (
	"fmt"
	"time"

	"duet/cluster"
)

// The keys of the store. They and the JSON under them are read by other versions, after an update and after going
// back.
const (
	recordKey = "record"
	keptKey   = "kept"
)

// kept is what an engine keeps durably beside its Record: what this node alone decides with. It is written as a whole
// by the owner. What saveKept cannot save stays in memory, unless its caller takes it back, and is saved with the
// next change.
type kept struct {
	Wanted     bool        `json:"wanted"`          // it takes part when the daemon starts
	Ended      string      `json:"ended,omitempty"` // how the workload did, where the policy starts it nowhere
	Definition Definition  `json:"definition"`
	Defined    uint64      `json:"defined"`            // version that the hypervisor here has; 0: it is not known which
	Had        string      `json:"had,omitempty"`      // Digest of what that has, but for an edit that is not kept
	Restarts   []time.Time `json:"restarts,omitempty"` // automatic ones; those out of policy.restart.window do not count
	Moves      []time.Time `json:"moves,omitempty"`    // to the peer, because of a failure; counted likewise
	// Strayed: a disk of the VM left its volume and was not seen to come back: its newest
	// data are elsewhere on this node.
	Strayed bool `json:"strayed,omitempty"`
	// Saved: somebody saved the VM's memory here, and since then nobody but this node has had
	// the right to write: it is of the disks as they are. It is taken back before a record is saved by which the right
	// is another's, see save: old memory on newer disks would corrupt them.
	Saved bool `json:"saved,omitempty"`
	// Boot is Config.Boot when the volumes were opened last, empty if they were closed with
	// everything flushed. Written before an image is opened (noteOpen) and after all are closed (noteSettled): where it
	// is another than that of the present run of the computer, writes may have been lost with the power.
	Boot string `json:"boot,omitempty"`
	// Came tells people how the right to write came here; nothing depends on it, so nobody waits for it to be durable.
	// Zero where the right is the peer's, or came in a time that did not note it.
	Came Arrival `json:"came,omitzero"`
}

// Arrival is how a node got the right to write that it has.
type Arrival struct {
	At  time.Time `json:"at,omitzero"` // by that node's clock; zero: when the module was made
	Why string    `json:"why"`
}

// arrive notes why the right is here from now on.
func (e *Engine) arrive(why string) { e.keepLater(Arrival{At: e.rt.Now(), Why: why}) }

// depart forgets it when the right is another's.
func (e *Engine) depart() {
	if e.keep.Came != (Arrival{}) {
		e.keepLater(Arrival{})
	}
}

// keepLater has it saved with the next change, or about a second later: a takeover does not wait for it.
func (e *Engine) keepLater(came Arrival) {
	e.keep.Came, e.lazy = came, true
	if !e.impaired && !e.unkept { // these are tried again in their own time
		e.probed = e.rt.Now()
	}
}

// read returns what was kept; the zero values where nothing was. Any goroutine may call it; it waits for the disk. A
// record that breaks an invariant is an error: a node must not vote by it.
func (e *Engine) read() (rec cluster.Record, keep kept, err error) {
	if _, err := e.cfg.Store.Load(recordKey, &rec); err != nil {
		return rec, keep, fmt.Errorf("load record of %s: %w", e.cfg.Module.Name, err)
	}
	if _, err := e.cfg.Store.Load(keptKey, &keep); err != nil {
		return rec, keep, fmt.Errorf("load state of %s: %w", e.cfg.Module.Name, err)
	}
	if err := rec.Valid(e.self); err != nil {
		return rec, keep, fmt.Errorf("module %s: %w", e.cfg.Module.Name, err)
	}
	return rec, keep, nil
}

// Create writes the first record of a new module: the node that has the data
// holds epoch 1 and is complete, the other is not. The caller has given def to the hypervisor; has is the Digest of
// what that has since, empty where there is none. Both values are durable when it returns nil; after an error either
// may be, and the caller forgets them. It is for a module whose engine was not built yet: it overwrites what one has
// promised.
func Create(s Store, self, source cluster.NodeID, def Definition, has string) error {
	rec, keep := cluster.Record{Epoch: 1, Holder: source, Promised: 1, To: source},
		kept{Definition: def, Defined: def.Version, Had: has}
	if self == source {
		rec.Complete, rec.Alone, keep.Came.Why = 1, true, "it was put under protection here"
	}
	if err := s.Save(recordKey, rec); err != nil {
		return fmt.Errorf("save record: %w", err)
	}
	if err := s.Save(keptKey, keep); err != nil {
		return fmt.Errorf("save state: %w", err)
	}
	return nil
}
