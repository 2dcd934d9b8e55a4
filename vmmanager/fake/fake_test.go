package fake

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"duet/vmmanager"
	"duet/vmmanager/vmtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestConformance(t *testing.T) {
	h := New(Config{})
	vmtest.Run(t, vmtest.World{
		Hypervisor: h,
		Definition: func(name string) vmmanager.Definition {
			return vmmanager.Definition{Name: name, Text: []byte("VM " + name)}
		},
		Undefine: h.Undefine,
		GuestOff: h.GuestShutdown, GuestPanic: h.Panic, GuestDeaf: h.Deafen,
		AdminButton: h.AdminShutdown, AdminOff: h.AdminDestroy, AdminPause: h.AdminPause, AdminSave: h.AdminSave,
		AdminEdit:     func(name string) error { return h.AdminEdit(name, []byte("edited")) },
		Crash:         h.Crash,
		RestartDaemon: func() error { h.SetAway(true); h.SetAway(false); return nil },
	})
}

// TestWriter: no stop, kill or pause is over before the last write.
func TestWriter(t *testing.T) {
	var writing atomic.Bool
	h := New(Config{OnRun: func(ctx context.Context, def vmmanager.Definition) {
		if def.Name != "a" || !writing.CompareAndSwap(false, true) {
			t.Error("two writers, or a writer of another VM")
		}
		<-ctx.Done()
		writing.Store(false)
	}})
	ctx := t.Context()
	if err := h.Define(ctx, vmmanager.Definition{Name: "a"}); err != nil {
		t.Fatal(err)
	}
	for name, end := range map[string]func() error{
		"kill":     func() error { return h.Kill(ctx, "a") },
		"shutdown": func() error { return h.Shutdown(ctx, "a") },
		"crash":    func() error { return h.Crash("a") },
		"pause":    func() error { return h.AdminPause("a") },
		"save":     func() error { return h.AdminSave("a") },
		"panic":    func() error { return h.Panic("a") },
	} {
		if err := h.Start(ctx, "a"); err != nil {
			t.Fatal(err)
		}
		if err := end(); err != nil {
			t.Fatal(err)
		}
		if writing.Load() {
			t.Errorf("the VM writes on after %s", name)
		}
		if err := h.Kill(ctx, "a"); err != nil { // a paused one would stay so
			t.Fatal(err)
		}
	}
}

func TestDelays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := New(Config{StartTime: time.Minute, ShutdownTime: time.Hour, KillTime: time.Second})
		ctx, began := t.Context(), time.Now()
		for _, call := range []func() error{
			func() error { return h.Define(ctx, vmmanager.Definition{Name: "a"}) },
			func() error { return h.Start(ctx, "a") },
			func() error { return h.Shutdown(ctx, "a") },
			func() error { return h.Start(ctx, "a") },
			func() error { return h.Kill(ctx, "a") },
		} {
			if err := call(); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(began); took != time.Hour+2*time.Minute+time.Second {
			t.Errorf("all took %s", took)
		}
	})
}

// TestBrokenDisk: Start waits for the endpoint, and gives up with its context.
func TestBrokenDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, ctx := New(Config{}), t.Context()
		if err := errors.Join(h.Define(ctx, vmmanager.Definition{Name: "a"}), h.Start(ctx, "a"),
			h.BreakDisk("a")); err != nil {
			t.Fatal(err)
		}
		short, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		if err := h.Start(short, "a"); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("start without the endpoint: %v", err)
		}
		started := make(chan error, 1)
		go func() { started <- h.Start(ctx, "a") }()
		synctest.Wait()
		if state, _ := h.State(ctx, "a"); state != vmmanager.IOError {
			t.Fatalf("state without the endpoint: %s", state)
		}
		if err := errors.Join(h.MendDisk("a"), <-started, h.Kill(ctx, "a")); err != nil {
			t.Fatal(err)
		}
	})
}

func TestProtect(t *testing.T) {
	h, ctx := New(Config{}), t.Context()
	def := vmmanager.Definition{Name: "a", Disks: []vmmanager.Disk{
		{Target: "vda", Path: "a.img", Format: "qcow2", Size: 7}}}
	if err := errors.Join(h.Define(ctx, def), h.Start(ctx, "a")); err != nil {
		t.Fatal(err)
	}
	to := vmmanager.Endpoint{Target: "vda", Socket: "a.sock"}
	if err := h.Adopt(ctx, "a", to, nil); err != nil {
		t.Fatal(err)
	}
	want := vmmanager.Disk{Target: "vda", Path: "a.sock", Format: endpoint, Size: 7}
	if live, ok := h.Live("a"); !ok || live.Disks[0] != want {
		t.Errorf("live disk %v, want %v", live.Disks, want)
	}
	if kept, err := h.Definition(ctx, "a"); err != nil || kept.Disks[0] != want {
		t.Errorf("the persistent definition does not tell where the data are: %v, %v", kept.Disks, err)
	}
	if on, err := h.Endpoints(ctx, "a"); err != nil || len(on) != 1 || on[0] != to {
		t.Errorf("endpoints %v, %v", on, err)
	}
	if _, err := h.Rewire(def, []vmmanager.Endpoint{{Target: "vdb"}}); !errors.Is(err, vmmanager.ErrUnsupported) {
		t.Errorf("rewire of a missing disk: %v", err)
	}
	if rewired, err := h.Rewire(def, []vmmanager.Endpoint{to}); err != nil || rewired.Disks[0] != want ||
		def.Disks[0] == want {
		t.Errorf("rewired %v, %v; given %v", rewired.Disks, err, def.Disks)
	}
	if back, err := h.Restore(def, def, def.Disks); err != nil || back.Disks[0] != def.Disks[0] {
		t.Errorf("restored %v, %v", back.Disks, err)
	}
	failed := errors.New("failed")
	onFile := func(now vmmanager.Definition) (vmmanager.Definition, error) { return h.Restore(now, def, def.Disks) }
	if err := h.Refit(ctx, "a", onFile, func() error { return failed }); !errors.Is(err, failed) {
		t.Errorf("refit: %v", err)
	}
	if live, ok := h.Live("a"); !ok || live.Disks[0] != want {
		t.Errorf("live disk after a refit that failed: %v, want %v", live.Disks, want)
	}
	still := func() error {
		if _, runs := h.Live("a"); runs {
			return errors.New("the VM runs")
		}
		return nil
	}
	if err := h.Refit(ctx, "a", onFile, still); err != nil {
		t.Errorf("refit: %v", err)
	}
	if live, ok := h.Live("a"); !ok || live.Disks[0] != def.Disks[0] {
		t.Errorf("live disk after refit: %v, want %v", live.Disks, def.Disks)
	}
	if err := h.Undefine(ctx, "a"); err == nil {
		t.Error("a running VM was undefined")
	}
	if err := errors.Join(h.Kill(ctx, "a"), h.Undefine(ctx, "a")); err != nil {
		t.Fatal(err)
	}
}
