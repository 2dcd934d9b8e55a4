package engine

import "sync"

// mailbox is an unbounded queue of closures: callbacks of the data path post to it
// and must never block. What it holds is bounded by what can happen to one module.
type mailbox struct {
	mu     sync.Mutex
	fns    []func()
	closed bool
	ready  chan struct{} // has a token when fns may be non-empty
}

func (b *mailbox) init() { b.ready = make(chan struct{}, 1) }

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

func (b *mailbox) take() []func() {
	b.mu.Lock()
	defer b.mu.Unlock()
	fns := b.fns
	b.fns = nil
	return fns
}

// close drops what is queued and everything that comes.
func (b *mailbox) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed, b.fns = true, nil
}
