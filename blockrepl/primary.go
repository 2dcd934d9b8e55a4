package blockrepl

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"duet/blockrepl/wire"
)

// Errors of a Primary.
var (
	// ErrRange is returned for a request outside the volume.
	ErrRange = errors.New("request outside the volume")
	// ErrState is returned when a call does not fit the state of the volume.
	ErrState = errors.New("not possible in this state")
	// ErrStalled is the cause of a PeerLost when the peer was silent for longer than the stall budget.
	ErrStalled = errors.New("peer did not answer within the stall budget")
	// ErrPeerIncomplete is returned when only a complete peer would do.
	ErrPeerIncomplete = errors.New("peer is not complete at this epoch")
)

// maxSpan is the longest Zero or Discard handled in one piece: 16 extents.
const maxSpan = 16 * ExtentSize

// PrimaryConfig is what a Primary needs. Device, Log, Node and Events are required.
type PrimaryConfig struct {
	Volume string // name, for logs
	Node   string // this node, the Holder of generations made here
	Device Device
	Log    DirtyLog
	// Identity is the Lineage.Volume of a copy whose log has none yet.
	Identity    string
	Logger      *slog.Logger  // nil: discard
	HotExtents  int           // 0: 1024, so at most 4 GiB are compared after a crash
	StallBudget time.Duration // 0: 2 s
	// LocalBudget is how long a call of Device or Log that a guest may wait for can last
	// before the local copy counts as failed (DeviceFailed with ErrHung); 0: for ever.
	LocalBudget time.Duration
	Events      func(Event)
}

// State is where a Primary stands to its peer.
type State uint8

// The states of a Primary. Only Alone to Connected acknowledge writes.
const (
	Detached  State = iota // start: all I/O waits for Attach or GoAlone
	Alone                  // writes are local; no peer
	Syncing                // writes go to both; losing the peer returns to Alone
	Required               // as Connected, but the peer is not yet known complete, or has regions to catch up
	Connected              // both copies are complete; losing the peer freezes
	Frozen                 // the peer was lost while required: writes wait
	Closed
)

var stateNames = [...]string{"detached", "alone", "syncing", "required", "connected", "frozen", "closed"}

// String is the word admins see.
func (s State) String() string { return stateNames[s] }

// attached says that writes go to a peer.
func (s State) attached() bool { return s >= Syncing && s <= Connected }

// required says that no write may be acknowledged without the peer.
func (s State) required() bool { return s == Required || s == Connected }

// Primary is the Queue of a volume on the node that may write it. It owns no
// policy: the engine attaches peers, answers its events and closes it.
type Primary struct {
	cfg    PrimaryConfig
	log    *slog.Logger
	dev    Device
	fast   FastReader // nil: every read may wait
	mapper Mapper     // nil: no holes known
	start  time.Time

	ctx    context.Context
	cancel context.CancelFunc
	sound  context.Context // ends when the local copy fails, with the reason
	spoil  context.CancelCauseFunc
	wg     sync.WaitGroup

	fence fence

	wakeIssue, wakeFlush, wakeEvents chan struct{}

	mu      sync.Mutex
	changed sync.Cond // broadcast when a condition somebody waits for may have become true
	state   State
	epoch   uint64
	holding bool       // Hold is in force
	failed  error      // local failure: writes wait
	lineage Lineage    // as it is durable
	own     bool       // its newest generation is that of this node at this epoch
	common  Generation // what Lineage.InStep has to become

	table   table
	tracker *tracker
	link    *link
	parting bool // a lost link is being closed
	joining bool // a handshake is in progress
	work    *worklist

	ready     []*flight // may be issued
	held      []*flight // not admitted in this state, in order
	marking   []*flight // wait for a commit
	suspended []*flight // reads of suspect regions, out of the table
	free      []*flight // scratch of the table
	batches   []*batch  // free list
	active    int       // goroutines between taking a batch and settling it
	issued    int       // writes that were issued and have not ended

	commits  commitState
	flushes  []*Request // waiting for the next flush round
	readq    []*flight  // reads that wait for the disk
	readers  int
	events   []Event
	stats    Stats
	guest    latencyMeter
	watch    watch
	local    localWatch
	verify   verifyState
	memory   memory
	progress progressState
	// unreadable are the regions that cannot be read here.
	unreadable unreadable
}

// NewPrimary loads the log of the volume. The volume is Detached; nothing runs before Start.
func NewPrimary(cfg PrimaryConfig) (*Primary, error) {
	entries, lineage, err := cfg.Log.Load()
	if err != nil {
		return nil, fmt.Errorf("load dirty log of %s: %w", cfg.Volume, err)
	}
	if cfg.HotExtents == 0 {
		cfg.HotExtents = 1024
	}
	if cfg.StallBudget == 0 {
		cfg.StallBudget = 2 * time.Second
	}
	p := &Primary{
		cfg: cfg, dev: cfg.Device, start: time.Now(),
		log:        unhurried(cfg.Logger).With("volume", cfg.Volume),
		local:      localWatch{budget: cfg.LocalBudget},
		unreadable: newUnreadable(),
		tracker:    newTracker(cfg.HotExtents, entries),
		lineage:    Lineage{Volume: cfg.Identity},
		wakeIssue:  make(chan struct{}, 1),
		wakeFlush:  make(chan struct{}, 1),
		wakeEvents: make(chan struct{}, 1),
		watch:      watch{budget: cfg.StallBudget, wake: make(chan struct{}, 1)},
	}
	if lineage != nil {
		p.lineage = *lineage
	}
	p.common = p.lineage.InStep
	p.commits.visit.what = "commit of the dirty log"
	p.local.add(&p.commits.visit)
	p.fast, _ = cfg.Device.(FastReader)
	p.mapper, _ = cfg.Device.(Mapper)
	p.changed.L = &p.mu
	p.ctx, p.cancel = context.WithCancel(context.Background())
	p.sound, p.spoil = context.WithCancelCause(context.Background())
	return p, nil
}

