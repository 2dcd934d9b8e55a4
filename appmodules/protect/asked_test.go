package protect_test

import (
	"context"
	"errors"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"duet/appmodules"
	"duet/appmodules/protect"
	"duet/cluster"
	"duet/console/api"
	"duet/vmmanager"
)

// host is a hypervisor of which some answers are given.
type host struct {
	hypervisor
	definition error // of Definition, besides what it says
	define     error
	strays     []vmmanager.Stray
	obstacles  []vmmanager.Finding
}

func (h host) Definition(ctx context.Context, name string) (vmmanager.Definition, error) {
	def, err := h.hypervisor.Definition(ctx, name)
	return def, errors.Join(err, h.definition)
}

func (h host) Define(ctx context.Context, def vmmanager.Definition) error {
	if h.define != nil {
		return h.define
	}
	return h.hypervisor.Define(ctx, def)
}

func (h host) Strays(ctx context.Context, name string, to []vmmanager.Endpoint) ([]vmmanager.Stray, error) {
	if h.strays != nil {
		return h.strays, nil
	}
	return h.hypervisor.Strays(ctx, name, to)
}

func (h host) Obstacles(def vmmanager.Definition) []vmmanager.Finding {
	return append(h.hypervisor.Obstacles(def), h.obstacles...)
}

// beta is the peer with a mind of its own.
type beta struct {
	peers
	found    []vmmanager.Finding
	judge    error
	answers  error
	old      bool // it knows modules by name only
	nobody   bool // and nobody decides when it is silent
	forget   *silence
	imageErr error
	store    error
	has      []string // who has a VM that alpha does not have
	missing  []string // and who does not say
}

// silence is why a peer does not answer, and how often it was asked.
type silence struct {
	mu    sync.Mutex
	why   error
	asked int
}

func (s *silence) ask() error {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked++
	return s.why
}

// ends it, and tells how often the peer was asked meanwhile.
func (s *silence) end() (asked int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.why = nil
	return s.asked
}

func (b beta) Judge(context.Context, cluster.NodeID, vmmanager.Definition, appmodules.Module, []protect.Place) (
	[]vmmanager.Finding, error) {
	return b.found, b.judge
}

func (b beta) Elsewhere(context.Context, string) (on, missing []string) { return b.has, b.missing }

func (b beta) Answers(context.Context, cluster.NodeID, appmodules.Module) error { return b.answers }

func (b beta) Identities(context.Context, cluster.NodeID) (bool, error) { return !b.old, nil }

func (b beta) Decided(cluster.NodeID) bool { return !b.nobody }

func (b beta) Forget(ctx context.Context, n cluster.NodeID, m appmodules.Module, e cluster.Epoch) error {
	if err := b.forget.ask(); err != nil {
		return err
	}
	return b.peers.Forget(ctx, n, m, e)
}

func (b beta) Make(ctx context.Context, n cluster.NodeID, id string, m appmodules.Module,
	places []protect.Place) ([]protect.Made, error) {
	made, err := b.peers.Make(ctx, n, id, m, places)
	if b.imageErr != nil { // it has made them, and nobody hears of it
		return nil, errors.Join(err, b.imageErr)
	}
	return made, err
}

func (b beta) Store(ctx context.Context, n cluster.NodeID, m protect.New) error {
	if b.store != nil {
		return b.store
	}
	return b.peers.Store(ctx, n, m)
}

// members is a cluster of alpha and others.
func members(others ...cluster.NodeID) func() cluster.Config {
	c := cluster.Config{Name: "lab", Self: "alpha", Members: []cluster.Member{{Node: "alpha"}}}
	for _, node := range others {
		c.Members = append(c.Members, cluster.Member{Node: node})
	}
	return func() cluster.Config { return c }
}

// wants fails unless err is of that kind and says all of it.
func wants(t *testing.T, what string, err, kind error, texts ...string) {
	t.Helper()
	if !errors.Is(err, kind) {
		t.Errorf("%s: %v, want %v", what, err, kind)
		return
	}
	for _, text := range texts {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("%s: %q does not say %q", what, err, text)
		}
	}
}

