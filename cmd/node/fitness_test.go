package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"duet/appmodules"
	"duet/appmodules/engine"
	"duet/appmodules/mirror"
	"duet/appmodules/protect"
	"duet/cluster"
	"duet/console/api"
	"duet/vmmanager"
)

// finds sets what a member's host says of a VM from now on.
func (m *member) finds(vm string, all ...vmmanager.Finding) {
	m.hv.(hypervisor).SetFindings(vm, all...)
}

var (
	noNetwork = vmmanager.Finding{Level: vmmanager.Refused, Code: "network-missing", About: "interface 1",
		Fact: "there is no network lan", Remedy: "`virsh net-define lan.xml`"}
	noMedium = vmmanager.Finding{Level: vmmanager.Warning, Code: "medium-missing", About: "cdrom sda",
		Fact: "/x.iso does not exist: the VM starts without it"}
	uefi = vmmanager.Finding{Level: vmmanager.Note, Code: "uefi-variables",
		Fact: "UEFI variables are not replicated yet"}
)

// noticed waits until m shows these codes of a module on node, in order.
func (p *pair) noticed(m *member, module, node string, codes ...string) {
	p.t.Helper()
	until(p.t, fmt.Sprintf("%s shows %v of %s on %s", m.name, codes, module, node), func() error {
		s, err := m.node.Status(p.t.Context())
		must(p.t, err)
		mod, err := s.Module(module)
		if err != nil {
			return err
		}
		st, err := mod.On(node)
		var have []string
		for _, x := range st.Notices {
			if x.Code != "disk-detached" { // the fake's definitions, which are sent as text, do not name their endpoints
				have = append(have, x.Code)
			}
		}
		if err == nil && strings.Join(have, " ") != strings.Join(codes, " ") {
			err = fmt.Errorf("it shows %q", have)
		}
		return err
	})
}

