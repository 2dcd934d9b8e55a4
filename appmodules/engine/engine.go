package engine

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"duet/appmodules"
	"duet/blockrepl/proof"
	"duet/cluster"
)

// ErrStopped is returned by calls to an engine that has stopped.
var ErrStopped = errors.New("engine has stopped")

// Engine is one module on one node. Its exported methods may be called by any goroutine.
// Its parts are owned by its goroutine; status, shelf and proofs have locks of their own, saving is atomic. Before
// Start, and once loop is closed, whoever starts or stops the engine owns them instead.
type Engine struct {
	cfg  Config // does not change, but for Module.Policy, which only the owner reads
	self cluster.NodeID
	peer cluster.NodeID
	owner
	m    appmodules.Machine
	keep kept
	mandate
	course
	tale
	disks
	work work
	link peerLink

	status statusBoard
}

// owner is the goroutine of an engine and those that it started.
type owner struct {
	rt     Runtime
	box    mailbox
	ctx    context.Context // ends with Stop
	cancel context.CancelFunc
	tasks  tally                  // goroutines the engine started with spawn: Stop waits for them without a limit
	saving atomic.Pointer[saving] // the last save; its own goroutine and whoever asks something read it
	loop   chan struct{}          // closed when the owner goroutine ended
	vigil  vigil
}

// mandate is the right to write, as this node knows it, and what is done to get it.
type mandate struct {
	rec      cluster.Record            // as it is durable, unless impaired; only New, save and recall set it
	asking   *asking                   // nil: no ask under way
	informed map[Witness]cluster.Epoch // the newest epoch of this node that a witness knows
	mute     map[string]error          // witnesses that did not vote when they were last asked
	above    cluster.Epoch             // the newest promise that a denied ask heard of: the next ask is for one after it
	impaired bool                      // a record could not be saved; remembers ends that, in Waiting, or a recall
	unread   bool                      // what was kept could not be read at Start
	unkept   bool                      // what is kept beside the record could not be saved; keepAgain ends that
	lazy     bool                      // it has news that nobody waits for
	probed   time.Time                 // when a save of any of these was last tried, or became due
	patience time.Time                 // no Look before it: an ask was denied just now, or the workload did not start here
	denied   bool                      // an ask was denied in the present phase
	held     bool                      // Hold succeeded since the volumes were opened: both copies are equal, and flushed
	override time.Time                 // when an operator stood in for meeting the peer (rule 6); zero: none did
	outlives bool                      // the peer was ending already when an operator last had a word here
	handed   cluster.Epoch             // the last this engine handed over; one that was asked for is wanted by the peer
	yield    bool                      // an operator lets the peer's version win after a split brain
}

// course is where the module is on its way from phase to phase.
type course struct {
	token    uint64    // of the present phase, which enter counts up; ends of older work are recognised by it
	entered  time.Time // when the present phase began; in Opening, when the disks had answered
	untime   func()    // stops the clock of the phase
	booted   bool      // the first step was done; no command and no Look counts before
	leaving  bool      // the computer goes down: this node gives the module away; not durable, unlike kept.Wanted
	retiring bool      // this engine stops: nobody may attach any more
	failure  string    // why the workload does not start here, once it was tried too often; empty: it was not
	cause    string    // why the module stops or has stopped here, leaves, or asks for the right; empty: it does not
	resumes  resumes   // of a workload that its disk gave errors
	parting  string    // why this node goes on without the peer on purpose; empty: it does not
	failed   time.Time // when the storage failed while this node followed; zero: an operator has asked to try it
}

// tale is what is told of the module.
type tale struct {
	began time.Time // of this run
	since time.Time // of the present role
	why   string
	told  string // the reason before why
	again bool   // why was the reason before told as well: the module goes to and fro

	incarnation int64  // of this run, see State: Unix ns of New
	seq         uint64 // of the last published State; the peer drops what has a lower one
}

// disks is what this node has of the module's volumes.
type disks struct {
	shelf     *shelf
	leading   *leading   // what is open as primary; never nil: a role that has ended is replaced by an empty one
	following *following // what is open as secondary; never nil; not both have volumes, see dismiss
	proofs    *proofs
	budget    *proof.Budget
}

// peerLink is what is known of the peer.
type peerLink struct {
	state State     // the newest that it has told: when it is worth asking; votes and confirmations decide
	heard time.Time // when that came, by this node's clock
	met   time.Time // when a question was asked that it has answered; zero: none
}

// heirAgain is how long a module whose VM does not start here stays stopped, at least, before its
// peer is brought into step.
const heirAgain = 5 * time.Second

// handTime bounds a handover: two flushes and a round trip. It is longer than holdTime, briefSave and the call to the
// peer together, so that the phase does not end while the peer's confirmation may still come.
const handTime = 15 * time.Second

