package scenario

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"duet/testbed/testcluster"
)

// TestProtectWhileItRuns: a VM on a qcow2 image is taken in and given back while its
// guest writes; it never boots anew and never sees an error.
func TestProtectWhileItRuns(t *testing.T) {
	l := start(t, 26)
	ctx := bounded(t, 3*time.Minute)
	a, b := l.Hosts[testcluster.Alpha], l.Hosts[testcluster.Beta]
	must(t, a.Define(ctx, testcluster.VM{Name: "web01", Size: 64 << 20, Rate: 50, QCOW2: true}))
	_, err := a.Libvirt.Virsh(ctx, "start", "web01")
	must(t, err)
	before := waitAcks(ctx, t, l, "web01", 20)

	duet(ctx, t, a, "vm", "protect", "web01", "--peer", "beta", "--arbitration", "available")
	must(t, a.Whole(ctx, "web01"))
	must(t, b.Is(ctx, "web01", "SECOND"))
	log := waitAcks(ctx, t, l, "web01", 20)
	if len(log.Boots) != len(before.Boots) {
		t.Fatal("the guest booted again when it was protected")
	}
	noErrors(t, log)
	identical(ctx, t, a, "web01")
	sparse(ctx, t, a, "/var/lib/duet/volumes/web01/vda.raw", 16<<20)

	// It is protected in earnest: a killed daemon costs a pause.
	must(t, a.Duetd().Kill())
	<-a.Duetd().Done()
	must(t, a.StartDuetd(ctx))
	must(t, a.Whole(ctx, "web01"))
	waitAcks(ctx, t, l, "web01", 20)

	duet(ctx, t, a, "vm", "release", "web01")
	log = waitAcks(ctx, t, l, "web01", 20)
	if len(log.Boots) != len(before.Boots) {
		t.Fatal("the guest booted again when it was released")
	}
	noErrors(t, log)
	text, err := a.Libvirt.Virsh(ctx, "dumpxml", "web01")
	must(t, err)
	if strings.Contains(text, "nbd") || strings.Contains(text, "/run/duet") {
		t.Errorf("the released VM still depends on Duet:\n%s", text)
	}
	if out := duet(ctx, t, b, "status", "--json"); strings.Contains(out, `"web01"`) {
		t.Error("beta still knows the module")
	}
}

