package scenario

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"duet/testbed/testcluster"
)

// define defines a VM after replacing parts of its definition.
func define(ctx context.Context, t *testing.T, h *testcluster.Host, vm testcluster.VM, replace ...string) {
	t.Helper()
	must(t, h.Define(ctx, vm))
	if len(replace) > 0 {
		redefine(ctx, t, h, vm.Name, replace...)
	}
}

// redefine edits a definition as `virsh edit` does.
func redefine(ctx context.Context, t *testing.T, h *testcluster.Host, vm string, replace ...string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "vm.xml")
	text := strings.NewReplacer(replace...).Replace(inactive(ctx, t, h, vm))
	must(t, os.WriteFile(file, []byte(text), 0o600))
	virsh(ctx, t, h, "define", file)
}

func virsh(ctx context.Context, t *testing.T, h *testcluster.Host, args ...string) string {
	t.Helper()
	out, err := h.Libvirt.Virsh(ctx, args...)
	must(t, err)
	return out
}

// inactive is the persistent definition.
func inactive(ctx context.Context, t *testing.T, h *testcluster.Host, vm string) string {
	t.Helper()
	return virsh(ctx, t, h, "dumpxml", "--inactive", "--security-info", vm)
}

// refused runs a command that is to fail, and returns what it said.
func refused(ctx context.Context, t *testing.T, h *testcluster.Host, want string, args ...string) {
	t.Helper()
	out, err := h.Duet(ctx, args...)
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("duet %s: %q, %v; want a refusal with %q", strings.Join(args, " "), out, err, want)
	}
}

// notices waits until a host shows, or no longer shows, a notice of its own with that code.
func notices(ctx context.Context, t *testing.T, h *testcluster.Host, module, code string, want bool) {
	t.Helper()
	must(t, testcluster.Until(ctx, fmt.Sprintf("notice %s of %s is shown: %v", code, module, want), func() error {
		st, err := h.On(ctx, module)
		if err != nil {
			return err
		}
		for _, n := range st.Notices {
			if n.Code == code && want {
				return nil
			}
			if n.Code == code {
				return errorf("%s", n.Text)
			}
		}
		if want {
			return errorf("it is %s (%s): %s, %+v", st.Role, st.Status, st.Why, st.Notices)
		}
		return nil
	}))
}

const (
	customCPU = "<cpu mode='custom' match='exact' check='none'>\n    <model fallback='forbid'>qemu64</model>\n  </cpu>"
	hostCPU   = "<cpu mode='host-model' check='partial'/>"
)