// TestProtectRequests: what cannot be protected as it was asked for is refused before anything is changed, in words
// that say what to do; Check says the same.
func TestProtectRequests(t *testing.T) {
	image := func(node, target, path string) api.ProtectRequest {
		return api.ProtectRequest{Images: []api.ImageChoice{{Node: node, Target: target, Path: path}}}
	}
	for what, c := range map[string]struct {
		state vmmanager.State
		vm    string
		r     api.ProtectRequest
		given func(*world) // before
		with  others
		kind  error
		texts []string
	}{
		"a VM that is not there": {vm: "db01", kind: api.ErrNotFound, texts: []string{"alpha", "virsh list --all"}},
		"one that beta has": {vm: "db01", with: func(d *daemon, c *protect.Config) {
			c.Peers = beta{peers: peers{d}, has: []string{"beta"}}
		}, kind: api.ErrNotFound, texts: []string{`VM "db01" is not defined on alpha, but on beta: ` +
			"`duet vm protect db01` there"}},
		"one that beta may have": {vm: "db01", with: func(d *daemon, c *protect.Config) {
			c.Peers = beta{peers: peers{d}, missing: []string{"beta does not answer: its VMs are not listed"}}
		}, kind: api.ErrNotFound, texts: []string{"not defined on alpha", "virsh list --all", "beta does not answer"}},
		"a transient one": {with: func(d *daemon, c *protect.Config) {
			c.Hypervisor = host{hypervisor: hypervisor{d.hv, d}, definition: vmmanager.ErrUnsupported}
		}, kind: api.ErrConflict, texts: []string{"transient", "virsh define web01.xml"}},
		"a paused one": {state: vmmanager.Running, given: func(w *world) { w.must(w.hv.AdminPause("web01")) },
			kind: api.ErrConflict, texts: []string{"is paused", "start it or shut it down"}},
		"a saved one": {state: vmmanager.Running, given: func(w *world) { w.must(w.hv.AdminSave("web01")) },
			kind: api.ErrConflict, texts: []string{"virsh managedsave-remove web01"}},
		"an odd disk": {with: func(d *daemon, c *protect.Config) {
			c.Hypervisor = host{hypervisor: hypervisor{d.hv, d}, obstacles: []vmmanager.Finding{{Level: vmmanager.Refused,
				About: "disk vdc", Fact: "it is shared", Remedy: "take it off"}}}
		}, kind: api.ErrInvalid, texts: []string{"VM web01 cannot be protected", "disk vdc: it is shared: take it off"}},
		"no other node": {with: func(_ *daemon, c *protect.Config) { c.Cluster = members() },
			kind: api.ErrConflict, texts: []string{"cluster lab has one node", "duet cluster join"}},
		"one of two others": {with: func(_ *daemon, c *protect.Config) { c.Cluster = members("beta", "gamma") },
			kind: api.ErrInvalid, texts: []string{"--peer beta or gamma"}},
		"a stranger": {r: api.ProtectRequest{Peer: "delta"}, kind: api.ErrInvalid, texts: []string{`"delta"`, "beta"}},
		"itself":     {r: api.ProtectRequest{Peer: "alpha"}, kind: api.ErrInvalid, texts: []string{"there is beta"}},
		"a bad name": {r: api.ProtectRequest{Module: "Web 01"}, kind: api.ErrInvalid, texts: []string{"a-z, 0-9 and -"}},
		"a bad policy": {r: api.ProtectRequest{Config: "policy:\n  failback: perhaps\n"}, kind: api.ErrInvalid,
			texts: []string{"config:2:", "policy.failback", "one of manual, auto"}},
		"half a path": {r: image("beta", "vda", "web.raw"), kind: api.ErrInvalid,
			texts: []string{"image beta:vda", "not a whole path"}},
		"another's path": {r: image("gamma", "vda", "/x"), kind: api.ErrInvalid, texts: []string{"alpha and beta"}},
		"no such disk":   {r: image("beta", "vdz", "/x"), kind: api.ErrInvalid, texts: []string{"no such disk"}},
		"a disk that stays": {state: vmmanager.Off, r: image("alpha", "vda", "/x"), kind: api.ErrInvalid,
			texts: []string{"stays where it is"}},
		"twice": {r: api.ProtectRequest{Images: []api.ImageChoice{{Node: "beta", Target: "vda", Path: "/x"},
			{Node: "beta", Target: "vda", Path: "/y"}}}, kind: api.ErrInvalid, texts: []string{"named twice"}},
		"another format": {given: func(w *world) {
			def, err := w.hv.Definition(w.t.Context(), "web01")
			w.must(err)
			def.Disks[1].Format = "qcow2"
			w.must(w.hv.Define(w.t.Context(), def))
		}, kind: api.ErrInvalid, texts: []string{"vdb", "qcow2", "qemu-img convert -O raw"}},
	} {
		t.Run(what, func(t *testing.T) {
			w := newWorld(t, c.state)
			if c.given != nil {
				c.given(w)
			}
			w.altered(c.with, func(d *daemon, _ *string) {
				vm := c.vm
				if vm == "" {
					vm = "web01"
				}
				_, err := d.works.Protect(d.ctx, vm, c.r)
				wants(t, "protect", err, c.kind, c.texts...)
				check, err := d.works.CheckProtect(d.ctx, vm, c.r)
				if err == nil && len(check.Notices) > 0 {
					err = protect.Refusal(api.ErrInvalid, "VM web01 cannot be protected", check.Notices)
				}
				wants(t, "check", err, c.kind, c.texts...)
				if check.OK && err == nil || d.changes > 0 {
					t.Errorf("checked %+v after %d changes", check, d.changes)
				}
			})
		})
	}
}

