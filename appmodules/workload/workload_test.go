package workload

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"

	"duet/appmodules"
	"duet/vmmanager"
	"duet/vmmanager/fake"
)

// vm is a VM that is defined in a hypervisor in memory.
func vm(t *testing.T, change func(*appmodules.Module)) (*VM, *fake.Hypervisor) {
	t.Helper()
	hv := fake.New(fake.Config{})
	if err := hv.Define(t.Context(), vmmanager.Definition{Name: "web", Text: []byte("one")}); err != nil {
		t.Fatal(err)
	}
	m := appmodules.Default()
	m.Name, m.Spec = "web01", appmodules.VM{Domain: "web"}
	if change != nil {
		change(&m)
	}
	return NewVM(VMConfig{Module: m, Node: "alpha", Hypervisor: hv, Logger: slog.New(slog.DiscardHandler)}), hv
}

// TestContract: each workload comes up, ends and says so, also when it is told twice.
func TestContract(t *testing.T) {
	machine, _ := vm(t, nil)
	for name, w := range map[string]appmodules.Workload{"none": &None{}, "vm": machine} {
		t.Run(name, func(t *testing.T) {
			ctx := t.Context()
			stands := func(up bool) {
				t.Helper()
				now, err := w.State(ctx)
				if _, lost := now.Lost.What.Event(); err != nil || now.Up != up || lost == up || (now.Word() == "off") == up {
					t.Fatalf("it stands %+v, %v", now, err)
				}
			}
			stands(false)
			for name, end := range map[string]func(context.Context) error{"stop": w.Stop, "kill": w.Kill} {
				for range 2 {
					if now, err := w.Start(ctx, false); err != nil || !now.Up {
						t.Fatalf("%s: start: %+v, %v", name, now, err)
					}
					stands(true)
				}
				for range 2 {
					if err := end(ctx); err != nil {
						t.Fatalf("%s: %v", name, err)
					}
					stands(false)
				}
			}
			over, cancel := context.WithCancel(ctx)
			cancel()
			if _, err := w.Start(over, false); !errors.Is(err, context.Canceled) {
				t.Errorf("a start that was cancelled: %v", err)
			}
			stands(false)
		})
	}
}

// heard are the happenings that a VM reports.
type heard struct {
	mu  sync.Mutex
	all []appmodules.Report
}

func (h *heard) take() (out []appmodules.Report) {
	h.mu.Lock()
	defer h.mu.Unlock()
	out, h.all = h.all, nil
	return out
}

func (h *heard) report(r appmodules.Report) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.all = append(h.all, r)
}

// TestPolicyIsApplied: what follows each cause is what the policy says, as it is at that moment.
func TestPolicyIsApplied(t *testing.T) {
	machine, _ := vm(t, func(m *appmodules.Module) { m.Policy.On.Panic = appmodules.ReactMove })
	var h heard
	ctx, cancel := context.WithCancel(t.Context())
	machine.Watch(ctx, h.report)
	check := func(state vmmanager.State, cause vmmanager.Cause, want ...appmodules.Happening) {
		t.Helper()
		machine.Event(vmmanager.Event{VM: "web", State: state, Cause: cause})
		var got []appmodules.Happening
		for _, r := range h.take() {
			got = append(got, r.What)
			if r.Why != cause.String() || r.Now.Word() != state.String() {
				t.Errorf("%s: reported %+v", cause, r)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s in state %s: %v follows, want %v", cause, state, got, want)
		}
	}
	check(vmmanager.Running, vmmanager.ByStart, appmodules.Changed)
	check(vmmanager.Off, vmmanager.ByCrash, appmodules.HasFailed)
	check(vmmanager.Crashed, vmmanager.ByPanic, appmodules.HasToMove)
	check(vmmanager.Off, vmmanager.ByGuest, appmodules.HasEnded)
	check(vmmanager.Off, vmmanager.ByAdmin, appmodules.HasEnded)
	check(vmmanager.Paused, vmmanager.ByAdmin, appmodules.Changed)
	check(vmmanager.Off, vmmanager.BySave, appmodules.IsSaved, appmodules.HasEnded)
	check(vmmanager.Running, vmmanager.ByEdit, appmodules.IsEdited)
	check(vmmanager.Running, vmmanager.ByDisk, appmodules.IsStrayed)
	check(vmmanager.IOError, vmmanager.ByIOError, appmodules.Changed)
	check(vmmanager.Running, vmmanager.ByStart, appmodules.Changed)
	check(vmmanager.Off, vmmanager.ByReconnect, appmodules.HasFailed)
	check(vmmanager.Off, vmmanager.ByReconnect, appmodules.Changed)
	machine.SetPolicy(appmodules.Policy{On: appmodules.On{Crash: appmodules.ReactStop}})
	check(vmmanager.Off, vmmanager.ByCrash, appmodules.HasEnded)
	cancel()
	check(vmmanager.Off, vmmanager.ByCrash)
}

// TestConditions: what keeps a VM from going down or on is said.
func TestConditions(t *testing.T) {
	machine, hv := vm(t, nil)
	ctx := t.Context()
	if _, err := machine.Start(ctx, false); err != nil {
		t.Fatal(err)
	}
	if err := hv.AdminPause("web"); err != nil {
		t.Fatal(err)
	}
	if now, err := machine.State(ctx); err != nil || !now.Up || now.Held.Remedy != "virsh resume web" {
		t.Errorf("paused: %+v, %v", now, err)
	}
	if now, err := machine.Start(ctx, false); err != nil || now.Word() != "paused" {
		t.Errorf("started while it is paused: %+v, %v", now, err)
	}
	if err := machine.Kill(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := machine.Start(ctx, false); err != nil {
		t.Fatal(err)
	}
	if err := hv.AdminSave("web"); err != nil {
		t.Fatal(err)
	}
	if said, err := machine.Saved(ctx); err != nil || !strings.Contains(said, "the memory of VM web is saved on alpha") {
		t.Errorf("saved: %q, %v", said, err)
	}
	if now, err := machine.Start(ctx, true); err != nil || !now.Up {
		t.Errorf("woken: %+v, %v", now, err)
	}
	if said, err := machine.Saved(ctx); err != nil || said != "" {
		t.Errorf("after it was woken: %q, %v", said, err)
	}
	if err := hv.BreakDisk("web"); err != nil {
		t.Fatal(err)
	}
	if now, err := machine.State(ctx); err != nil || !now.Up || !now.Stuck {
		t.Errorf("its disk is away: %+v, %v", now, err)
	}
}
