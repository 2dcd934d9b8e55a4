package libvirt

import (
	"context"
	"slices"
	"sync"

	"duet/vmmanager"
)

// queueLen is how many events wait for a slow reader before intermediate ones are dropped.
const queueLen = 256

// queue passes events on to a reader that may be slow, and never keeps the writer waiting.
type queue struct {
	mu     sync.Mutex
	events []vmmanager.Event
	filled chan struct{} // holds a token if events were put in since it was taken
}

func newQueue() *queue { return &queue{filled: make(chan struct{}, 1)} }

// put adds an event. When the queue is full, the oldest event that a later one
// of the same VM has overtaken goes, so the last one of each VM always stays.
func (q *queue) put(e vmmanager.Event) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.events = append(q.events, e)
	if len(q.events) > queueLen {
		for i, old := range q.events {
			if slices.ContainsFunc(q.events[i+1:], func(e vmmanager.Event) bool { return e.VM == old.VM }) {
				q.events = slices.Delete(q.events, i, i+1)
				break
			}
		}
	}
	select {
	case q.filled <- struct{}{}:
	default:
	}
}

// take removes the oldest event.
func (q *queue) take() (vmmanager.Event, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.events) == 0 {
		return vmmanager.Event{}, false
	}
	e := q.events[0]
	q.events = q.events[1:]
	return e, true
}

// drainTo sends events to out until ctx ends.
func (q *queue) drainTo(ctx context.Context, out chan<- vmmanager.Event) {
	for {
		e, ok := q.take()
		if !ok {
			select {
			case <-q.filled:
				continue
			case <-ctx.Done():
				return
			}
		}
		select {
		case out <- e:
		case <-ctx.Done():
			return
		}
	}
}