// TestProtectTwice: a VM is in one module, and a name names one VM, also while a plan goes on.
func TestProtectTwice(t *testing.T) {
	db := vmmanager.Definition{Name: "db01", Disks: []vmmanager.Disk{
		{Target: "vda", Path: "/db01.img", Format: "raw", Size: diskSize}}}
	w := protectedWorld(t, vmmanager.Off)
	w.must(w.hv.Define(t.Context(), db))
	w.altered(nil, func(d *daemon, _ *string) {
		_, err := d.works.Protect(d.ctx, "web01", api.ProtectRequest{Module: "other"})
		wants(t, "the VM", err, api.ErrConflict, "`duet status web01`")
		_, err = d.works.Protect(d.ctx, "db01", api.ProtectRequest{Module: "web01"})
		wants(t, "the name", err, api.ErrConflict, "protects VM web01", "--module")
		check, err := d.works.CheckProtect(d.ctx, "db01", api.ProtectRequest{})
		if err != nil || !check.OK || check.Module != "db01" || check.Peer != "beta" {
			t.Errorf("another VM: %+v, %v", check, err)
		}
	})
	twin := vmmanager.Definition{Name: "twin01", Disks: []vmmanager.Disk{
		{Target: "vdc", Path: "/run/web01-vda", Format: "endpoint", Size: diskSize}}}
	w.must(w.hv.Define(t.Context(), twin))
	w.altered(nil, func(d *daemon, _ *string) {
		_, err := d.works.CheckProtect(d.ctx, "twin01", api.ProtectRequest{})
		wants(t, "a copy", err, api.ErrConflict, "disk vdc of VM twin01 is the volume vda of module web01")
	})
	w = newWorld(t, vmmanager.Off)
	w.must(w.hv.Define(t.Context(), db))
	w.run(3, false, func(d *daemon) { d.follow(d.begin("protect")) })
	w.altered(nil, func(d *daemon, _ *string) {
		_, err := d.begin("protect")
		wants(t, "while it is undone", err, api.ErrConflict, "a protect of VM web01 as module web01 goes on")
		_, err = d.works.Protect(d.ctx, "db01", api.ProtectRequest{Module: "web01"})
		wants(t, "its name", err, api.ErrConflict, "a protect of VM web01 as module web01 goes on")
		left, err := d.works.Unfinished()
		if err != nil || len(left) != 1 || left[0] != "protect of web01" || !d.works.Busy("web01") || d.works.Busy("db01") ||
			d.works.Held("web01") || d.works.Left()[0].Name != "web01" {
			t.Errorf("left is %q, %v; busy %v", left, err, d.works.Busy("web01"))
		}
	})
}

