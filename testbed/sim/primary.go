package sim

import (
	"errors"
	"slices"
	"time"

	"duet/appmodules"
	"duet/appmodules/engine"
	"duet/blockrepl"
)

const (
	diskTime   = 300 * time.Microsecond // a flush or a commit
	resyncTime = 20 * time.Millisecond  // one block
)

// request is one I/O of the guest.
type request struct {
	op    blockrepl.Op
	block int
	value uint64 // written, or read
	epoch uint64 // in which it was read
	done  func(err error)
}

// flight is a write that has begun, or a block a resync has locked. It is the range lock of blockrepl, a block
// wide: while one is in flights no other request for its block begins. It ends when here, peer and log are all
// false, in whatever order they become so.
type flight struct {
	req        *request // nil: a lock
	block      int
	here, peer bool // still to be done
	log        bool // waits for the generation to be durable
}

// primary is the volume on the node that writes; see the table in blockrepl/DESIGN.md. It does by callbacks on
// one goroutine what blockrepl.Primary does by locks: same states, same order of what is durable before what
// ("What is durable before what" there), block by block. Kinder: hot extents have no bound, as each block is
// marked by itself; a block that cannot be read is not unreadable for a resync or a verify. Harsher: what a resync
// sends counts for the stall clock.
type primary struct {
	tenant
	disk   *disk
	log    *dirtyLog
	id     string                // blockrepl.Lineage.Volume, which nobody reads here
	budget time.Duration         // policy stall_budget
	report func(blockrepl.Event) // in order, as an event of this process; never within the call that causes it

	state    blockrepl.State
	epoch    uint64 // of the last GoAlone or Attach
	hold     hold
	failed   error      // of this copy; never taken back, as in production
	link     *link      // nil: no peer; one at most
	wants    bool       // a generation must be durable before a write is acknowledged
	logging  bool       // it is being stored
	requests []*request // not begun, in the order in which they came
	flights  []*flight  // begun, and locks
	rounds   rounds
	marking  [blocks]bool // being made suspect durably
	catchup  catchup
	locals   []*local // writes and flushes here, the oldest first
	thawed   int64    // when this process last came back from not running
}

// SetStallBudget changes how long a peer that owes an answer is waited for.
func (v *primary) SetStallBudget(d time.Duration) { v.budget = d }

// SetLocalBudget is not followed: the model counts a disk as hung after localBudget, the default of production,
// whatever the policy says.
func (v *primary) SetLocalBudget(time.Duration) {}

// storage is an engine.Storage.
type storage struct{ n *Node }

// Primary: it does not read the dirty log, as that of the model cannot be damaged: `disk N torn` is for the real
// byte path.
func (s storage) Primary(v appmodules.Volume, report func(blockrepl.Event)) (engine.Primary, error) {
	n := s.n
	if err := n.disk.failed(); err != nil {
		return nil, err
	}
	p := &primary{tenant: tenant{n: n, p: n.proc}, disk: &n.disk, log: &n.log, id: v.ID,
		budget: time.Duration(n.c.module.Policy.StallBudget)}
	p.report = func(ev blockrepl.Event) { n.c.w.at(0, p.p, func() { report(ev) }) }
	n.prim, n.intact = p, false
	n.guest.served(p)
	p.watch()
	return p, nil
}

// life is the daemon that serves it.
func (p *primary) life() *process { return p.p }

// submit takes a request of the guest.
func (p *primary) submit(r *request) {
	p.requests = append(p.requests, r)
	p.pump()
}

// pump begins whatever may begin, in the order in which it came. A request that may not begin keeps its place.
// It is called after each change that may let one begin: of state, hold, link, log or flights.
func (p *primary) pump() {
	if p.state == blockrepl.Closed {
		return
	}
	waiting := p.requests
	p.requests = nil
	for _, r := range waiting {
		if !p.begin(r) {
			p.requests = append(p.requests, r)
		}
	}
	p.flush()
}

// begin reports whether r has left the queue. The order of its questions is that of blockrepl's admission:
// state, overlap, hold, durably hot.
func (p *primary) begin(r *request) bool {
	if p.state == blockrepl.Detached || p.state == blockrepl.Frozen || p.failed != nil {
		return false
	}
	switch {
	case r.op == blockrepl.OpFlush:
		p.rounds.waiting = append(p.rounds.waiting, r)
		return true
	case p.busy(r.block) || p.before(r):
		return false
	case r.op == blockrepl.OpRead:
		if p.required() && p.catchup.work[r.block] {
			return false // a failover could take it back
		}
		p.read(r)
		return true
	case p.hold.begun:
		return false
	case !p.log.suspects[r.block]:
		p.mark(r.block)
		return false
	}
	p.issue(r)
	return true
}

// before reports whether an earlier request for the same block waits. That is so also where neither of both
// writes: two requests of a guest that overlap keep their order here, which is more than NBD asks for.
func (p *primary) before(r *request) bool {
	for _, o := range p.requests {
		if o.op != blockrepl.OpFlush && o.block == r.block {
			return true
		}
	}
	return false
}

