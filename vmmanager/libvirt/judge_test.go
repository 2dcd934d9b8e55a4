//go:build linux && cgo && libvirt_dlopen

package libvirt

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"duet/vmmanager"
	"duet/vmmanager/vmtest"
)

// codes of what Judge has found.
func (n *node) judged(t *testing.T, name, text string) []string {
	t.Helper()
	found, err := n.h.Judge(vmtest.Context(t), vmmanager.Definition{Name: name, Text: []byte(text)})
	must(t, err)
	var codes []string
	for _, f := range found {
		codes = append(codes, string(f.Level)+" "+f.Code)
	}
	return codes
}

// testJudge: a host says before it is asked to what it would say to a start, and changes nothing.
func (n *node) testJudge(t *testing.T) {
	image := n.bootDisk("judged", 1<<20)
	plain := n.domain("judged", fileDisk(image, "raw", ""))
	with := func(old, new string) string {
		text := strings.Replace(plain, old, new, 1)
		if text == plain {
			t.Fatalf("no %s in the definition", old)
		}
		return text
	}
	before, err := n.virsh("list", "--all", "--uuid")
	must(t, err)
	for _, c := range []struct{ name, text, want string }{
		{"good", plain, ""},
		{"cpu that QEMU emulates", with("<features>",
			"<cpu mode='custom' match='exact'><model>qemu64</model></cpu><features>"), ""},
		{"host-model", with("<features>", "<cpu mode='host-passthrough'/><features>"), "refused cpu-missing"},
		{"emulator", with("qemu-system-x86_64", "qemu-system-nosuch"), "refused emulator-missing"},
		{"machine", with("machine='pc'", "machine='pc-q35-99.9'"), "refused machine-missing"},
		{"unknown element", with("<on_crash>", "<invented/><on_crash>"), "refused definition-unknown"},
		{"bridge", with("<panic",
			"<interface type='bridge'><source bridge='nosuchbr'/><model type='virtio'/></interface><panic"),
			"refused bridge-missing"},
		{"network", with("<panic",
			"<interface type='network'><source network='nosuch'/><model type='virtio'/></interface><panic"),
			"refused network-missing"},
		{"medium", with("<panic",
			"<disk type='file' device='cdrom'><source file='/nosuch.iso'/><target dev='hdc' bus='ide'/></disk><panic"),
			"warning medium-missing"},
		{"pool", with("<panic",
			"<disk type='volume' device='cdrom'><source pool='nosuch' volume='x'/><target dev='hdc' bus='ide'/></disk><panic"),
			"warning medium-missing"},
		{"kernel", with("<boot dev='hd'/>", "<kernel>/nosuch/vmlinuz</kernel>"), "refused file-missing"},
		{"memory", with("<memory unit='MiB'>32</memory>", "<memory unit='TiB'>900</memory>"), "refused memory-short"},
	} {
		if got := strings.Join(n.judged(t, c.name, c.text), ", "); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
	if after, err := n.virsh("list", "--all", "--uuid"); err != nil || after != before {
		t.Errorf("VMs %q before, %q after, %v", before, after, err)
	}

	n.testJudgeClash(t, plain)
	n.testJudgeNetwork(t, with("<panic",
		"<interface type='network'><source network='lan'/><model type='virtio'/></interface><panic"))
}

// testJudgeClash: two VMs cannot have one UUID; a definition is no stranger to itself.
func (n *node) testJudgeClash(t *testing.T, plain string) {
	t.Helper()
	const uuid = "<uuid>6d9f2e1c-0b5e-4c39-9a14-d0a6f1c7e001</uuid>"
	named := func(name, uuid string) string {
		return strings.Replace(strings.Replace(plain, "<name>judged</name>", "<name>"+name+"</name>"+uuid, 1),
			"judged.serial", name+".serial", 1)
	}
	ctx := vmtest.Context(t)
	must(t, n.h.Define(ctx, vmmanager.Definition{Name: "older", Text: []byte(named("older", uuid))}))
	defer func() { check(t, n.h.Undefine(vmtest.Context(t), "older")) }()
	for _, c := range []struct{ name, text, want string }{
		{"judged", named("judged", ""), ""},
		{"judged", named("judged", uuid), "refused uuid-taken"},
		{"older", named("older", uuid), ""},
		{"older", named("older", strings.Replace(uuid, "e001", "e002", 1)), "warning name-taken"},
	} {
		if got := strings.Join(n.judged(t, c.name, c.text), ", "); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

// testJudgeNetwork: a network is followed from its absence to its good order.
func (n *node) testJudgeNetwork(t *testing.T, text string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "lan.xml")
	// A network on a device of the host: it needs neither dnsmasq nor a firewall.
	must(t, os.WriteFile(path,
		[]byte("<network><name>lan</name><forward mode='bridge'><interface dev='lo'/></forward></network>"), 0o644))
	for _, step := range []struct {
		virsh []string
		want  string
	}{
		{nil, "refused network-missing"},
		{[]string{"net-define", path}, "refused network-inactive"},
		{[]string{"net-start", "lan"}, "warning network-autostart"},
		{[]string{"net-autostart", "lan"}, ""},
		{[]string{"net-destroy", "lan"}, "refused network-inactive"},
		{[]string{"net-undefine", "lan"}, "refused network-missing"},
	} {
		if step.virsh != nil {
			_, err := n.virsh(step.virsh...)
			must(t, err)
		}
		if got := strings.Join(n.judged(t, "judged", text), ", "); got != step.want {
			t.Errorf("after virsh %v: %s, want %s", step.virsh, got, step.want)
		}
	}
}

// testMissingMedium: a VM whose CD lies on another host starts without it and keeps it in its definition.
func (n *node) testMissingMedium(t *testing.T) {
	const name = "nomedium"
	ctx := vmtest.Context(t)
	cd := "<disk type='file' device='cdrom'><driver name='qemu' type='raw'/><source file='/nosuch/cd.iso'/><target " +
		"dev='hdc' bus='ide'/><readonly/></disk>"
	text := strings.Replace(string(n.definition(name).Text), "<panic", cd+"<panic", 1)
	must(t, n.h.Define(ctx, vmmanager.Definition{Name: name, Text: []byte(text)}))
	t.Cleanup(func() {
		ctx := vmtest.Context(t)
		check(t, n.h.Kill(ctx, name))
		check(t, n.h.Undefine(ctx, name))
	})
	before, err := n.h.Definition(ctx, name)
	must(t, err)
	must(t, n.h.Start(ctx, name))
	n.state(t, name, vmmanager.Running)
	after, err := n.h.Definition(ctx, name)
	must(t, err)
	if !slices.Equal(before.Text, after.Text) {
		t.Errorf("the definition was\n%s\nand is\n%s", before.Text, after.Text)
	}
	live, err := n.virsh("dumpxml", name)
	must(t, err)
	if strings.Contains(live, "cd.iso") || !strings.Contains(live, "dev='hdc'") {
		t.Errorf("the running VM is not without its CD:\n%s", live)
	}
	// What an admin has said counts: without a mandatory medium it does not start.
	must(t, n.h.Kill(ctx, name))
	mandatory := strings.Replace(text, "cd.iso'", "cd.iso' startupPolicy='mandatory'", 1)
	must(t, n.h.Define(ctx, vmmanager.Definition{Name: name, Text: []byte(mandatory)}))
	if err := n.h.Start(ctx, name); err == nil || !strings.Contains(err.Error(), "cd.iso") {
		t.Errorf("start without a mandatory medium: %v", err)
	}
}
