package node

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"duet/cluster"
	"duet/cluster/membership"
	"duet/cmd/duet/setup"
	"duet/console/api"
	"duet/vmmanager/fake"
)

// identity is that of a module on alpha.
func (p *pair) identity(module string) string {
	p.t.Helper()
	m, err := p.a.node.Find(module)
	must(p.t, err)
	return m.Module.Identity()
}

// remembers checks how many modules a witness votes for.
func (w *thirdParty) remembers(want int) func() error {
	return func() error {
		if c := w.s.Clusters(); len(c) != 1 || c[0].Modules != want {
			return fmt.Errorf("it votes for %+v", c)
		}
		return nil
	}
}

// TestNameIsUsedAgain: the witness was away when a VM was released, and remembers its newest
// epoch. Protected again under the same name, the VM is another module with votes of its own.
func TestNameIsUsedAgain(t *testing.T) {
	p := newPair(t)
	ctx := t.Context()
	p.protected("web01")
	w := newThirdParty(t, p, "witness")
	_, err := p.a.node.AddWitness(ctx, w.request())
	must(t, err)
	until(t, "the witness was told of web01", w.remembers(1))
	first := p.identity("web01")
	for _, m := range []*member{p.b, p.a} { // epoch 3
		until(t, "a swap", func() error { _, err := p.a.node.Act(ctx, "web01", api.Swap, api.ActionRequest{}); return err })
		p.is(m, "web01", "PRIM")
	}
	until(t, "the witness knows epoch 3", func() error {
		ans, err := p.b.node.witnesses()[0].Ask(ctx, cluster.Ask{Module: first, Node: "beta", Epoch: 1})
		if err == nil && ans.Know.Epoch < 3 {
			err = fmt.Errorf("%+v", ans)
		}
		return err
	})
	w.close()
	task, err := p.a.node.Release(ctx, "web01", api.ReleaseRequest{})
	p.finish(p.a, task, err)
	task, err = p.a.node.Protect(ctx, "web01", api.ProtectRequest{})
	p.finish(p.a, task, err)
	p.is(p.b, "web01", "SECOND")
	w.open()
	until(t, "the witness was told of the new web01", w.remembers(2))
	second := p.identity("web01")
	if first == second {
		t.Fatal("both modules have one identity")
	}
	until(t, "beta knows that it is complete", func() error {
		m, err := p.b.node.Find("web01")
		must(t, err)
		if !m.Engine.State().Record.IsComplete() {
			return errors.New("not yet")
		}
		return nil
	})
	must(t, p.b.node.dropModule(ctx, "web01", "alpha", removal{9, first})) // a release that is told late
	m, err := p.b.node.Find("web01")
	if err != nil {
		t.Fatalf("the late end of the first module ended the second one: %v", err)
	}
	rec := m.Engine.State().Record
	ans, err := p.b.node.witnesses()[0].Ask(ctx,
		cluster.Ask{Module: second, Node: "beta", Epoch: rec.Epoch + 1, Complete: rec.Complete})
	if err != nil || !ans.Yes {
		t.Errorf("alpha's host dies, and the witness does not vote for beta: %+v, %v", ans, err)
	}
}

// TestWitnessRemembersWhatThePeerWasNotTold: a copy that was away when its module was released
// gets no right to write from the witness, which forgets when that copy was told.
func TestWitnessRemembersWhatThePeerWasNotTold(t *testing.T) {
	p := newPair(t)
	ctx := t.Context()
	p.protected("web01")
	w := newThirdParty(t, p, "witness")
	_, err := p.a.node.AddWitness(ctx, w.request())
	must(t, err)
	until(t, "the witness was told of web01", w.remembers(1))
	p.stop(p.b)
	p.is(p.a, "web01", "ALONE")
	task, err := p.a.node.Release(ctx, "web01", api.ReleaseRequest{WithoutPeer: true})
	p.finish(p.a, task, err)
	if err := w.remembers(1)(); err != nil {
		t.Fatalf("beta was not mirror.Told, and the witness forgot: %v", err)
	}
	p.start(p.b)
	until(t, "the witness forgets what both nodes forgot", w.remembers(0))
	if _, err := p.b.node.Find("web01"); !errors.Is(err, api.ErrNotFound) {
		t.Errorf("the witness forgot before beta did: %v", err)
	}
}

// TestHalfAMember: a directory in which an init, a join or a leave was cut off is that of no member: systemd does not
// try again for ever. One whose identity is damaged is another matter.
func TestHalfAMember(t *testing.T) {
	dir := t.TempDir()
	_, err := setup.OnDisk{}.Init(t.Context(), setup.InitRequest{Dir: dir, Cluster: "test", Node: "alpha", Port: 7420,
		Detection: time.Second, Addrs: []setup.Addr{{Network: "hb1", IP: "127.0.50.1"}}})
	must(t, err)
	pki := filepath.Join(dir, setup.PKIFolder)
	keys, err := filepath.Glob(filepath.Join(pki, "*.key"))
	must(t, errors.Join(err, os.Remove(keys[0])))
	c := Config{Dir: dir, Hypervisor: hypervisor{fake.New(fake.Config{})}, MinFree: 1 << 20,
		Logger: slog.New(slog.DiscardHandler)}
	if _, err := New(c); err == nil || errors.Is(err, membership.ErrNoMember) {
		t.Errorf("without a key: %v", err)
	}
	must(t, os.RemoveAll(pki))
	if _, err := New(c); !errors.Is(err, membership.ErrNoMember) {
		t.Errorf("without an identity: %v", err)
	}
}
