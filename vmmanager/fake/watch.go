package fake

import (
	"context"

	"duet/vmmanager"
)

// Watch sends an Event for every change of every VM until ctx ends. Every change after it has returned is seen; the
// channel is closed, by its goroutine, when ctx has ended.
func (h *Hypervisor) Watch(ctx context.Context) (<-chan vmmanager.Event, error) {
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	q := vmmanager.NewEventQueue()
	h.mu.Lock()
	h.watchers[q] = struct{}{}
	h.mu.Unlock()
	out := make(chan vmmanager.Event)
	go func() {
		defer close(out)
		q.DrainTo(ctx, out)
		h.mu.Lock()
		delete(h.watchers, q)
		h.mu.Unlock()
	}()
	return out, nil
}

// tellLocked gives an event to every reader.
func (h *Hypervisor) tellLocked(e vmmanager.Event) {
	for q := range h.watchers {
		q.Put(e)
	}
}
