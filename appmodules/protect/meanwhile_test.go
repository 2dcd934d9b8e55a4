package protect_test

import (
	"context"
	"strings"
	"testing"

	"duet/appmodules"
	"duet/appmodules/protect"
	"duet/cluster"
	"duet/console/api"
	"duet/vmmanager"
)

// thoughtful is a peer that takes its time to judge a VM.
type thoughtful struct {
	peers
	judges, judged chan struct{}
}

func (p thoughtful) Judge(ctx context.Context, _ cluster.NodeID, _ vmmanager.Definition, _ appmodules.Module,
	_ []protect.Place) ([]vmmanager.Finding, error) {
	p.judges <- struct{}{}
	select {
	case <-p.judged:
		return nil, p.alive()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// meanwhile does something while the peer judges web01, for which a protect was accepted, and lets it end.
func (w *world) meanwhile(do func(d *daemon)) (failed error) {
	var p thoughtful
	w.altered(func(d *daemon, c *protect.Config) {
		p = thoughtful{peers{d}, make(chan struct{}, 9), make(chan struct{})}
		c.Peers = p
	}, func(d *daemon, _ *string) {
		task, err := d.begin("protect")
		w.must(err)
		<-p.judges
		do(d)
		close(p.judged)
		d.follow(task, nil)
		failed = d.failed
		d.settle()
	})
	return failed
}

// TestProtectOwnsItsNames: from its acceptance on, and not only once its plan is stored, a protect has its VM and its
// module's name: the undo of a second one would take the first one's volumes for its own.
func TestProtectOwnsItsNames(t *testing.T) {
	w := newWorld(t, vmmanager.Running)
	w.must(w.hv.Define(t.Context(), vmmanager.Definition{Name: "db01", Disks: []vmmanager.Disk{
		{Target: "vda", Path: "/db01.img", Format: "raw", Size: diskSize}}}))
	err := w.meanwhile(func(d *daemon) {
		_, err := d.works.Protect(d.ctx, "web01", api.ProtectRequest{Module: "other"})
		wants(t, "its VM", err, api.ErrConflict, "a protect of VM web01 as module web01 goes on")
		_, err = d.works.Protect(d.ctx, "db01", api.ProtectRequest{Module: "web01"})
		wants(t, "its name", err, api.ErrConflict, "a protect of VM web01 as module web01 goes on")
	})
	if faults := w.faults(vmmanager.Running); err != nil || len(faults) > 0 || !w.protected() {
		t.Errorf("%v; protected %v: %v", err, w.protected(), faults)
	}
	// One that fails gives them back.
	w = newWorld(t, vmmanager.Running)
	w.altered(func(d *daemon, c *protect.Config) { c.Peers = beta{peers: peers{d}, judge: api.ErrUnreach} },
		func(d *daemon, _ *string) {
			for range 2 {
				d.follow(d.begin("protect"))
				wants(t, "not judged", d.failed, api.ErrUnreach)
			}
		})
}

// TestStartedMeanwhile: a VM that was off when its protect was asked for, and runs when it would be stored, writes its
// image past the volume: it is refused and has its own definition, on which it goes on.
func TestStartedMeanwhile(t *testing.T) {
	w := newWorld(t, vmmanager.Off)
	err := w.meanwhile(func(d *daemon) { w.must(w.hv.Start(d.ctx, "web01")) })
	wants(t, "started", err, api.ErrConflict, "VM web01 was started meanwhile", "`duet vm protect web01` again")
	if faults := w.faults(vmmanager.Running); len(faults) > 0 || w.protected() {
		t.Errorf("protected %v: %v", w.protected(), faults)
	}
}

// stopping are modules of a node that stops right after it has stored one.
type stopping struct{ modules }

func (m stopping) Store(ctx context.Context, n protect.New) error {
	err := m.modules.Store(ctx, n)
	m.die()
	return err
}

// TestStopsOnceStored: a task that is cut off by the end of the daemon says what the next run does.
func TestStopsOnceStored(t *testing.T) {
	w := newWorld(t, vmmanager.Off)
	w.altered(func(d *daemon, c *protect.Config) { c.Modules = stopping{modules{d}} }, func(d *daemon, _ *string) {
		d.follow(d.begin("protect"))
		if d.failed == nil || !strings.Contains(d.failed.Error(), "module web01 is stored, and its next run begins it") {
			t.Errorf("it says %v", d.failed)
		}
	})
	w.run(0, false, func(d *daemon) { d.settle() })
	if faults := w.faults(vmmanager.Off); len(faults) > 0 || !w.protected() {
		t.Errorf("protected %v: %v", w.protected(), faults)
	}
}
