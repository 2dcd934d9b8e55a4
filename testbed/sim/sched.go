package sim

import (
	"context"
	"iter"
	"math/rand/v2"
	"time"

	"duet/appmodules/engine"
)

// world is the virtual time and everything that is going to happen. Nothing here is locked: one goroutine drives
// it, and the tasks are coroutines of that goroutine. Events of one instant happen in the order in which they
// were scheduled, so a run depends on rng alone; whatever ranges over a map on the way to an event would break
// that (TestSame).
type world struct {
	now    int64      // ns since the beginning
	seq    uint64     // of the last event; also its id, so that it is never used twice
	queue  []*event   // a heap by (at, seq)
	free   []*event   // happened; used again
	idle   []*task    // coroutines without work
	rng    *rand.Rand // the only source of chance while a script runs
	strict bool       // check that quiet events are quiet: slow, for tests of the simulator itself
	live   *live      // nil: nothing happens beside the world
}

// event is something that happens at an instant, in a process or, without one, to the world.
type event struct {
	at    int64
	seq   uint64
	id    uint64 // 0: it is over
	p     *process
	fn    func() // nil: cancelled
	quiet bool   // it ends no wait, unless it says so by wake
}

// timer is an event that can be cancelled. An event is used again after it has happened, so the id tells whether
// it is still the same one.
type timer struct {
	e  *event
	id uint64
}

func (t timer) stop() {
	if t.e.id == t.id {
		t.e.fn = nil
	}
}

// process is one life of a daemon. It is the engine.Runtime of what runs in it. The host has one as well, in
// which the guest runs. A process is not begun again: the next life of a daemon is another value, and what was
// scheduled for the dead one does not happen.
type process struct {
	w       *world
	skew    time.Duration // of its clock
	dead    bool          // for good
	frozen  bool          // SIGSTOP: its events gather in backlog; computers around it go on
	woken   bool          // something may have ended a wait
	backlog []*event      // what would have happened while it was frozen
	waiting []*task       // in the order in which they began to wait; the first that is ready goes on first
	running *task         // innermost, as a task may start another one; nil: none runs
	instant int64         // of the last wait
	waits   int           // within it
	spins   func()        // is told that it never ends
	gate    *gate         // of its live goroutines; nil: it has none
}

var _ engine.Runtime = (*process)(nil)

// task is one goroutine of a process, as a coroutine, and what it waits for. When it has ended the coroutine
// serves another one. At most one of cond and done, end is set: cond by what is simulated, the channels by the
// engine. All of them are polled, so whoever changes what a cond looks at calls wake, or does so in an event
// that is not quiet.
type task struct {
	fn    func()
	next  func() (waits, more bool)
	stop  func()
	yield func(waits bool) bool // false: the coroutine is stopped, as its process is dead

	ctx       context.Context
	cond      func() bool
	done, end <-chan struct{}
	got       result
}

// result is how a wait ended.
type result uint8

const (
	cancelled result = iota
	happened
	ended
)

// killed unwinds the tasks of a process that died. Calls that a task has deferred do run on the way, which a
// SIGKILL would not let them; a wait in one of them panics again.
type killed struct{}

// at lets fn happen in p after d.
func (w *world) at(d time.Duration, p *process, fn func()) timer {
	return w.schedule(d, p, fn, false)
}

// quiet is at for what ends no wait of a task: nobody is asked whether he can go on. That spares a poll of all
// tasks for each request of the guest. A quiet event that ends a wait all the same leaves a task asleep, which
// only strict notices.
func (w *world) quiet(d time.Duration, p *process, fn func()) { w.schedule(d, p, fn, true) }

func (w *world) schedule(d time.Duration, p *process, fn func(), quiet bool) timer {
	w.seq++
	e := w.event()
	*e = event{at: w.now + int64(d), seq: w.seq, id: w.seq, p: p, fn: fn, quiet: quiet}
	w.push(e)
	return timer{e, e.id}
}

func (w *world) event() *event {
	if last := len(w.free) - 1; last >= 0 {
		e := w.free[last]
		w.free = w.free[:last]
		return e
	}
	return &event{}
}

// in lets fn happen in p now. Only what happens to the world itself may call it. It does not happen at once in a
// frozen process, nor while one of its tasks runs: then it becomes an event of this instant. In a dead one it
// does not happen at all.
func (w *world) in(p *process, fn func()) {
	if p.frozen || p.running != nil {
		w.quiet(0, p, fn)
		return
	}
	if !p.dead {
		fn()
		p.settle()
	}
}

