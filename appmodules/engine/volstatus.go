package engine

import (
	"context"
	"errors"
	"fmt"
	"time"

	"duet/appmodules"
	"duet/blockrepl"
)

// VolumeStatus is what people see of one volume on one node. Its keys are read by other releases, in one flat object
// (TestVolumeStatusKeys). Of a closed volume Generation and Dirty are as of its last close, or of New.
type VolumeStatus struct {
	Target     string    `json:"target"`
	Path       string    `json:"path"`              // of the image, on that node
	Size       int64     `json:"size"`              // bytes
	State      string    `json:"state"`             // of the Primary; second or closed
	Generation string    `json:"generation"`        // the newest, as EPOCH/HOLDER, or the word empty
	Problem    string    `json:"problem,omitempty"` // why the peer is not attached
	Dirty      int64     `json:"dirty"`             // bytes
	Written    time.Time `json:"written"`           // last, by the clock of the node; zero: unknown
	Resync
	Lag       time.Duration `json:"lag"` // for how long the peer has owed an answer
	Verifying bool          `json:"verifying"`
	Verified  int64         `json:"verified"` // bytes, by the verify under way
	// Proven is when the oldest part was last found the same on both nodes; zero: a part never was.
	Proven time.Time    `json:"proven"`
	Proof  *ProofStatus `json:"proof,omitempty"` // of a primary
	// Unreadable is how many bytes cannot be read on this node, since UnreadableSince.
	Unreadable      int64     `json:"unreadable,omitempty"`
	UnreadableSince time.Time `json:"unreadable_since,omitzero"`
	// Hung is for how long the disk here has not answered while an image is opened or closed;
	// 0: it answers.
	Hung time.Duration `json:"hung,omitempty"`
	// Stats are the counters of a primary; zero on a secondary.
	Stats blockrepl.Stats `json:"stats"`
}

// Resync is how far bringing the peer in step has come, in bytes; its keys stand among those
// of the volume.
type Resync struct {
	ToCompare int64         `json:"to_compare"`
	Compared  int64         `json:"compared"`
	Moved     int64         `json:"moved"`
	Rate      float64       `json:"rate"` // bytes a second
	ETA       time.Duration `json:"eta"`  // 0: unknown, or not running
}

// status reads the live figures; called by any goroutine, it waits for no disk. What only disks know it gives as it
// was last read, and has that read again beside it when it is older than lookAgain.
func (s *shelf) status() []VolumeStatus {
	s.refresh()
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []VolumeStatus
	for _, c := range s.e.cfg.Module.Spec.Volumes() {
		idle := s.idle[c.Target]
		st := VolumeStatus{Target: c.Target, Path: c.Paths[string(s.e.self)], Size: c.Size, State: "closed",
			Generation: idle.Generation, Dirty: idle.Dirty, Written: idle.Written}
		if d := s.opened(c.Target); d != nil {
			d.fill(&st)
			if st.Problem == "" && st.State != second && !attached(st.State) {
				st.Problem = s.problem
			}
		}
		if since, yes := s.waiting(c.Target); yes {
			st.Hung, st.Problem = s.e.rt.Now().Sub(since), s.hung(c.Target, since)
		}
		out = append(out, st)
	}
	return out
}

// live are the figures of the volumes that are open as primary, but for what proofs say.
func (s *shelf) live() (out []VolumeStatus) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.e.cfg.Module.Replicated() {
		if vol, ok := s.opened(c.Target).(*led); ok {
			p := vol.Progress()
			out = append(out, VolumeStatus{Target: c.Target, Verifying: p.Verifying,
				Resync: Resync{ToCompare: p.ToCompare}, Unreadable: p.Unreadable})
		}
	}
	return out
}

// opened is the open volume; nil: it is not. mu is held.
func (s *shelf) opened(target string) disk {
	if u := s.uses[target]; u != nil && !u.released {
		return u.disk
	}
	return nil
}

// second is the state of a volume that follows.
const second = "second"

func attached(state string) bool {
	return state == blockrepl.Syncing.String() || state == blockrepl.Required.String() ||
		state == blockrepl.Connected.String()
}

// refresh has read again when the images were last written, now and then.
func (s *shelf) refresh() {
	s.mu.Lock()
	due := !s.reading && !s.stopped && s.e.rt.Now().Sub(s.looked) >= lookAgain
	if due {
		s.reading = true
		s.jobs.add()
	}
	s.mu.Unlock()
	if due {
		s.e.rt.Begin(func() {
			defer s.jobs.done()
			s.look(false)
		})
	}
}

// lookAgain is how old that gets.
const lookAgain = time.Second

// diskNotices are what an admin should mend of the disks of this node. Any goroutine.
func (e *Engine) diskNotices(volumes []VolumeStatus) (out []appmodules.Notice) {
	for _, v := range volumes {
		out = append(out, e.proofNotices(v)...)
		if v.Hung > 0 {
			out = append(out, appmodules.Notice{Code: "disk-hangs", Text: v.Problem,
				Remedy: "look at that disk: the volume is opened again as soon as it answers"})
		}
		if v.Unreadable > 0 {
			out = append(out, appmodules.Notice{Code: "disk-unreadable",
				Text: fmt.Sprintf("volume %s: %d KiB cannot be read on %s since %s", v.Target, v.Unreadable>>10, e.self,
					v.UnreadableSince.Local().Format(time.DateTime)),
				Remedy: fmt.Sprintf("a peer in step mends it by itself; else replace that disk: duet volume verify %s/%s tries "+
					"again", e.cfg.Module.Name, v.Target)})
		}
	}
	return out
}

