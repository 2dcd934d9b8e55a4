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

	"duet/blockrepl/badgerlog"
	"duet/console/api"
	"duet/vmmanager"
	"duet/vmmanager/fake"
)

// TestNodeIsReplaced: a computer that is gone for good is removed, and a new one that joins
// under its name gets the second copies again, where they were.
func TestNodeIsReplaced(t *testing.T) {
	p := newPair(t)
	ctx := t.Context()
	mine := filepath.Join(p.b.dir+"-disks", "web01.raw")
	must(t, os.Mkdir(filepath.Dir(mine), 0o700))
	p.define(p.a, "web01", 8<<20)
	task, err := p.a.node.Protect(ctx, "web01", api.ProtectRequest{Config: "policy: {arbitration: available}",
		Images: []api.ImageChoice{{Node: "beta", Target: "vda", Path: mine}}})
	p.finish(p.a, task, err)
	p.protected("db01")
	_, err = p.a.node.Act(ctx, "web01", api.Start, api.ActionRequest{})
	must(t, err)
	p.is(p.b, "web01", "SECOND")
	for node, want := range map[string]error{"beta": api.ErrConflict, "alpha": api.ErrConflict, "gamma": api.ErrNotFound} {
		if _, err := p.a.node.RemoveNode(ctx, node); !errors.Is(err, want) {
			t.Errorf("removal of %s: %v, want %v", node, err, want)
		}
	}

	p.stop(p.b)
	until(t, "alpha does not hear beta", func() error {
		s, err := p.a.node.Status(ctx)
		must(t, err)
		if s.Nodes[1].Alive {
			return errors.New("it does")
		}
		for _, m := range s.Modules { // what beta said last is not how it stands
			if n, err := m.On("beta"); err != nil || !n.Stale {
				t.Errorf("of a node that is not heard %s says %+v, %v", m.Name, n, err)
			}
		}
		return nil
	})
	must(t, errors.Join(os.RemoveAll(p.b.dir), os.Remove(mine)))
	p.b.hv = hypervisor{fake.New(fake.Config{})}
	p.is(p.a, "web01", "ALONE")
	if err := p.join(); err == nil || !strings.Contains(err.Error(), "duet cluster remove beta") {
		t.Errorf("a second node of a name joined, or does not learn what to do: %v", err)
	}
	var gone api.NodeRemoval
	until(t, "beta is taken for dead", func() error { gone, err = p.a.node.RemoveNode(ctx, "beta"); return err })
	if strings.Join(gone.Modules, " ") != "db01 web01" {
		t.Errorf("modules %v are said to have lost their second copy", gone.Modules)
	}
	must(t, p.join())
	p.define(p.b, "db01", 8<<20)
	p.start(p.b)
	until(t, "alpha says why beta does not get db01", func() error {
		s, err := p.a.node.Status(ctx)
		must(t, err)
		m, err := s.Module("db01")
		must(t, err)
		st, err := m.On("alpha")
		must(t, err)
		why := func(x api.Notice) bool { return strings.Contains(x.Text, "virsh undefine db01") }
		if !slices.ContainsFunc(st.Notices, why) {
			return fmt.Errorf("it says %s, %+v", st.Why, st.Notices)
		}
		return nil
	})
	must(t, p.b.hv.Undefine(ctx, "db01"))
	p.a.node.restores.Forget("db01") // as after half a minute
	for _, name := range []string{"web01", "db01"} {
		p.is(p.b, name, "SECOND")
		p.is(p.a, name, "PRIM")
	}
	if !exists(mine) || !exists(filepath.Join(p.b.dir, "volumes", "db01", "vda.raw")) {
		t.Error("the images are not where they were")
	}
	_, err = p.b.node.Act(ctx, "web01", api.Swap, api.ActionRequest{})
	must(t, err)
	p.is(p.b, "web01", "PRIM")
}

