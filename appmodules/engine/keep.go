package engine

import (
	"cmp"
	"fmt"
	"time"

	"duet/appmodules"
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
	// Boot is Config.Boot of the last run, empty if that run ended with everything flushed.
	Boot string `json:"boot,omitempty"`
}

// load reads what was kept.
func (e *Engine) load() error {
	var rec cluster.Record
	var keep kept
	if _, err := e.cfg.Store.Load(recordKey, &rec); err != nil {
		return fmt.Errorf("load record of %s: %w", e.cfg.Module.Name, err)
	}
	if _, err := e.cfg.Store.Load(keptKey, &keep); err != nil {
		return fmt.Errorf("load state of %s: %w", e.cfg.Module.Name, err)
	}
	if err := rec.Valid(e.self); err != nil {
		return fmt.Errorf("module %s: %w", e.cfg.Module.Name, err)
	}
	e.rec, e.keep = rec, keep
	return nil
}

// noteBoot notices that power was lost since the last run, in which writes may have
// been acknowledged that never left this computer's memory. Until that is durable this
// node takes no part; the next start would notice it again. Without volumes there are no writes.
func (e *Engine) noteBoot() {
	if last := e.keep.Boot; last != "" && (last != e.cfg.Boot || e.cfg.Boot == "") && e.rec.Complete > 0 && len(e.cfg.Module.Spec.Volumes()) > 0 {
		e.rec.Cold = true
	}
	e.keep.Boot = cmp.Or(e.cfg.Boot, "unknown")
	if err := e.saveAll(); err != nil {
		e.cfg.Logger.Error("cannot save the module's record", "module", e.cfg.Module.Name, "err", err)
		e.impaired, e.probed = true, e.rt.Now()
	}
}

// saveAll saves what is in memory, the record first.
func (e *Engine) saveAll() error {
	if err := e.cfg.Store.Save(recordKey, e.rec); err != nil {
		return err
	}
	return e.cfg.Store.Save(keptKey, e.keep)
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

// save makes rec durable. A node that cannot remember must not act: on failure the
// volumes are closed, the record stays as it was and the caller stops what it does.
func (e *Engine) save(rec cluster.Record) bool {
	if rec == e.rec {
		return true
	}
	keep := e.keep
	keep.Saved = keep.Saved && rec.Holds(e.self)
	var err error
	if keep.Saved != e.keep.Saved { // first: memory older than its disks must not be taken for fit
		err = e.cfg.Store.Save(keptKey, keep)
	}
	if err == nil {
		e.keep.Saved = keep.Saved
		err = e.cfg.Store.Save(recordKey, rec)
	}
	if err != nil {
		e.cfg.Logger.Error("cannot save the module's record", "module", e.cfg.Module.Name, "err", err)
		e.impaired, e.probed = true, e.rt.Now()
		e.event(appmodules.StorageFailed, "metadata cannot be saved: "+err.Error())
		return false
	}
	e.rec = rec
	return true
}

func (e *Engine) saveKept() {
	if err := e.cfg.Store.Save(keptKey, e.keep); err != nil {
		e.cfg.Logger.Error("cannot save the module's state", "module", e.cfg.Module.Name, "err", err)
	}
}