// New returns an engine that is not running. It reads what it kept, and changes nothing: the
// engine that it is to replace may still run. It waits for the metadata disk. An error is a record or a state that
// cannot be read or contradicts itself: such a module must not be built, as it would forget what it has promised.
func New(cfg Config) (*Engine, error) {
	e := &Engine{cfg: cfg, self: cfg.Self, peer: cluster.NodeID(cfg.Module.Peer(string(cfg.Self)))}
	e.rt, e.loop, e.untime = cfg.Runtime, make(chan struct{}), func() {}
	e.why, e.since = "it is stopped", e.rt.Now()
	e.work.words = cfg.Module.Kind.Words()
	e.incarnation = e.since.UnixNano()
	e.box.init()
	e.status.soon = make(chan struct{}, 1)
	e.ctx, e.cancel = context.WithCancel(context.Background())
	e.shelf = newShelf(e)
	e.leading, e.following = newLeading(e), newFollowing(e)
	var err error
	if e.rec, e.keep, err = e.read(); err != nil {
		return nil, err
	}
	e.proofs, e.budget = newProofs(e), cfg.Budget
	if e.budget == nil {
		e.budget = proof.NewBudget(proof.Share)
	}
	e.m.Link = appmodules.NoLink
	e.shelf.look(true)
	e.publish()
	return e, nil
}

// Start runs the engine until Stop. An engine that it replaces has stopped, and what that has saved since New is read
// here. It waits for the metadata disk: to read without a limit, to save for briefSave. Until the workload has said how
// it stands, at most quickTime, votes are given and states exchanged, but commands are refused and nothing is decided.
func (e *Engine) Start() {
	e.began = e.rt.Now()
	e.vigil.begin(e.began, max(e.cfg.Times.Detection, 4*e.cfg.Times.Tell))
	e.recall(e.read())
	e.budget.Join(e, e.urgent)
	e.cfg.Workload.Watch(e.ctx, func(r appmodules.Report) { e.post(func() { e.onReport(r) }) })
	e.spawn(e.tellLoop)
	e.rt.Go(e.run)
	e.tasks.add()
	e.rt.Begin(func() {
		defer e.tasks.done()
		ctx, cancel := e.rt.WithTimeout(e.ctx, quickTime)
		defer cancel()
		now, err := e.cfg.Workload.State(ctx)
		e.post(func() { e.boot(now, err) })
		e.lookIdle(ctx) // what was edited while this daemon did not run
	})
}

// boot is the first step, once the workload has said how it stands, or does not say it, and what was
// kept is read, which is tried each second. A workload that does not say it counts as down until its next report.
func (e *Engine) boot(now appmodules.Condition, err error) {
	if e.unread {
		e.rt.After(time.Second, func() {
			rec, keep, failed := e.read()
			e.post(func() {
				e.recall(rec, keep, failed)
				e.boot(now, err)
			})
		})
		return
	}
	if err != nil {
		e.cfg.Logger.Warn("cannot read how it stands", "module", e.cfg.Module.Name, "what", e.work.words.Noun, "err", err)
	} else {
		e.work.now = now
	}
	e.booted = true
	e.step(appmodules.Boot, "")
	if e.m.Phase == appmodules.Stopped {
		e.why = e.idle()
		e.withdraw()
	}
	e.publish()
}

// idle says why a module is stopped that nobody has stopped in this run of the daemon, and the way on. Of a record that
// is as Create made it nothing has come yet that both nodes know of.
func (e *Engine) idle() string {
	why := "it is stopped"
	switch {
	case e.rec.Epoch > 1 || e.rec.Epoch == 0:
	case e.rec.Holds(e.self) && e.rec.Alone:
		why = "it was put under protection here and is not started"
	case !e.rec.Holds(e.self) && !e.rec.IsComplete():
		why = fmt.Sprintf("it was put under protection on %s, and its second copy comes here when it is started",
			e.rec.Holder)
	}
	return fmt.Sprintf("%s: `duet start %s`", why, e.cfg.Module.Name)
}

// Stop ends the engine and leaves the workload as it is: its writes wait for the next
// Start. A secondary first gives its primary the chance to go on without it, and what is
// in flight is flushed, both as long as ctx lasts. It returns when nothing of the engine
// runs any more, but for a disk that does not answer: that is waited for a moment, and
// its image is closed when it answers. It is called once, of an engine that was started: it waits for its goroutine.
func (e *Engine) Stop(ctx context.Context) {
	// The order matters: while the owner runs it can be outvoted; with it gone nobody else touches the roles; what is
	// flushed before the volumes are fenced needs no resync; and only closed volumes make kept.Boot empty.
	e.retire(ctx)
	e.budget.Join(e, nil)
	e.cancel()
	e.box.close()
	_ = e.rt.Wait(context.Background(), e.loop, nil) // it has no other end
	_ = e.tasks.wait(context.Background(), e.rt)     // they end with e.ctx
	flush, cancel := e.rt.WithTimeout(ctx, flushTime)
	e.leading.flush(flush)
	cancel()
	e.dismiss()
	last, cancel := e.rt.WithTimeout(context.Background(), flushTime)
	defer cancel()
	if e.shelf.stop(last) {
		e.noteSettled(last)
	}
}