// TestDefinitionIsGivenBack: a VM as admins have it, with a name no module may have, a CPU
// like the host's, an edit that waits for the next boot and a device that was only plugged in
// live, is taken in and given back while it runs. Its definition is then what it was.
func TestDefinitionIsGivenBack(t *testing.T) {
	l := start(t, 64)
	ctx := bounded(t, 4*time.Minute)
	a, b := l.Hosts[testcluster.Alpha], l.Hosts[testcluster.Beta]
	vm := testcluster.VM{Name: "Web_01.example", Size: 32 << 20, Rate: 50}
	define(ctx, t, a, vm, customCPU, hostCPU, "<memory unit", "<title>the shop</title>\n  <memory unit",
		" cache='writeback'", "")
	virsh(ctx, t, a, "autostart", vm.Name)
	virsh(ctx, t, a, "start", vm.Name)
	waitAcks(ctx, t, l, vm.Name, 10)
	virsh(ctx, t, a, "setmaxmem", vm.Name, "200M", "--config")
	controller := filepath.Join(t.TempDir(), "controller.xml")
	must(t, os.WriteFile(controller, []byte("<controller type='scsi' index='0' model='virtio-scsi'/>"), 0o600))
	virsh(ctx, t, a, "attach-device", vm.Name, controller, "--live")
	before := inactive(ctx, t, a, vm.Name)
	boots := len(read(t, l, vm.Name).Boots)
	autostart := func(h *testcluster.Host, want string) {
		t.Helper()
		if out := virsh(ctx, t, h, "dominfo", vm.Name); !regexp.MustCompile(`Autostart: +` + want).MatchString(out) {
			t.Errorf("autostart on %s is not %sd:\n%s", h.Name, want, out)
		}
	}

	const module = "web-01-example"
	if out := duet(ctx, t, a, "vm", "protect", vm.Name, "--peer", "beta", "--arbitration",
		"available"); !strings.Contains(out, "as module "+module) {
		t.Errorf("protect said: %s", out)
	}
	must(t, a.Whole(ctx, module))
	must(t, b.Is(ctx, module, "SECOND"))
	for _, h := range []*testcluster.Host{a, b} {
		autostart(h, "disable")
	}
	waitAcks(ctx, t, l, vm.Name, 10)
	duet(ctx, t, a, "vm", "release", module)
	log := waitAcks(ctx, t, l, vm.Name, 10)
	if len(log.Boots) != boots {
		t.Error("the guest booted again")
	}
	noErrors(t, log)
	image := "/var/lib/duet/volumes/" + module + "/vda.raw"
	moved := strings.Replace(before, "/var/lib/libvirt/images/"+vm.Name+".raw", image, 1)
	if after := inactive(ctx, t, a, vm.Name); after != moved {
		t.Errorf("the definition was\n%s\nand is\n%s", before, after)
	}
	if live := virsh(ctx, t, a, "dumpxml", vm.Name); !strings.Contains(live, "virtio-scsi") ||
		strings.Contains(live, "nbd") {
		t.Errorf("the running VM is\n%s", live)
	}
	autostart(a, "enable")

	// Of a VM that is off nothing is moved: every byte is the same.
	virsh(ctx, t, a, "destroy", vm.Name)
	before = inactive(ctx, t, a, vm.Name)
	duet(ctx, t, a, "vm", "protect", vm.Name, "--arbitration", "available", "--module", "shop")
	virsh(ctx, t, a, "undefine", vm.Name)
	duet(ctx, t, a, "vm", "release", "shop")
	if after := inactive(ctx, t, a, vm.Name); after != before {
		t.Errorf("the definition was\n%s\nand is\n%s", before, after)
	}
	autostart(a, "enable")
	virsh(ctx, t, a, "start", vm.Name)
	waitAcks(ctx, t, l, vm.Name, 10)

	// One that runs without a definition has nothing that could be protected.
	virsh(ctx, t, a, "autostart", "--disable", vm.Name)
	virsh(ctx, t, a, "undefine", vm.Name)
	refused(ctx, t, a, "is transient", "vm", "protect", vm.Name)
}

