package sim

import (
	"context"
	"iter"
	"math/rand/v2"
	"time"

	"duet/appmodules/engine"
)

// world is the virtual time and everything that is going to happen.
type world struct {
	now   int64 // ns since the beginning
	seq   uint64
	queue []*event // a heap by (at, seq)
	rng   *rand.Rand
}

// event is something that happens at an instant, in a process or, without one, to the world.
type event struct {
	at  int64
	seq uint64
	p   *process
	fn  func()
	off bool // cancelled
}

// process is one life of a daemon. It is the engine.Runtime of what runs in it.
type process struct {
	w       *world
	skew    time.Duration // of its clock
	dead    bool
	frozen  bool
	backlog []*event // what would have happened while it was frozen
	waiting []*task
	running *task
	instant int64 // of the last wait
	waits   int   // within it
	spins   bool  // it never ends
}

var _ engine.Runtime = (*process)(nil)

// task is one goroutine of a process, as a coroutine.
type task struct {
	next  func() (struct{}, bool)
	stop  func()
	yield func(struct{}) bool
	ready func() bool // what it waits for
}

// killed unwinds the tasks of a process that died.
type killed struct{}

// at lets fn happen in p after d.
func (w *world) at(d time.Duration, p *process, fn func()) *event {
	w.seq++
	e := &event{at: w.now + int64(d), seq: w.seq, p: p, fn: fn}
	w.push(e)
	return e
}

// jitter is a random time up to d, so that what happens at the same time happens in any order.
func (w *world) jitter(d time.Duration) time.Duration {
	return time.Duration(w.rng.Int64N(int64(d) + 1))
}

// run lets things happen until the virtual time end, or until stop says so.
func (w *world) run(end time.Duration, stop func() bool) {
	for len(w.queue) > 0 && w.queue[0].at <= int64(end) {
		if stop != nil && stop() {
			return
		}
		e := w.pop()
		w.now = e.at
		e.happen()
	}
	if stop == nil || !stop() {
		w.now = max(w.now, int64(end))
	}
}

func (e *event) happen() {
	switch p := e.p; {
	case e.off:
	case p == nil:
		e.fn()
	case p.dead:
	case p.frozen:
		p.backlog = append(p.backlog, e)
	default:
		e.fn()
		p.poll()
	}
}

// poll lets every task go on whose wait is over.
func (p *process) poll() {
	for progress := true; progress; {
		progress = false
		for i := 0; i < len(p.waiting); i++ {
			if t := p.waiting[i]; t.ready() {
				p.waiting = append(p.waiting[:i], p.waiting[i+1:]...)
				p.resume(t)
				progress = true
				break
			}
		}
	}
}

// start runs fn as a task.
func (p *process) start(fn func()) {
	t := &task{}
	t.next, t.stop = iter.Pull(func(yield func(struct{}) bool) {
		t.yield = yield
		defer func() {
			if r := recover(); r != nil && r != any(killed{}) {
				panic(r)
			}
		}()
		fn()
	})
	p.resume(t)
}

func (p *process) resume(t *task) {
	p.running = t
	_, waits := t.next()
	p.running = nil
	if waits {
		p.waiting = append(p.waiting, t)
	}
}

// kill ends the process between two instructions.
func (p *process) kill() {
	p.dead = true
	for _, t := range p.waiting {
		t.stop()
	}
	p.waiting, p.backlog = nil, nil
}

// freeze stops it, thaw lets it go on: whatever it missed happens at once.
func (p *process) freeze() { p.frozen = true }

func (p *process) thaw() {
	p.frozen = false
	for _, e := range p.backlog {
		p.w.seq++
		e.at, e.seq = p.w.now, p.w.seq
		p.w.push(e)
	}
	p.backlog = nil
}

// waitFor lets the running task wait for cond, or for ctx.
func (p *process) waitFor(ctx context.Context, cond func() bool) error {
	ready := func() bool { return cond() || ctx.Err() != nil }
	for !ready() {
		if p.dead {
			panic(killed{})
		}
		t := p.running
		t.ready = ready
		if !t.yield(struct{}{}) {
			panic(killed{})
		}
	}
	if cond() {
		return nil
	}
	return ctx.Err()
}

// Now is the process's own clock.
func (p *process) Now() time.Time {
	return time.Unix(1_000_000_000, p.w.now).Add(p.skew)
}

// Go starts a task at this instant or a moment later.
func (p *process) Go(fn func()) { p.w.at(p.w.jitter(20*time.Microsecond), p, func() { p.start(fn) }) }

// After starts a task after d.
func (p *process) After(d time.Duration, fn func()) (stop func()) {
	e := p.w.at(d, p, func() { p.start(fn) })
	return func() { e.off = true }
}

// tooOften is how many waits of one process within an instant mean that it spins.
const tooOften = 20_000

// Wait lets the running task wait.
func (p *process) Wait(ctx context.Context, done, end <-chan struct{}) error {
	if p.instant != p.w.now {
		p.instant, p.waits = p.w.now, 0
	}
	if p.waits++; p.waits > tooOften {
		p.spins = true
		panic(killed{})
	}
	taken, ended := false, false
	err := p.waitFor(ctx, func() bool {
		if taken || ended {
			return true
		}
		select {
		case <-done:
			taken = true
		default:
			select {
			case <-end:
				ended = true
			default:
			}
		}
		return taken || ended
	})
	if err == nil && !taken {
		return engine.ErrStopped
	}
	return err
}

// WithTimeout ends the context by virtual time.
func (p *process) WithTimeout(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	e := p.w.at(d, p, cancel)
	return ctx, func() { e.off = true; cancel() }
}

// sleep lets the running task wait for d.
func (p *process) sleep(ctx context.Context, d time.Duration) error {
	over := false
	e := p.w.at(d, p, func() { over = true })
	err := p.waitFor(ctx, func() bool { return over })
	e.off = true
	return err
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
