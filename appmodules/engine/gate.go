package engine

import (
	"context"
	"sync"
	"time"
)

// Gate lets the VMs of a node start in the order of their policies: of those that
// want to start at the same time the lowest order goes first, the next order when
// all of them have started and their delay has passed. A VM that starts alone
// never waits. Safe for concurrent use.
type Gate struct {
	rt     Runtime
	mu     sync.Mutex
	starts map[*start]struct{}
}

// start is one that waits, goes, or is over while its delay holds others back: it is in starts until then.
type start struct {
	order int           // of the policy; lower ones first
	open  chan struct{} // closed when it may go
}

// NewGate returns an open gate.
func NewGate(rt Runtime) *Gate { return &Gate{rt: rt, starts: make(map[*start]struct{})} }

// Enter waits for the turn of order: for gatherTime at least, and as long as starts of lower orders last. The caller
// calls leave once, when the VM has started or has not, with the time for which later orders are still held back; 0
// after a failure. After an error, which is that of ctx, there is no turn and nothing to leave. A start of a lower
// order that comes when another one goes by now overtakes only those that still wait.
func (g *Gate) Enter(ctx context.Context, order int) (leave func(delay time.Duration), err error) {
	s := &start{order: order, open: make(chan struct{})}
	g.mu.Lock()
	g.starts[s] = struct{}{}
	g.mu.Unlock()
	// Others of the same failover announce themselves within this moment.
	_ = sleep(ctx, g.rt, gatherTime) // the wait below looks at ctx
	g.mu.Lock()
	g.release()
	g.mu.Unlock()
	gone := func(delay time.Duration) {
		drop := func() {
			g.mu.Lock()
			defer g.mu.Unlock()
			delete(g.starts, s)
			g.release()
		}
		if delay <= 0 {
			drop()
			return
		}
		g.rt.After(delay, drop)
	}
	if err := g.rt.Wait(ctx, s.open, nil); err != nil {
		gone(0)
		return nil, err
	}
	return gone, nil
}

// gatherTime is small beside a VM's start and long enough for engines that lost
// the same peer at the same moment.
const gatherTime = 100 * time.Millisecond

// release opens the way for every start of the lowest order present, those in their delay among them. mu is held.
func (g *Gate) release() {
	lowest := 0
	first := true
	for s := range g.starts {
		if first || s.order < lowest {
			lowest, first = s.order, false
		}
	}
	for s := range g.starts {
		if s.order == lowest {
			select {
			case <-s.open:
			default:
				close(s.open)
			}
		}
	}
}