// jitter is a random time up to d, so that what happens at the same time happens in any order.
func (w *world) jitter(d time.Duration) time.Duration {
	return time.Duration(w.rng.Int64N(int64(d) + 1))
}

// run lets things happen until the virtual time end, or until stop says so.
func (w *world) run(end time.Duration, stop func() bool) {
	if w.live != nil {
		w.runLive(int64(end), stop)
		return
	}
	for len(w.queue) > 0 && w.queue[0].at <= int64(end) {
		if stop != nil && stop() {
			return
		}
		w.now = w.queue[0].at
		w.first()
	}
	if stop == nil || !stop() {
		w.now = max(w.now, int64(end))
	}
}

// first lets the first event happen.
func (w *world) first() {
	e := w.pop()
	if w.happen(e) {
		e.id, e.fn, e.p = 0, nil, nil
		w.free = append(w.free, e)
	}
}

// happen reports whether e is over. What a frozen process missed is kept and not lost: a packet lies in its
// socket, a timer is overdue.
func (w *world) happen(e *event) bool {
	p := e.p
	switch {
	case e.fn == nil:
	case p == nil:
		e.fn()
	case p.dead:
	case p.frozen:
		p.backlog = append(p.backlog, e)
		return false
	default:
		e.fn()
		p.woken = p.woken || !e.quiet
		p.settle()
	}
	return true
}

// wake says that a wait may have ended.
func (p *process) wake() { p.woken = true }

// settle lets the tasks go on whose wait is over.
func (p *process) settle() {
	if p.woken {
		p.poll()
		return
	}
	for _, t := range p.waiting {
		if p.w.strict && t.ready() {
			panic("a task was not woken")
		}
	}
}

// poll: a task that is resumed may end any other wait, that of an earlier one included; so it looks from the
// beginning again until nobody is ready.
func (p *process) poll() {
	for i := 0; i < len(p.waiting); i++ {
		if t := p.waiting[i]; t.ready() {
			p.waiting = append(p.waiting[:i], p.waiting[i+1:]...)
			p.resume(t)
			i = -1 // what has run may have ended any wait
		}
	}
	p.woken = false
}

// start runs fn as a task.
func (p *process) start(fn func()) {
	var t *task
	if last := len(p.w.idle) - 1; last >= 0 {
		t, p.w.idle = p.w.idle[last], p.w.idle[:last]
	} else {
		t = &task{}
		t.next, t.stop = iter.Pull(t.run)
	}
	t.fn = fn
	p.resume(t)
}

// run does one fn after the other.
func (t *task) run(yield func(bool) bool) {
	t.yield = yield
	for {
		t.once()
		if !yield(false) {
			return
		}
	}
}

// once: a panic that is not killed is a fault of the program: it is not caught, and ends the test.
func (t *task) once() {
	defer func() {
		if r := recover(); r != nil && r != any(killed{}) {
			panic(r)
		}
	}()
	t.fn()
}

// resume lets a task run to its next wait or its end. It may kill its own process on the way, by what it does to
// the world; then it is unwound as soon as it waits.
func (p *process) resume(t *task) {
	before := p.running
	p.running = t
	waits, _ := t.next()
	p.running = before
	p.woken = true
	switch {
	case waits && p.dead: // it died while it ran
		t.stop()
	case waits:
		p.waiting = append(p.waiting, t)
	default:
		*t = task{next: t.next, stop: t.stop, yield: t.yield}
		p.w.idle = append(p.w.idle, t)
	}
}

// close ends the coroutines that are left.
func (w *world) close() {
	for _, t := range w.idle {
		t.stop()
	}
	w.idle = nil
}

// kill ends the process between two instructions. That is: while none of its tasks runs, or at the next wait of
// the one that does.
func (p *process) kill() {
	p.dead = true
	p.gate.set(false, true)
	for _, t := range p.waiting {
		t.stop()
	}
	p.waiting, p.backlog = nil, nil
}

// freeze stops it, thaw lets it go on: whatever it missed happens at once.
func (p *process) freeze() {
	p.frozen = true
	p.gate.set(true, false)
}

// thaw: the order of what was missed is kept; its age is not. A process can tell that it did not run only by its
// clock.
func (p *process) thaw() {
	p.frozen = false
	p.gate.set(false, false)
	for _, e := range p.backlog {
		p.w.seq++
		e.at, e.seq = p.w.now, p.w.seq
		p.w.push(e)
	}
	p.backlog = nil
}

