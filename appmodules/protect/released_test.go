package protect_test

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"

	"duet/appmodules/protect"
	"duet/console/api"
	"duet/vmmanager"
)

// TestReleaseRequests: a release that would lose data, or bring the module back from its peer, is refused, and the VM
// is protected as before.
func TestReleaseRequests(t *testing.T) {
	with := func(h host) others {
		return func(d *daemon, c *protect.Config) {
			h.hypervisor = hypervisor{d.hv, d}
			c.Hypervisor = h
		}
	}
	for what, c := range map[string]struct {
		with  others
		kind  error
		texts []string
	}{
		"a peer that is away": {func(d *daemon, c *protect.Config) {
			c.Peers = beta{peers: peers{d}, answers: api.ErrUnreach}
		}, api.ErrUnreach, []string{"release needs beta", "--without-peer"}},
		"a disk that has strayed": {with(host{strays: []vmmanager.Stray{{Target: "vdc", On: "/x", Extra: true},
			{Target: "vda"}, {Target: "vdb", On: "/elsewhere.raw"}}}),
			api.ErrConflict, []string{"disk vdb of VM web01 is on /elsewhere.raw", "`duet status web01`"}},
		"a hypervisor that is away": {with(host{definition: vmmanager.ErrUnavailable}), vmmanager.ErrUnavailable, nil},
		"a definition that is lost": {with(host{definition: vmmanager.ErrNotFound, define: errRefused}), errRefused,
			[]string{"VM web01 is not defined any more, and cannot be"}},
		"a module that starts": {func(d *daemon, c *protect.Config) {
			c.Modules = &leaving{modules: modules{d}, from: 2}
		}, errRefused, nil},
		"the right that is not given": {func(d *daemon, c *protect.Config) {
			c.Modules = &leaving{modules: modules{d}, part: errRefused}
		}, errRefused, []string{"the VM is protected as before"}},
	} {
		t.Run(what, func(t *testing.T) {
			w := protectedWorld(t, vmmanager.Running)
			w.altered(c.with, func(d *daemon, _ *string) {
				d.follow(d.begin("release"))
				wants(t, what, d.failed, c.kind, c.texts...)
				d.calm()
			})
			if faults := w.faults(vmmanager.Running); len(faults) > 0 || !w.protected() {
				t.Errorf("protected %v: %v", w.protected(), faults)
			}
		})
	}
	w := protectedWorld(t, vmmanager.Running)
	w.altered(func(d *daemon, c *protect.Config) { c.Modules = &leaving{modules: modules{d}, from: 1} },
		func(d *daemon, _ *string) {
			_, err := d.begin("release")
			wants(t, "what does not leave", err, errRefused)
		})
}

// leaving are modules that refuse to leave from the from-th question on, or to go on alone.
type leaving struct {
	modules
	asked, from int
	part        error
}

func (m *leaving) Leaves(context.Context, string) error {
	if m.asked++; m.from > 0 && m.asked >= m.from {
		return errRefused
	}
	return nil
}

func (m *leaving) Part(context.Context, string, string) error { return m.part }