// TestPeerWouldRefuse: what the peer would refuse when the VM is needed there is refused
// before anything is made, and told at once when it comes later.
func TestPeerWouldRefuse(t *testing.T) {
	p := newPair(t)
	ctx := t.Context()
	p.define(p.a, "web01", 8<<20)
	p.b.finds("web01", uefi, noNetwork)
	check, err := p.a.node.CheckProtect(ctx, "web01", api.ProtectRequest{})
	must(t, err)
	if check.OK || check.Peer != "beta" || check.Module != "web01" || len(check.Notices) != 2 ||
		check.Notices[0].Code != "network-missing" ||
		check.Notices[0].Node != "beta" || check.Notices[1].Level != "note" {
		t.Errorf("check says %+v", check)
	}
	task, err := p.a.node.Protect(ctx, "web01", api.ProtectRequest{})
	if task = p.ended(p.a, task, err); !strings.Contains(task.Error,
		"beta would not run VM web01: interface 1: there is no network lan: `virsh net-define") {
		t.Errorf("protect says %q, %q", task.Error, task.Result)
	}
	for _, m := range []*member{p.a, p.b} {
		if s, _ := m.node.Status(ctx); len(s.Modules) != 0 {
			t.Errorf("%s has a module that was refused", m.name)
		}
		if images, _ := os.ReadDir(filepath.Join(m.dir, "volumes", "web01")); len(images) != 0 {
			t.Errorf("%s has images of it", m.name)
		}
	}

	p.b.finds("web01", uefi, noMedium)
	if check, err = p.a.node.CheckProtect(ctx, "web01", api.ProtectRequest{}); err != nil || !check.OK ||
		len(check.Notices) != 2 {
		t.Errorf("check of what is no reason to refuse: %+v, %v", check, err)
	}
	if def, _ := p.a.hv.Definition(ctx, "web01"); string(def.Text) != "vm web01" {
		t.Errorf("a check left the VM as %q", def.Text)
	}
	task, err = p.a.node.Protect(ctx, "web01", api.ProtectRequest{Config: "policy: {arbitration: available}"})
	task = p.finish(p.a, task, err)
	for _, want := range []string{"warning on beta: cdrom sda: /x.iso", "note on beta: UEFI"} {
		if !strings.Contains(task.Result, want) {
			t.Errorf("no %q in %q", want, task.Result)
		}
	}
	_, err = p.a.node.Act(ctx, "web01", api.Start, api.ActionRequest{})
	must(t, err)
	p.is(p.a, "web01", "PRIM")
	p.is(p.b, "web01", "SECOND")
	for _, m := range []*member{p.a, p.b} {
		p.noticed(m, "web01", "beta", "medium-missing", "uefi-variables")
		p.noticed(m, "web01", "alpha") // it runs here
	}

	// Beta's networks change.
	p.b.finds("web01", noNetwork)
	p.noticed(p.a, "web01", "beta", "network-missing")
	for _, m := range []*member{p.a, p.b} {
		for action, r := range map[api.Action]api.ActionRequest{api.Swap: {}, api.Second: {Node: "alpha"}} {
			if _, err := m.node.Act(ctx, "web01", action, r); !errors.Is(err, api.ErrConfirm) ||
				!strings.Contains(err.Error(), "beta would not start the VM") {
				t.Errorf("%s of a VM that beta would not start, asked of %s: %v", action, m.name, err)
			}
		}
	}
	must(t, p.a.hv.(hypervisor).AdminEdit("web01", []byte("vm web01 on lan")))
	for _, m := range []*member{p.a, p.b} {
		p.noticed(m, "web01", "alpha", "definition-unfit")
	}
	if def, err := p.b.hv.Definition(ctx, "web01"); err != nil || string(def.Text) == "vm web01 on lan" {
		t.Errorf("beta has a definition that it refuses: %q, %v", def.Text, err)
	}
	p.b.finds("web01")
	p.noticed(p.a, "web01", "beta")
	p.noticed(p.a, "web01", "alpha")
	_, err = p.a.node.Act(ctx, "web01", api.Swap, api.ActionRequest{})
	must(t, err)
	p.is(p.b, "web01", "PRIM")
	p.a.finds("web01", noMedium)
	p.noticed(p.b, "web01", "alpha", "medium-missing")

	// A host whose hypervisor is away cannot say anything.
	p.is(p.a, "web01", "SECOND")
	p.a.hv.(hypervisor).SetAway(true)
	p.noticed(p.b, "web01", "alpha", "not-judged")
	p.a.hv.(hypervisor).SetAway(false)
	p.noticed(p.b, "web01", "alpha", "medium-missing")
}

// TestObstaclesFirst: what cannot be protected is refused with the command that mends it,
// and a name that the peer has is no surprise.
func TestObstaclesFirst(t *testing.T) {
	p := newPair(t)
	ctx := t.Context()
	p.define(p.a, "odd", 1000)
	p.define(p.a, "empty", 0)
	p.define(p.a, "twice", 8<<20)
	p.define(p.b, "twice", 8<<20)
	for _, vm := range []string{"odd", "empty"} {
		if _, err := p.a.node.Protect(ctx, vm, api.ProtectRequest{}); !errors.Is(err, api.ErrInvalid) ||
			!strings.Contains(err.Error(), "disk vda: ") ||
			!strings.Contains(err.Error(), "whole sectors") {
			t.Errorf("protect of %s: %v", vm, err)
		}
		check, err := p.a.node.CheckProtect(ctx, vm, api.ProtectRequest{})
		if err != nil || check.OK || len(check.Notices) != 1 || check.Notices[0].Code != "disk-size" ||
			check.Notices[0].Node != "alpha" || check.Peer != "beta" {
			t.Errorf("check of %s: %+v, %v", vm, check, err)
		}
	}
	check, err := p.a.node.CheckProtect(ctx, "twice", api.ProtectRequest{})
	if err != nil || check.OK || len(check.Notices) != 1 || check.Notices[0].Code != "name-taken" ||
		!strings.Contains(check.Notices[0].Remedy, "virsh undefine twice") {
		t.Errorf("check of a VM whose name the peer has: %+v, %v", check, err)
	}
	task, err := p.a.node.Protect(ctx, "twice", api.ProtectRequest{})
	if task = p.ended(p.a, task, err); !strings.Contains(task.Error, "is defined on beta too") {
		t.Errorf("protect of a VM whose name the peer has: %q", task.Error)
	}
	for vm, want := range map[string]error{"nosuch": api.ErrNotFound} {
		if _, err := p.a.node.CheckProtect(ctx, vm, api.ProtectRequest{}); !errors.Is(err, want) {
			t.Errorf("check of %s: %v, want %v", vm, err, want)
		}
	}
	p.stop(p.b)
	if _, err := p.a.node.CheckProtect(ctx, "twice", api.ProtectRequest{}); !errors.Is(err, api.ErrUnreach) {
		t.Errorf("check without the peer: %v", err)
	}
}

