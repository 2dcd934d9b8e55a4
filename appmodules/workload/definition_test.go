package workload

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"duet/appmodules"
	"duet/vmmanager"
	"duet/vmmanager/fake"
)

// socket is where web's disk is.
var socket = vmmanager.Endpoint{Target: "vda", Socket: "/run/web01-vda.sock"}

// refusing is a hypervisor that refuses some calls.
type refusing struct {
	*fake.Hypervisor
	define, rewire, strays, kill, definition error
}

func (h *refusing) Define(ctx context.Context, def vmmanager.Definition) error {
	if h.define != nil {
		return h.define
	}
	return h.Hypervisor.Define(ctx, def)
}

func (h *refusing) Rewire(def vmmanager.Definition, to []vmmanager.Endpoint) (vmmanager.Definition, error) {
	if h.rewire != nil {
		return vmmanager.Definition{}, h.rewire
	}
	return h.Hypervisor.Rewire(def, to)
}

func (h *refusing) Strays(ctx context.Context, name string, to []vmmanager.Endpoint) ([]vmmanager.Stray, error) {
	if h.strays != nil {
		return nil, h.strays
	}
	return h.Hypervisor.Strays(ctx, name, to)
}

func (h *refusing) Kill(ctx context.Context, name string) error {
	if h.kill != nil {
		return h.kill
	}
	return h.Hypervisor.Kill(ctx, name)
}

func (h *refusing) Definition(ctx context.Context, name string) (vmmanager.Definition, error) {
	def, err := h.Hypervisor.Definition(ctx, name)
	return def, errors.Join(err, h.definition)
}

// mirrored is a VM whose disk is on its volume.
func mirrored(t *testing.T) (*VM, *refusing, *bytes.Buffer) {
	t.Helper()
	hv := &refusing{Hypervisor: fake.New(fake.Config{})}
	own := vmmanager.Definition{Name: "web", Text: []byte("kept"), Disks: []vmmanager.Disk{{Target: "vda", Path: "/a.raw",
		Format: "raw", Size: 512}}}
	rewired, err := hv.Rewire(own, []vmmanager.Endpoint{socket})
	if err := errors.Join(err, hv.Define(t.Context(), rewired)); err != nil {
		t.Fatal(err)
	}
	m := appmodules.Default()
	m.Name, m.Spec = "web01", appmodules.VM{Domain: "web"}
	var log bytes.Buffer
	return NewVM(VMConfig{Module: m, Node: "alpha", Endpoints: []vmmanager.Endpoint{socket}, Hypervisor: hv,
		Logger: slog.New(slog.NewTextHandler(&log, nil))}), hv, &log
}

