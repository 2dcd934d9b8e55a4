package vmmanager

import (
	"fmt"
	"testing"
)

// TestQueue: a reader that is far behind loses intermediate events, and never the last one of a VM.
func TestQueue(t *testing.T) {
	q := NewEventQueue()
	const vms = 10
	for i := range 10 * backlog {
		q.Put(Event{VM: fmt.Sprint(i % vms), State: State(i % 7), Cause: Cause(i % 5)})
	}
	last, n := map[string]Event{}, 0
	for e, ok := q.take(); ok; e, ok = q.take() {
		last[e.VM] = e
		n++
	}
	if n != backlog {
		t.Errorf("%d events waited, want %d", n, backlog)
	}
	for i := 10*backlog - vms; i < 10*backlog; i++ {
		want := Event{VM: fmt.Sprint(i % vms), State: State(i % 7), Cause: Cause(i % 5)}
		if last[want.VM] != want {
			t.Errorf("last event of %s: %v, want %v", want.VM, last[want.VM], want)
		}
	}
}