// TestPeerJudges: a peer that would not run the VM, or cannot say, keeps it from being protected, and nothing has
// begun; its warnings are part of the result.
func TestPeerJudges(t *testing.T) {
	cpu := vmmanager.Finding{Level: vmmanager.Refused, Code: "cpu", About: "CPU", Fact: "it has no avx512",
		Remedy: "choose another model"}
	for _, judge := range []error{nil, api.ErrUnreach} {
		w := newWorld(t, vmmanager.Running)
		w.altered(func(d *daemon, c *protect.Config) {
			c.Peers = beta{peers: peers{d}, found: []vmmanager.Finding{cpu}, judge: judge}
		}, func(d *daemon, _ *string) {
			check, err := d.works.CheckProtect(d.ctx, "web01", api.ProtectRequest{})
			if judge == nil && (err != nil || check.OK || check.Notices[0].Node != "beta") || !errors.Is(err, judge) {
				t.Errorf("checked %+v, %v", check, err)
			}
			d.follow(d.begin("protect"))
			if judge == nil {
				wants(t, "judged", d.failed, api.ErrConflict,
					"beta would not run VM web01: CPU: it has no avx512: choose another model")
			} else {
				wants(t, "not judged", d.failed, judge)
			}
			if d.changes > 0 || len(w.store) > 0 {
				t.Errorf("it made %d changes: %v", d.changes, w.store)
			}
		})
	}
	cpu.Level = vmmanager.Warning
	for _, c := range []struct {
		state  vmmanager.State
		policy string
		texts  []string
	}{
		{vmmanager.Running, "safe", []string{"runs", "The old images are no longer used", "vdb.img",
			"warning on beta: CPU: it has no avx512: choose another model", "neither witness nor fence agent",
			"`duet prim web01`"}},
		{vmmanager.Off, "available", []string{"off: `duet start web01` starts it"}},
	} {
		w := newWorld(t, c.state)
		w.altered(func(d *daemon, cfg *protect.Config) {
			cfg.Peers = beta{peers: peers{d}, found: []vmmanager.Finding{cpu}, nobody: true, old: c.policy == "available"}
		}, func(d *daemon, said *string) {
			d.finish(d.works.Protect(d.ctx, "web01", api.ProtectRequest{
				Config: "policy: {arbitration: " + c.policy + "}\n",
				Images: []api.ImageChoice{{Node: "beta", Target: "vda", Path: "/fast/vda.raw"}}}))
			for _, text := range c.texts {
				if !strings.Contains(*said, text) {
					t.Errorf("%q does not say %q", *said, text)
				}
			}
			if cautioned := strings.Contains(*said, "arbitration is safe"); cautioned != (c.policy == "safe") {
				t.Errorf("%s: %q", c.policy, *said)
			}
			m := w.here["web01"].Module
			// A peer that knows names only would vote by the name.
			if m.Policy.Arbitration != c.policy || (m.ID == "") != (c.policy == "available") {
				t.Errorf("the module is %+v", m)
			}
		})
	}
}

// TestProtectUndone: what fails in the midst is undone within the run, and the task says why.
func TestProtectUndone(t *testing.T) {
	for what, c := range map[string]struct {
		with others
		want string
	}{
		"the peer's images, whose answer is lost": {func(d *daemon, c *protect.Config) {
			c.Peers = beta{peers: peers{d}, imageErr: api.ErrUnreach}
		}, "node does not answer"},
		"an image that is cut off": {func(d *daemon, c *protect.Config) {
			c.Volumes = cutVolumes{volumes{d}}
		}, "bytes"},
		"an image that can be neither made nor dropped": {func(d *daemon, c *protect.Config) {
			c.Volumes = leftVolumes{volumes{d}}
		}, "it refuses"},
		"a peer that does not store it": {func(d *daemon, c *protect.Config) {
			c.Peers = beta{peers: peers{d}, store: errRefused}
		}, "store module on beta"},
		"a path that is none": {func(d *daemon, c *protect.Config) {
			c.Volumes = nameless{volumes{d}}
		}, "volumes[0].paths"},
	} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, vmmanager.Running)
				w.altered(c.with, func(d *daemon, _ *string) {
					d.follow(d.begin("protect"))
					if d.failed == nil || !strings.Contains(d.failed.Error(), c.want) {
						t.Errorf("its task says %v, want %q", d.failed, c.want)
					}
					d.calm()
				})
				if faults := w.faults(vmmanager.Running); len(faults) > 0 || w.protected() {
					t.Errorf("protected %v: %v", w.protected(), faults)
				}
			})
		})
	}
}