// edit is what an admin does to the definition of a VM past Duet.
func (h *refusing) edit(t *testing.T, how func(*vmmanager.Definition)) {
	t.Helper()
	def, err := h.Hypervisor.Definition(t.Context(), "web")
	if err == nil {
		how(&def)
		err = h.Hypervisor.Define(t.Context(), def)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestCompare: what an admin edited is told; what took a disk off its volume is put back, unless the newest data may be
// there; a definition that is lost, or older, is the kept one again.
func TestCompare(t *testing.T) {
	refused := errors.New("refused")
	text := func(d *vmmanager.Definition) { d.Text = []byte("edited") }
	offVolume := func(d *vmmanager.Definition) {
		text(d)
		d.Disks[0].Path, d.Disks[0].Format = "/mine.raw", "raw"
	}
	for what, c := range map[string]struct {
		edit    func(*vmmanager.Definition)
		given   func(*VM, *refusing) error
		unknown bool
		strayed bool
		had     string // Digest of what it had
		want    string // of the edit
		unfit   error
		err     error
		stored  string // in the hypervisor
		on      bool   // its volume

		replaced string
	}{
		"nothing":                 {stored: "kept", on: true},
		"an edit":                 {edit: text, want: "edited", stored: "edited", on: true},
		"an edit of an older one": {edit: text, unknown: true, stored: "kept"},
		"an edit of one that is known": {edit: text, unknown: true, had: appmodules.Digest([]byte("older")),
			stored:   "kept",
			replaced: "edited"},
		"what an older one was": {edit: text, unknown: true, had: appmodules.Digest([]byte("edited")),
			stored: "kept"},
		"what was stored and not noted": {unknown: true, had: appmodules.Digest([]byte("older")), stored: "kept"},
		"an edit that cannot be moved": {edit: text, given: func(_ *VM, h *refusing) error {
			h.rewire = refused
			return nil
		}, want: "edited", unfit: refused, stored: "edited", on: true},
		"a disk taken off while it is off": {edit: offVolume, want: "edited", stored: "edited", on: true},
		"a disk taken off that cannot be put back": {edit: offVolume, given: func(_ *VM, h *refusing) error {
			h.rewire = refused
			return nil
		}, want: "kept", unfit: refused, stored: "kept"},
		"a disk taken off for the next start": {edit: offVolume, given: func(v *VM, _ *refusing) error {
			_, err := v.Start(context.Background(), false)
			return err
		}, want: "edited", stored: "edited", on: true},
		"a disk that has gone elsewhere": {edit: offVolume, strayed: true, want: "edited", unfit: errStrayed,
			stored: "edited"},
		"a disk that goes elsewhere": {edit: offVolume, given: func(v *VM, h *refusing) error {
			_, err := v.Start(context.Background(), false)
			return errors.Join(err, h.AdminPivot("web", vmmanager.Endpoint{Target: "vda", Socket: "/mine.raw"}))
		}, want: "edited", unfit: errStrayed, stored: "edited"},
		"disks that cannot be seen": {edit: offVolume, given: func(_ *VM, h *refusing) error {
			h.strays = refused
			return nil
		}, err: refused, stored: "edited"},
		"a definition that cannot be put back": {edit: offVolume, given: func(_ *VM, h *refusing) error {
			h.define = refused
			return nil
		}, err: refused, stored: "edited"},
		"a definition that is lost": {given: func(_ *VM, h *refusing) error {
			return h.Undefine(context.Background(), "web")
		}, stored: "kept"},
		"a definition that cannot be read": {given: func(_ *VM, h *refusing) error {
			h.definition = vmmanager.ErrUnavailable
			return nil
		}, err: vmmanager.ErrUnavailable, stored: "kept", on: true},
	} {
		t.Run(what, func(t *testing.T) {
			v, hv, log := mirrored(t)
			if c.given != nil && strings.HasPrefix(what, "a disk") && hv.rewire == nil {
				if err := c.given(v, hv); err != nil { // it runs before it is edited
					t.Fatal(err)
				}
			}
			if c.edit != nil {
				hv.edit(t, c.edit)
			}
			if c.given != nil && !strings.HasPrefix(what, "a disk") {
				if err := c.given(v, hv); err != nil {
					t.Fatal(err)
				}
			}
			got, err := v.Compare(t.Context(), appmodules.Kept{Text: []byte("kept"), Known: !c.unknown, Strayed: c.strayed,
				Had: c.had})
			if string(got.Replaced) != c.replaced {
				t.Errorf("it replaced %q", got.Replaced)
			}
			if string(got.Text) != c.want || !errors.Is(got.Unfit, c.unfit) || !errors.Is(err, c.err) {
				t.Errorf("it found %q, unfit %v, %v", got.Text, got.Unfit, err)
			}
			now, err := hv.Hypervisor.Definition(t.Context(), "web")
			if err != nil || string(now.Text) != c.stored || (len(hv.On(now)) == 1) != c.on {
				t.Errorf("the hypervisor has %q on %v, %v", now.Text, now.Disks, err)
			}
			back := strings.HasPrefix(what, "a disk taken off")
			if told := strings.Contains(log.String(), "it is put back"); told != back && c.err == nil {
				t.Errorf("the log has %q", log)
			}
		})
	}
}

// TestStored: what the hypervisor has is told, and nothing changed; what is not on its volumes, as in the middle of a
// release, is none of the module's.
func TestStored(t *testing.T) {
	v, hv, _ := mirrored(t)
	check := func(what, want, unfit string) {
		t.Helper()
		got, err := v.Stored(t.Context())
		if err != nil || string(got.Text) != want || fmt.Sprint(got.Unfit) != unfit ||
			(got.Has == appmodules.Digest([]byte(want))) != (want != "") {
			t.Errorf("%s: %+v, %v", what, got, err)
		}
	}
	check("as it was", "kept", "<nil>")
	hv.edit(t, func(d *vmmanager.Definition) { d.Text = []byte("edited") })
	check("an edit", "edited", "<nil>")
	hv.rewire = errors.New("no")
	check("an edit that cannot be moved", "edited", "no")
	hv.rewire = nil
	hv.edit(t, func(d *vmmanager.Definition) { d.Disks[0].Path, d.Disks[0].Format = "/mine.raw", "raw" })
	check("it is taken off its volume", "", "<nil>")
	if now, err := hv.Hypervisor.Definition(t.Context(), "web"); err != nil || now.Disks[0].Path != "/mine.raw" {
		t.Errorf("the hypervisor has %+v, %v", now, err)
	}
	if err := hv.Undefine(t.Context(), "web"); err != nil {
		t.Fatal(err)
	}
	check("it is gone", "", "<nil>")
	hv.SetAway(true)
	if _, err := v.Stored(t.Context()); !errors.Is(err, vmmanager.ErrUnavailable) {
		t.Errorf("what cannot be read: %v", err)
	}
}

// TestDefine: a definition that the hypervisor refuses is told with its VM.
func TestDefine(t *testing.T) {
	v, hv, _ := mirrored(t)
	if err := v.Define(t.Context(), []byte("new")); err != nil {
		t.Fatal(err)
	}
	if now, err := hv.Definition(t.Context(), "web"); err != nil || string(now.Text) != "new" {
		t.Errorf("it has %q, %v", now.Text, err)
	}
	hv.define = vmmanager.ErrUnsupported
	if err := v.Define(t.Context(), []byte("newer")); !errors.Is(err, hv.define) ||
		!strings.Contains(err.Error(), "define web") {
		t.Errorf("what is refused: %v", err)
	}
}

// TestStrays: each way in which a disk is not on its volume has its code and its remedy; only what left it is away.
func TestStrays(t *testing.T) {
	v, hv, _ := mirrored(t)
	strays := func() []appmodules.Stray {
		t.Helper()
		all, err := v.Strays(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return all
	}
	check := func(all []appmodules.Stray, away, alarm bool, code, fact, remedy string) {
		t.Helper()
		if len(all) != 1 || all[0].Away != away || all[0].Notice.Alarm != alarm || all[0].Notice.Code != code ||
			!strings.Contains(all[0].Notice.Text, fact) || !strings.Contains(all[0].Notice.Remedy, remedy) {
			t.Errorf("it says %+v", all)
		}
	}
	if err := hv.AdminAttach("web", "vdb", "/x"); err != nil || len(strays()) != 0 {
		t.Errorf("a VM that is off: %v, %v", strays(), err)
	}
	hv.edit(t, func(d *vmmanager.Definition) { d.Text = []byte("again") })
	if _, err := v.Start(t.Context(), false); err != nil || len(strays()) != 0 {
		t.Errorf("after its start: %v, %v", strays(), err)
	}
	if err := hv.AdminSnapshot("web", "vda", "/snap"); err != nil {
		t.Fatal(err)
	}
	check(strays(), true, true, appmodules.DiskElsewhere, "/snap, a snapshot over its volume",
		"virsh blockcommit web vda --active --pivot --wait")
	if err := hv.AdminPivot("web", vmmanager.Endpoint{Target: "vda", Socket: "/copy"}); err != nil {
		t.Fatal(err)
	}
	check(strays(), true, true, appmodules.DiskElsewhere, "disk vda is on /copy and not on its volume",
		"duet vm return web01")
	if err := errors.Join(hv.AdminPivot("web", socket), hv.AdminAttach("web", "vdb", "/more.raw")); err != nil {
		t.Fatal(err)
	}
	check(strays(), false, false, "disk-not-replicated", "disk vdb (/more.raw) was added",
		"virsh detach-disk web vdb --live --config")
	n := v.notice(vmmanager.Stray{Target: "vda"})
	check([]appmodules.Stray{{Notice: n}}, false, false, "disk-detached", "no disk vda any more", "next start")
	hv.SetAway(true)
	if all, err := v.Strays(t.Context()); !errors.Is(err, vmmanager.ErrUnavailable) || all != nil {
		t.Errorf("a hypervisor that is away: %v, %v", all, err)
	}
}

// TestKillThatDoesNotReach: a Kill that cannot reach the VM says so, and the VM counts as up; a VM that is not there
// has nothing to end.
func TestKillThatDoesNotReach(t *testing.T) {
	v, hv, _ := mirrored(t)
	var h heard
	v.Watch(t.Context(), h.report)
	if _, err := v.Start(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	hv.kill = errors.New("the process does not end")
	if err := v.Kill(t.Context()); !errors.Is(err, hv.kill) {
		t.Errorf("kill: %v", err)
	}
	if now, err := v.State(t.Context()); err != nil || !now.Up {
		t.Errorf("after a kill that failed it stands %+v, %v", now, err)
	}
	v.Event(vmmanager.Event{VM: "web", State: vmmanager.Off, Cause: vmmanager.ByReconnect})
	if got := h.take(); len(got) != 1 || got[0].What != appmodules.HasFailed {
		t.Errorf("its end is %+v", got) // it was up until then
	}
	hv.kill = vmmanager.ErrNotFound
	if err := v.Kill(t.Context()); err != nil {
		t.Errorf("of a VM that is not there: %v", err)
	}
	hv.kill = nil
	hv.SetAway(true)
	if err := v.Kill(t.Context()); err != nil {
		t.Errorf("without the hypervisor's daemon: %v", err)
	}
	if _, err := v.State(t.Context()); !errors.Is(err, vmmanager.ErrUnavailable) {
		t.Errorf("state: %v", err)
	}
	for what, err := range map[string]error{"stop": v.Stop(t.Context()), "saved": second(v.Saved(t.Context())),
		"start": second(v.Start(t.Context(), false)), "resume": second(v.Start(t.Context(), true))} {
		if !errors.Is(err, vmmanager.ErrUnavailable) {
			t.Errorf("%s without the hypervisor: %v", what, err)
		}
	}
}

// second is the error of a call with an answer.
func second[T any](_ T, err error) error { return err }

// TestStopGivesUp: a guest that does not hear is waited for as long as the caller does, and is up then.
func TestStopGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v, hv, _ := mirrored(t)
		if _, err := v.Start(t.Context(), false); err != nil {
			t.Fatal(err)
		}
		if err := hv.Deafen("web"); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		began := time.Now()
		if err := v.Stop(ctx); !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != time.Minute {
			t.Errorf("stop: %v after %v", err, time.Since(began))
		}
		if now, err := v.State(t.Context()); err != nil || !now.Up || now.Lost.What != appmodules.Changed {
			t.Errorf("it stands %+v, %v", now, err)
		}
	})
}

// TestWakeOnce: memory that was saved is woken where it is fit to, and dropped by a start that does not resume; a VM
// that an earlier run has woken is left alone.
func TestWakeOnce(t *testing.T) {
	ctx := t.Context()
	for what, c := range map[string]struct {
		resume, wake bool // the start; somebody has woken it before
	}{"resumed": {true, false}, "woken before": {true, true}, "begun anew": {false, false}} {
		v, hv, _ := mirrored(t)
		if _, err := v.Start(ctx, false); err != nil {
			t.Fatal(err)
		}
		if err := hv.AdminSave("web"); err != nil {
			t.Fatal(err)
		}
		if said, err := v.Saved(ctx); err != nil || !strings.Contains(said, "starting it drops that memory") {
			t.Errorf("%s: saved %q, %v", what, said, err)
		}
		if c.wake {
			if err := hv.Wake(ctx, "web"); err != nil {
				t.Fatal(err)
			}
		}
		if now, err := v.Start(ctx, c.resume); err != nil || !now.Up {
			t.Errorf("%s: %+v, %v", what, now, err)
		}
	}
	v, _, _ := mirrored(t)
	if _, err := v.Start(ctx, true); err == nil {
		t.Error("a VM without memory was woken: its disks may have gone on")
	}
}

// TestReactions: each end has the reaction that the policy names, whichever it is, and the same word for the incident.
func TestReactions(t *testing.T) {
	reactions := map[appmodules.Reaction]appmodules.Happening{appmodules.React: appmodules.HasFailed,
		appmodules.ReactMove: appmodules.HasToMove, appmodules.ReactStop: appmodules.HasEnded}
	for reaction, want := range reactions {
		for what, c := range map[string]struct {
			on     appmodules.On
			before vmmanager.State
			state  vmmanager.State
			cause  vmmanager.Cause
		}{
			"crash":    {appmodules.On{Crash: reaction}, vmmanager.Running, vmmanager.Off, vmmanager.ByCrash},
			"panic":    {appmodules.On{Panic: reaction}, vmmanager.Running, vmmanager.Crashed, vmmanager.ByPanic},
			"shutdown": {appmodules.On{Shutdown: reaction}, vmmanager.Running, vmmanager.Off, vmmanager.ByGuest},
			"admin":    {appmodules.On{Admin: reaction}, vmmanager.Running, vmmanager.Off, vmmanager.ByAdmin},
			"save":     {appmodules.On{Admin: reaction}, vmmanager.Running, vmmanager.Off, vmmanager.BySave},
			"unseen":   {appmodules.On{Crash: reaction}, vmmanager.Running, vmmanager.Absent, vmmanager.ByReconnect},
		} {
			v, _, _ := mirrored(t)
			v.SetPolicy(appmodules.Policy{On: c.on})
			var h heard
			v.Watch(t.Context(), h.report)
			v.Event(vmmanager.Event{VM: "web", State: c.before, Cause: vmmanager.ByStart})
			h.take()
			v.Event(vmmanager.Event{VM: "web", State: c.state, Cause: c.cause})
			got := h.take()
			if len(got) == 0 || got[len(got)-1].What != want || got[len(got)-1].Now.Up {
				t.Errorf("%s, %s: %+v", what, reaction, got)
			}
			// Found so later, when nobody has told why, it is a crash.
			if lost := got[len(got)-1].Now.Lost; c.state != vmmanager.Crashed && lost.What != c.on.Crash.Happening() {
				t.Errorf("%s, %s: found later it is %+v", what, reaction, lost)
			}
		}
	}
}

// TestEndsBeyondTheDaemon: an event of an earlier run, and one that nobody watches, lead to nothing; a VM that was off,
// paused or gone before the hypervisor came back has not crashed.
func TestEndsBeyondTheDaemon(t *testing.T) {
	v, _, _ := mirrored(t)
	v.Event(vmmanager.Event{VM: "web", State: vmmanager.Off, Cause: vmmanager.ByCrash}) // nobody watches
	var h heard
	first, cancel := context.WithCancel(t.Context())
	v.Watch(first, h.report)
	cancel()
	v.Event(vmmanager.Event{VM: "web", State: vmmanager.Off, Cause: vmmanager.ByCrash})
	if got := h.take(); len(got) != 0 {
		t.Errorf("after its watch it heard %+v", got)
	}
	v.Watch(t.Context(), h.report)
	for _, before := range []vmmanager.State{vmmanager.Off, vmmanager.Absent} {
		v.Event(vmmanager.Event{VM: "web", State: before, Cause: vmmanager.ByDuet})
		v.Event(vmmanager.Event{VM: "web", State: vmmanager.Off, Cause: vmmanager.ByReconnect})
		for _, r := range h.take() {
			if r.What != appmodules.Changed {
				t.Errorf("from %v: %+v", before, r)
			}
		}
	}
	v.Event(vmmanager.Event{VM: "web", State: vmmanager.Running, Cause: vmmanager.ByReconnect})
	if got := h.take(); len(got) != 1 || got[0].What != appmodules.Changed || !got[0].Now.Up {
		t.Errorf("a VM that runs on: %+v", got)
	}
}

// TestNoneTells: what runs nothing reports what it is told, is down after an end, and is silent after its watch.
func TestNoneTells(t *testing.T) {
	var n None
	n.Tell(appmodules.Incident{What: appmodules.HasFailed}) // nobody watches
	if _, err := n.Start(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	var h heard
	ctx, cancel := context.WithCancel(t.Context())
	n.Watch(ctx, h.report)
	n.Tell(appmodules.Incident{What: appmodules.IsEdited})
	n.Tell(appmodules.Incident{What: appmodules.HasToMove, Why: "a test"})
	got := h.take()
	if len(got) != 2 || !got[0].Now.Up || got[1].Now.Up || got[1].Why != "a test" {
		t.Errorf("it told %+v", got)
	}
	cancel()
	n.Tell(appmodules.Incident{What: appmodules.HasFailed})
	if got := h.take(); len(got) != 0 {
		t.Errorf("after its watch: %+v", got)
	}
	over, stop := context.WithCancel(t.Context())
	stop()
	if _, err := n.Start(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	if err := n.Stop(over); !errors.Is(err, context.Canceled) {
		t.Errorf("a stop that was cancelled: %v", err)
	}
	if now, err := n.State(t.Context()); err != nil || !now.Up || slices.Contains([]string{"", "off"}, now.Text) {
		t.Errorf("after it: %+v, %v", now, err)
	}
}
