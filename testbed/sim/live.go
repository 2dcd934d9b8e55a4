package sim

import (
	"sync"
	"time"
)

// live lets goroutines of production take part in a world. Their clock is that of a
// testing/synctest bubble, in which the world itself is one goroutine: time passes only
// when all of them wait, and an event happens only when they do. What they have to say
// to the world they post.
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

// post has the world do fn. Any goroutine.
func (l *live) post(fn func()) {
	l.mu.Lock()
	l.posted = append(l.posted, fn)
	l.mu.Unlock()
	select {
	case l.bell <- struct{}{}:
	default:
	}
}

// settle does what was posted until every goroutine waits for time or for an event.
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

// runLive is run for a world with live goroutines.
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

// sleep lets time pass until then, or until something is posted.
func (w *world) sleep(then int64) {
	timer := time.NewTimer(time.Duration(then - w.now))
	select {
	case <-timer.C:
	case <-w.live.bell:
		timer.Stop()
	}
	w.now = int64(time.Since(w.live.start))
}

// gate is the life of a process as its live goroutines meet it at whatever reaches out
// of it: a frozen one gets no further, a dead one reaches nothing.
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