// cutVolumes make images that are smaller than they should be.
type cutVolumes struct{ volumes }

func (v cutVolumes) Make(m appmodules.Module, places []protect.Place, chosen []protect.Made) ([]protect.Made, error) {
	made, err := v.volumes.Make(m, places, chosen)
	for _, one := range made {
		v.must(os.Truncate(one.Path, diskSize/2))
	}
	return made, err
}

// leftVolumes make images, fail, and cannot take them back.
type leftVolumes struct{ volumes }

func (v leftVolumes) Make(m appmodules.Module, places []protect.Place, chosen []protect.Made) ([]protect.Made, error) {
	_, err := v.volumes.Make(m, places, chosen)
	return nil, errors.Join(err, errRefused)
}

// nameless make images and forget where.
type nameless struct{ volumes }

func (v nameless) Make(m appmodules.Module, places []protect.Place, chosen []protect.Made) ([]protect.Made, error) {
	made, err := v.volumes.Make(m, places, chosen)
	err = errors.Join(err, v.Drop(m, made))
	return make([]protect.Made, len(made)), err
}

// left is a world in which the daemon died in a work, at the first cut after which still is met.
func left(t *testing.T, state vmmanager.State, kind string, still func(w *world) bool) *world {
	t.Helper()
	for cut := 1; cut < 30; cut++ {
		w := readied(t, state, kind)
		w.run(cut, false, func(d *daemon) { d.follow(d.begin(kind)) })
		if still(w) {
			return w
		}
	}
	t.Fatal("no cut leads there")
	return nil
}

// moved: both disks of web01 are on volumes that are not a module's yet.
func moved(w *world) bool {
	on, err := w.hv.Endpoints(w.t.Context(), "web01")
	return err == nil && len(on) == 2 && !w.protected()
}

// TestVMChangesWhileNobodyLooks: a protect was cut short, and the VM went its own way before the next run: that ends
// with the newest data under an ordinary VM.
func TestVMChangesWhileNobodyLooks(t *testing.T) {
	check := func(w *world, state vmmanager.State, path string) {
		t.Helper()
		def, err := w.hv.Definition(t.Context(), "web01")
		if faults := w.faults(state); err != nil || len(faults) > 0 || w.protected() ||
			!strings.Contains(def.Disks[0].Path, path) {
			t.Errorf("it has %v, %v: %v", def.Disks, err, faults)
		}
	}
	settled := func(w *world) { w.run(0, false, func(d *daemon) { d.settle() }) }

	var w *world
	for again := range 5 { // the run after it may die, too
		w = left(t, vmmanager.Running, "protect", moved)
		w.must(w.hv.GuestShutdown("web01"))
		w.run(again, again%2 == 0, func(d *daemon) { d.settle() })
		settled(w)
		check(w, vmmanager.Off, made) // what the guest wrote last is there
	}

	w = left(t, vmmanager.Running, "protect", moved)
	w.must(errors.Join(w.hv.BreakDisk("web01"), w.hv.MendDisk("web01"))) // its volumes were not served
	settled(w)
	check(w, vmmanager.Running, ".img")

	w = left(t, vmmanager.Running, "protect", moved)
	w.must(errors.Join(w.hv.Kill(t.Context(), "web01"), w.hv.Undefine(t.Context(), "web01")))
	settled(w)
	if len(w.store) > 0 || len(w.here) > 0 {
		t.Errorf("of a VM that is gone there is %s, %v", w.store, w.here)
	}

	w = left(t, vmmanager.Running, "protect", func(w *world) bool {
		return strings.Contains(string(w.store["unfinished/web01"]), `"at":"move"`)
	})
	w.must(w.hv.CutRefit("web01")) // saved, to be hardened
	settled(w)
	check(w, vmmanager.Running, ".img")
}

