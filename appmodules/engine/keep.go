package engine

import (
	"fmt"
	"time"

	"duet/cluster"
)

const (
	recordKey = "record"
	keptKey   = "kept"
)

// kept is what an engine keeps durably beside its Record.
type kept struct {
	Wanted     bool        `json:"wanted"`
	Definition Definition  `json:"definition"`
	Defined    uint64      `json:"defined"`            // version that the hypervisor here has
	Restarts   []time.Time `json:"restarts,omitempty"` // automatic ones
	Moves      []time.Time `json:"moves,omitempty"`    // to the peer, because of a failure
	// Strayed: a disk of the VM left its volume and was not seen to come back: its newest
	// data are elsewhere on this node.
	Strayed bool `json:"strayed,omitempty"`
	// Saved: somebody saved the VM's memory here, and since then nobody but this node has had
	// the right to write: it is of the disks as they are.
	Saved bool `json:"saved,omitempty"`
	// Boot is Config.Boot when the volumes were opened last, empty if they were closed with
	// everything flushed.
	Boot string `json:"boot,omitempty"`
}

// read returns what was kept. Any goroutine may call it.
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
// holds epoch 1 and is complete, the other is not. The hypervisor is given def by the caller.
func Create(s Store, self, source cluster.NodeID, def Definition) error {
	rec := cluster.Record{Epoch: 1, Holder: source, Promised: 1, To: source}
	if self == source {
		rec.Complete, rec.Alone = 1, true
	}
	if err := s.Save(recordKey, rec); err != nil {
		return fmt.Errorf("save record: %w", err)
	}
	if err := s.Save(keptKey, kept{Definition: def, Defined: def.Version}); err != nil {
		return fmt.Errorf("save state: %w", err)
	}
	return nil
}
