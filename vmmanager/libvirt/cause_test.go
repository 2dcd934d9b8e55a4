//go:build linux && cgo && libvirt_dlopen

package libvirt

import (
	"testing"

	"duet/vmmanager"
)

func TestStopCause(t *testing.T) {
	for _, c := range []struct {
		h    how
		run  run
		want vmmanager.Cause
	}{
		{endedItself, run{}, vmmanager.ByGuest},
		{endedItself, run{asked: true}, vmmanager.ByAdmin},
		{endedItself, run{watchdog: true}, vmmanager.ByPanic},
		{endedItself, run{ours: asked}, vmmanager.ByDuet},
		{endedByForce, run{}, vmmanager.ByAdmin},
		{endedByForce, run{ours: asked}, vmmanager.ByDuet},
		{endedByForce, run{ours: killed}, vmmanager.ByDuet},
		{endedDead, run{}, vmmanager.ByCrash},
		{endedDead, run{ours: asked}, vmmanager.ByCrash}, // it crashed while it shut down
		{endedDead, run{ours: killed}, vmmanager.ByDuet},
		{endedDead, run{crashed: true}, vmmanager.ByPanic},
		{endedPanic, run{}, vmmanager.ByPanic},
		{endedPanic, run{ours: asked}, vmmanager.ByPanic},
		{endedByForce, run{crashed: true, ours: killed}, vmmanager.ByDuet},
	} {
		if got := stopCause(c.h, c.run); got != c.want {
			t.Errorf("how %d, %+v: %s, want %s", c.h, c.run, got, c.want)
		}
	}
}

// TestStops: what Duet did to one run says nothing about the next.
func TestStops(t *testing.T) {
	var s stops
	if s.of("a", 1) != untouched {
		t.Error("a run nobody touched is not untouched")
	}
	s.note("a", 1, asked)
	s.note("a", 1, killed)
	s.note("a", 1, asked) // a late repetition must not hide the kill
	if s.of("a", 1) != killed || s.of("a", 0) != killed || s.of("a", 2) != untouched || s.of("b", 1) != untouched {
		t.Error("the wrong run is taken for the killed one")
	}
	s.note("a", 2, asked)
	if s.of("a", 2) != asked {
		t.Error("a new run inherits the kill of an older one")
	}
	s.forget("a")
	if s.of("a", 2) != untouched {
		t.Error("forgotten, but not untouched")
	}
}

// TestLateEndOfAnEarlierRun: the event that a VM has ended may come after its next start and its next end. It was then
// taken for an admin's doing, and the policy for that was applied to a VM that Duet itself restarts.
func TestLateEndOfAnEarlierRun(t *testing.T) {
	var s stops
	for run := 1; run <= 3; run++ {
		s.begin("vm")
		s.began("vm", run)
		s.note("vm", run, killed)
	}
	s.begin("vm")
	s.began("vm", 4)
	for run, want := range map[int]stop{1: killed, 2: killed, 3: killed, 4: untouched, 0: untouched} {
		if got := s.of("vm", run); got != want {
			t.Errorf("run %d: %v, want %v", run, got, want)
		}
	}
	s.note("vm", 4, asked)
	if got := s.of("vm", 0); got != asked {
		t.Errorf("the present run: %v, want that it was asked to end", got)
	}
	s.note("vm", 0, killed) // of a run that nobody could be asked for
	s.begin("vm")
	s.began("vm", 1) // libvirtd was restarted, and counts anew
	for _, run := range []int{0, 1, 5} {
		if got := s.of("vm", run); got != untouched {
			t.Errorf("run %d after a restart of libvirtd: %v", run, got)
		}
	}
}
