package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"duet/appmodules/protect"
	"duet/console/api"
	"duet/vmmanager"
	"duet/vmmanager/images"
)

// dying is a hypervisor at one call of which the daemon ends: the call waits for that
// and fails. What it did before is up to the test.
type dying struct {
	hypervisor
	call    string // such as "adopt vdb"
	do      func(between func() error)
	reached chan struct{}
}

func (h *dying) at(ctx context.Context, call string, between func() error) error {
	if call != h.call {
		return nil
	}
	if h.do != nil {
		h.do(between)
	}
	close(h.reached)
	<-ctx.Done()
	return ctx.Err()
}

func (h *dying) Adopt(ctx context.Context, name string, to vmmanager.Endpoint, progress func(done, total int64)) error {
	if err := h.at(ctx, "adopt "+to.Target, nil); err != nil {
		return err
	}
	err := h.hypervisor.Adopt(ctx, name, to, progress)
	return errors.Join(err, h.at(ctx, "adopted "+to.Target, nil))
}

func (h *dying) Define(ctx context.Context, def vmmanager.Definition) error {
	err := h.hypervisor.Define(ctx, def)
	return errors.Join(err, h.at(ctx, "defined", nil))
}

func (h *dying) Refit(ctx context.Context, name string, edit vmmanager.Edit, between func() error) error {
	if err := h.at(ctx, "refit", between); err != nil {
		return err
	}
	err := h.hypervisor.Refit(ctx, name, edit, between)
	return errors.Join(err, h.at(ctx, "refitted", nil))
}

// dies has alpha's daemon end at a call of its hypervisor that begin leads to, and start again.
func (p *pair) dies(call string, do func(between func() error), begin func(n *Node) error) {
	p.t.Helper()
	sound := p.a.hv.(hypervisor)
	p.dieAt(sound, call, do, begin)
	p.a.hv = sound
	p.start(p.a)
}

// dieAt has alpha's daemon end there, and does not start it again.
func (p *pair) dieAt(sound hypervisor, call string, do func(between func() error), begin func(n *Node) error) {
	p.t.Helper()
	d := &dying{hypervisor: sound, call: call, do: do, reached: make(chan struct{})}
	p.stop(p.a)
	p.a.hv = d
	p.start(p.a)
	p.met()
	must(p.t, begin(p.a.node))
	until(p.t, "the daemon comes to "+call, func() error {
		select {
		case <-d.reached:
			return nil
		default:
			return fmt.Errorf("works: %+v", p.a.node.tasks.List())
		}
	})
	// While it goes on the status has it, whether or not there is a module yet.
	st, err := p.a.node.Status(p.t.Context())
	all, listErr := p.a.node.TaskList(p.t.Context())
	if err != nil || listErr != nil || len(st.Tasks) != 1 || len(all) != 1 || st.Tasks[0].ID != all[0].ID {
		p.t.Errorf("the status has the works %+v (%v), the list %+v (%v)", st.Tasks, err, all, listErr)
	}
	p.stop(p.a)
}

// met waits until alpha can reach beta.
func (p *pair) met() {
	p.t.Helper()
	until(p.t, "alpha reaches beta", func() error {
		return p.a.node.rpcTo(p.t.Context(), "beta", "images/drop", []protect.Made{}, nil)
	})
}

// settled waits until nothing is left to take up on alpha.
func (p *pair) settled() {
	p.t.Helper()
	until(p.t, "what was cut short is in order", func() error {
		left, err := p.a.node.Works.Unfinished()
		if err == nil && len(left) > 0 {
			err = fmt.Errorf("left: %v", left)
		}
		return err
	})
}

// running defines and starts a VM with two disks on alpha and returns its definition.
func (p *pair) running(name string) vmmanager.Definition {
	p.t.Helper()
	def := vmmanager.Definition{Name: name, Text: []byte("vm " + name + " vda vdb")}
	for _, target := range []string{"vda", "vdb"} {
		path := p.define(p.a, name+"-"+target, 8<<20)
		def.Disks = append(def.Disks, vmmanager.Disk{Target: target, Path: path, Format: "raw", Size: 8 << 20})
	}
	must(p.t, errors.Join(p.a.hv.Define(p.t.Context(), def), p.a.hv.Start(p.t.Context(), name)))
	return def
}

// images lists the images that Duet has made on a member.
func (p *pair) images(m *member) []string {
	p.t.Helper()
	all, err := filepath.Glob(filepath.Join(m.dir, "volumes", "*", "*"))
	must(p.t, err)
	for i := range all {
		all[i] = filepath.Base(all[i])
	}
	return all
}

