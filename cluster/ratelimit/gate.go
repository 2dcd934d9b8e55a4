package ratelimit

import (
	"context"
	"errors"
	"sync"
)

// ErrFull is returned where no more may come in, nor wait.
var ErrFull = errors.New("too many at once")

// Limits says how much goes on at once.
type Limits struct {
	All  int // in all
	Each int // from one source
	// Queue is how many from one source may wait for their turn; 0: nobody waits.
	Queue int
}

// Gate bounds what goes on at once, also by source, so that one source cannot keep the
// others out. Any number of goroutines may use it.
type Gate struct {
	limits Limits

	mu      sync.Mutex
	in      int
	by      map[string]*source // those from which somebody is in or waits
	waiting []*turn            // oldest first
}

// source counts what one source takes.
type source struct{ in, waiting int }

// turn is somebody who waits.
type turn struct {
	src  string
	come chan struct{} // closed when it is in
}

// NewGate returns a Gate with nobody in.
func NewGate(l Limits) *Gate { return &Gate{limits: l, by: make(map[string]*source)} }

// Enter lets somebody from src in, or not. Leave follows if it did.
func (g *Gate) Enter(src string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.enter(src)
}

// enter counts somebody in if there is room; the caller holds mu.
func (g *Gate) enter(src string) bool {
	s := g.source(src)
	if g.in >= g.limits.All || s.in >= g.limits.Each {
		g.tidy(src)
		return false
	}
	g.in++
	s.in++
	return true
}

// source is the one of that name; the caller holds mu.
func (g *Gate) source(src string) *source {
	s := g.by[src]
	if s == nil {
		s = &source{}
		g.by[src] = s
	}
	return s
}

// tidy forgets a source of which nobody is there, so that strangers cannot fill the map; the caller holds mu.
func (g *Gate) tidy(src string) {
	if s := g.by[src]; s != nil && s.in == 0 && s.waiting == 0 {
		delete(g.by, src)
	}
}

// Wait lets somebody from src in when it is its turn. It returns ErrFull if too many from there wait already, and
// the error of ctx if that ends first. nil means that it is in, and Leave follows, also if ctx has ended meanwhile.
// Turns come in the order of waiting, but for sources that have their share.
func (g *Gate) Wait(ctx context.Context, src string) error {
	g.mu.Lock()
	if g.enter(src) {
		g.mu.Unlock()
		return nil
	}
	s := g.source(src)
	if s.waiting >= g.limits.Queue {
		g.tidy(src)
		g.mu.Unlock()
		return ErrFull
	}
	s.waiting++
	t := &turn{src: src, come: make(chan struct{})}
	g.waiting = append(g.waiting, t)
	g.mu.Unlock()
	select {
	case <-t.come:
		return nil
	case <-ctx.Done():
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for i, w := range g.waiting {
		if w == t {
			g.waiting = append(g.waiting[:i], g.waiting[i+1:]...)
			s.waiting--
			g.tidy(src)
			return context.Cause(ctx)
		}
	}
	return nil // its turn came in the same moment
}

// Leave ends what Enter or Wait began. It lets in as many of those who wait as there is room for, the oldest first.
func (g *Gate) Leave(src string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.in--
	g.by[src].in--
	g.tidy(src)
	for i := 0; i < len(g.waiting); {
		t := g.waiting[i]
		if !g.enter(t.src) {
			i++
			continue
		}
		g.by[t.src].waiting--
		g.waiting = append(g.waiting[:i], g.waiting[i+1:]...)
		close(t.come)
	}
}