// TestOlderPeer: nodes of two releases understand each other.
func TestOlderPeer(t *testing.T) {
	p := newPair(t)
	if err := p.a.node.rpcTo(t.Context(), "beta", "a-request-of-tomorrow", nil, nil); !errors.Is(err, cluster.ErrOlder) {
		t.Errorf("a request that beta does not know: %v", err)
	}
	old := engine.State{Module: "web01", Incarnation: 7, Seq: 9, Status: engine.Status{Role: appmodules.Prim}}
	b, err := json.Marshal(old)
	must(t, err)
	var got mirror.Told
	if err := json.Unmarshal(b, &got); err != nil || got.Module != "web01" || got.Seq != 9 ||
		got.Status.Role != appmodules.Prim || got.Notices != nil {
		t.Errorf("the state of an older node is read as %+v, %v", got, err)
	}
	b, err = json.Marshal(mirror.Told{State: old, Notices: protect.Notices("", []vmmanager.Finding{uefi})})
	must(t, err)
	var seen engine.State
	if err := json.Unmarshal(b, &seen); err != nil || seen.Incarnation != 7 || seen.Status.Role != appmodules.Prim {
		t.Errorf("an older node reads %+v, %v", seen, err)
	}
}

// TestGrownImage: a disk that was made larger while it is protected is told with the way,
// and the way works.
func TestGrownImage(t *testing.T) {
	p := newPair(t)
	ctx := t.Context()
	p.protected("web01")
	_, err := p.a.node.Act(ctx, "web01", api.Stop, api.ActionRequest{})
	must(t, err)
	p.is(p.a, "web01", "STOP")
	p.is(p.b, "web01", "STOP")
	image := filepath.Join(p.a.dir, "web01.img")
	must(t, os.Truncate(image, 16<<20))
	_, err = p.a.node.Act(ctx, "web01", api.Start, api.ActionRequest{Node: "alpha"})
	must(t, err)
	until(t, "alpha tells how a disk is grown", func() error {
		s, err := p.a.node.Status(ctx)
		must(t, err)
		m, err := s.Module("web01")
		must(t, err)
		st, err := m.On("alpha")
		if err == nil && (!strings.Contains(st.Why, "`duet vm release web01`") ||
			!strings.Contains(st.Why, image+" its 8388608 bytes")) {
			err = errors.New(st.Why)
		}
		return err
	})
	_, err = p.a.node.Act(ctx, "web01", api.Stop, api.ActionRequest{})
	must(t, err)
	p.is(p.a, "web01", "STOP")
	task, err := p.a.node.Release(ctx, "web01", api.ReleaseRequest{})
	p.finish(p.a, task, err)
	p.define(p.a, "web01", 16<<20)
	task, err = p.a.node.Protect(ctx, "web01", api.ProtectRequest{Config: "policy: {arbitration: available}"})
	p.finish(p.a, task, err)
	_, err = p.a.node.Act(ctx, "web01", api.Start, api.ActionRequest{})
	must(t, err)
	p.is(p.a, "web01", "PRIM")
	p.is(p.b, "web01", "SECOND")
}