// TestDisksLeaveTheirVolumes: what an admin does to the disks of a protected, running VM is
// seen at once and told with the way back, no swap, release or failover takes an older copy
// for the VM's data, and the way back leads to two equal copies.
func TestDisksLeaveTheirVolumes(t *testing.T) {
	l := start(t, 66)
	ctx := bounded(t, 4*time.Minute)
	a, b := l.Hosts[testcluster.Alpha], l.Hosts[testcluster.Beta]
	must(t, a.Protect(ctx, testcluster.VM{Name: "web01", Size: 32 << 20, Rate: 50}))
	waitAcks(ctx, t, l, "web01", 20)
	strayed := func(how string) {
		t.Helper()
		did := time.Now()
		notices(ctx, t, a, "web01", "disk-elsewhere", true)
		took := time.Since(did)
		t.Logf("%s: seen after %v", how, took)
		if took > 2*time.Second { // two calls of a command on a busy computer, and what they wait for
			t.Errorf("%s was seen after %v", how, took)
		}
		must(t, testcluster.Until(ctx, "alpha goes on alone", func() error {
			st, err := a.On(ctx, "web01")
			if err == nil && (st.Role != "ALONE" || st.Status != "NotReady") {
				err = errorf("it is %s (%s)", st.Role, st.Status)
			}
			return err
		}))
		refused(ctx, t, a, "disk vda", "swap", "web01")
		refused(ctx, t, a, "disk vda", "vm", "release", "web01")
		waitAcks(ctx, t, l, "web01", 20)
	}
	back := func() {
		t.Helper()
		notices(ctx, t, a, "web01", "disk-elsewhere", false)
		must(t, a.Whole(ctx, "web01"))
		must(t, b.Is(ctx, "web01", "SECOND"))
		waitAcks(ctx, t, l, "web01", 20)
		identical(ctx, t, a, "web01")
	}

	virsh(ctx, t, a, "snapshot-create-as", "web01", "nightly", "--disk-only", "--diskspec",
		"vda,file=/var/lib/libvirt/images/layer.qcow2")
	strayed("a snapshot")
	// The standby must not take the old copy for the VM's data when this host dies.
	must(t, a.Duetd().Kill())
	<-a.Duetd().Done()
	must(t, testcluster.Until(ctx, "beta waits, because its copy is outdated", func() error {
		st, err := b.On(ctx, "web01")
		if err == nil && (st.Role != "WAIT" || st.Complete) {
			err = errorf("it is %s, complete %v: %s", st.Role, st.Complete, st.Why)
		}
		return err
	}))
	must(t, a.StartDuetd(ctx))
	notices(ctx, t, a, "web01", "disk-elsewhere", true)
	// QEMU finds out at its first write that the killed daemon's connection is gone.
	must(t, testcluster.Until(ctx, "the layer is merged", func() error {
		_, err := a.Libvirt.Virsh(ctx, "blockcommit", "web01", "vda", "--active", "--pivot", "--wait")
		return err
	}))
	back()
	virsh(ctx, t, a, "snapshot-delete", "web01", "nightly", "--metadata")

	_, err := a.Node.Run(ctx, "qemu-img", "create", "-q", "-f", "raw", "/var/lib/libvirt/images/else.raw", "32M")
	must(t, err)
	virsh(ctx, t, a, "blockcopy", "web01", "vda", "/var/lib/libvirt/images/else.raw", "--reuse-external",
		"--transient-job", "--pivot", "--wait")
	strayed("a copy that was switched over to")
	duet(ctx, t, a, "vm", "return", "web01")
	back()

	// Another VM on the same volume is refused, whoever starts it.
	file := filepath.Join(t.TempDir(), "copy.xml")
	text := regexp.MustCompile(`<uuid>.*</uuid>`).ReplaceAllString(inactive(ctx, t, a, "web01"), "")
	must(t, os.WriteFile(file, []byte(strings.Replace(text, "<name>web01</name>", "<name>copy</name>", 1)), 0o600))
	virsh(ctx, t, a, "define", file)
	if out, err := a.Libvirt.Virsh(ctx, "start", "copy"); err == nil {
		t.Errorf("a second VM runs on the volume: %s", out)
	}
	virsh(ctx, t, a, "undefine", "copy")

	// A disk that is plugged in is shown for what it is.
	_, err = a.Node.Run(ctx, "qemu-img", "create", "-q", "-f", "raw", "/var/lib/libvirt/images/more.raw", "1M")
	must(t, err)
	virsh(ctx, t, a, "attach-disk", "web01", "/var/lib/libvirt/images/more.raw", "vdb", "--live")
	notices(ctx, t, a, "web01", "disk-not-replicated", true)
	must(t, a.Whole(ctx, "web01"))
	duet(ctx, t, a, "swap", "web01")
	must(t, b.Whole(ctx, "web01"))
	rebooted(ctx, t, l, "web01", read(t, l, "web01"))
}