// TestDaemonIsKilledDuringProtect: wherever duetd is killed while it takes a running VM in or
// gives it back, the VM runs on when duetd is there again, on disks that somebody serves,
// and its guest has neither booted nor seen an error.
func TestDaemonIsKilledDuringProtect(t *testing.T) {
	l := start(t, 58)
	ctx := bounded(t, 3*time.Minute)
	a, b := l.Hosts[testcluster.Alpha], l.Hosts[testcluster.Beta]
	must(t, a.Define(ctx, testcluster.VM{Name: "web01", Size: 64 << 20, Rate: 50, QCOW2: true}))
	_, err := a.Libvirt.Virsh(ctx, "start", "web01")
	must(t, err)
	boots := len(waitAcks(ctx, t, l, "web01", 20).Boots)
	saved := "/var/lib/libvirt/qemu/save/web01.save"
	image := "/var/lib/duet/volumes/web01/vda.raw"
	protect := []string{"vm", "protect", "web01", "--peer", "beta", "--arbitration", "available", "--no-wait"}

	// dies kills duetd of alpha and starts it again.
	dies := func() {
		t.Helper()
		must(t, a.Duetd().Kill())
		<-a.Duetd().Done()
		must(t, a.StartDuetd(ctx))
	}
	// goesOn waits until the VM's disk is where it should be and its guest writes.
	goesOn := func(disk string) {
		t.Helper()
		must(t, testcluster.Until(ctx, "web01 runs on "+disk, func() error {
			text, err := a.Libvirt.Virsh(ctx, "dumpxml", "web01")
			if err == nil && (!strings.Contains(text, disk) || strings.Contains(text, "<mirror") ||
				!strings.Contains(text, "<domain type='qemu' id=")) {
				err = errorf("it does not: %s", text)
			}
			return err
		}))
		log := waitAcks(ctx, t, l, "web01", 20)
		if len(log.Boots) != boots {
			t.Fatal("the guest booted again")
		}
		noErrors(t, log)
	}

	// While the VM's memory is saved, so that its disks can be set to pause it.
	duet(ctx, t, a, protect...)
	appears(ctx, t, a, saved)
	dies()
	goesOn("web01.qcow2")

	// After the switch to the volume, while beta does not answer.
	must(t, testcluster.Until(ctx, "the first protect is undone", func() error {
		_, err := a.Duet(ctx, protect...)
		return err
	}))
	appears(ctx, t, a, image)
	must(t, b.Duetd().Freeze())
	goesOn("/run/duet/volumes/web01-vda.sock")
	dies()
	must(t, b.Duetd().Thaw())
	goesOn("web01.qcow2")
	must(t, testcluster.Until(ctx, "both nodes have forgotten it", func() error {
		for _, h := range []*testcluster.Host{a, b} {
			if _, err := h.Node.Run(ctx, "test", "!", "-e", image); err != nil {
				return errorf("%s has its image", h.Name)
			}
			if s, err := h.Status(ctx); err != nil || len(s.Modules) > 0 {
				return errorf("%s has modules %v, %v", h.Name, s.Modules, err)
			}
		}
		return nil
	}))

	// In between it can be protected; then duetd dies while the VM is given back.
	must(t, testcluster.Until(ctx, "it is protected", func() error {
		_, err := a.Duet(ctx, protect[:len(protect)-1]...)
		return err
	}))
	must(t, a.Whole(ctx, "web01"))
	must(t, b.Is(ctx, "web01", "SECOND"))
	goesOn("/run/duet/volumes/web01-vda.sock")
	duet(ctx, t, a, "vm", "release", "web01", "--no-wait")
	appears(ctx, t, a, saved)
	dies()
	must(t, testcluster.Until(ctx, "it is given back", func() error {
		text, err := a.Libvirt.Virsh(ctx, "dumpxml", "web01")
		if err == nil && !strings.Contains(text, image) {
			// The memory could not be saved without the disk: it is protected as before.
			if _, err = a.Duet(ctx, "vm", "release", "web01"); err == nil {
				err = errors.New("it was released just now")
			}
		}
		return err
	}))
	goesOn(image)
	if s, err := a.Status(ctx); err != nil || len(s.Modules) > 0 {
		t.Errorf("alpha has modules %v, %v", s.Modules, err)
	}

	// The image of an ordinary VM that lies in Duet's own folder is that VM's: protecting it again takes another one.
	duet(ctx, t, a, protect[:len(protect)-1]...)
	must(t, b.Is(ctx, "web01", "SECOND"))
	goesOn("/run/duet/volumes/web01-vda.sock")
	identical(ctx, t, a, "web01")
	if _, err := a.Node.Run(ctx, "test", "-s", image); err != nil {
		t.Error("the image that the VM had was removed")
	}
}

// fullDisk protects a running VM whose new image does not fit, and finds it as it was.
func fullDisk(ctx context.Context, t *testing.T, h *testcluster.Host) {
	must(t, h.Define(ctx, testcluster.VM{Name: "big", Size: 16 << 20}))
	_, err := h.Node.Run(ctx, "sh", "-c", "dd if=/dev/urandom of=/var/lib/libvirt/images/big.raw bs=1M seek=8 count=8 "+
		"conv=notrunc status=none && mkdir -p /srv/small && mount -t tmpfs -o size=4M none /srv/small")
	must(t, err)
	_, err = h.Libvirt.Virsh(ctx, "start", "big")
	must(t, err)
	_, err = h.Duet(ctx, "vm", "protect", "big", "--image", "alpha:vda=/srv/small/big.raw")
	if err == nil || !strings.Contains(err.Error(), "no space left on device") {
		t.Errorf("protect without space for the image: %v", err)
	}
	text, err := h.Libvirt.Virsh(ctx, "dumpxml", "big")
	if err != nil || !strings.Contains(text, "/var/lib/libvirt/images/big.raw") || strings.Contains(text, "<mirror") {
		t.Errorf("the VM is not as it was (%v):\n%s", err, text)
	}
	if state, err := h.Libvirt.Virsh(ctx, "domstate", "big"); err != nil || strings.TrimSpace(state) != "running" {
		t.Errorf("the VM is %q, %v", state, err)
	}
	if _, err := h.Node.Run(ctx, "test", "!", "-e", "/srv/small/big.raw"); err != nil {
		t.Error("its image is left")
	}
}

