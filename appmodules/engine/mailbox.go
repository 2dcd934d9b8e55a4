package engine

import "sync"

// mailbox is an unbounded queue of closures: callbacks of the data path post to it
// and must never block. What it holds is bounded by what can happen to one module. While the owner waits for a save,
// exchanges of states, calls of the peer and commands gather here.
type mailbox struct {
	mu     sync.Mutex
	fns    []func()
	closed bool
	ready  chan struct{} // has a token when fns may be non-empty
}

func (b *mailbox) init() { b.ready = make(chan struct{}, 1) }

// put queues fn, in the order of the calls. Any goroutine; its caller may hold locks, as fn runs without them later.
func (b *mailbox) put(fn func()) {
	b.mu.Lock()
	if !b.closed {
		b.fns = append(b.fns, fn)
	}
	b.mu.Unlock()
	select {
	case b.ready <- struct{}{}:
	default:
	}
}

// take removes all that is queued; nothing, where a token was left of what an earlier take has removed.
func (b *mailbox) take() []func() {
	b.mu.Lock()
	defer b.mu.Unlock()
	fns := b.fns
	b.fns = nil
	return fns
}

// close drops what is queued and everything that comes: who waits for a closure waits for the end of the owner, too.
func (b *mailbox) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed, b.fns = true, nil
}