func (p *primary) busy(block int) bool {
	for _, f := range p.flights {
		if f.block == block {
			return true
		}
	}
	return false
}

// required: it is State.required of blockrepl: no write is acknowledged without the peer.
func (p *primary) required() bool {
	return p.state == blockrepl.Required || p.state == blockrepl.Connected
}

// mark makes a block durably suspect before anything is sent. Law of blockrepl: what could differ after a crash
// now is durable before the first byte is sent anywhere.
func (p *primary) mark(block int) {
	if p.marking[block] {
		return
	}
	p.marking[block] = true
	p.store(func(l *dirtyLog) { l.suspects[block] = true }, func() {
		p.marking[block] = false
		p.pump()
	})
}

// store makes a change of the log durable, then calls fn.
func (p *primary) store(apply func(*dirtyLog), fn func()) { p.commit(apply, fn, p.broken) }

// commit makes a change of this node's log durable. A full disk is told to fail. It follows blockrepl.DirtyLog:
// it takes diskTime, keeps the order of the calls, and is atomic. The log changes at that time also while the
// process is frozen, as the request lies in the kernel by then; fn is told when the process runs. A process that
// dies before is not told, and crash decides what of it happened.
func (n *Node) commit(life *process, apply func(*dirtyLog), fn func(), fail func(error)) {
	if err := n.store.room(); err != nil {
		n.c.w.quiet(diskTime, life, func() { fail(err); life.wake() })
		return
	}
	c := &commit{apply: apply}
	n.log.pending = append(n.log.pending, c)
	n.c.w.at(diskTime, nil, func() {
		if c.gone {
			return
		}
		n.log.pending = n.log.pending[1:] // all take the same time
		apply(&n.log)
		n.c.w.in(life, fn)
	})
}

// issue sends a write to both copies. The peer is sent it first and does its own write meanwhile, as in
// production. Without lonelyPrimary it is waited for in every state that has a link, Syncing included.
func (p *primary) issue(r *request) {
	f := &flight{req: r, block: r.block, here: true, log: p.wants}
	p.flights = append(p.flights, f)
	if p.link != nil {
		f.peer = p.n.c.broken != lonelyPrimary
		p.sendWrite(f)
	}
	if p.wants {
		p.generation()
	}
	p.local(access{blockrepl.OpWrite, r.block, true}, p.n.diskDelay(), func(err error) {
		if err != nil {
			p.broken(err)
			return
		}
		p.disk.put(r.block, r.value)
		f.here = false
		p.settle(f)
	})
}

// localBudget is how long an operation here may take before the disk counts as failed.
const localBudget = 10 * time.Second

var errHung = errors.New("an operation of the local disk does not end")

// local does an operation on the disk here. One that does not end is a failed disk. Only what the guest waits
// for is noted here, so a read that hangs fails nothing (kinder than production, where any call counts that a
// guest waits for).
func (p *primary) local(at access, base time.Duration, fn func(error)) {
	op := &local{p.n.c.w.now}
	p.locals = append(p.locals, op)
	p.io(at, base, func(err error) {
		p.locals = slices.DeleteFunc(p.locals, func(o *local) bool { return o == op })
		fn(err)
	})
}

// local is an operation of this disk that has not ended.
type local struct{ since int64 }

// overdue: the oldest of them takes too long.
func (p *primary) overdue() bool {
	return len(p.locals) > 0 && p.n.c.w.now-max(p.locals[0].since, p.thawed) > int64(localBudget)
}

// broken is the loss of the local copy: writes wait. It is not returned to the guest: production holds a local
// write error, as the guest would remount read-only although the peer has good data.
func (p *primary) broken(err error) {
	if p.failed == nil && p.state != blockrepl.Closed {
		p.failed = err
		p.p.wake()
		p.report(blockrepl.DeviceFailed{Err: err})
	}
}

// generation stores the lineage that says who writes alone. One commit at a time. Whoever waits for it is looked
// at again when it is durable, and the next is begun if the epoch has become another one meanwhile.
func (p *primary) generation() {
	if p.logging {
		return
	}
	p.logging = true
	next := p.log.lineage.With(blockrepl.Generation{Epoch: p.epoch, Holder: p.n.name})
	next.Partial = false
	p.store(func(l *dirtyLog) { l.lineage = next }, func() {
		p.logging = false
		p.judge()
		if p.wants {
			p.generation() // the epoch has changed meanwhile
			return
		}
		for _, f := range append([]*flight(nil), p.flights...) {
			f.log = false
			p.settle(f)
		}
	})
}

// judge says whether a write without a complete peer has to wait for a generation. It follows from state, epoch
// and lineage alone, so it is called whenever one of these has changed.
func (p *primary) judge() {
	newest, ok := p.log.lineage.Newest()
	own := ok && newest.Is(blockrepl.Generation{Epoch: p.epoch, Holder: p.n.name})
	p.wants = (p.state == blockrepl.Alone || p.state == blockrepl.Syncing) && (!own || p.log.lineage.Partial)
}

