package node

import (
	"context"
	"errors"
	"fmt"
	"sync"
)

// life is what runs in a node and how it ends: what was begun last ends first. Its methods but spawn are for New,
// Start and Stop only, which take turns; the list of steps has no lock.
type life struct {
	ctx    context.Context // the node's: ends with the step "watchers", at the latest in teardown
	cancel context.CancelFunc
	wg     sync.WaitGroup // of spawn, and of the connections that a spawned goroutine accepts
	undo   []step         // what Stop does, last first
}

// step is one named teardown.
type step struct {
	name string
	do   func(context.Context) error
}

// begin comes before all else: what is built may spawn.
func (l *life) begin() { l.ctx, l.cancel = context.WithCancel(context.Background()) }

// push has Stop do something before all that was pushed earlier. Push right after what it undoes has begun: a step
// that is missing leaves a part running on a closed store.
func (l *life) push(name string, do func(context.Context) error) {
	l.undo = append(l.undo, step{name, do})
}

// teardown ends everything; it may be repeated. Each step is taken, whatever the one before said, and off the list
// before it is taken. ctx bounds the steps; the goroutines of spawn are waited for in the end, however long they
// take. The store is closed before the last of them has ended.
func (l *life) teardown(ctx context.Context) error {
	var errs []error
	for len(l.undo) > 0 {
		last := l.undo[len(l.undo)-1]
		l.undo = l.undo[:len(l.undo)-1]
		if err := last.do(ctx); err != nil {
			errs = append(errs, fmt.Errorf("stop %s: %w", last.name, err))
		}
	}
	l.cancel()
	l.wg.Wait()
	return errors.Join(errs...)
}

// spawn runs a goroutine that ends with the node: fn returns soon after its context ends. Any goroutine may call
// it.
func (l *life) spawn(fn func(context.Context)) {
	l.wg.Go(func() { fn(l.ctx) })
}

// outlive runs fn until Stop comes to it: not until the node's goroutines end, which is before. That step waits for
// fn, which returns soon after its context ends, without a bound of its own.
func (l *life) outlive(name string, fn func(context.Context)) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		fn(ctx)
	}()
	l.push(name, func(context.Context) error {
		cancel()
		<-ended
		return nil
	})
}
