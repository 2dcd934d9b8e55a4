package blockrepl

import (
	"time"

	"duet/blockrepl/wire"
)

// pulse tells when this process did not run: a beat that comes late says so. What
// did not answer meanwhile is not to blame, and gets its whole budget anew.
type pulse struct {
	ticked int64 // clock of the last beat
	thawed int64 // clock at which this process last came back from not running
}

// beat is called every so many nanoseconds.
func (p *pulse) beat(now, every int64) {
	if now-p.ticked > 2*every {
		p.thawed = now
	}
	p.ticked = now
}

// watch has the clock of a volume, and the ages that are held against somebody: of what
// the peer has not answered, and of calls of the local device and log.
//
// Invariant: no age counts from before this process last came back from not running.
// Primary.mu guards it, but for start and wake, which do not change.
type watch struct {
	start  time.Time
	pulse  pulse
	budget time.Duration // of the peer
	local  localWatch
	wake   chan struct{} // has a token when a budget has changed
}

func newWatch(peer, local time.Duration) watch {
	return watch{
		start: time.Now(), budget: peer, local: localWatch{budget: local}, wake: make(chan struct{}, 1),
	}
}

// clock is the monotonic time since start, in nanoseconds; never 0.
func (w *watch) clock() int64 { return int64(time.Since(w.start)) + 1 }

// every is how often the ages are looked at: an eighth of the smaller budget.
func (w *watch) every() time.Duration {
	every := w.budget / 8
	if w.local.budget != 0 {
		every = min(every, max(w.local.budget/8, time.Millisecond))
	}
	return every
}

// judge says whether the peer has been silent for too long, or is to be asked for a sign of
// life, as it owes nothing.
func (w *watch) judge(l *link, now int64) (stalled, ping bool) {
	oldest := l.window.oldest()
	silent := time.Duration(now - max(oldest, w.pulse.thawed))
	if ping = oldest == 0 && now-l.pinged >= int64(w.budget)/4; ping {
		l.pinged = now
	}
	return oldest != 0 && silent > w.budget, ping
}

// clock is the monotonic time since the Primary was made, in nanoseconds; never 0.
func (p *Primary) clock() int64 { return p.watch.clock() }

// SetStallBudget changes how long a peer that owes an answer is waited for. Any goroutine may call it.
func (p *Primary) SetStallBudget(d time.Duration) {
	p.mu.Lock()
	p.watch.budget = d
	p.mu.Unlock()
	wake(p.watch.wake)
}

// SetLocalBudget changes how long a call of the device or log may last. Any goroutine may call it.
func (p *Primary) SetLocalBudget(d time.Duration) {
	p.mu.Lock()
	p.watch.local.budget = d
	p.mu.Unlock()
	wake(p.watch.wake)
}

// every is how often the clocks are looked at.
func (p *Primary) every() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.watch.every()
}

// runWatch looks at the ages until the volume is closed.
func (p *Primary) runWatch() {
	defer p.crew.wg.Done()
	every := p.every()
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		select {
		case <-p.crew.ctx.Done():
			return
		case <-p.watch.wake:
			every = p.every()
			ticker.Reset(every)
		case <-ticker.C:
			p.tick(int64(every))
		}
	}
}

// tick loses a peer that is silent for longer than the budget, and pings an idle one.
// If the tick itself is late this process did not run, and the silence proves
// nothing: the peer gets a whole new budget.
func (p *Primary) tick(every int64) {
	p.mu.Lock()
	now, l := p.clock(), p.peer.link
	p.watch.pulse.beat(now, every)
	p.watch.local.overdue(now, p.watch.pulse.thawed, p.hung)
	p.maybeProbe(now)
	if l == nil {
		p.mu.Unlock()
		return
	}
	stalled, ping := p.watch.judge(l, now)
	p.mu.Unlock()
	switch {
	case stalled:
		p.lost(l, ErrStalled)
	case ping:
		p.ping(l)
	}
}

// hung is called for a call of the local device or log that does not return. If a guest
// waits for it, or may have to, this copy has failed; a region that a resync or verify
// cannot read for it is unreadable until it can.
func (p *Primary) hung(v *visit) {
	if v.patient && (v.lock == nil || len(v.lock.waiters) == 0) {
		p.unreadable.note(p, v.off, v.end, p.watch.local.hung(v))
		return
	}
	p.fail(p.watch.local.hung(v))
}

// ping asks for a sign of life, without waiting for it.
func (p *Primary) ping(l *link) {
	if p.post(l, wire.Header{Type: wire.Ping}, nil, nil, true) != nil {
		return
	}
	if err := l.conn.Flush(); err != nil {
		p.lost(l, err)
	}
}
