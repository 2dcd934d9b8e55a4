package engine

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"duet/appmodules"
	"duet/cluster"
)

// Status is what people see of a module on one node. It travels between nodes of different releases: a key stays, and
// a field that is not known is ignored.
type Status struct {
	Role     appmodules.Role     `json:"role"`
	Status   appmodules.Status   `json:"status"`
	Phase    appmodules.Phase    `json:"phase"`
	Why      string              `json:"why"`
	Since    time.Time           `json:"since"` // of the present state, by that node's clock; a to and fro is one
	Epoch    cluster.Epoch       `json:"epoch"`
	Holder   cluster.NodeID      `json:"holder"`
	Complete bool                `json:"complete"`
	Stopped  bool                `json:"stopped,omitempty"` // by an operator, or as the policy wants it
	Ended    string              `json:"ended,omitempty"`   // how its workload did, if the policy then starts it nowhere
	Workload string              `json:"vm"`                // appmodules.Condition.Word
	Up       bool                `json:"-"`                 // appmodules.Condition.Up, known on this node only
	Came     Arrival             `json:"came,omitzero"`     // of a node that has the right to write
	Notices  []appmodules.Notice `json:"notices,omitempty"` // what an admin should mend, beside the state
	Volumes  []VolumeStatus      `json:"volumes"`
	// KillIn is how long the workload, which was asked to end, may still take; 0: it was not asked.
	KillIn time.Duration `json:"kill_in,omitempty"`
}

// Transition is one change of a module's state, for the log.
type Transition struct {
	Time   time.Time `json:"time"`
	Module string    `json:"module"`
	From   string    `json:"from"`
	To     string    `json:"to"`
	On     string    `json:"on"`
	Why    string    `json:"why"`
	// Again: the reason is that of the transition before the last one: the module goes to and fro.
	Again bool `json:"again,omitempty"`
}

// statusBoard is how other goroutines see the engine as of the end of a step, without the owner. Beside it they read
// the figures of shelf and proofs, which are live.
type statusBoard struct {
	mu    sync.Mutex // a leaf: nothing else is locked under it
	state State      // without Status.Volumes and KillIn, which State fills in
	peer  State      // as heard then
	kill  time.Time  // when a workload that was asked to end is ended; zero: none was
	heard time.Time
	soon  chan struct{} // has a token when the peer should be told at once
}

// record logs a transition and remembers its reason. Of reasons that alternate the log has the first ones; the
// transitions are marked with Again: a node that waits and asks does so several times a second.
func (e *Engine) record(before appmodules.Machine, ev appmodules.Event, why string) {
	if before == e.m && why == e.why {
		return // the same reason again, a quarter of a second later
	}
	e.again = why == e.told // it waits and asks, waits and asks
	e.told, e.why = e.why, why
	if before != e.m && !e.again {
		e.since = e.rt.Now()
	}
	t := Transition{Time: e.rt.Now(), Module: e.cfg.Module.Name, From: display(before), To: display(e.m), On: ev.String(),
		Why: why}
	t.Again = e.again
	if !e.again {
		e.cfg.Logger.Info(why, "module", t.Module, "from", t.From, "to", t.To, "on", t.On, "phase", e.m.Phase.String(),
			"epoch", e.rec.Epoch)
	}
	e.cfg.Log(t)
}

func display(m appmodules.Machine) string {
	r, s := m.Display()
	return fmt.Sprintf("%s/%s", r, s)
}

