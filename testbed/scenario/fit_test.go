package scenario

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"duet/testbed/testcluster"
)

// toldWithin is the promise: a change of a host, or of a VM, to what status says of it.
const toldWithin = 5 * time.Second

// TestPeerIsAskedBefore: what the peer's libvirt would refuse is said at protect, at an edit
// and when the peer's networks change; a CD that it lacks does not keep the VM from running.
func TestPeerIsAskedBefore(t *testing.T) {
	l := start(t, 90)
	ctx := bounded(t, 3*time.Minute)
	a, b := l.Hosts[testcluster.Alpha], l.Hosts[testcluster.Beta]
	bridge := func(h *testcluster.Host, command string) {
		t.Helper()
		_, err := h.Node.Run(ctx, "sh", "-c", command)
		must(t, err)
	}
	const makeBridge = "ip link add br-web type bridge && ip link set br-web up"
	bridge(a, makeBridge+" && mkdir -p /var/lib/libvirt/iso && truncate -s 1M /var/lib/libvirt/iso/install.iso")
	must(t, a.DefineTiny(ctx, "web01", 8<<20))
	redefine(ctx, t, a, "web01", "</devices>", `<interface type='bridge'><source bridge='br-web'/><model type='virtio'/></interface>
    <disk type='file' device='cdrom'><driver name='qemu' type='raw'/><source file='/var/lib/libvirt/iso/install.iso'/><target dev='hdc' bus='ide'/><readonly/></disk>
  </devices>`)

	// Nothing is made of what the peer would refuse.
	protect := []string{"vm", "protect", "web01", "--arbitration", "available"}
	for _, args := range [][]string{append(protect, "--check"), protect} {
		refusedSoon(ctx, t, a, args, "interface 1: there is no bridge br-web", "ip link add br-web")
	}
	bridge(b, makeBridge)
	out := duet(ctx, t, a, append(protect, "--check")...)
	if !strings.Contains(out, "can be protected") || !strings.Contains(out, "install.iso") {
		t.Errorf("check says %q", out)
	}
	clash(ctx, t, a, b)

	if out := duet(ctx, t, a, protect...); !strings.Contains(out, "the VM starts without it") {
		t.Errorf("protect says %q", out)
	}
	duet(ctx, t, a, "start", "web01")
	must(t, a.Whole(ctx, "web01"))
	must(t, b.Is(ctx, "web01", "SECOND"))
	told(ctx, t, a, "web01", "medium-missing", true)
	out = duet(ctx, t, a, "status", "web01")
	if !strings.Contains(out, "warning  beta: cdrom hdc: /var/lib/libvirt/iso/install.iso does not exist") {
		t.Errorf("status says %s", out)
	}

	// A bridge goes, and comes back.
	bridge(b, "ip link del br-web")
	told(ctx, t, a, "web01", "bridge-missing", true)
	_, err := a.Duet(ctx, "swap", "web01")
	if err == nil || !strings.Contains(err.Error(), "beta would not start the VM") {
		t.Errorf("swap to a host that would not start the VM: %v", err)
	}
	bridge(b, makeBridge)
	told(ctx, t, a, "web01", "bridge-missing", false)

	// A disk that is attached to a protected VM.
	_, err = a.Node.Run(ctx, "truncate", "-s", "1M", "/var/lib/libvirt/images/more.raw")
	must(t, err)
	_, err = a.Libvirt.Virsh(ctx, "attach-disk", "web01", "/var/lib/libvirt/images/more.raw", "vdb", "--config")
	must(t, err)
	told(ctx, t, b, "web01", "definition-unfit", true)
	const detach = "virsh detach-disk web01 vdb --config"
	if out := duet(ctx, t, a, "status", "web01"); !strings.Contains(out, detach) {
		t.Errorf("status does not say what to type: %s", out)
	}
	_, err = a.Libvirt.Virsh(ctx, strings.Fields(detach)[1:]...)
	must(t, err)
	told(ctx, t, b, "web01", "definition-unfit", false)

	// An edit that the peer cannot run, until it can.
	network := filepath.Join(t.TempDir(), "lan.xml")
	must(t, os.WriteFile(network,
		[]byte("<network><name>lan</name><forward mode='bridge'/><bridge name='br-web'/></network>"), 0o644))
	lan := func(h *testcluster.Host) {
		t.Helper()
		for _, args := range [][]string{{"net-define", network}, {"net-start", "lan"}, {"net-autostart", "lan"}} {
			_, err := h.Libvirt.Virsh(ctx, args...)
			must(t, err)
		}
	}
	lan(a)
	redefine(ctx, t, a, "web01", "</devices>",
		"<interface type='network'><source network='lan'/><model type='virtio'/></interface></devices>")
	told(ctx, t, b, "web01", "definition-unfit", true)
	lan(b)
	told(ctx, t, b, "web01", "definition-unfit", false)

	// The host dies: the VM runs on the other one, without its CD, and its definition has it.
	must(t, a.Kill())
	must(t, b.Is(ctx, "web01", "ALONE"))
	live, err := b.Libvirt.Virsh(ctx, "dumpxml", "web01")
	must(t, err)
	if strings.Contains(live, "install.iso") || !strings.Contains(live, "network='lan'") ||
		!strings.Contains(live, "<domain type='qemu' id=") {
		t.Errorf("the VM on beta is\n%s", live)
	}
	kept, err := b.Libvirt.Virsh(ctx, "dumpxml", "web01", "--inactive")
	must(t, err)
	if !strings.Contains(kept, "<source file='/var/lib/libvirt/iso/install.iso'/>") {
		t.Errorf("its definition on beta is\n%s", kept)
	}
}

