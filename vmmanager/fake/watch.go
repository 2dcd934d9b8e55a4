package fake

import (
	"context"
	"slices"

	"duet/vmmanager"
)

// backlog is how many events wait for a slow reader before intermediate ones are dropped.
const backlog = 256

// watcher holds the events that one reader of Watch has not taken yet.
type watcher struct {
	events []vmmanager.Event // belongs to Hypervisor.mu
	news   chan struct{}     // holds a token if events came in
}

// Watch sends an Event for every change of every VM until ctx ends.
func (h *Hypervisor) Watch(ctx context.Context) (<-chan vmmanager.Event, error) {
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	w := &watcher{news: make(chan struct{}, 1)}
	h.mu.Lock()
	h.watchers[w] = struct{}{}
	h.mu.Unlock()
	out := make(chan vmmanager.Event)
	go func() {
		defer close(out)
		h.serve(ctx, w, out)
		h.mu.Lock()
		delete(h.watchers, w)
		h.mu.Unlock()
	}()
	return out, nil
}

func (h *Hypervisor) serve(ctx context.Context, w *watcher, out chan<- vmmanager.Event) {
	for {
		h.mu.Lock()
		events := w.events
		if len(events) > 0 {
			w.events = events[1:]
		}
		h.mu.Unlock()
		if len(events) == 0 {
			select {
			case <-w.news:
				continue
			case <-ctx.Done():
				return
			}
		}
		select {
		case out <- events[0]:
		case <-ctx.Done():
			return
		}
	}
}

// tellLocked gives an event to every reader. When a reader is far behind, the
// oldest event that a later one of the same VM has overtaken is dropped.
func (h *Hypervisor) tellLocked(e vmmanager.Event) {
	for w := range h.watchers {
		w.events = append(w.events, e)
		if len(w.events) > backlog {
			for i, old := range w.events {
				if slices.ContainsFunc(w.events[i+1:], func(e vmmanager.Event) bool { return e.VM == old.VM }) {
					w.events = slices.Delete(w.events, i, i+1)
					break
				}
			}
		}
		select {
		case w.news <- struct{}{}:
		default:
		}
	}
}
