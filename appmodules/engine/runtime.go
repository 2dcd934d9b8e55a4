package engine

import (
	"context"
	"sync"
	"time"
)

// Runtime is the time and the concurrency an engine runs on: Real, or a simulated
// one in which all engines of a cluster run in one goroutine on a virtual clock.
// Whatever an engine waits for it waits for through its Runtime.
type Runtime interface {
	// Now is the time; differences of two times count, not their date.
	Now() time.Time
	// Go runs fn at the same time as the caller.
	Go(fn func())
	// Begin is Go for what may wait for a disk or another program: it begins at once.
	Begin(fn func())
	// After runs fn after d, on a goroutine of its own, unless stop is called before. A stop that comes too late does
	// nothing: whoever uses After recognises a late fn by a token.
	After(d time.Duration, fn func()) (stop func())
	// Wait returns nil when done is closed or has a token, which it takes; ErrStopped
	// when end is closed; otherwise the error of ctx. Done and end may be nil. Where several are so when it looks, the
	// first in this order counts; but done may be closed a moment after an error was decided, see isOver.
	Wait(ctx context.Context, done, end <-chan struct{}) error
	// WithTimeout is context.WithTimeout by the clock of the Runtime.
	WithTimeout(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc)
}

// Real is the Runtime of a running node.
type Real struct{}

// Now is time.Now.
func (Real) Now() time.Time { return time.Now() }

// Go starts a goroutine.
func (Real) Go(fn func()) { go fn() }

// Begin starts a goroutine.
func (Real) Begin(fn func()) { go fn() }

// After is time.AfterFunc.
func (Real) After(d time.Duration, fn func()) (stop func()) {
	t := time.AfterFunc(d, fn)
	return func() { t.Stop() }
}

// Wait is a select, and looks again at what comes before the case that it took: a select takes any that is ready.
func (Real) Wait(ctx context.Context, done, end <-chan struct{}) error {
	select {
	case <-done:
		return nil
	case <-end:
	case <-ctx.Done():
	}
	select {
	case <-done:
		return nil
	default:
	}
	select {
	case <-end:
		return ErrStopped
	default:
		return ctx.Err()
	}
}

// WithTimeout is context.WithTimeout.
func (Real) WithTimeout(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, d)
}

// sleep returns after d, or early with the error of ctx.
func sleep(ctx context.Context, rt Runtime, d time.Duration) error {
	short, cancel := rt.WithTimeout(ctx, d)
	defer cancel()
	_ = rt.Wait(short, nil, nil) // ends with short, which is what was wanted
	return ctx.Err()
}

// together runs fn for 0 to n-1 at the same time and waits for all, however long: fn bounds itself. One runs on the
// caller's goroutine.
func together(rt Runtime, n int, fn func(i int)) {
	if n == 1 {
		fn(0)
		return
	}
	var all tally
	for i := range n {
		all.add()
		rt.Go(func() { defer all.done(); fn(i) })
	}
	_ = all.wait(context.Background(), rt) // it has no other end
}

// tally counts what runs; a sync.WaitGroup that waits through a Runtime. Once somebody waits nothing may be added to
// one that is idle: that wait is over for good.
type tally struct {
	mu   sync.Mutex
	n    int
	idle chan struct{} // closed when n falls to 0; nil: nobody waits
}

func (t *tally) add() {
	t.mu.Lock()
	t.n++
	t.mu.Unlock()
}

func (t *tally) done() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.n--; t.n == 0 && t.idle != nil && !isOver(t.idle) {
		close(t.idle)
	}
}

// wait returns nil once nothing runs; it may be called again.
func (t *tally) wait(ctx context.Context, rt Runtime) error {
	t.mu.Lock()
	if t.idle == nil {
		t.idle = make(chan struct{})
		if t.n == 0 {
			close(t.idle)
		}
	}
	t.mu.Unlock()
	return rt.Wait(ctx, t.idle, nil)
}

// beside runs fn, which may wait for a disk or another program, on a goroutine of its
// own and returns what it returns, or the error of ctx when that ends first: fn then
// goes on, and its result is lost. So fn owns all that it uses, and what it opens it must hand over by itself. An
// error may be of ctx although fn has just ended well.
func beside(ctx context.Context, rt Runtime, fn func() error) error {
	done := make(chan struct{})
	var err error
	rt.Begin(func() {
		err = fn()
		close(done)
	})
	if isOver(done) {
		return err
	}
	if waited := rt.Wait(ctx, done, nil); waited != nil {
		return waited
	}
	return err
}

// isOver reports whether ch is closed.
func isOver(ch <-chan struct{}) bool {
	select {
	case <-ch:
		return true
	default:
		return false
	}
}