func (p *pair) noModule() {
	p.t.Helper()
	for _, m := range []*member{p.a, p.b} {
		s, err := m.node.Status(p.t.Context())
		must(p.t, err)
		if len(s.Modules) != 0 {
			p.t.Errorf("%s has %+v", m.name, s.Modules)
		}
	}
}

// TestProtectIsCutShort: wherever the daemon ends during a protect, its next run gives the
// VM its own disks back and leaves nothing behind; then the VM can be protected.
func TestProtectIsCutShort(t *testing.T) {
	for _, call := range []string{"refit", "adopt vda", "adopted vda", "adopt vdb", "adopted vdb", "defined"} {
		t.Run(call, func(t *testing.T) {
			p := newPair(t)
			ctx := t.Context()
			def := p.running("web01")
			var task api.Task
			p.dies(call, nil, func(n *Node) (err error) {
				task, err = n.Protect(ctx, "web01", api.ProtectRequest{})
				return err
			})
			p.settled()
			p.noModule()
			if task = p.ended(p.a, task, nil); !strings.Contains(task.Error, "has its own disks again") {
				t.Errorf("who follows the work learns %+v", task)
			}
			live, _ := p.a.hv.(hypervisor).Live("web01")
			kept, err := p.a.hv.Definition(ctx, "web01")
			must(t, err)
			for _, d := range []vmmanager.Definition{live, kept} {
				if !slices.Equal(d.Disks, def.Disks) || string(d.Text) != string(def.Text) {
					t.Errorf("the VM is %s on %v, it was on %v", d.Text, d.Disks, def.Disks)
				}
			}
			if state, err := p.b.hv.State(ctx, "web01"); err != nil || state != vmmanager.Absent {
				t.Errorf("the VM is %v on beta, %v", state, err)
			}
			if left := append(p.images(p.a), p.images(p.b)...); len(left) > 0 {
				t.Errorf("images are left: %v", left)
			}
			task, err = p.a.node.Protect(ctx, "web01", api.ProtectRequest{})
			p.finish(p.a, task, err)
			p.is(p.a, "web01", "PRIM")
			p.is(p.b, "web01", "SECOND")
		})
	}
}

// TestProtectCutShortWhileTheHostDies: a VM that went off while it was on a volume is
// given that volume's image, which has what it wrote last.
func TestProtectCutShortWhileTheHostDies(t *testing.T) {
	p := newPair(t)
	ctx := t.Context()
	def := p.running("web01")
	sound := p.a.hv.(hypervisor)
	p.dieAt(sound, "adopt vdb", func(func() error) { must(t, sound.Crash("web01")) }, func(n *Node) error {
		_, err := n.Protect(ctx, "web01", api.ProtectRequest{})
		return err
	})
	// The run that undoes it dies as well, as soon as the VM's definition has changed.
	p.dieAt(sound, "defined", nil, func(*Node) error { return nil })
	p.a.hv = sound
	p.start(p.a)
	p.settled()
	p.noModule()
	kept, err := p.a.hv.Definition(ctx, "web01")
	must(t, err)
	if want := filepath.Join(p.a.dir, "volumes", "web01", "vda.raw"); kept.Disks[0].Path != want || !exists(want) ||
		kept.Disks[1] != def.Disks[1] {
		t.Errorf("the VM is on %v", kept.Disks)
	}
}

// TestReleaseIsCutShort: before the VM is saved the module goes on, afterwards the VM is an ordinary one.
func TestReleaseIsCutShort(t *testing.T) {
	for _, c := range []struct {
		name      string
		call      string
		do        func(p *pair, between func() error)
		protected bool
	}{
		{"before it is saved", "refit", func(*pair, func() error) {}, true},
		{"after it runs again", "refitted", func(*pair, func() error) {}, false},
		{"after it is saved", "refit", func(p *pair, _ func() error) { must(p.t, p.a.hv.(*dying).CutRefit("web01")) }, false},
		{"after the module is forgotten", "refit", func(p *pair, between func() error) {
			must(p.t, errors.Join(p.a.hv.(*dying).CutRefit("web01"), between()))
		}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newPair(t)
			ctx := t.Context()
			p.running("web01")
			task, err := p.a.node.Protect(ctx, "web01", api.ProtectRequest{Config: "policy: {arbitration: available}"})
			p.finish(p.a, task, err)
			p.dies(c.call, func(between func() error) { c.do(p, between) }, func(n *Node) error {
				p.is(p.a, "web01", "PRIM")
				_, err := n.Release(ctx, "web01", api.ReleaseRequest{})
				return err
			})
			p.settled()
			if c.protected {
				p.is(p.b, "web01", "SECOND") // it is given the module again
				until(t, "it may be released", func() error {
					task, err = p.a.node.Release(ctx, "web01", api.ReleaseRequest{})
					return err
				})
				p.finish(p.a, task, err)
			}
			p.noModule()
			until(t, "the VM runs", func() error {
				state, err := p.a.hv.State(ctx, "web01")
				if err == nil && state != vmmanager.Running {
					err = errors.New(state.String())
				}
				return err
			})
			live, _ := p.a.hv.(hypervisor).Live("web01")
			for _, d := range live.Disks {
				if d.Format != "raw" || !exists(d.Path) {
					t.Errorf("the VM is on %+v", d)
				}
			}
		})
	}
}

