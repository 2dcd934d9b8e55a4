package engine

import (
	"testing"
	"time"
)

// TestDazed: what a process says of itself is old from when it last ran until a moment after a standstill, whoever
// looks first; a time in which it could not save is no standstill for that.
func TestDazed(t *testing.T) {
	var v vigil
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	look := func(after time.Duration, want bool) {
		t.Helper()
		if at = at.Add(after); v.dazed(at) != want {
			t.Errorf("at %v it is dazed: %v", at, !want)
		}
	}
	v.begin(at, 2*time.Second)
	look(0, false)
	look(2*time.Second, false)
	look(time.Millisecond, true) // nobody has noticed yet
	v.show(at)
	look(0, true)
	v.show(at)
	look(dazedFor, false)
	v.show(at)
	v.end(at.Add(-dazedFor))
	look(time.Second, false)
}
