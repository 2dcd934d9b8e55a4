package sim

import (
	"sync"
	"time"
)

// live lets goroutines of production take part in a world. Their clock is that of a testing/synctest bubble, in
// which the world itself is one goroutine: time passes only when all of them wait, and an event happens only
// when they do. What they have to say to the world they post. A goroutine that waits for a mutex does not count
// as waiting: virtual time stands still as long as it does. So nothing may wait in virtual time (sleep, channel,
// condition of somebody else) while it holds a lock that another one wants.
type live struct {
	quiesce func() // returns when every other goroutine waits: synctest.Wait
	start   time.Time

	graves sync.WaitGroup // what ends after its process

	mu     sync.Mutex
	posted []func()
	bell   chan struct{} // capacity one: something was posted
}

func newLive(quiesce func()) *live {
	return &live{quiesce: quiesce, start: time.Now(), bell: make(chan struct{}, 1)}
}

// post has the world do fn. Any goroutine. It never blocks. What one goroutine posts happens in its order;
// between goroutines there is none, which is why runs of the real byte path are not quite the same each time.
func (l *live) post(fn func()) {
	l.mu.Lock()
	l.posted = append(l.posted, fn)
	l.mu.Unlock()
	select {
	case l.bell <- struct{}{}:
	default:
	}
}

// settle does what was posted until every goroutine waits for time or for an event. Whatever fn does may set
// goroutines going, so it waits anew after each round. Events happen only after it.
func (l *live) settle() {
	for {
		l.quiesce()
		l.mu.Lock()
		posted := l.posted
		l.posted = nil
		l.mu.Unlock()
		if len(posted) == 0 {
			return
		}
		for _, fn := range posted {
			fn()
		}
	}
}

// runLive is run for a world with live goroutines. The clock of the bubble is the one that counts: w.now follows
// it, and an event happens at the first instant at which it is due and everybody waits.
func (w *world) runLive(end int64, stop func() bool) {
	for {
		w.live.settle()
		if stop != nil && stop() {
			return
		}
		switch {
		case len(w.queue) > 0 && w.queue[0].at <= min(w.now, end):
			w.first()
		case w.now >= end:
			return
		case len(w.queue) > 0:
			w.sleep(min(end, w.queue[0].at))
		default:
			w.sleep(end)
		}
	}
}

// sleep lets time pass until then, or until something is posted. The world is one of the goroutines of the
// bubble, so this is what lets the virtual clock go on.
func (w *world) sleep(then int64) {
	timer := time.NewTimer(time.Duration(then - w.now))
	select {
	case <-timer.C:
	case <-w.live.bell:
		timer.Stop()
	}
	w.now = int64(time.Since(w.live.start))
}

// gate is the life of a process as its live goroutines meet it at whatever reaches out of it: a frozen one gets
// no further, a dead one reaches nothing. Kinder than SIGSTOP and SIGKILL: a goroutine computes on until it
// meets the gate, and its timers run. Everything that a process does to others (its disk, its connections, its
// guest) passes a gate or an event of the process, so nobody can tell. What the process does to itself can
// differ: a watch that should find that it did not run ticks on time here. The model, whose timers are events of
// the process, has that case.
type gate struct {
	mu           sync.Mutex
	changed      sync.Cond
	frozen, dead bool
}

func newGate(frozen bool) *gate {
	g := &gate{frozen: frozen}
	g.changed.L = &g.mu
	return g
}

// set: a gate of nil belongs to a process of the model. Death is for good.
func (g *gate) set(frozen, dead bool) {
	if g == nil {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.frozen, g.dead = frozen, g.dead || dead
	g.changed.Broadcast()
}

// alive: the process has not died.
func (g *gate) alive() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return !g.dead
}

// pass waits while the process is frozen; false: it is dead.
func (g *gate) pass() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	for g.frozen && !g.dead {
		g.changed.Wait()
	}
	return !g.dead
}