// ready reports whether the wait is over, and takes the token if there is one. A token is taken from done or end
// by the look itself, so a task that is ready must be resumed. What has happened counts before end, and both
// before the end of ctx, as engine.Runtime says; a select of production takes any of those that are ready.
func (t *task) ready() bool {
	t.got = happened
	if t.cond != nil && t.cond() || received(t.done) {
		return true
	}
	if t.got = ended; received(t.end) {
		return true
	}
	t.got = cancelled
	return t.ctx.Err() != nil
}

func received(ch <-chan struct{}) bool {
	if ch == nil {
		return false
	}
	select {
	case <-ch:
		return true
	default:
		return false
	}
}

// wait lets the running task wait for what it has been given. Only the running task may call it: it yields to
// the world. A wait that is over already does not yield.
func (p *process) wait(t *task) error {
	if p.dead {
		panic(killed{})
	}
	if !t.ready() && !t.yield(true) {
		panic(killed{})
	}
	ctx, got := t.ctx, t.got
	t.ctx, t.cond, t.done, t.end = nil, nil, nil, nil
	switch got {
	case happened:
		return nil
	case ended:
		return engine.ErrStopped
	}
	return ctx.Err()
}

// waitFor lets the running task wait for cond, or for ctx.
func (p *process) waitFor(ctx context.Context, cond func() bool) error {
	t := p.running
	t.ctx, t.cond = ctx, cond
	return p.wait(t)
}

// Now is the process's own clock. Skew is taken over at boot, so a clock does not jump while its daemon runs.
// Clocks decide nothing (cluster/DESIGN.md); a peer whose clock is hours away must change no outcome.
func (p *process) Now() time.Time {
	return time.Unix(1_000_000_000, p.w.now).Add(p.skew)
}

// Go starts a task at this instant or a moment later. The moment is random, so that two goroutines that are
// started together begin in any order.
func (p *process) Go(fn func()) { p.w.at(p.w.jitter(20*time.Microsecond), p, func() { p.start(fn) }) }

// Begin starts a task at once.
func (p *process) Begin(fn func()) { p.start(fn) }

// After starts a task after d.
func (p *process) After(d time.Duration, fn func()) (stop func()) {
	return p.w.at(d, p, func() { p.start(fn) }).stop
}

// tooOften is how many waits of one process within an instant mean that it spins. No time passes while it does,
// so without this a livelock would look like a hang of the test.
const tooOften = 20_000

// Wait lets the running task wait.
func (p *process) Wait(ctx context.Context, done, end <-chan struct{}) error {
	if p.instant != p.w.now {
		p.instant, p.waits = p.w.now, 0
	}
	if p.waits++; p.waits > tooOften {
		p.spins()
		panic(killed{})
	}
	t := p.running
	t.ctx, t.done, t.end = ctx, done, end
	return p.wait(t)
}

// WithTimeout ends the context by virtual time.
func (p *process) WithTimeout(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	late := &deadline{Context: ctx}
	t := p.w.at(d, p, func() {
		late.over = ctx.Err() == nil
		cancel()
	})
	return late, func() { t.stop(); cancel() }
}

// deadline says why it ended, as context.WithTimeout does.
type deadline struct {
	context.Context
	over bool
}

// Err is DeadlineExceeded if the time was up.
func (d *deadline) Err() error {
	if d.over {
		return context.DeadlineExceeded
	}
	return d.Context.Err()
}

// sleep lets the running task wait for d. It is by virtual time and the error is that of ctx. A frozen process
// sleeps on until it is thawed.
func (p *process) sleep(ctx context.Context, d time.Duration) error {
	over := false
	t := p.w.at(d, p, func() { over = true })
	defer t.stop()
	return p.waitFor(ctx, func() bool { return over })
}

func (w *world) before(a, b *event) bool { return a.at < b.at || (a.at == b.at && a.seq < b.seq) }

func (w *world) push(e *event) {
	q := append(w.queue, e)
	for i := len(q) - 1; i > 0; {
		up := (i - 1) / 2
		if !w.before(q[i], q[up]) {
			break
		}
		q[i], q[up] = q[up], q[i]
		i = up
	}
	w.queue = q
}

func (w *world) pop() *event {
	q := w.queue
	first, last := q[0], len(q)-1
	q[0], q[last] = q[last], nil
	q = q[:last]
	for i := 0; ; {
		least := i
		for c := 2*i + 1; c <= 2*i+2 && c < len(q); c++ {
			if w.before(q[c], q[least]) {
				least = c
			}
		}
		if least == i {
			break
		}
		q[i], q[least] = q[least], q[i]
		i = least
	}
	w.queue = q
	return first
}