// settle acknowledges a write that is where it has to be. Nothing is acknowledged in Frozen or Closed, nor when
// this copy has failed, even if both copies have it: the epoch may belong to somebody else by now (rule 2).
func (p *primary) settle(f *flight) {
	if f.req == nil || f.here || f.peer || f.log || p.failed != nil || p.state == blockrepl.Closed ||
		p.state == blockrepl.Frozen {
		return
	}
	if !p.remove(f) {
		return
	}
	if p.link != nil {
		p.rounds.written[f.block] = true
	}
	p.finish(f.req, nil)
	p.pump()
}

func (p *primary) remove(f *flight) bool {
	for i, have := range p.flights {
		if have == f {
			p.flights = append(p.flights[:i], p.flights[i+1:]...)
			if p.hold.begun {
				p.p.wake()
			}
			return true
		}
	}
	return false
}

// finish answers the guest. The checker is told of a write before the guest is, so no read can be judged before
// it.
func (p *primary) finish(r *request, err error) {
	if p.state == blockrepl.Closed {
		err = blockrepl.ErrClosed
	}
	if err == nil && r.op == blockrepl.OpWrite {
		p.n.c.check.acknowledged(p.n, p.epoch, r)
	}
	r.done(err)
	if p.hold.begun {
		p.p.wake()
	}
}

// GoAlone lets writes go on without a peer. The epoch must not be older than that of this volume: ErrState.
// Beyond that it believes the engine; the checker does not.
func (p *primary) GoAlone(epoch uint64) error {
	if l := p.link; l != nil {
		p.drop(l, errors.New("the holder goes on without it"))
	}
	if p.state == blockrepl.Closed || epoch < p.epoch {
		return blockrepl.ErrState
	}
	p.opens()
	p.state, p.epoch = blockrepl.Alone, epoch
	if p.failed != nil {
		return p.failed
	}
	p.clear()
	p.judge()
	if _, ever := p.log.lineage.Newest(); p.wants && (!ever || p.log.lineage.Partial) {
		p.generation()
	}
	p.releasePeer()
	p.pump()
	return nil
}

// opens: from here on this copy is the one that counts.
func (p *primary) opens() {
	if p.state == blockrepl.Detached {
		p.n.c.check.promoted(p.n)
	}
}

// releasePeer ends the wait for a peer that is gone.
func (p *primary) releasePeer() {
	for _, f := range append([]*flight(nil), p.flights...) {
		f.peer = false
		if p.wants && f.req != nil {
			f.log = true
			p.generation()
		}
		p.settle(f)
	}
}

// PeerComplete forgets what differed. Before it the peer has durably said that it is complete (rule 7), which is
// why what differed may be forgotten. Before Drained of this very link it is ErrState.
func (p *primary) PeerComplete() error {
	if p.state != blockrepl.Required || !p.link.drained {
		return blockrepl.ErrState
	}
	p.connected()
	return nil
}

// connected: InStep is stored without waiting for it: until it is durable the log says less than is true, which
// costs a compare and no data.
func (p *primary) connected() {
	p.state = blockrepl.Connected
	newest, ok := p.log.lineage.Newest()
	p.store(func(l *dirtyLog) {
		if ok {
			l.lineage.InStep = newest
		}
	}, func() {})
	p.cool()
	p.pump()
}

// Ticket fits the attachment in which everything was sent.
func (p *primary) Ticket() blockrepl.Ticket {
	t := blockrepl.Ticket{Epoch: p.epoch, Lineage: p.log.lineage}
	if p.link != nil && p.link.drained {
		t.Link = p.link.id
	}
	return t
}

// Close fences and waits: when it returns nothing of this volume is in the disk or the log any more.
func (p *primary) Close() error {
	p.Fence()
	return p.leaves(p.hold.done)
}

// Fence ends the volume: whatever was not acknowledged is not, and the guest tries again elsewhere. It waits for
// nothing, as a vote must not (rule 5). What is in the disk still ends there, before Close does, and is acknowledged
// to nobody, as settle finds Closed.
func (p *primary) Fence() {
	if p.state == blockrepl.Closed {
		return
	}
	l := p.link
	p.state, p.link = blockrepl.Closed, nil
	if l != nil {
		_ = l.end.Close()
	}
	p.n.guest.closed(p)
	all := append(p.requests, p.rounds.waiting...)
	for _, f := range p.flights {
		if f.req != nil {
			all = append(all, f.req)
		}
	}
	p.requests, p.rounds.waiting, p.flights = nil, nil, nil
	for _, r := range all {
		r.done(blockrepl.ErrClosed)
	}
}

// Progress has what the engine looks at.
func (p *primary) Progress() blockrepl.Progress {
	g := blockrepl.Progress{State: p.state, Epoch: p.epoch, Lineage: p.log.lineage, Dirty: int64(p.catchup.left)}
	if l := p.link; l != nil && l.oldest() > 0 {
		g.Lag = time.Duration(p.n.c.w.now - l.oldest())
	}
	return g
}

// Stats counts nothing.
func (p *primary) Stats() blockrepl.Stats { return blockrepl.Stats{} }

var _ engine.Primary = (*primary)(nil)
