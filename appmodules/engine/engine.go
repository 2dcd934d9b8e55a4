package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"duet/appmodules"
	"duet/cluster"
	"duet/vmmanager"
)

// ErrStopped is returned by calls to an engine that has stopped.
var ErrStopped = errors.New("engine has stopped")

// Engine is one module on one node. Its exported methods may be called by any goroutine.
type Engine struct {
	cfg  Config
	self cluster.NodeID
	peer cluster.NodeID

	rt     Runtime
	box    mailbox
	ctx    context.Context // ends with Stop
	cancel context.CancelFunc
	tasks  tally         // goroutines the engine started
	loop   chan struct{} // closed when the owner goroutine ended

	// Owned by the goroutine.
	m        appmodules.Machine
	rec      cluster.Record
	keep     kept
	vols     *volumes
	guest    guest
	link     peerLink
	asking   *asking                   // nil: no ask under way
	informed map[Witness]cluster.Epoch // the newest epoch of this node that a witness knows
	above    cluster.Epoch
	impaired bool      // a record could not be saved
	probed   time.Time // when that was last tried
	patience time.Time // nothing is looked at before it: an ask was denied just now
	held     bool      // Hold succeeded since the volumes were opened
	override bool      // an operator stands in for meeting the peer (rule 6)
	followed bool      // a primary was connected since an operator's last command
	yield    bool      // an operator lets the peer's version win after a split brain
	untime   func()    // stops the clock of the phase
	leaving  bool      // the computer goes down: this node gives the module away
	unfit    string    // why the peer does not get the VM's present definition
	strays   strays    // disks of the running VM that are not on their volumes
	failure  string    // why the VM does not start here, once it was tried too often; empty: it was not
	parting  string    // why this node goes on without the peer on purpose; empty: it does not
	failed   time.Time // when the storage failed while this node followed; zero: an operator has asked to try it
	retiring bool      // this engine stops: nobody may attach any more
	booted   bool      // the first step was done
	began    time.Time // of this run
	since    time.Time // of the present role
	why      string
	told     string // the reason before why
	again    bool   // why was the reason before told as well: the module goes to and fro
	token    uint64 // of the present phase; ends of older work are recognised by it

	incarnation int64  // of this run, see State
	seq         uint64 // of the last published State

	status statusBoard
}

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

// peerLink is what is known of the peer.
type peerLink struct {
	state State
	heard time.Time // last answer
	met   bool      // heard since this engine started
}

// heirAgain is how long a module whose VM does not start here stays stopped, at least, before its
// peer is brought into step.
const heirAgain = 5 * time.Second

// handTime bounds a handover: two flushes and a round trip.
const handTime = 15 * time.Second

const (
	recordKey = "record"
	keptKey   = "kept"
)

// New returns an engine that is not running. It reads what it kept.
func New(cfg Config) (*Engine, error) {
	e := &Engine{
		cfg: cfg, self: cfg.Self, peer: cluster.NodeID(cfg.Module.Peer(string(cfg.Self))),
		rt: cfg.Runtime, loop: make(chan struct{}), why: "it is stopped", untime: func() {},
	}
	e.since = e.rt.Now()
	e.incarnation = e.since.UnixNano()
	e.box.init()
	e.status.soon = make(chan struct{}, 1)
	e.ctx, e.cancel = context.WithCancel(context.Background())
	e.vols = newVolumes(e)
	if _, err := cfg.Store.Load(recordKey, &e.rec); err != nil {
		return nil, fmt.Errorf("load record of %s: %w", cfg.Module.Name, err)
	}
	if _, err := cfg.Store.Load(keptKey, &e.keep); err != nil {
		return nil, fmt.Errorf("load state of %s: %w", cfg.Module.Name, err)
	}
	if err := e.rec.Valid(e.self); err != nil {
		return nil, fmt.Errorf("module %s: %w", cfg.Module.Name, err)
	}
	e.noteBoot()
	e.m.Link = appmodules.NoLink
	e.vols.idles()
	e.publish()
	return e, nil
}