// TestNodeForgetsItsModules: a node that has lost its store but not its VMs gets the modules again by itself: a
// definition whose disks are all on volumes that no module has is in nobody's way. Its old images stay.
func TestNodeForgetsItsModules(t *testing.T) {
	p := newPair(t)
	ctx := t.Context()
	p.protected("web01")
	_, err := p.a.node.Act(ctx, "web01", api.Start, api.ActionRequest{})
	must(t, err)
	p.is(p.b, "web01", "SECOND")
	p.stop(p.b)
	must(t, os.RemoveAll(filepath.Join(p.b.dir, "db")))
	p.hasEndpoint(p.b, "web01")
	must(t, p.b.hv.Start(ctx, "web01")) // a guest of the time before, which nobody serves
	p.start(p.b)
	p.is(p.b, "web01", "SECOND")
	until(t, "the guest of the time before has ended", func() error {
		if now, err := p.b.hv.State(ctx, "web01"); err != nil || now != vmmanager.Off {
			return fmt.Errorf("it is %v: %w", now, err)
		}
		return nil
	})
	p.is(p.a, "web01", "PRIM")
	for _, image := range []string{"vda.raw", "vda-2.raw"} {
		if !exists(filepath.Join(p.b.dir, "volumes", "web01", image)) {
			t.Errorf("%s is not there", image)
		}
	}
}

// hasEndpoint tells the fake hypervisor, whose definitions name no sockets, that the VM's disk is on one.
func (p *pair) hasEndpoint(m *member, vm string) {
	p.t.Helper()
	def, err := m.hv.Definition(p.t.Context(), vm)
	must(p.t, err)
	def, err = m.hv.Rewire(def, []vmmanager.Endpoint{{Target: "vda", Socket: filepath.Join(m.dir, "r", vm+"-vda.sock")}})
	must(p.t, err)
	must(p.t, m.hv.(hypervisor).Hypervisor.Define(p.t.Context(), def))
}

// TestReleaseWithoutPeer: protection can be ended while the peer is away, which forgets the
// module when it is back, and the VM can be protected again at once.
func TestReleaseWithoutPeer(t *testing.T) {
	p := newPair(t)
	ctx := t.Context()
	p.protected("web01")
	p.stop(p.b)
	p.is(p.a, "web01", "ALONE")
	refused := func(r api.ReleaseRequest) string {
		task, err := p.a.node.Release(ctx, "web01", r)
		return p.ended(p.a, task, err).Error
	}
	if text := refused(api.ReleaseRequest{}); !strings.Contains(text, "--without-peer") {
		t.Errorf("release without the peer: %q", text)
	}
	if text := refused(api.ReleaseRequest{WithoutPeer: true}); text != "" {
		t.Fatal(text)
	}
	p.stop(p.a)
	p.start(p.a) // what is left to do is durable
	p.start(p.b)
	p.settled()
	p.noModule()
	p.a.hv.(hypervisor).mustRun(t, "web01")
	task, err := p.a.node.Protect(ctx, "web01", api.ProtectRequest{})
	p.finish(p.a, task, err)
	p.is(p.b, "web01", "SECOND")
}

func (h hypervisor) mustRun(t *testing.T, name string) {
	t.Helper()
	if _, runs := h.Live(name); !runs {
		t.Errorf("VM %s does not run", name)
	}
}

// TestAnswerOfRestoreIsLost: the peer makes images for a module that it does not know, and its answer does not arrive:
// it undoes them. Each try once left a set of images there.
func TestAnswerOfRestoreIsLost(t *testing.T) {
	p := newPair(t)
	ctx := t.Context()
	p.protected("web01")
	_, err := p.a.node.Act(ctx, "web01", api.Stop, api.ActionRequest{})
	must(t, err)
	p.is(p.a, "web01", "STOP") // so that nobody gives it to beta but this test
	p.is(p.b, "web01", "STOP")
	must(t, p.b.node.Remove(ctx, "web01"))
	must(t, p.b.hv.Undefine(ctx, "web01"))
	before := p.images(p.b)

	h := p.slowed("definition")
	m, err := p.a.node.Mirror("web01")
	must(t, err)
	waits, cut := context.WithCancel(ctx)
	restored := make(chan error, 1)
	go func() { restored <- p.a.node.restores.Give(waits, m, "beta", "task1") }()
	<-h.begun
	cut()
	close(h.goOn)
	if err := <-restored; !errors.Is(err, api.ErrUnreach) {
		t.Errorf("without an answer it was given to beta: %v", err)
	}
	until(t, "beta has undone it", func() error {
		notes, err := badgerlog.Values{Store: p.b.node.store}.Keys("hosted/task1")
		if left := p.images(p.b); err == nil && (len(left) != len(before) || len(notes) > 0) {
			err = fmt.Errorf("%v are there, they were %v; notes %v", left, before, notes)
		}
		return err
	})
	must(t, p.a.node.restores.Give(ctx, m, "beta", "task2"))
	_, err = p.b.node.Mirror("web01")
	must(t, err)
}