// TestCheckAndProtectAgree: what a protect would refuse on its way its check refuses in the same words, and leaves
// nothing behind.
func TestCheckAndProtectAgree(t *testing.T) {
	p := newPair(t)
	ctx := t.Context()
	p.protected("other")
	p.running("web01")
	p.define(p.a, "off01", 8<<20)
	a, b := p.a.dir, p.b.dir
	must(t, errors.Join(os.WriteFile(b+"/small.img", make([]byte, 4<<20), 0o600), os.Symlink("/usr", b+"/link")))
	other, err := p.b.node.Find("other")
	must(t, err)
	theirs := other.Module.Volumes()[0].Paths
	at := func(node string, paths ...string) (r api.ProtectRequest) {
		for i, path := range paths {
			r.Images = append(r.Images, api.ImageChoice{Node: node, Target: []string{"vda", "vdb"}[i], Path: path})
		}
		return r
	}
	for _, c := range []struct {
		vm   string
		r    api.ProtectRequest
		want string
	}{
		{"web01", at("beta", "/usr/x.raw"), "beta takes images of other nodes in"},
		{"web01", at("beta", b+"/link/x.raw"), "beta takes images of other nodes in"},
		{"web01", at("beta", b+"/no/x.raw"), "make its directory on beta"},
		{"web01", at("alpha", a+"/no/x.raw"), "make its directory on alpha"},
		{"web01", at("beta", b), "not a file or block device"},
		{"web01", at("alpha", "/dev/zero"), "not a file or block device"},
		{"web01", at("alpha", "/dev/duet-none"), "would lie in memory"},
		{"web01", at("beta", b+"/small.img"), "has 4194304 bytes, expected 8388608"},
		{"off01", at("beta", b+"/small.img"), "has 4194304 bytes, expected 8388608"},
		{"web01", at("beta", theirs["beta"]), "is the image of other/vda"},
		{"web01", at("alpha", theirs["alpha"]), "is the image of other/vda"},
		{"web01", at("beta", b+"/both.img", b+"/./both.img"), "is that of another disk already"},
		{"web01", at("alpha", a+"/both.img", a+"/both.img"), "is that of another disk already"},
		{"off01", at("alpha", "/x"), "stays where it is"},
		{"off01", at("gamma", "/x"), "alpha and beta"},
		{"off01", api.ProtectRequest{Module: "other"}, "module other exists and protects VM other"},
		{"other", api.ProtectRequest{}, "VM other is protected already"},
	} {
		_, err := p.a.node.CheckProtect(ctx, c.vm, c.r)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("check of %s as %+v: %v, want %q", c.vm, c.r, err, c.want)
			continue
		}
		task, failed := p.a.node.Protect(ctx, c.vm, c.r)
		if failed == nil {
			failed = errors.New(p.ended(p.a, task, nil).Error)
		}
		if cluster.Plain(failed) != cluster.Plain(err) {
			t.Errorf("check says %q, protect %q", err, failed)
		}
		p.settled()
	}
	if err := p.a.node.orders.MayClear("other", "beta"); !errors.Is(err, api.ErrConflict) {
		t.Errorf("alpha would give away what runs there: %v", err)
	}
	must(t, p.a.node.orders.MayClear("nosuch", "beta"))
	if made, _ := os.ReadDir(filepath.Join(b, "volumes", "web01")); len(made) > 0 || exists(b+"/both.img") {
		t.Errorf("beta has %v of what was refused", made)
	}
	if check, err := p.a.node.CheckProtect(ctx, "web01", at("beta", b+"//new.img")); err != nil || !check.OK {
		t.Errorf("check of a place that will do: %+v, %v", check, err)
	}
	task, err := p.a.node.Protect(ctx, "web01", at("beta", b+"//new.img"))
	p.finish(p.a, task, err)
}
