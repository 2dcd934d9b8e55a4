package blockrepl

import (
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

// Primary is the Queue of a volume on the node that may write it. It owns no
// policy: the engine attaches peers, answers its events and closes it.
//
// It is made of parts, each with an invariant that its own methods keep; what joins them are
// the methods of the Primary. One mutex guards them all, as nearly every step of a request
// concerns several: a write that ends leaves the table, the tracker and the window at once.
// Nothing that waits is done under it: no device, no socket, no Completer; the log is only
// handed a commit.
type Primary struct {
	cfg   PrimaryConfig
	log   *slog.Logger
	dev   localDevice
	fence fence
	crew  crew

	mu         sync.Mutex
	changed    sync.Cond // broadcast when a condition somebody waits for may have become true
	stand      standing
	ledger     ledger
	tracker    *tracker
	traffic    traffic
	peer       attachment
	catchup    catchup
	watch      watch
	events     mailbox
	meter      meter
	verify     verifyState
	memory     memory     // what a proof remembers of both copies
	unreadable unreadable // the regions that cannot be read here
}

// NewPrimary loads the log of the volume. The volume is Detached; nothing runs before Start. It owns neither the
// Device nor the Log, which nobody else may use until Close has returned. A volume that was never started need not
// be closed.
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
		cfg: cfg, dev: newLocalDevice(cfg.Device),
		log:        unhurried(cfg.Logger).With("volume", cfg.Volume),
		tracker:    newTracker(cfg.HotExtents, entries),
		watch:      newWatch(cfg.StallBudget, cfg.LocalBudget),
		events:     newMailbox(),
		unreadable: newUnreadable(),
	}
	p.crew.gather()
	p.ledger.open(cfg.Node, cfg.Identity, lineage)
	p.watch.local.add(&p.ledger.visit)
	p.changed.L = &p.mu
	return p, nil
}

// Start runs the goroutines of the volume; Close ends them.
func (p *Primary) Start() {
	p.crew.wg.Add(4)
	go p.notify()
	go p.runIssue()
	go p.runFlush()
	go p.runWatch()
}

// Size is the length of the volume in bytes.
func (p *Primary) Size() int64 { return p.dev.Size() }

// Submit takes a request; see Queue. It waits for nothing but mu. A request that is longer than what is handled in
// one piece takes effect piece by piece: others may come in between.
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
	if p.stand.state == Closed {
		p.mu.Unlock()
		p.reject(r, ErrClosed)
		return
	}
	if r.Op == OpFlush {
		p.traffic.flush(r)
	} else {
		f := &r.flight
		*f = flight{off: r.Off, end: r.Off + r.Len, excl: r.Op != OpRead, req: r, waiters: f.waiters}
		p.enqueue(f)
	}
	p.mu.Unlock()
}

// reject ends a request that never entered. Mu is not held.
func (p *Primary) reject(r *Request, err error) {
	by := r.By
	by.Complete(r, err)
	by.CompleteBatch()
}

// enqueue puts f in the table and admits it if nothing is before it.
func (p *Primary) enqueue(f *flight) {
	if p.traffic.enter(f, &p.watch) {
		p.admit(f)
	}
}

// admit is called with mu held when the range of f is its own: it goes on its way,
// or to one of the places where it waits.
func (p *Primary) admit(f *flight) {
	switch {
	case f.req == nil:
		p.grant(f)
	case !f.excl && p.stand.readable():
		p.admitRead(f)
	case f.excl && p.stand.writable():
		p.admitWrite(f)
	default:
		p.traffic.wait(f, stepHeld, p.clock())
	}
}

// admitWrite lets a write go when its extents are durably hot, and the generation durable. It is counted in by the
// tracker once, however often it is admitted: from then on its extents cannot cool.
func (p *Primary) admitWrite(f *flight) {
	var hot bool
	if f.entered {
		hot = p.tracker.isHot(f.off, f.end)
	} else {
		f.entered = true
		hot = p.tracker.enter(f.off, f.end)
	}
	if hot && !p.needGeneration() {
		p.traffic.pass(f)
		return
	}
	p.traffic.wait(f, stepMarking, p.clock())
}

// reopen admits again what was held, after a change of state. Mu is held. Who changes the state calls it, or
// requests wait for ever that could go on.
func (p *Primary) reopen() {
	for _, f := range p.traffic.admissible() {
		p.admit(f)
	}
	p.admitMarked()
	p.resume()
	wake(p.crew.wakeIssue)
	wake(p.crew.wakeFlush)
	p.changed.Broadcast()
}

// admitMarked admits again what waited for a commit.
func (p *Primary) admitMarked() {
	for _, f := range p.traffic.marked() {
		p.admit(f)
	}
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