// clash protects a VM whose UUID another VM of the peer has.
func clash(ctx context.Context, t *testing.T, a, b *testcluster.Host) {
	t.Helper()
	must(t, a.DefineTiny(ctx, "dup", 8<<20))
	must(t, b.DefineTiny(ctx, "older", 8<<20))
	id, err := a.Libvirt.Virsh(ctx, "domuuid", "dup")
	must(t, err)
	text, err := b.Libvirt.Virsh(ctx, "dumpxml", "older")
	must(t, err)
	was, err := b.Libvirt.Virsh(ctx, "domuuid", "older")
	must(t, err)
	_, err = b.Libvirt.Virsh(ctx, "undefine", "older")
	must(t, err)
	defineText(ctx, t, b, strings.Replace(text, strings.TrimSpace(was), strings.TrimSpace(id), 1))
	refusedSoon(ctx, t, a, []string{"vm", "protect", "dup"}, "VM older is defined with the same UUID",
		"virsh undefine older")
}

// refusedSoon runs a command that must fail with these words before anything is copied or made.
func refusedSoon(ctx context.Context, t *testing.T, h *testcluster.Host, args []string, want ...string) {
	t.Helper()
	began := time.Now()
	out, err := h.Duet(ctx, args...)
	if err == nil {
		t.Fatalf("duet %v: done: %s", args, out)
	}
	if took := time.Since(began); took > toldWithin {
		t.Errorf("duet %v took %v to be refused", args, took)
	}
	for _, w := range want {
		if !strings.Contains(out+err.Error(), w) {
			t.Errorf("duet %v says %s %v, want %q", args, out, err, w)
		}
	}
	if _, err := h.Node.Run(ctx, "sh", "-c", "! ls /var/lib/duet/volumes/*/*"); err != nil {
		t.Errorf("duet %v made images", args)
	}
	if s, err := h.Status(ctx); err != nil || len(s.Modules) != 0 {
		t.Errorf("duet %v made modules %v, %v", args, s.Modules, err)
	}
}

// told waits until the other node is said to have a notice of that kind, or no longer.
func told(ctx context.Context, t *testing.T, h *testcluster.Host, module, code string, want bool) {
	t.Helper()
	began := time.Now()
	must(t, testcluster.Until(ctx, code+" is told, or no longer", func() error {
		s, err := h.Status(ctx)
		if err != nil {
			return err
		}
		m, err := s.Module(module)
		if err != nil {
			return err
		}
		var have []string
		for _, n := range m.Nodes {
			for _, x := range n.Notices {
				if n.Node != h.Name {
					have = append(have, x.Code)
				}
			}
		}
		if strings.Contains(strings.Join(have, " "), code) != want {
			return errorf("there is %q", have)
		}
		return nil
	}))
	if took := time.Since(began); took > toldWithin {
		t.Errorf("%s was told after %v, promised is %v", code, took, toldWithin)
	}
}

// defineText gives a definition to libvirt, as an admin does.
func defineText(ctx context.Context, t *testing.T, h *testcluster.Host, text string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "vm.xml")
	must(t, os.WriteFile(path, []byte(text), 0o644))
	_, err := h.Libvirt.Virsh(ctx, "define", path)
	must(t, err)
}