// publish makes the present state visible to other goroutines, and to the peer with the next exchange. step does it;
// whoever changes something that shows outside of a step calls it. It reads the clock, so some of its sentences are as
// old as the last step.
func (e *Engine) publish() {
	r, s := e.m.Display()
	why := e.why
	if e.repeats() {
		why = e.told
		if e.m.Phase == appmodules.Asking {
			s = appmodules.NotReady
		}
	}
	if text := e.missing() + e.standstill(); text != "" {
		why += ": " + text
	}
	if e.cause != "" && e.m.Phase == appmodules.Stopped {
		why = e.cause + ": " + why
	}
	if e.failure != "" && (e.m.Phase == appmodules.Stopped || e.m.Phase == appmodules.Stopping) {
		why = once(why+": "+e.failure, e.failure) // why it ended there counts, and not how
	}
	if e.failure != "" && e.m.Phase == appmodules.Stopped {
		why += fmt.Sprintf("; when that is mended, `duet start %s`", e.cfg.Module.Name)
	}
	if e.parting != "" {
		why += ": " + e.parting
	}
	if e.work.strays.away() && s == appmodules.Ready {
		s = appmodules.NotReady // it runs, and what it writes is not on its volumes
	}
	if e.work.now.Stuck && e.resumes.vain() && s == appmodules.Ready {
		s = appmodules.NotReady
	}
	e.seq++
	ends := e.m.Phase == appmodules.Stopping || e.m.Phase == appmodules.Stopped
	st := State{
		Module: e.cfg.Module.Name, Incarnation: e.incarnation, Seq: e.seq,
		Record: e.rec, Definition: e.keep.Definition.Version, Digest: e.digest(),
		Active: e.active(), Balked: e.work.balked,
		Ending: ends && e.rec.Holds(e.self) && !e.keep.Wanted,
		Status: Status{Role: r, Status: s, Phase: e.m.Phase, Why: why, Since: e.since,
			Epoch: e.rec.Epoch, Holder: e.rec.Holder, Complete: e.rec.IsComplete(), Workload: e.workloadWord(),
			Up: e.work.now.Up, Stopped: e.m.Phase == appmodules.Stopped && !e.keep.Wanted, Ended: e.keep.Ended,
			Came: e.keep.Came, Notices: e.notices()},
	}
	b := &e.status
	b.mu.Lock()
	defer b.mu.Unlock()
	b.state, b.kill = st, e.killAt()
}

// once is text with what is said more than once in it said the first time only.
func once(text, said string) string {
	before, after, _ := strings.Cut(text, said)
	return before + said + strings.ReplaceAll(after, ": "+said, "")
}

// workloadWord is what admins see of the workload: one whose writes wait runs as far as it can without them.
func (e *Engine) workloadWord() string {
	if e.m.Phase == appmodules.Frozen && e.work.now.Up {
		return "frozen"
	}
	return e.work.now.Word()
}

// killAt is when the workload is ended that was asked to end; zero: none was.
func (e *Engine) killAt() time.Time {
	switch e.m.Phase {
	case appmodules.Leaving, appmodules.Restarting, appmodules.Stopping:
		if e.work.asked {
			return e.entered.Add(e.limit())
		}
	}
	return time.Time{}
}

// notices are what an admin should mend.
func (e *Engine) notices() []appmodules.Notice {
	out := e.work.strays.notices()
	switch {
	case e.work.now.Up:
	case e.keep.Strayed && e.rec.Holds(e.self):
		out = []appmodules.Notice{{Alarm: true, Code: appmodules.DiskElsewhere,
			Text: "the newest data of the " + e.work.words.Noun +
				" are on a disk that is not its volume, as its definition says: they are not replicated",
			Remedy: fmt.Sprintf("duet start %s, and then bring the disk back as status says", e.cfg.Module.Name)}}
	default:
		out = nil
	}
	// While it starts or is ended, it is held for a moment by whoever does that.
	if held := e.work.now.Held; held.Text != "" && (e.m.Phase == appmodules.Running || e.m.Phase == appmodules.Frozen) {
		out = append(out, held)
	}
	out = append(out, e.editNotices()...)
	if e.work.now.Stuck && e.resumes.vain() {
		text := fmt.Sprintf("the "+e.work.words.Noun+" stands still: its disk gives it errors, and to let it go on did not "+
			"help %d times", e.resumes.n)
		if e.resumes.over() {
			text += "; it is left as it is"
		}
		out = append(out, appmodules.Notice{Code: "disk-errors", Text: text,
			Remedy: fmt.Sprintf("duet start %s tries once more, and so does a peer that is connected again: it has what "+
				"cannot be read here", e.cfg.Module.Name)})
	}
	return out
}

// standstill says what becomes of the workload of a primary that nobody lets go on alone: what
// ends that has just been said.
func (e *Engine) standstill() string {
	if e.m.Phase != appmodules.Frozen || !e.denied {
		return ""
	}
	text := "the " + e.work.words.Noun + " stands still until then"
	if limit := e.limit(); limit > 0 {
		text += fmt.Sprintf(", and is ended in %v without it", max(limit-e.rt.Now().Sub(e.entered), 0).Round(time.Second))
	}
	return text
}

// repeats: it asks once more, in vain so far. What keeps it is why it was denied, which is
// shown all the time, and not each attempt.
func (e *Engine) repeats() bool { return e.again && e.asking != nil }