// TestPausedAndSaved: a VM that an admin has paused stays so, whatever the daemon does; one
// whose memory he has saved goes on from there, unless its disks have gone on without it.
func TestPausedAndSaved(t *testing.T) {
	l := start(t, 68)
	ctx := bounded(t, 4*time.Minute)
	a, b := l.Hosts[testcluster.Alpha], l.Hosts[testcluster.Beta]
	must(t, a.Protect(ctx, testcluster.VM{Name: "web01", Size: 32 << 20, Rate: 50}))
	boots := len(waitAcks(ctx, t, l, "web01", 10).Boots)
	state := func(want string) {
		t.Helper()
		if got := virsh(ctx, t, a, "domstate", "web01"); got != want {
			t.Errorf("the VM is %q, want %q", got, want)
		}
	}

	virsh(ctx, t, a, "suspend", "web01")
	must(t, a.Duetd().Kill())
	<-a.Duetd().Done()
	must(t, a.StartDuetd(ctx))
	must(t, a.Whole(ctx, "web01"))
	state("paused")
	apply(ctx, t, a, "web01", "max: 3", "max: 4")
	must(t, a.Configured(ctx, "web01", "max: 4"))
	must(t, a.Whole(ctx, "web01"))
	must(t, b.Is(ctx, "web01", "SECOND"))
	state("paused")
	refused(ctx, t, a, "virsh resume web01", "swap", "web01")
	virsh(ctx, t, a, "resume", "web01")
	waitAcks(ctx, t, l, "web01", 10)

	stopped := func(h *testcluster.Host) {
		t.Helper()
		must(t, testcluster.Until(ctx, "the module is stopped", func() error {
			st, err := h.On(ctx, "web01")
			if err == nil && st.Role != "STOP" {
				err = errorf("it is %s (%s)", st.Role, st.Status)
			}
			return err
		}))
	}
	virsh(ctx, t, a, "managedsave", "web01")
	stopped(a)
	duet(ctx, t, a, "start", "web01")
	must(t, a.Whole(ctx, "web01"))
	log := waitAcks(ctx, t, l, "web01", 10)
	if len(log.Boots) != boots {
		t.Error("the guest booted, its saved memory was thrown away")
	}
	noErrors(t, log)

	// The other node has gone on since: whether the memory may go is for an admin to say.
	virsh(ctx, t, a, "managedsave", "web01")
	stopped(a)
	stopped(b)
	duet(ctx, t, b, "prim", "web01", "--node", "beta", "--yes")
	must(t, b.Is(ctx, "web01", "ALONE"))
	waitAcks(ctx, t, l, "web01", 10)
	duet(ctx, t, b, "stop", "web01")
	stopped(b)
	refused(ctx, t, a, "saved on alpha", "start", "web01", "--node", "alpha")
	duet(ctx, t, a, "start", "web01", "--yes")
	must(t, b.Whole(ctx, "web01"))
}

// TestStartFailsThere: the host dies, and the VM does not start on the other one, for a
// reason that status shows. When the host is back the VM runs there again, with everything
// that was acknowledged, and without a command.
func TestStartFailsThere(t *testing.T) {
	l := start(t, 70)
	ctx := bounded(t, 4*time.Minute)
	a, b := l.Hosts[testcluster.Alpha], l.Hosts[testcluster.Beta]
	must(t, a.Protect(ctx, testcluster.VM{Name: "web01", Size: 32 << 20, Rate: 50}))
	before := waitAcks(ctx, t, l, "web01", 20)
	// A file that the definition names beside its disks goes on beta only: its own mount is put over it.
	_, err := b.Node.Run(ctx, "sh", "-c", "mkdir -p /run/empty && mount --bind /run/empty "+filepath.Dir(l.Guest.Kernel))
	must(t, err)
	must(t, a.Kill())
	must(t, testcluster.Until(ctx, "beta gives up and says why", func() error {
		st, err := b.On(ctx, "web01")
		if err == nil && (st.Role != "STOP" || !strings.Contains(st.Why, filepath.Base(l.Guest.Kernel))) {
			err = errorf("it is %s (%s): %s", st.Role, st.Status, st.Why)
		}
		return err
	}))
	must(t, a.Boot(ctx))
	must(t, a.StartDuetd(ctx))
	must(t, a.Whole(ctx, "web01"))
	must(t, b.Is(ctx, "web01", "SECOND"))
	rebooted(ctx, t, l, "web01", before)
	identical(ctx, t, a, "web01")
}
