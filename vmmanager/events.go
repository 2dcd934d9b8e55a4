package vmmanager

import (
	"context"
	"slices"
	"sync"
)

// backlog is how many events wait for a slow reader before intermediate ones are dropped.
const backlog = 256

// EventQueue passes events on to a reader that may be slow, and never keeps the writer
// waiting. Any goroutine may put; one reader at a time. It grows past backlog only where more VMs than that have an
// event waiting: then the last one of each is left.
type EventQueue struct {
	mu     sync.Mutex
	events []Event
	filled chan struct{} // holds a token if events were put in since it was taken
}

// NewEventQueue returns an empty queue.
func NewEventQueue() *EventQueue { return &EventQueue{filled: make(chan struct{}, 1)} }

// Put adds an event. When the queue is full, the oldest event that a later one
// of the same VM has overtaken goes, so the last one of each VM always stays.
func (q *EventQueue) Put(e Event) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.events = append(q.events, e)
	if len(q.events) > backlog {
		for i, old := range q.events {
			if slices.ContainsFunc(q.events[i+1:], func(e Event) bool { return e.VM == old.VM }) {
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
func (q *EventQueue) take() (Event, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.events) == 0 {
		return Event{}, false
	}
	e := q.events[0]
	q.events = q.events[1:]
	return e, true
}

// DrainTo sends events to out until ctx ends. An event that it has taken when ctx ends is lost.
func (q *EventQueue) DrainTo(ctx context.Context, out chan<- Event) {
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