// active: the module takes part on this node, or is about to.
func (e *Engine) active() bool {
	switch e.m.Phase {
	case appmodules.Stopped:
		return e.keep.Wanted && !e.booted
	case appmodules.Waiting:
		return !e.impaired && !e.rests()
	}
	return true
}

// State is how this node stands now, with live figures of its volumes. Any goroutine; it waits for neither the owner
// nor a disk, and so answers while the metadata disk hangs.
func (e *Engine) State() State {
	e.status.mu.Lock()
	st := e.status.state
	if !e.status.kill.IsZero() {
		st.Status.KillIn = max(e.status.kill.Sub(e.rt.Now()), 0)
	}
	e.status.mu.Unlock()
	st.Status.Volumes = e.shelf.status()
	st.Status.Notices = append(slices.Clip(st.Status.Notices), e.diskNotices(st.Status.Volumes)...)
	return st
}

// PeerState is the last that was heard of the peer, and when, by this node's clock; zero: nothing in this run. Any
// goroutine; what it gets is shared, and not to be changed.
func (e *Engine) PeerState() (State, time.Time) {
	e.status.mu.Lock()
	defer e.status.mu.Unlock()
	return e.status.peer, e.status.heard
}

// Dazed: this process has stood still until a moment ago. What it says of itself is then as old as what it has last
// heard of its peer, which may have taken over meanwhile. Any goroutine.
func (e *Engine) Dazed() bool { return e.vigil.dazed(e.rt.Now()) }

// tellSoon has the next exchange happen at once.
func (e *Engine) tellSoon() {
	select {
	case e.status.soon <- struct{}{}:
	default:
	}
}

// tellLoop exchanges states with the peer, regularly and at once after a change.
func (e *Engine) tellLoop(ctx context.Context) {
	for ctx.Err() == nil {
		e.awake()
		e.exchange(ctx)
		pause, cancel := e.rt.WithTimeout(ctx, e.cfg.Times.Tell)
		_ = e.rt.Wait(pause, e.status.soon, nil) // at once after a change, else when the pause ends
		cancel()
	}
}

// exchange tells the peer how this node stands and hears how the peer does.
func (e *Engine) exchange(ctx context.Context) {
	callCtx, cancel := e.rt.WithTimeout(ctx, 2*e.cfg.Times.Tell)
	defer cancel()
	asked := e.rt.Now()
	theirs, err := e.cfg.Peer.Tell(callCtx, e.State())
	if ctx.Err() != nil {
		return
	}
	e.post(func() {
		if err == nil {
			e.link.met = asked // and not when the answer is read: it may have waited for this process to go on
			e.hear(theirs)
		}
		e.look()
		e.resume()
		e.inform()
		e.reconcile()
	})
}

// OnTell takes the peer's state and answers with one's own, at once: what follows from the peer's is decided later.
func (e *Engine) OnTell(theirs State) State {
	e.post(func() {
		// A call may be repeated and late. What it says is news only after an answer of the
		// same run of the peer to a question of this one; until then the next exchange tells.
		if theirs.Incarnation == e.link.state.Incarnation {
			e.hear(theirs)
			e.look()
		}
	})
	return e.State()
}

// hear takes over what the peer said of itself. Its record may depose this node (rule 1) or tell of a split (rule
// 11). For the rest it says when to ask, to follow a stop, or to send a definition.
func (e *Engine) hear(theirs State) {
	if last := e.link.state; theirs.Incarnation == last.Incarnation && theirs.Seq < last.Seq {
		return
	}
	e.link.state, e.link.heard = theirs, e.rt.Now()
	e.status.mu.Lock()
	e.status.peer, e.status.heard = theirs, e.link.heard
	e.status.mu.Unlock()
	e.learn(theirs.Record)
	if split, stays := e.rec.Split(e.self, theirs.Record, e.peer); split && stays && theirs.Active {
		e.step(appmodules.Split, fmt.Sprintf("%s wrote in epoch %d too", e.peer, e.rec.Epoch))
	}
	e.proofs.hear(theirs.Status.Volumes)
	if e.work.balked && theirs.Status.Phase == appmodules.Running {
		e.work.balked = false // what came of it here is of another time
		e.publish()
	}
	e.outlives = e.outlives && theirs.Ending
	if theirs.Ending && !e.outlives && (e.m.Phase == appmodules.Following || e.m.Phase == appmodules.Standby) {
		e.want(false, "")
		e.step(appmodules.CmdStopAll, "")
	}
	e.send(theirs.Definition)
	e.takeWaiting()
}