// thawTime is how long a guest whose writes wait keeps its computer from going down. It counts from the call of
// Evacuate; then a frozen guest, which cannot shut down, is ended.
const thawTime = 5 * time.Second

// Evacuate gives the module to the peer because this computer goes down; where the peer
// cannot take over the workload is shut down. It returns when nothing is left to do or ctx ends.
// The next run starts the module again: what is wanted stays as it is in kept. From then on this node takes no right
// that the peer hands over. A module that only follows here is left to Stop.
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

// retire lets a complete secondary be outvoted while it can still answer: its primary loses the link, asks this node
// first, and goes on by its yes (rule 3a), which later nobody could give. It lasts at most a second.
func (e *Engine) retire(ctx context.Context) {
	ctx, cancel := e.rt.WithTimeout(ctx, time.Second)
	defer cancel()
	fenced := false
	_ = e.call(ctx, func() {
		e.retiring = true
		if e.m.Phase == appmodules.Standby {
			fenced = true
			e.dismiss()
		}
	})
	for fenced && ctx.Err() == nil {
		_ = e.call(ctx, func() { fenced = e.rec.IsComplete() })
		_ = sleep(ctx, e.rt, 10*time.Millisecond) // the loop looks at ctx
	}
}

// run is the owner: it takes what was posted, in order. A closure must wait for nothing but a save.
func (e *Engine) run() {
	defer close(e.loop)
	defer func() { e.untime() }()
	for e.rt.Wait(e.ctx, e.box.ready, nil) == nil && e.ctx.Err() == nil {
		for _, fn := range e.box.take() {
			e.awake()
			fn()
		}
	}
}

// awake shows that this goroutine runs, which is the owner's or that of exchanges.
func (e *Engine) awake() {
	if gap := e.vigil.show(e.rt.Now()); gap > 0 {
		e.cfg.Logger.Warn("this process stood still: the peer has to be met anew", "module", e.cfg.Module.Name, "for", gap)
	}
}

// hasMet: the peer was met, or an operator stood in for that, since this engine started, last stood still, or took no
// part.
func (e *Engine) hasMet() bool {
	since := e.vigil.unbroken()
	after := func(t time.Time) bool { return !t.IsZero() && !t.Before(since) }
	return after(e.link.met) || after(e.override)
}

// post runs fn on the engine's goroutine, later; it never blocks. An engine that has stopped drops fn.
func (e *Engine) post(fn func()) { e.box.put(fn) }

// event posts a step, which counts in whatever phase the module is by then.
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

// call runs fn on the engine's goroutine and waits for it, also while that waits for the metadata disk: see soon.
// After an error fn may still run: what it writes must not be read then. The owner itself must not call it.
func (e *Engine) call(ctx context.Context, fn func()) error {
	done := make(chan struct{})
	e.post(func() { fn(); close(done) })
	return e.rt.Wait(ctx, done, e.loop)
}

// spawn runs fn on a goroutine that Stop waits for. ctx ends with the engine; fn waits for nothing that does not end
// soon after ctx, so what may wait for a disk is called by beside.
func (e *Engine) spawn(fn func(ctx context.Context)) {
	e.tasks.add()
	e.rt.Go(func() {
		defer e.tasks.done()
		fn(e.ctx)
	})
}

// Booted waits until the engine has decided what follows from how it ended last; before, its State says that the
// module is stopped.
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

// Configure gives the engine the policy of an edited module, while everything goes on. It counts
// when Configure returns; after an error of ctx it counts a little later. Nothing else of m may differ here. Only the
// engine's goroutine reads the policy; what goes on elsewhere was given what it needs. An ask that is under way
// fences by the one that it began with; volumes that follow keep the disk budget of New.
func (e *Engine) Configure(ctx context.Context, m appmodules.Module) error {
	return e.call(ctx, func() {
		e.cfg.Module.Policy = m.Policy // alone: other goroutines read the rest
		if governed, ok := e.cfg.Workload.(appmodules.Governed); ok {
			governed.SetPolicy(m.Policy)
		}
		e.leading.configure()
		e.following.configure()
		e.clock()
		e.look()
		e.publish()
	})
}

// ViewChanged tells the engine to look at the cluster again.
func (e *Engine) ViewChanged() { e.post(e.look) }
