package engine

import (
	"context"
	"errors"
	"fmt"
	"time"

	"duet/blockrepl"
)

// VolumeStatus is what people see of one volume on one node.
type VolumeStatus struct {
	Target     string        `json:"target"`
	Path       string        `json:"path"`
	Size       int64         `json:"size"`
	State      string        `json:"state"` // of the Primary; second or closed
	Generation string        `json:"generation"`
	Problem    string        `json:"problem,omitempty"` // why the peer is not attached
	Dirty      int64         `json:"dirty"`             // bytes
	Written    time.Time     `json:"written"`           // last, by the clock of the node; zero: unknown
	ToCompare  int64         `json:"to_compare"`
	Compared   int64         `json:"compared"`
	Moved      int64         `json:"moved"`
	Rate       float64       `json:"rate"` // bytes a second
	ETA        time.Duration `json:"eta"`
	Lag        time.Duration `json:"lag"`
	Verifying  bool          `json:"verifying"`
	Verified   int64         `json:"verified"`
	Proven     time.Time     `json:"proven"`
	// Stats are the counters of a primary; zero on a secondary.
	Stats blockrepl.Stats `json:"stats"`
}

// status reads the live figures; called by any goroutine.
func (v *volumes) status() []VolumeStatus {
	v.mu.Lock()
	all, idle, problem := v.all, v.idle, v.problem
	v.mu.Unlock()
	var out []VolumeStatus
	for _, c := range v.e.cfg.Module.Spec.Volumes() {
		st := VolumeStatus{Target: c.Target, Path: c.Paths[string(v.e.self)], Size: c.Size, State: "closed",
			Generation: idle[c.Target].Generation, Dirty: idle[c.Target].Dirty, Written: v.e.cfg.Storage.Written(c)}
		for _, vol := range all {
			if vol.cfg.Target == c.Target {
				vol.fill(&st)
				if vol.prim != nil && !vol.attachedNow() {
					st.Problem = problem
				}
			}
		}
		out = append(out, st)
	}
	return out
}

// idles reads what is known of the volumes while they are closed. Any goroutine.
func (v *volumes) idles() {
	idle := make(map[string]VolumeStatus)
	for _, c := range v.e.cfg.Module.Spec.Volumes() {
		l, dirty, err := v.e.cfg.Storage.Known(c)
		if err != nil {
			v.e.cfg.Logger.Warn("cannot read the history of a volume", "module", v.e.cfg.Module.Name, "volume", c.Target, "err", err)
			continue
		}
		idle[c.Target] = VolumeStatus{Generation: generation(l), Dirty: dirty}
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.idle = idle
}

// Mirrored counts the writes of all volumes that went over the network, on either
// side. It falls when a volume closes. Called by any goroutine.
func (e *Engine) Mirrored() uint64 {
	e.vols.mu.Lock()
	defer e.vols.mu.Unlock()
	var sum uint64
	for _, vol := range e.vols.all {
		if vol.prim != nil {
			sum += uint64(vol.prim.Stats().Mirrored)
		}
		if vol.sec != nil {
			sum += vol.sec.Applied()
		}
	}
	return sum
}

func (vol *volume) attachedNow() bool {
	s := vol.prim.Progress().State
	return s == blockrepl.Syncing || s == blockrepl.Required || s == blockrepl.Connected
}

func (vol *volume) fill(st *VolumeStatus) {
	if vol.sec != nil {
		st.State, st.Generation, st.Dirty = "second", generation(vol.sec.Lineage()), 0
		return
	}
	p := vol.prim.Progress()
	st.State, st.Generation = p.State.String(), generation(p.Lineage)
	st.Dirty, st.ToCompare, st.Compared, st.Moved = p.Dirty, p.ToCompare, p.Compared, p.Moved
	st.Rate, st.ETA, st.Lag = p.Rate, p.ETA, p.Lag
	st.Verifying, st.Verified, st.Proven = p.Verifying, p.Verified, p.Identical
	st.Stats = vol.prim.Stats()
}

func generation(l blockrepl.Lineage) string {
	g, ok := l.Newest()
	if !ok {
		return "empty"
	}
	return fmt.Sprintf("%d/%s", g.Epoch, g.Holder)
}

// Verify compares one volume with the peer's copy and returns what was found.
func (e *Engine) Verify(ctx context.Context, target string, repair bool) (blockrepl.VerifyDone, error) {
	done := make(chan blockrepl.VerifyDone, 1)
	var err error
	callErr := e.call(ctx, func() { err = e.vols.verify(target, repair, done) })
	if err = errors.Join(callErr, err); err != nil {
		return blockrepl.VerifyDone{}, err
	}
	select {
	case d := <-done:
		return d, d.Err
	case <-ctx.Done():
		return blockrepl.VerifyDone{}, ctx.Err()
	case <-e.loop:
		return blockrepl.VerifyDone{}, ErrStopped
	}
}

// verify begins; the end is sent to done.
func (v *volumes) verify(target string, repair bool, done chan<- blockrepl.VerifyDone) error {
	for _, vol := range v.all {
		if vol.cfg.Target != target || vol.prim == nil {
			continue
		}
		if err := vol.prim.Verify(repair); err != nil {
			return fmt.Errorf("%w: %v; a verify needs PRIM (Ready) and SECOND (Ready)", ErrRefused, err)
		}
		vol.verify = done
		return nil
	}
	return fmt.Errorf("%w: volume %s is not open as primary on %s", ErrRefused, target, v.e.self)
}

// verified ends a verify.
func (v *volumes) verified(vol *volume, ev blockrepl.VerifyDone) {
	log := v.e.cfg.Logger.With("module", v.e.cfg.Module.Name, "volume", vol.cfg.Target, "bytes", ev.Checked)
	switch {
	case ev.Err != nil:
		log.Warn("verify did not reach the end", "err", ev.Err)
	case ev.Count == 0:
		log.Info("verify: both copies are identical")
	default:
		log.Error("verify: the copies differ", "regions", ev.Count, "repaired", ev.Repaired)
	}
	if vol.verify != nil {
		vol.verify <- ev // holds one
		vol.verify = nil
	}
}
