//go:build linux && cgo && libvirt_dlopen

package libvirt

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"duet/vmmanager"
	"duet/vmmanager/vmtest"
)

// testDefinition: disks of every kind are found with their sizes, and secrets come along.
func (n *node) testDefinition(t *testing.T) {
	const name, size = "definition", 8 << 20
	ctx := vmtest.Context(t)
	raw, qcow2 := n.bootDisk(name, size), filepath.Join(n.dir, name+".qcow2")
	convert(t, raw, qcow2)
	if _, err := n.virsh("pool-create-as", "images", "dir", "--target", n.dir); err != nil {
		t.Fatal(err)
	}
	defer n.virsh("pool-destroy", "images")
	more := fmt.Sprintf(`
    <disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='%s'/><target dev='vdb' bus='virtio'/></disk>
    <disk type='volume' device='disk'><driver name='qemu' type='raw'/><source pool='images' volume='%s.img'/><target dev='vdc' bus='virtio'/><shareable/></disk>
    <disk type='volume' device='disk'><driver name='qemu' type='qcow2'/><source pool='images' volume='%s.qcow2'/><target dev='vdd' bus='virtio'/></disk>
    <disk type='file' device='cdrom'><target dev='hda' bus='ide'/><readonly/></disk>
    <graphics type='vnc' passwd='secret'/>`, qcow2, name, name)
	text := n.domain(name, fileDisk(raw, "raw", "")+more)
	must(t, n.h.Define(ctx, vmmanager.Definition{Name: name, Text: []byte(text)}))
	defer func() { check(t, n.h.Undefine(ctx, name)) }()
	def, err := n.h.Definition(ctx, name)
	must(t, err)
	want := []vmmanager.Disk{
		{Target: "vda", Path: raw, Format: "raw", Size: size},
		{Target: "vdb", Path: qcow2, Format: "qcow2", Size: size},
		{Target: "vdd", Path: qcow2, Format: "qcow2", Size: size},
	}
	if fmt.Sprint(def.Disks) != fmt.Sprint(want) {
		t.Errorf("disks:\n%v\nwant\n%v", def.Disks, want)
	}
	if !bytes.Contains(def.Text, []byte("secret")) {
		t.Error("the password of the console was left out: it would be lost on the other node")
	}
	// The same name with another UUID, as after an install from scratch.
	must(t, n.h.Define(ctx, vmmanager.Definition{Name: name, Text: []byte(text)}))
	bad := vmmanager.Definition{Name: name, Text: bytes.Replace([]byte(text), []byte("<vcpu>1"),
		[]byte("<vcpus>1</vcpus><vcpu>1"), 1)}
	if err := n.h.Define(ctx, bad); err == nil {
		t.Error("a definition against the schema was taken")
	}
	if _, err := n.h.Definition(ctx, name); err != nil {
		t.Errorf("a refused definition took the old one along: %v", err)
	}
	if err := n.h.Define(ctx, vmmanager.Definition{Name: "another", Text: []byte(text)}); err == nil {
		t.Error("a definition of another VM was taken")
	}
}

// testDefinitionRefused: a VM whose new definition is refused is as it was, with its autostart, saved memory and
// snapshots. One with the UUID of another VM took them along.
func (n *node) testDefinitionRefused(t *testing.T) {
	const name, other = "overwritten", "holder"
	ctx := vmtest.Context(t)
	n.run(t, name, string(n.definition(name).Text))
	must(t, n.h.Define(ctx, n.definition(other)))
	defer func() { check(t, n.h.Undefine(vmtest.Context(t), other)) }()
	before, err := n.h.Definition(ctx, name)
	must(t, err)
	text := string(before.Text)
	id, err := n.virsh("domuuid", other)
	must(t, err)
	for _, hand := range [][]string{
		{"autostart", name},
		{"snapshot-create", name, "--redefine", n.file(t, name+".xml", "<domainsnapshot><name>before</name><state>shutoff"+
			"</state><creationTime>1</creationTime><disks><disk name='vda' snapshot='internal'/></disks>"+text+
			"</domainsnapshot>")},
		{"managedsave", name},
	} {
		_, err := n.virsh(hand...)
		must(t, err)
	}
	domain, err := parseXML([]byte(text))
	must(t, err)
	bad := strings.Replace(text, textOf(domain.child("uuid")), strings.TrimSpace(id), 1)
	if err := n.h.Define(ctx, vmmanager.Definition{Name: name, Text: []byte(bad)}); err == nil {
		t.Fatal("a VM got the UUID of another one")
	}
	if def, err := n.h.Definition(ctx, name); err != nil || !def.Autostart || !def.Saved ||
		!bytes.Equal(def.Text, before.Text) {
		t.Errorf("autostart %t, saved %t, %v\n%s\nwant\n%s", def.Autostart, def.Saved, err, def.Text, text)
	}
	if all, err := n.virsh("snapshot-list", "--name", name); err != nil || strings.TrimSpace(all) != "before" {
		t.Errorf("snapshots %q, %v", all, err)
	}
}

// testDefinitionHanging: what a VM is can be read while its QEMU does not answer, as on a host that is very busy.
func (n *node) testDefinitionHanging(t *testing.T) {
	const name, size = "defhanging", 1 << 20
	raw := n.bootDisk(name, size)
	n.run(t, name, n.domain(name, fileDisk(raw, "raw", "")))
	guest := n.qemu(name)[0]
	must(t, unix.PidfdSendSignal(guest.fd, unix.SIGSTOP, nil, 0))
	defer func() { check(t, unix.PidfdSendSignal(guest.fd, unix.SIGCONT, nil, 0)) }()
	def, err := n.h.Definition(vmtest.Context(t), name)
	must(t, err)
	if want := (vmmanager.Disk{Target: "vda", Path: raw, Format: "raw", Size: size}); len(def.Disks) != 1 ||
		def.Disks[0] != want {
		t.Errorf("disks: %v, want %v", def.Disks, want)
	}
}

// testGoldens: what Rewire returns passes libvirt's schema.
func (n *node) testGoldens(t *testing.T) {
	ctx := vmtest.Context(t)
	pattern := "testdata/*.want.xml"
	if n.h.reconnect {
		pattern = "testdata/*.want-reconnect.xml"
	}
	files, err := filepath.Glob(pattern)
	if err != nil || len(files) == 0 {
		t.Fatal("no goldens", err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		must(t, err)
		domain, err := parseXML(text)
		must(t, err)
		name := domain.child("name").text
		check(t, n.h.Define(ctx, vmmanager.Definition{Name: name, Text: text}))
		check(t, n.h.Undefine(ctx, name))
	}
}

// testAway: Watch works without a libvirtd and tells everything once it is there.
func (n *node) testAway(t *testing.T) {
	const name = "away"
	n.run(t, name, string(n.definition(name).Text))
	ctx := vmtest.Context(t)
	must(t, n.Stop(ctx))
	events := vmtest.Watch(t, n.h, name)
	if err := n.h.Start(ctx, name); !errors.Is(err, vmmanager.ErrUnavailable) {
		t.Errorf("start without libvirtd: %v, want ErrUnavailable", err)
	}
	must(t, n.Start(ctx))
	events.Want(vmmanager.Running, vmmanager.ByReconnect)
}