// TestProtectAgain: a VM that was released is protected again, from either node, and no
// protect takes a file for its own that it finds.
func TestProtectAgain(t *testing.T) {
	p := newPair(t)
	ctx := t.Context()
	p.running("web01")
	protect := func(m *member) {
		t.Helper()
		task, err := m.node.Protect(ctx, "web01",
			api.ProtectRequest{}) // safe, without a witness: it may not stand still when the peer forgets it
		p.finish(m, task, err)
		p.is(m, "web01", "PRIM")
	}
	release := func(m *member) vmmanager.Definition {
		t.Helper()
		p.is(m, "web01", "PRIM")
		p.is(map[*member]*member{p.a: p.b, p.b: p.a}[m], "web01", "SECOND")
		task, err := m.node.Release(ctx, "web01", api.ReleaseRequest{})
		p.finish(m, task, err)
		live, ok := m.hv.(hypervisor).Live("web01")
		for _, d := range live.Disks {
			ok = ok && exists(d.Path)
		}
		if !ok {
			t.Fatalf("the released VM has %v", live.Disks)
		}
		return live
	}
	protect(p.a)
	first := release(p.a)
	if got := p.images(p.b); !slices.Equal(got, []string{"vda.raw.old", "vdb.raw.old"}) {
		t.Errorf("beta keeps %v", got)
	}

	// What fails leaves the images that the VM runs on.
	p.b.hv.(hypervisor).SetAway(true)
	task, err := p.a.node.Protect(ctx, "web01", api.ProtectRequest{})
	task = p.ended(p.a, task, err)
	p.b.hv.(hypervisor).SetAway(false)
	if task.Error == "" {
		t.Error("protect succeeded although beta has no hypervisor")
	}
	for _, d := range first.Disks {
		if !exists(d.Path) {
			t.Errorf("%s was removed under the running VM", d.Path)
		}
	}
	p.settled()

	protect(p.a)
	if got := p.images(p.b); !slices.Equal(got, []string{"vda.raw", "vdb.raw"}) {
		t.Errorf("beta has %v, not the images it had before", got)
	}
	for _, d := range first.Disks {
		if !exists(d.Path) {
			t.Errorf("%s was removed", d.Path)
		}
	}
	p.is(p.b, "web01", "SECOND")
	_, err = p.a.node.Act(ctx, "web01", api.Swap, api.ActionRequest{})
	must(t, err)
	p.is(p.b, "web01", "PRIM")
	p.is(p.a, "web01", "SECOND")
	second := release(p.b)
	protect(p.b)
	for _, d := range second.Disks {
		if !exists(d.Path) {
			t.Errorf("%s was removed", d.Path)
		}
	}
}