// lookAfter reads the history of volumes when they are closed.
func (s *shelf) lookAfter(uses []*use) {
	s.jobs.add()
	s.e.rt.Go(func() {
		defer s.jobs.done()
		for _, u := range uses {
			_ = s.e.rt.Wait(context.Background(), u.over, nil) // see stop
		}
		s.look(true)
	})
}

// look reads what only the disks know; closed: the volumes have just been closed, and their
// history is read too. Any goroutine that may wait for a disk. Only what was read is noted: another look may have read
// the rest meanwhile.
func (s *shelf) look(closed bool) {
	type found struct {
		written time.Time
		history bool // read, namely
		gen     string
		dirty   int64
	}
	all := map[string]found{}
	for _, c := range s.e.cfg.Module.Spec.Volumes() {
		f := found{written: s.e.cfg.Storage.Written(c)}
		if closed {
			l, dirty, err := s.e.cfg.Storage.Known(c)
			if err != nil {
				s.e.cfg.Logger.Warn("cannot read the history of a volume", "module", s.e.cfg.Module.Name, "volume", c.Target, "err",
					err)
			} else {
				f.history, f.gen, f.dirty = true, generation(l), dirty
			}
		}
		all[c.Target] = f
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for target, f := range all {
		st := s.idle[target]
		st.Written = f.written
		if f.history {
			st.Generation, st.Dirty = f.gen, f.dirty
		}
		s.idle[target] = st
	}
	s.looked, s.reading = s.e.rt.Now(), false
}

// Mirrored counts the writes of all volumes that went over the network, on either
// side. It falls when a volume closes. Called by any goroutine.
func (e *Engine) Mirrored() uint64 {
	s := e.shelf
	s.mu.Lock()
	defer s.mu.Unlock()
	var sum uint64
	for _, c := range e.cfg.Module.Replicated() {
		if d := s.opened(c.Target); d != nil {
			sum += d.mirrored()
		}
	}
	return sum
}

func (vol *led) attachedNow() bool { return attached(vol.Progress().State.String()) }

func (vol *led) mirrored() uint64 { return uint64(vol.Stats().Mirrored) }

func (vol *follower) mirrored() uint64 { return vol.Applied() }

func (vol *follower) fill(st *VolumeStatus) {
	st.State, st.Generation, st.Dirty = second, generation(vol.Lineage()), 0
}

func (vol *led) fill(st *VolumeStatus) {
	p := vol.Progress()
	st.State, st.Generation = p.State.String(), generation(p.Lineage)
	st.Dirty, st.ToCompare, st.Compared, st.Moved = p.Dirty, p.ToCompare, p.Compared, p.Moved
	st.Rate, st.ETA, st.Lag = p.Rate, p.ETA, p.Lag
	st.Unreadable, st.UnreadableSince = p.Unreadable, p.UnreadableSince
	if v := vol.proving.Load(); v != nil {
		st.Proof = v.status()
	}
	st.Verifying, st.Verified, st.Proven = p.Verifying, p.Verified, vol.provenAt(p, st.Proof)
	st.Stats = vol.Stats()
}

func generation(l blockrepl.Lineage) string {
	g, ok := l.Newest()
	if !ok {
		return "empty"
	}
	return fmt.Sprintf("%d/%s", g.Epoch, g.Holder)
}

// Verify compares one volume with the peer's copy and returns what was found. It lasts as long as both disks take to
// read the volume; if ctx ends first the verify goes on, and only the log tells its end. Where the volume is not
// Connected, or one is under way, it is refused (ErrRefused). With repair the peer's copy follows this one, durably.
func (e *Engine) Verify(ctx context.Context, target string, repair bool) (blockrepl.VerifyDone, error) {
	done := make(chan blockrepl.VerifyDone, 1)
	var err error
	callErr := e.call(ctx, func() { err = e.leading.verify(target, repair, done) })
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

// verify begins; the end is sent to done, which has room for it: by the event of the volume, or by the end of the
// role.
func (l *leading) verify(target string, repair bool, done chan<- blockrepl.VerifyDone) error {
	for _, vol := range l.all {
		if vol.cfg.Target != target {
			continue
		}
		began := l.e.rt.Now()
		if err := vol.Verify(repair); err != nil {
			return fmt.Errorf("%w: %v; a verify needs PRIM (Ready) and SECOND (Ready)", ErrRefused, err)
		}
		vol.verify, vol.began = done, began
		return nil
	}
	return fmt.Errorf("%w: volume %s is not open as primary on %s", ErrRefused, target, l.e.self)
}

// verified ends a verify.
func (l *leading) verified(vol *led, ev blockrepl.VerifyDone) {
	log := l.e.cfg.Logger.With("module", l.e.cfg.Module.Name, "volume", vol.cfg.Target, "bytes", ev.Checked)
	switch {
	case ev.Err != nil:
		log.Warn("verify did not reach the end", "err", ev.Err)
	case ev.Count > 0:
		log.Error("verify: the copies differ", "regions", ev.Count, "repaired", ev.Repaired, "uncompared", ev.Unreadable)
	case ev.Unreadable > 0:
		log.Error("verify: regions that cannot be read were not compared", "uncompared", ev.Unreadable)
	default:
		log.Info("verify: both copies are identical")
	}
	if v := vol.proving.Load(); v != nil {
		v.verified(vol.began, ev)
	}
	vol.answer(ev)
}

// answer tells whoever asked for the verify how it ended.
func (vol *led) answer(ev blockrepl.VerifyDone) {
	if vol.verify != nil {
		vol.verify <- ev // holds one
		vol.verify = nil
	}
}