// appears waits for a file on a host.
func appears(ctx context.Context, t *testing.T, h *testcluster.Host, path string) {
	t.Helper()
	outside, err := h.Node.Outside(path)
	must(t, err)
	must(t, testcluster.Until(ctx, path+" appears", func() error {
		_, err := os.Stat(outside)
		return err
	}))
}

// sparse fails if an image takes more space than limit: holes were not kept.
func sparse(ctx context.Context, t *testing.T, h *testcluster.Host, path string, limit int64) {
	t.Helper()
	out, err := h.Node.Run(ctx, "du", "-B1", path)
	must(t, err)
	var used int64
	if _, err := fmt.Sscan(string(out), &used); err != nil {
		t.Fatal(err)
	}
	if used > limit {
		t.Errorf("%s takes %d bytes, more than %d", path, used, limit)
	}
}

// TestBadInput: each mistake gives one line that names the thing and the remedy, and
// changes nothing.
func TestBadInput(t *testing.T) {
	l := start(t, 28)
	ctx := bounded(t, 2*time.Minute)
	a, b := l.Hosts[testcluster.Alpha], l.Hosts[testcluster.Beta]
	must(t, a.Define(ctx, testcluster.VM{Name: "cold", Size: 8 << 20, QCOW2: true}))
	must(t, a.Define(ctx, testcluster.VM{Name: "web01", Size: 8 << 20}))
	must(t, a.Define(ctx, testcluster.VM{Name: "twice", Size: 8 << 20}))
	must(t, b.Define(ctx, testcluster.VM{Name: "twice", Size: 8 << 20}))
	_, err := b.Node.Run(ctx, "sh", "-c", "mkdir -p /var/lib/duet/volumes/web01 && truncate -s 4M "+
		"/var/lib/duet/volumes/web01/vda.raw")
	must(t, err)
	for _, c := range []struct {
		name string
		on   *testcluster.Host
		args []string
		want []string
	}{
		{"no such VM", a, []string{"vm", "protect", "nosuch"}, []string{"nosuch", "not defined", "virsh list --all"}},
		{"no such peer", a, []string{"vm", "protect", "web01", "--peer", "gamma"}, []string{"gamma", "beta"}},
		{"stopped qcow2", a, []string{"vm", "protect", "cold"}, []string{"vda", "qcow2", "start the VM"}},
		{"peer's disk has another size", a, []string{"vm", "protect", "web01", "--image",
			"beta:vda=/var/lib/duet/volumes/web01/vda.raw"}, []string{"vda.raw", "4194304", "8388608"}},
		{"image without a node", a, []string{"vm", "protect", "web01", "--image", "vda=/srv/web01.raw"},
			[]string{"NODE:DISK=PATH"}},
		{"image of a disk that stays", a, []string{"vm", "protect", "web01", "--image", "alpha:vda=/srv/web01.raw"},
			[]string{"stays where it is"}},
		{"peer has a VM of that name", a, []string{"vm", "protect", "twice"},
			[]string{"defined on beta too", "virsh undefine twice"}},
		{"bad arbitration", a, []string{"vm", "protect", "web01", "--arbitration", "maybe"},
			[]string{"--arbitration", "safe", "available"}},
		{"no such module", a, []string{"start", "nosuch"}, []string{"nosuch", "vm protect"}},
		{"no such volume", a, []string{"volume", "verify", "nosuch/vda"}, []string{"nosuch"}},
		{"init twice", a, []string{"cluster", "init", "--name", "x", "--node", "alpha", "--addr", "10.77.28.11"},
			[]string{"already", "pki"}},
		{"wrong token", b, []string{"cluster", "join", "10.77.28.11", "--token", "duet1.x.y", "--node", "gamma", "--addr",
			"10.77.28.12", "--dir", "/run/x"}, []string{"token"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := c.on.Duet(ctx, c.args...)
			if err == nil {
				t.Fatal("it was accepted")
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("the error does not say %q: %v", want, err)
				}
			}
		})
	}
	t.Run("no space for the image", func(t *testing.T) { fullDisk(ctx, t, a) })
	s, err := a.Status(ctx)
	must(t, err)
	if len(s.Modules) != 0 {
		t.Errorf("a refused command left modules: %+v", s.Modules)
	}
	text, err := a.Libvirt.Virsh(ctx, "dumpxml", "--inactive", "web01")
	must(t, err)
	if strings.Contains(text, "nbd") {
		t.Error("a refused protect changed the VM")
	}
}
