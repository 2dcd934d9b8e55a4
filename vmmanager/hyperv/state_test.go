package hyperv

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"duet/vmmanager"
)

func TestStateOf(t *testing.T) {
	for s, want := range map[enabledState]vmmanager.State{
		running: vmmanager.Running, off: vmmanager.Off, shutDown: vmmanager.Running, saved: vmmanager.Off,
		paused:   vmmanager.Paused,
		starting: vmmanager.Running, pausedCritical: vmmanager.IOError, offCritical: vmmanager.Off, hibernated: vmmanager.Off,
		pausedOld: vmmanager.Paused, savedOld: vmmanager.Off, 0: vmmanager.Running, 32785: vmmanager.Running,
	} {
		if got := stateOf(s); got != want {
			t.Errorf("state %d: %s, want %s", s, got, want)
		}
	}
}

// TestToStart: a VM that an admin paused went on when Duet started it.
func TestToStart(t *testing.T) {
	for s, want := range map[enabledState]bool{off: true, offCritical: true, saved: true, savedOld: true, hibernated: true,
		pausedCritical: true, running: false, starting: false, paused: false, pausedOld: false, shutDown: false} {
		if got := toStart(s); got != want {
			t.Errorf("state %d: %t, want %t", s, got, want)
		}
	}
}

// TestStops: a VM that Duet stopped once, and that an admin has started since, was told as stopped by Duet when its
// guest shut it down.
func TestStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s stops
		state := func(s vmmanager.State) map[string]vmmanager.State { return map[string]vmmanager.State{"vm": s} }
		up, down := state(vmmanager.Running), state(vmmanager.Off)
		var since time.Time
		look := func(was, is map[string]vmmanager.State) {
			time.Sleep(time.Second)
			began := time.Now()
			s.past(was, is, since)
			since = began
			time.Sleep(time.Second)
		}
		look(up, up)
		s.note("vm")
		look(up, up)
		look(up, down)
		look(down, down)
		if !s.ours("vm") {
			t.Error("it is forgotten before the VM is up again")
		}
		look(down, up)
		if s.ours("vm") {
			t.Error("somebody has started the VM, and its end would be Duet's")
		}
		look(up, down)
		s.note("vm") // it is up, which no look has seen yet
		look(down, up)
		if !s.ours("vm") {
			t.Error("a stop of the new run is forgotten")
		}
		look(up, down)
		look(down, nil)
		if s.ours("vm") {
			t.Error("what is gone is remembered")
		}
		s.note("vm")
		s.forget("vm")
		if s.ours("vm") {
			t.Error("Duet has started it")
		}
	})
}

func TestIsVM(t *testing.T) {
	for name, want := range map[string]bool{
		"B637F346-6A0E-4DEC-AF52-BD70CB80A21D": true, "b637f346-6a0e-4dec-af52-bd70cb80a21d": true,
		"HOST01": false, "": false, "B637F346-6A0E-4DEC-AF52-BD70CB80A21": false,
		"B637F346x6A0E-4DEC-AF52-BD70CB80A21D": false,
		"B637F346-6A0E-4DEC-AF52-BD70CB80A21G": false,
	} {
		if isVM(name) != want {
			t.Errorf("%q: want %t", name, want)
		}
	}
}

func TestChanges(t *testing.T) {
	was := map[string]vmmanager.State{"a": vmmanager.Running, "b": vmmanager.Running, "c": vmmanager.Off,
		"d": vmmanager.Off, "e": vmmanager.Off}
	is := map[string]vmmanager.State{"a": vmmanager.Off, "b": vmmanager.Off, "c": vmmanager.Running, "e": vmmanager.Off,
		"f": vmmanager.Off}
	got := changes(was, is, func(vm string) bool { return vm == "a" })
	slices.SortFunc(got, func(a, b vmmanager.Event) int { return strings.Compare(a.VM, b.VM) })
	want := []vmmanager.Event{
		{VM: "a", State: vmmanager.Off, Cause: vmmanager.ByDuet}, {VM: "b", State: vmmanager.Off, Cause: vmmanager.ByGuest},
		{VM: "c", State: vmmanager.Running, Cause: vmmanager.ByStart},
		{VM: "d", State: vmmanager.Absent, Cause: vmmanager.ByEdit},
		{VM: "f", State: vmmanager.Off, Cause: vmmanager.ByEdit},
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