// TestPausedVM: a VM that somebody has paused is not touched before it runs or is off.
func TestPausedVM(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, vmmanager.Running)
		w.altered(nil, func(d *daemon, _ *string) {
			d.dieAt = 9
			d.follow(d.begin("protect"))
		})
		w.must(w.hv.AdminPause("web01"))
		w.altered(nil, func(d *daemon, _ *string) {
			d.works.Resume()
			if d.calm() || !strings.Contains(diary{d}.String(), "VM web01 is paused: it has to run or be off") {
				t.Errorf("left is %s\n%s", d.store, diary{d})
			}
			if n := strings.Count(diary{d}.String(), "is paused"); n != 1 {
				t.Errorf("it says so %d times", n)
			}
			w.must(w.hv.Kill(d.ctx, "web01"))
			d.calm()
		})
		if faults := w.faults(vmmanager.Off); len(faults) > 0 || w.protected() {
			t.Errorf("protected %v: %v", w.protected(), faults)
		}
	})
}

// TestOlderAndNewerPlans: a plan of a version without marks is ended as that would have; one that a newer version began
// is left to that.
func TestOlderAndNewerPlans(t *testing.T) {
	remark := func(w *world, to string) {
		plan := string(w.store["unfinished/web01"])
		at := strings.Index(plan, `"mark":`)
		if at < 0 {
			t.Fatalf("no mark in %q", plan)
		}
		w.store["unfinished/web01"] = []byte(plan[:at] + `"mark":` + to + "}")
	}
	for _, c := range kinds {
		t.Run(c.name, func(t *testing.T) {
			w := left(t, c.state, c.kind, func(w *world) bool { return w.store["unfinished/web01"] != nil })
			remark(w, "{}")
			w.run(0, false, func(d *daemon) { d.settle() })
			if faults := w.faults(c.state); len(faults) > 0 || w.protected() != (c.kind == "release") {
				t.Errorf("protected %v: %v", w.protected(), faults)
			}
		})
	}
	w := left(t, vmmanager.Running, "release", func(w *world) bool {
		def, err := w.hv.Definition(t.Context(), "web01")
		return err == nil && def.Saved
	})
	remark(w, "{}")
	w.run(0, false, func(d *daemon) { d.settle() })
	if faults := w.faults(vmmanager.Running); len(faults) > 0 || w.protected() {
		t.Errorf("saved to be released: protected %v: %v", w.protected(), faults)
	}
	synctest.Test(t, func(t *testing.T) {
		for _, kind := range []string{"protect", "release"} {
			w := readied(t, vmmanager.Off, kind)
			w.altered(nil, func(d *daemon, _ *string) {
				d.dieAt = 3
				d.follow(d.begin(kind))
			})
			remark(w, `{"at":"quantum"}`)
			before := string(w.store["unfinished/web01"])
			w.altered(nil, func(d *daemon, _ *string) {
				d.works.Resume()
				if d.calm() || d.changes > 0 || string(d.store["unfinished/web01"]) != before ||
					!strings.Contains(diary{d}.String(), "another version of duetd") {
					t.Errorf("%s: %d changes, left is %s\n%s", kind, d.changes, d.store, diary{d})
				}
			})
		}
	})
}

// TestDamagedPlan: a plan that cannot be read, and a store that does not answer, are no plan that has ended.
func TestDamagedPlan(t *testing.T) {
	w := newWorld(t, vmmanager.Off)
	w.run(0, false, func(d *daemon) {
		c := protect.Config{Cluster: d.cluster, Store: store{d}}
		works, err := protect.NewWorks(c)
		w.must(err)
		w.store["unfinished/web01"] = []byte(`{"kind":"release","mark":{`)
		if again, err := protect.NewWorks(c); err == nil {
			t.Errorf("it begins with %v", again.Left())
		}
		if !works.Busy("web01") {
			t.Error("what cannot be read is not busy")
		}
		if left, err := works.Unfinished(); err == nil {
			t.Errorf("left is %q", left)
		}
		delete(w.store, "unfinished/web01")
		c.Store = keyless{store{d}}
		if _, err := protect.NewWorks(c); err == nil || !strings.Contains(err.Error(), "list unfinished works") {
			t.Errorf("a store without keys: %v", err)
		}
	})
}

// keyless is a store that does not tell its keys.
type keyless struct{ store }

func (keyless) Keys(string) ([]string, error) { return nil, errRefused }
