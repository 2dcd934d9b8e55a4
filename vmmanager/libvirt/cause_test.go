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