// TestWhereImagesLie: an admin's choice is used, and refused where it would destroy something.
func TestWhereImagesLie(t *testing.T) {
	p := newPair(t)
	ctx := t.Context()
	p.protected("other")
	p.running("web01")
	big, small, fresh := filepath.Join(p.b.dir, "big.img"), filepath.Join(p.b.dir, "small.img"),
		filepath.Join(p.b.dir, "fresh.img")
	must(t, errors.Join(os.WriteFile(big, nil, 0o600), os.Truncate(big, 8<<20),
		os.WriteFile(small, make([]byte, 4<<20), 0o600)))
	other, err := p.b.node.Find("other")
	must(t, err)
	for _, c := range []struct {
		image api.ImageChoice
		want  string
	}{
		{api.ImageChoice{Node: "gamma", Target: "vda", Path: big}, "alpha and beta"},
		{api.ImageChoice{Node: "beta", Target: "vdz", Path: big}, "no such disk"},
		{api.ImageChoice{Node: "beta", Target: "vda", Path: "big.img"}, "whole path"},
		{api.ImageChoice{Node: "beta", Target: "vda", Path: small}, "has 4194304 bytes, expected 8388608"},
		{api.ImageChoice{Node: "beta", Target: "vda", Path: other.Module.Volumes()[0].Paths["beta"]},
			"is the image of other/vda"},
		{api.ImageChoice{Node: "beta", Target: "vda", Path: p.b.dir}, "not a file or block device"},
		{api.ImageChoice{Node: "beta", Target: "vda", Path: filepath.Join(p.b.dir, "no", "x.img")},
			"no such file or directory"},
	} {
		task, err := p.a.node.Protect(ctx, "web01", api.ProtectRequest{Images: []api.ImageChoice{c.image}})
		if err == nil {
			err = errors.New(p.ended(p.a, task, nil).Error)
		}
		if !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want %q in it", c.image, err, c.want)
		}
		p.settled()
	}
	if st, err := os.Stat(small); err != nil || st.Size() != 4<<20 {
		t.Errorf("a refused image was changed: %v, %v", st, err)
	}
	task, err := p.a.node.Protect(ctx, "web01", api.ProtectRequest{Images: []api.ImageChoice{
		{Node: "beta", Target: "vda", Path: big}, {Node: "beta", Target: "vdb", Path: fresh},
		{Node: "alpha", Target: "vdb", Path: filepath.Join(p.a.dir, "mine.img")}}})
	p.finish(p.a, task, err)
	p.is(p.b, "web01", "SECOND")
	m, err := p.b.node.Find("web01")
	must(t, err)
	if v := m.Module.Volumes(); v[0].Paths["beta"] != big || v[1].Paths["beta"] != fresh ||
		filepath.Base(v[1].Paths["alpha"]) != "mine.img" || filepath.Base(v[0].Paths["alpha"]) != "vda.raw" {
		t.Errorf("the volumes lie in %+v", v)
	}
}

// TestImagesAreMadeOnce: the transport may repeat a request.
func TestImagesAreMadeOnce(t *testing.T) {
	p := newPair(t)
	h := images.Hosting{ID: "1", Module: "web01", VM: "web01", Places: []protect.Place{{Target: "vda", Size: 1 << 20}}}
	for range 2 {
		got, err := p.b.node.images.Host(t.Context(), h)
		if err != nil || len(got) != 1 || filepath.Base(got[0].Path) != "vda.raw" {
			t.Fatalf("%v, %v", got, err)
		}
	}
	h.ID = "2"
	if got, err := p.b.node.images.Host(t.Context(), h); err != nil || filepath.Base(got[0].Path) != "vda-2.raw" {
		t.Fatalf("%v, %v", got, err)
	}
}

// TestImagesOfModulesStay: an undoing that comes too late finds them in use.
func TestImagesOfModulesStay(t *testing.T) {
	p := newPair(t)
	p.protected("web01")
	m, err := p.b.node.Find("web01")
	must(t, err)
	path := m.Module.Volumes()[0].Paths["beta"]
	if err := p.b.node.images.Drop([]protect.Made{{Path: path}}); err != nil || !exists(path) {
		t.Errorf("the image of a module was removed (%v)", err)
	}
}

// TestProtectRefused: a VM whose memory is saved, one that the peer has too, and one that only the peer has are left
// alone.
func TestProtectRefused(t *testing.T) {
	p := newPair(t)
	ctx := t.Context()
	p.running("saved")
	must(t, p.a.hv.(hypervisor).AdminSave("saved"))
	if _, err := p.a.node.Protect(ctx, "saved", api.ProtectRequest{}); !errors.Is(err, api.ErrConflict) ||
		!strings.Contains(err.Error(), "virsh start saved") {
		t.Errorf("protect of a VM whose memory is saved: %v", err)
	}
	p.running("twice")
	p.define(p.b, "twice", 8<<20)
	task, err := p.a.node.Protect(ctx, "twice", api.ProtectRequest{})
	task = p.ended(p.a, task, err)
	if !strings.Contains(task.Error, "defined on beta too") {
		t.Errorf("protect of a VM that beta has too: %q", task.Error)
	}
	if def, err := p.b.hv.Definition(ctx, "twice"); err != nil || string(def.Text) != "vm twice" {
		t.Errorf("beta's VM is %q, %v", def.Text, err)
	}
	p.define(p.b, "other", 8<<20)
	if _, err := p.a.node.Protect(ctx, "other", api.ProtectRequest{}); !errors.Is(err, api.ErrNotFound) ||
		!strings.Contains(err.Error(), "on beta: `duet vm protect other` there") {
		t.Errorf("protect of a VM that only beta has: %v", err)
	}
}
