package workload

import (
	"testing"

	"duet/appmodules"
	"duet/vmmanager"
)

// TestPanicThatNobodyTold: a guest that is found panicked, without an event, is what policy.on.panic says.
func TestPanicThatNobodyTold(t *testing.T) {
	v, hv, _ := mirrored(t)
	v.SetPolicy(appmodules.Policy{On: appmodules.On{Crash: appmodules.React, Panic: appmodules.ReactStop}})
	if _, err := v.Start(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	if err := hv.Panic("web"); err != nil {
		t.Fatal(err)
	}
	now, err := v.State(t.Context())
	if _, lost := now.Lost.What.Event(); err != nil || now.Up || !lost {
		t.Errorf("found panicked it stands %+v, %v: nothing follows", now, err)
	}
	var h heard
	v.Watch(t.Context(), h.report)
	v.Event(vmmanager.Event{VM: "web", State: vmmanager.Running, Cause: vmmanager.ByStart})
	h.take()
	v.Event(vmmanager.Event{VM: "web", State: vmmanager.Crashed, Cause: vmmanager.ByReconnect})
	if got := h.take(); len(got) != 1 || got[0].What != appmodules.HasEnded {
		t.Errorf("after a reconnect: %+v, want what policy.on.panic says", got)
	}
}
