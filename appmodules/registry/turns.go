package registry

import (
	"context"
	"fmt"
	"sync"
)

// turns lets one goroutine at a time do something with the module of a name, as to make, change or remove it: a peer's
// call is repeated when its path falls silent, and then the first one is often still at work, and what one of them
// undoes another has just made.
type turns struct {
	mu sync.Mutex
	of map[string]*turn
}

// turn is that of one name. It is in the map as long as somebody has it or waits.
type turn struct {
	busy chan struct{} // has a token while somebody has the turn
	want int           // who has it or waits for it; guarded by turns.mu
}

// take waits for the turn of name, as long as ctx lasts. The caller calls done once; it does not call other nodes
// before: two nodes that did so of one module would wait for each other. Who has the turn must not take it again.
func (t *turns) take(ctx context.Context, name string) (done func(), err error) {
	t.mu.Lock()
	if t.of == nil {
		t.of = make(map[string]*turn)
	}
	mine := t.of[name]
	if mine == nil {
		mine = &turn{busy: make(chan struct{}, 1)}
		t.of[name] = mine
	}
	mine.want++
	t.mu.Unlock()
	select {
	case mine.busy <- struct{}{}:
		return func() { <-mine.busy; t.leave(name, mine) }, nil
	case <-ctx.Done():
		t.leave(name, mine)
		return nil, fmt.Errorf("module %s is being changed: %w", name, ctx.Err())
	}
}

// leave ends a turn, or the wait for one; who was the last takes the name off.
func (t *turns) leave(name string, mine *turn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if mine.want--; mine.want == 0 {
		delete(t.of, name)
	}
}

// wanted is how many have the turn of name or wait for it.
func (t *turns) wanted(name string) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	if mine := t.of[name]; mine != nil {
		return mine.want
	}
	return 0
}