// noteBoot notices that power was lost since the last run, in which writes may have
// been acknowledged that never left this computer's memory. Until that is durable this
// node takes no part; the next start would notice it again.
func (e *Engine) noteBoot() {
	if last := e.keep.Boot; last != "" && (last != e.cfg.Boot || e.cfg.Boot == "") && e.rec.Complete > 0 {
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

// Start runs the engine until Stop.
func (e *Engine) Start() {
	e.began = e.rt.Now()
	e.spawn(e.tellLoop)
	e.rt.Go(e.run)
	e.post(func() {
		e.readVM()
		e.booted = true
		e.step(appmodules.Boot, "")
		if e.m.Phase == appmodules.Stopped {
			e.vols.withdraw()
		}
		e.publish()
	})
}

// Stop ends the engine and leaves the VM as it is: its writes wait for the next
// Start. A secondary first gives its primary the chance to go on without it. It
// returns when nothing of the engine runs any more, at the latest when ctx ends plus
// the time of one local I/O.
func (e *Engine) Stop(ctx context.Context) {
	e.retire(ctx)
	e.cancel()
	e.box.close()
	_ = e.rt.Wait(context.Background(), e.loop, nil) // it has no other end
	e.tasks.wait(e.rt)
	if e.vols.flush(ctx) {
		e.keep.Boot = "" // what is acknowledged is on disk: power may go now
		e.saveKept()
	}
	e.vols.close()
}

// thawTime is how long a guest whose writes wait keeps its computer from going down.
const thawTime = 5 * time.Second

// Evacuate gives the module to the peer because this computer goes down; where the peer
// cannot take over the VM is shut down. It returns when nothing is left to do or ctx ends.
// The next run starts the module again.
func (e *Engine) Evacuate(ctx context.Context) {
	began := e.rt.Now()
	for busy := true; busy && ctx.Err() == nil; {
		err := e.call(ctx, func() {
			e.leaving = e.leaving || e.primary()
			busy = e.leaving && e.m.Phase != appmodules.Stopped
			if e.m.Phase == appmodules.Frozen && e.rt.Now().Sub(began) < thawTime {
				return // the answer may let the guest shut down by itself
			}
			if busy {
				e.step(appmodules.CmdStop, "this computer goes down") // once more if a move was given up
			}
		})
		if err != nil {
			return
		}
		if busy {
			_ = sleep(ctx, e.rt, 50*time.Millisecond) // the loop looks at ctx
		}
	}
}

// retire lets a complete secondary be outvoted while it can still answer.
func (e *Engine) retire(ctx context.Context) {
	ctx, cancel := e.rt.WithTimeout(ctx, time.Second)
	defer cancel()
	fenced := false
	_ = e.call(ctx, func() {
		e.retiring = true
		if e.m.Phase == appmodules.Standby {
			fenced = true
			e.vols.close()
		}
	})
	for fenced && ctx.Err() == nil {
		_ = e.call(ctx, func() { fenced = e.rec.IsComplete() })
		_ = sleep(ctx, e.rt, 10*time.Millisecond) // the loop looks at ctx
	}
}

func (e *Engine) run() {
	defer close(e.loop)
	defer func() { e.untime() }()
	for e.rt.Wait(e.ctx, e.box.ready, nil) == nil && e.ctx.Err() == nil {
		for _, fn := range e.box.take() {
			fn()
		}
	}
}

// step lets the table decide on ev and carries the row out. text adds what the row
// cannot know to its reason.
func (e *Engine) step(ev appmodules.Event, text string) {
	before := e.m
	if ev == appmodules.VMFailed && e.left(e.keep.Restarts) <= 0 {
		e.failure = text
	}
	next, row := e.m.Step(ev, e.facts())
	if row == nil {
		return
	}
	e.m = next
	if ev == appmodules.VMUp || next.Phase == appmodules.Following {
		e.failure = "" // it runs, or it is the peer's turn
	}
	if ev == appmodules.GuestFailed || ev == appmodules.GuestMove || ev == appmodules.VMFailed ||
		before.Phase == appmodules.Starting && next.Phase == appmodules.Leaving {
		e.countFailure(next.Phase)
	}
	e.noteStorage(ev, before.Phase)
	why := row.Why
	if text != "" {
		why += ": " + text
	}
	if next != before || ev != appmodules.Look {
		e.record(before, ev, why)
	}
	if next.Phase != before.Phase {
		e.enter(next.Phase)
	}
	for _, a := range row.Do {
		if !e.act(a) {
			break
		}
	}
	if next.Phase == appmodules.Stopped || next.Phase == appmodules.Killing {
		e.vols.withdraw() // a guest of an earlier run may wait although nothing was opened since
	}
	e.publish()
	e.tellSoon()
	// What was not true before may be now: a waiting phase looks again at once. What was
	// refused just now is tried again a moment later.
	if next.Phase != before.Phase && ev != appmodules.Denied && ev != appmodules.StorageFailed {
		e.lookIn(e.token)
	}
}

// remembers: this node can save what it decides. A waiting one that could not takes no
// part, so that its peer may go on, until a try succeeds.
func (e *Engine) remembers() bool {
	if !e.impaired || e.m.Phase != appmodules.Waiting {
		return true
	}
	if now := e.rt.Now(); now.Sub(e.probed) >= time.Second {
		e.probed = now
		e.impaired = e.saveAll() != nil
	}
	return !e.impaired
}

// lookIn looks soon, if the phase of token still lasts.
func (e *Engine) lookIn(token uint64) {
	e.post(func() {
		if e.token == token {
			e.look()
		}
	})
}

// enter starts the clock of a phase.
func (e *Engine) enter(p appmodules.Phase) {
	e.token++
	e.cancelAsk()
	e.untime()
	var d time.Duration
	switch p {
	case appmodules.Opening:
		d = e.cfg.Times.Open
	case appmodules.Frozen:
		d = e.cfg.Times.Frozen
	case appmodules.Handing:
		d = handTime
	case appmodules.Stopped:
		if e.failure != "" { // it is brought back for the peer's sake, but not without pause
			e.patience = e.rt.Now().Add(heirAgain)
		}
	case appmodules.Leaving, appmodules.Restarting, appmodules.Stopping:
		d = time.Duration(e.cfg.Module.Policy.Shutdown)
	}
	e.untime = func() {}
	if d > 0 {
		token := e.token
		e.untime = e.rt.After(d, func() { e.eventOf(token, appmodules.Timeout, "") })
	}
}

func (e *Engine) look() {
	if !e.rt.Now().Before(e.patience) && e.remembers() {
		e.step(appmodules.Look, "")
	}
	e.vols.watch()
}

// post runs fn on the engine's goroutine, later; it never blocks.
func (e *Engine) post(fn func()) { e.box.put(fn) }

// event posts a step.
func (e *Engine) event(ev appmodules.Event, text string) {
	e.post(func() { e.step(ev, text) })
}

// eventOf posts a step that counts only while the phase of token lasts.
func (e *Engine) eventOf(token uint64, ev appmodules.Event, text string) {
	e.post(func() {
		if e.token == token {
			e.step(ev, text)
		}
	})
}

// call runs fn on the engine's goroutine and waits for it.
func (e *Engine) call(ctx context.Context, fn func()) error {
	done := make(chan struct{})
	e.post(func() { fn(); close(done) })
	return e.rt.Wait(ctx, done, e.loop)
}

// spawn runs fn on a goroutine that Stop waits for. ctx ends with the engine.
func (e *Engine) spawn(fn func(ctx context.Context)) {
	e.tasks.add()
	e.rt.Go(func() {
		defer e.tasks.done()
		fn(e.ctx)
	})
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

// Booted waits until the engine has decided what follows from how it ended last; before, its State says that the module
// is stopped.
func (e *Engine) Booted(ctx context.Context) error {
	for {
		booted := false
		if err := e.call(ctx, func() { booted = e.booted }); err != nil || booted {
			return err
		}
		if err := sleep(ctx, e.rt, 10*time.Millisecond); err != nil {
			return err
		}
	}
}

// Alive returns nil when the engine's goroutine has answered. It may be busy with local I/O for a while.
func (e *Engine) Alive(ctx context.Context) error { return e.call(ctx, func() {}) }

// VMEvent tells the engine that its VM changed.
func (e *Engine) VMEvent(ev vmmanager.Event) { e.post(func() { e.onVM(ev) }) }

// ViewChanged tells the engine to look at the cluster again.
func (e *Engine) ViewChanged() { e.post(e.look) }