// TestPeerHearsLater: a VM is released while its peer is away; the peer is told as soon as it answers, in a later run
// too, the name is free at once, and a peer that left the cluster is told no more.
func TestPeerHearsLater(t *testing.T) {
	release := func(w *world, away *silence) {
		w.altered(func(d *daemon, c *protect.Config) {
			c.Peers = beta{peers: peers{d}, answers: api.ErrUnreach, forget: away}
		}, func(d *daemon, said *string) {
			d.finish(d.works.Release(d.ctx, w.here["web01"].Module, api.ReleaseRequest{WithoutPeer: true}))
			if !strings.Contains(*said, "VM web01 is an ordinary VM of alpha again") ||
				!strings.Contains(*said, "beta is told when it answers") {
				t.Errorf("it says %q", *said)
			}
			if d.works.Busy("web01") || d.works.Held("web01") {
				t.Error("the name is not free")
			}
		})
	}
	synctest.Test(t, func(t *testing.T) {
		w := protectedWorld(t, vmmanager.Running)
		release(w, &silence{why: api.ErrUnreach})
		if len(w.there) != 1 || len(w.store) != 1 {
			t.Errorf("beta has %v, left is %s", w.there, w.store)
		}
		away := &silence{why: api.ErrUnreach}
		w.altered(func(d *daemon, c *protect.Config) {
			c.Peers = beta{peers: peers{d}, forget: away}
		}, func(d *daemon, _ *string) {
			d.works.Resume()
			if d.calm() {
				t.Error("it is over without the peer")
			}
			if n := strings.Count(diary{d}.String(), "trying again"); n != 1 {
				t.Errorf("it says %d times that it tries", n)
			}
			if asked := away.end(); asked < 5 || !d.calm() {
				t.Errorf("it asked %d times, left is %s", asked, d.store)
			}
		})
		if faults := w.faults(vmmanager.Running); len(faults) > 0 || w.protected() {
			t.Errorf("protected %v: %v", w.protected(), faults)
		}

		w = protectedWorld(t, vmmanager.Off)
		release(w, &silence{why: api.ErrUnreach})
		away = &silence{why: api.ErrUnreach}
		w.altered(func(d *daemon, c *protect.Config) {
			c.Cluster, c.Peers = members("gamma"), beta{peers: peers{d}, forget: away}
		}, func(d *daemon, _ *string) {
			d.works.Resume()
			if over := d.calm(); !over || away.end() > 0 {
				t.Errorf("a node that left is told; left is %s", d.store)
			}
		})
	})
}

// TestReturn: disks that left their volumes are copied back while the VM runs; a snapshot is left to virsh, and what
// the module does not have is no reason.
func TestReturn(t *testing.T) {
	w := protectedWorld(t, vmmanager.Running)
	m := w.here["web01"].Module
	back := func(strays []vmmanager.Stray) (said string, err error) {
		w.altered(func(d *daemon, c *protect.Config) {
			c.Hypervisor = host{hypervisor: hypervisor{d.hv, d}, strays: strays}
		}, func(d *daemon, result *string) {
			var task api.Task
			if task, err = d.works.Return(d.ctx, m); err == nil {
				d.follow(task, nil)
				err = d.failed
			}
			said = *result
		})
		return said, err
	}
	_, err := back([]vmmanager.Stray{{Target: "vdc", On: "/x", Extra: true}, {Target: "vda"}})
	wants(t, "nothing is away", err, api.ErrConflict, "every disk of VM web01")
	_, err = back([]vmmanager.Stray{{Target: "vdb", On: "/snap.qcow2", Above: true}})
	wants(t, "a snapshot", err, api.ErrConflict, "disk vdb is a snapshot", "`virsh blockcommit web01 vdb --active")
	elsewhere := vmmanager.Disk{Target: "vdb", Path: filepath.Join(w.dir, "else.raw"), Format: "raw", Size: diskSize}
	w.must(w.hv.Release(t.Context(), "web01", elsewhere, nil))
	said, err := back(nil)
	live, _ := w.hv.Live("web01")
	if on := w.hv.On(live); err != nil || len(on) != 2 || !strings.Contains(said, "vdb of VM web01 is on its volume") {
		t.Errorf("it says %q, %v; the VM is on %v", said, err, live.Disks)
	}
	w.must(w.hv.AdminPause("web01"))
	w.must(w.hv.Kill(t.Context(), "web01"))
	if _, err = back([]vmmanager.Stray{{Target: "vdb", On: "/x"}}); err == nil {
		t.Error("the disks of a VM that went off were copied")
	}
}

// TestNotices: the worst findings come first, and only refusals refuse.
func TestNotices(t *testing.T) {
	all := protect.Notices("beta", []vmmanager.Finding{{Level: vmmanager.Note, Fact: "n"},
		{Level: vmmanager.Refused, About: "disk vda", Fact: "one"}, {Level: vmmanager.Warning, Fact: "w", Remedy: "do"},
		{Level: vmmanager.Refused, Fact: "two", Remedy: "mend it"}})
	if got := fmt.Sprint(all[0].Text, all[1].Text, all[2].Text, all[3].Text); got != "disk vda: onetwown" {
		t.Errorf("in the order %q", got)
	}
	err := protect.Refusal(api.ErrConflict, "it would not run", all)
	wants(t, "refusal", err, api.ErrConflict, "it would not run: disk vda: one; two: mend it")
	if err := protect.Refusal(api.ErrConflict, "x", all[2:]); err != nil {
		t.Errorf("a warning refuses: %v", err)
	}
}