// Start runs the goroutines of the volume; Close ends them.
func (p *Primary) Start() {
	p.wg.Add(4)
	go p.notify()
	go p.runIssue()
	go p.runFlush()
	go p.runWatch()
}

// Size is the length of the volume in bytes.
func (p *Primary) Size() int64 { return p.dev.Size() }

// clock is the monotonic time since the Primary was made, in nanoseconds; never 0.
func (p *Primary) clock() int64 { return int64(time.Since(p.start)) + 1 }

// Submit takes a request; see Queue.
func (p *Primary) Submit(r *Request) {
	if r.Op != OpFlush {
		if r.Off < 0 || r.Len < 0 || r.Off > p.dev.Size()-r.Len {
			p.reject(r, ErrRange)
			return
		}
		if r.Len == 0 {
			p.reject(r, nil)
			return
		}
		if r.Len > maxLen(r.Op) {
			p.split(r)
			return
		}
	}
	p.mu.Lock()
	if p.state == Closed {
		p.mu.Unlock()
		p.reject(r, ErrClosed)
		return
	}
	if r.Op == OpFlush {
		p.flushes = append(p.flushes, r)
	} else {
		f := &r.flight
		*f = flight{off: r.Off, end: r.Off + r.Len, excl: r.Op != OpRead, req: r, waiters: f.waiters}
		p.enqueue(f)
	}
	p.mu.Unlock()
}

// reject ends a request that never entered.
func (p *Primary) reject(r *Request, err error) {
	by := r.By
	by.Complete(r, err)
	by.CompleteBatch()
}

// enqueue puts f in the table and admits it if nothing is before it.
func (p *Primary) enqueue(f *flight) {
	if p.table.insert(f) {
		p.admit(f)
		return
	}
	f.step, f.started = stepBlocked, p.clock()
}

// admit is called with mu held when the range of f is its own: it goes on its way,
// or to one of the places where it waits.
func (p *Primary) admit(f *flight) {
	switch {
	case f.req == nil:
		p.grant(f)
	case !f.excl && p.readable():
		p.admitRead(f)
	case f.excl && p.writable():
		p.admitWrite(f)
	default:
		f.step = stepHeld
		p.hold(f)
	}
}

// hold keeps f until the state admits it.
func (p *Primary) hold(f *flight) {
	if f.started == 0 {
		f.started = p.clock()
	}
	p.held = append(p.held, f)
}

// admitWrite lets a write go when its extents are durably hot, and the generation durable.
func (p *Primary) admitWrite(f *flight) {
	var hot bool
	if f.entered {
		hot = p.tracker.isHot(f.off, f.end)
	} else {
		f.entered = true
		hot = p.tracker.enter(f.off, f.end)
	}
	if hot && !p.needGeneration() {
		f.step = stepReady
		p.ready = append(p.ready, f)
		return
	}
	f.step = stepMarking
	if f.started == 0 {
		f.started = p.clock()
	}
	p.marking = append(p.marking, f)
}

// writable says whether writes may start.
func (p *Primary) writable() bool {
	return (p.state == Alone || p.state.attached()) && !p.holding && p.failed == nil
}

// readable says whether reads may start.
func (p *Primary) readable() bool { return p.state != Detached && p.state != Closed }

// reopen admits again what was held, after a change of state.
func (p *Primary) reopen() {
	held := p.held
	p.held = nil
	for _, f := range held {
		p.admit(f)
	}
	marking := p.marking
	p.marking = nil
	for _, f := range marking {
		p.admit(f)
	}
	p.resume()
	wake(p.wakeIssue)
	wake(p.wakeFlush)
	p.changed.Broadcast()
}

// maxLen is the longest request of a kind that is handled in one piece.
func maxLen(op Op) int64 {
	if op == OpRead || op == OpWrite {
		return wire.MaxData
	}
	return maxSpan
}

// split submits a long request in pieces and completes it after the last.
func (p *Primary) split(r *Request) {
	step := maxLen(r.Op)
	s := &splitter{whole: r, left: int((r.Len + step - 1) / step)}
	for at := int64(0); at < r.Len; at += step {
		n := min(step, r.Len-at)
		piece := &Request{Op: r.Op, FUA: r.FUA, Off: r.Off + at, Len: n, By: s}
		if r.Data != nil {
			piece.Data = r.Data[at : at+n]
		}
		p.Submit(piece)
	}
}

// splitter gathers the pieces of one request.
type splitter struct {
	mu    sync.Mutex
	whole *Request
	left  int
	err   error
}

// Complete counts a piece; the last one completes the whole.
func (s *splitter) Complete(_ *Request, err error) {
	s.mu.Lock()
	s.left--
	if s.err == nil {
		s.err = err
	}
	last, err := s.left == 0, s.err
	s.mu.Unlock()
	if last {
		by := s.whole.By
		by.Complete(s.whole, err)
		by.CompleteBatch()
	}
}

// CompleteBatch does nothing: Complete has sent the answer on.
func (s *splitter) CompleteBatch() {}
