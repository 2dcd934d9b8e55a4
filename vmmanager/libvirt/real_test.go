//go:build linux && cgo && libvirt_dlopen

package libvirt

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"libvirt.org/go/libvirt"

	"duet/vmmanager"
	"duet/vmmanager/vmtest"
)

// TestRealLibvirt runs everything that needs a libvirtd and QEMU on one node: booting it is the slow part.
func TestRealLibvirt(t *testing.T) {
	n := newNode(t)
	t.Run("conformance", func(t *testing.T) { vmtest.Run(t, n.world()) })
	t.Run("kill while libvirtd is stopped", n.testKillStopped)
	t.Run("kill while libvirtd hangs", n.testKillHanging)
	t.Run("kill of one name in two nodes", n.testKillOther)
	t.Run("endpoint comes back", n.testEndpoint)
	t.Run("adopt and release", n.testAdopt)
	t.Run("adopt refused", n.testAdoptRefused)
	t.Run("adopt fails", n.testAdoptFails)
	t.Run("refit", n.testRefit)
	t.Run("saved", n.testSaved)
	t.Run("strays", n.testStrays)
	t.Run("whom QEMU runs as", n.testUser)
	t.Run("definition", n.testDefinition)
	t.Run("definition refused", n.testDefinitionRefused)
	t.Run("definition while QEMU hangs", n.testDefinitionHanging)
	t.Run("shapes", n.testShapes)
	t.Run("goldens are valid", n.testGoldens)
	t.Run("judge", n.testJudge)
	t.Run("missing medium", n.testMissingMedium)
	t.Run("libvirtd away", n.testAway)
}

// run defines and starts a VM that is taken away after the test.
func (n *node) run(t *testing.T, name, text string) {
	t.Helper()
	ctx := vmtest.Context(t)
	must(t, n.h.Define(ctx, vmmanager.Definition{Name: name, Text: []byte(text)}))
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		check(t, n.h.Kill(ctx, name))
		check(t, n.h.Undefine(ctx, name))
	})
	must(t, n.h.Start(ctx, name))
}

// writing starts the guest's writing and returns its console.
func (n *node) writing(t *testing.T, name string) *console {
	t.Helper()
	c, err := n.open(name)
	must(t, err)
	_, err = c.conn.Write([]byte{vmtest.GuestWrite})
	must(t, err)
	must(t, c.await(vmtest.GuestWrote, 2))
	return c
}

func (n *node) state(t *testing.T, name string, want vmmanager.State) {
	t.Helper()
	got, err := n.h.State(vmtest.Context(t), name)
	if err != nil || got != want {
		t.Fatalf("state of %s: %v, %v; want %v", name, got, err, want)
	}
}

func (n *node) testKillStopped(t *testing.T) {
	const name = "killstopped"
	n.run(t, name, string(n.definition(name).Text))
	ctx := vmtest.Context(t)
	guest := n.qemu(name)
	if len(guest) != 1 {
		t.Fatalf("found %d processes of the guest", len(guest))
	}
	must(t, n.Stop(ctx))
	if _, err := n.h.State(ctx, name); !errors.Is(err, vmmanager.ErrUnavailable) {
		t.Errorf("state without libvirtd: %v, want ErrUnavailable", err)
	}
	events := vmtest.Watch(t, n.h, name)
	must(t, n.h.Kill(ctx, name))
	gone(t, guest[0])
	must(t, n.h.Kill(ctx, name)) // there already
	must(t, n.Start(ctx))
	// A libvirtd that has just started may take the guest for running until it looks.
	got := events.Next()
	for got.State != vmmanager.Off {
		got = events.Next()
	}
	if got.Cause != vmmanager.ByReconnect && got.Cause != vmmanager.ByDuet {
		t.Errorf("the killed VM is told as %s", got.Cause)
	}
}

func (n *node) testKillHanging(t *testing.T) {
	const name = "killhanging"
	n.run(t, name, string(n.definition(name).Text))
	ctx := vmtest.Context(t)
	guest := n.qemu(name)
	must(t, n.Process().Freeze())
	thawed := false
	defer func() {
		if !thawed {
			check(t, n.Process().Thaw())
		}
	}()
	since := time.Now()
	must(t, n.h.Kill(ctx, name))
	gone(t, guest[0])
	t.Logf("killed in %s", time.Since(since))
	must(t, n.Process().Thaw())
	thawed = true
	until(t, "libvirtd answers", func() (bool, error) {
		state, err := n.h.State(ctx, name)
		return state == vmmanager.Off && err == nil, err
	})
}

// gone fails the test unless the process has ended.
func gone(t *testing.T, p process) {
	t.Helper()
	if err := unix.PidfdSendSignal(p.fd, 0, nil, 0); !errors.Is(err, unix.ESRCH) {
		t.Errorf("the guest's process is still there (%v)", err)
	}
}

// testKillOther: a VM of the same name under another libvirtd is not ours to kill.
func (n *node) testKillOther(t *testing.T) {
	const name = "killother"
	n.run(t, name, string(n.definition(name).Text))
	other, err := New(Config{URI: "qemu+unix:///system?socket=" + filepath.Join(t.TempDir(), "none"), RunDir: t.TempDir()})
	must(t, err)
	defer func() { check(t, other.Close()) }()
	must(t, other.Kill(vmtest.Context(t), name))
	n.state(t, name, vmmanager.Running)
}

// testEndpoint: an endpoint that goes away costs the guest a pause and no error. The VM runs again within a second
// after the endpoint is back, however long it was away and whatever was tried meanwhile.
func (n *node) testEndpoint(t *testing.T) {
	const name = "endpoint"
	ctx := vmtest.Context(t)
	image := n.bootDisk(name, 1<<20)
	server := n.serveOwn(t, image, name)
	plain := vmmanager.Definition{Name: name, Text: []byte(n.domain(name, fileDisk(image, "raw", "")))}
	def, err := n.h.Rewire(plain, []vmmanager.Endpoint{{Target: "vda", Socket: server.socket}})
	must(t, err)
	n.run(t, name, string(def.Text))
	if out, err := n.virsh("dominfo", name); err != nil ||
		!bytes.Contains([]byte(out), []byte("Autostart:      disable")) {
		t.Errorf("a protected VM must not start by itself (%v):\n%s", err, out)
	}
	c := n.writing(t, name)
	for _, long := range []bool{false, true, true} {
		pauses := long || !n.h.reconnect     // else QEMU waits, and so does the guest
		events := vmtest.Watch(t, n.h, name) // a new one: resuming may pause the VM a few times more
		server.kill(t)
		if pauses {
			events.Want(vmmanager.IOError, vmmanager.ByIOError)
			n.state(t, name, vmmanager.IOError)
		}
		if long { // a VM that is resumed too early only pauses again
			short, cancel := context.WithTimeout(ctx, 2*time.Second)
			if err := n.h.Start(short, name); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("start without the endpoint: %v, want the context's error", err)
			}
			cancel()
		}
		server.start(t)
		back := time.Now()
		must(t, n.h.Start(ctx, name))
		must(t, c.await(vmtest.GuestWrote, c.count(vmtest.GuestWrote)+2))
		took := time.Since(back)
		t.Logf("the guest wrote %v after its endpoint was back; it had paused: %v", took, pauses)
		if took > time.Second {
			t.Errorf("the guest wrote %v after its endpoint was back, promised is a second", took)
		}
		n.state(t, name, vmmanager.Running)
		if pauses {
			events.Until(vmmanager.Running, vmmanager.ByStart)
		}
	}
	if k := c.count(vmtest.GuestFailed); k > 0 {
		t.Errorf("the guest saw %d disk errors", k)
	}
}

const stopPolicy = " error_policy='stop' rerror_policy='stop'"

// testAdopt moves a qcow2 disk into an endpoint and on into a raw file while the guest writes.
func (n *node) testAdopt(t *testing.T) {
	const name, size = "adopt", 64 << 20
	ctx := vmtest.Context(t)
	qcow2 := filepath.Join(n.dir, name+".qcow2")
	convert(t, n.bootDisk(name, size), qcow2)
	export, back := n.sparse(t, name+".export", size), n.sparse(t, name+".back", size)
	// of an earlier life: no byte of it may stay
	must(t, os.WriteFile(export, bytes.Repeat([]byte("stale "), size/6+1)[:size], 0o600))
	server := n.serve(export, filepath.Join(n.dir, name+".nbd"))
	n.run(t, name, n.domain(name, fileDisk(qcow2, "qcow2", stopPolicy+" discard='unmap'")))
	c := n.writing(t, name)
	var last, total int64
	progress := func(done, all int64) { last, total = done, all }

	to := vmmanager.Endpoint{Target: "vda", Socket: server.socket}
	for range 2 { // the second one finds the disk there already
		must(t, n.h.Adopt(ctx, name, to, progress))
	}
	if last != total || total == 0 {
		t.Errorf("progress ended at %d of %d", last, total)
	}
	n.isOn(t, name, func(d disk) bool { return d.socket() == server.socket })
	must(t, c.await(vmtest.GuestWrote, c.count(vmtest.GuestWrote)+2))
	sparse(t, export)
	if on, err := n.h.Endpoints(ctx, name); err != nil || len(on) != 1 || on[0] != to {
		t.Errorf("endpoints are %v, %v", on, err)
	}
	// The persistent definition follows: were the guest gone now, it would say where its data are.
	if kept, err := n.h.Definition(ctx, name); err != nil || len(kept.Disks) != 0 {
		t.Errorf("the persistent definition still names disks %v (error %v)", kept.Disks, err)
	}

	must(t, n.h.Release(ctx, name, vmmanager.Disk{Target: "vda", Path: back, Format: "raw", Size: size}, progress))
	n.isOn(t, name, func(d disk) bool { return d.path() == back })
	must(t, c.await(vmtest.GuestWrote, c.count(vmtest.GuestWrote)+2))
	sparse(t, back)
	must(t, n.h.Kill(ctx, name))
	if k := c.count(vmtest.GuestFailed); k > 0 {
		t.Errorf("the guest saw %d disk errors", k)
	}
	image, err := os.ReadFile(back)
	must(t, err)
	if bytes.Contains(image, []byte("stale stale")) {
		t.Error("what was in the endpoint before is in the VM's disk now")
	}
	if !bytes.Equal(image[:512], vmtest.BootSector()) || !bytes.HasPrefix(image[512:], vmtest.BootSector()[:64]) {
		t.Error("what the guest wrote is not in the file it was released into")
	}
}

// testSaved: a VM whose memory is saved is paused until it is off, and then its definition says so.
func (n *node) testSaved(t *testing.T) {
	const name = "saved"
	n.run(t, name, string(n.definition(name).Text))
	ctx := vmtest.Context(t)
	for range 10 {
		done := make(chan error, 1)
		go func() {
			_, err := n.virsh("managedsave", name)
			done <- err
		}()
		seen, err := ask(ctx, n.h, writeTime, func(conn *libvirt.Connect) (seen []status, err error) {
			dom, err := conn.LookupDomainByName(name)
			if err != nil {
				return nil, err
			}
			defer dom.Free()
			for {
				now, err := statusOf(dom)
				if err == nil && (len(seen) == 0 || seen[len(seen)-1] != now) {
					seen = append(seen, now)
				}
				if err != nil || now.state == vmmanager.Off {
					return seen, err
				}
			}
		})
		must(t, err)
		paused := false
		for _, s := range seen {
			if paused = paused || s.state == vmmanager.Paused; paused && s.state == vmmanager.Running {
				t.Errorf("a VM that was paused to be saved runs again: %+v", seen)
			}
		}
		if def, err := n.h.Definition(ctx, name); err != nil || !def.Saved {
			t.Errorf("the definition of a VM that was just saved says Saved=%t, %v", def.Saved, err)
		}
		must(t, <-done)
		must(t, n.h.Wake(ctx, name))
	}
}

func (n *node) isOn(t *testing.T, name string, there func(disk) bool) {
	t.Helper()
	text, err := n.virsh("dumpxml", name)
	must(t, err)
	domain, err := parseXML([]byte(text))
	must(t, err)
	if d, ok := findDisk(domain, "vda"); !ok || !there(d) || d.child("mirror") != nil {
		t.Fatalf("the running VM is not on the new disk:\n%s", text)
	}
}

func (n *node) sparse(t *testing.T, name string, size int64) string {
	t.Helper()
	path := filepath.Join(n.dir, name)
	must(t, os.WriteFile(path, nil, 0o600))
	must(t, os.Truncate(path, size))
	return path
}

// sparse fails the test if the holes of an image were filled.
func sparse(t *testing.T, path string) {
	t.Helper()
	info, err := os.Stat(path)
	must(t, err)
	used := info.Sys().(*syscall.Stat_t).Blocks * 512
	if used > info.Size()/8 {
		t.Errorf("%s uses %d of %d bytes: its holes were filled", filepath.Base(path), used, info.Size())
	}
}

// file makes a file for virsh to read.
func (n *node) file(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(n.dir, name)
	must(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

func convert(t *testing.T, raw, qcow2 string) {
	t.Helper()
	if out, err := exec.Command("qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw,
		qcow2).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

// testAdoptRefused: a guest that would be shown errors is left alone.
func (n *node) testAdoptRefused(t *testing.T) {
	if n.h.reconnect {
		t.Skip("this libvirt knows <reconnect>")
	}
	const name = "refused"
	image := n.bootDisk(name, 1<<20)
	n.run(t, name, n.domain(name, fileDisk(image, "raw", "")))
	server := n.serve(n.sparse(t, name+".export", 1<<20), filepath.Join(n.dir, name+".nbd"))
	err := n.h.Adopt(vmtest.Context(t), name, vmmanager.Endpoint{Target: "vda", Socket: server.socket}, nil)
	if !errors.Is(err, vmmanager.ErrUnsupported) {
		t.Fatalf("adopt: %v, want ErrUnsupported", err)
	}
	n.isOn(t, name, func(d disk) bool { return d.path() == image })
}

// testAdoptFails: an endpoint that is missing, too small, or dies, leaves the VM on its disk.
func (n *node) testAdoptFails(t *testing.T) {
	const name, size = "adoptfails", 256 << 20
	ctx := vmtest.Context(t)
	image := n.bootDisk(name, size)
	n.run(t, name, n.domain(name, fileDisk(image, "raw", stopPolicy)))
	c := n.writing(t, name)
	onImage := func(d disk) bool { return d.path() == image }
	socket := filepath.Join(n.dir, name+".nbd")
	to := vmmanager.Endpoint{Target: "vda", Socket: socket}
	if err := n.h.Adopt(ctx, name, to, nil); err == nil {
		t.Error("adopt into nothing succeeded")
	}
	n.isOn(t, name, onImage)

	small := n.serve(n.sparse(t, name+".small", 1<<20), socket)
	if err := n.h.Adopt(ctx, name, to, nil); err == nil {
		t.Error("adopt into an endpoint that is too small succeeded")
	}
	n.isOn(t, name, onImage)
	small.kill()

	dying := n.serve(n.sparse(t, name+".dying", size), socket)
	err := n.h.Adopt(ctx, name, to, func(done, total int64) { dying.kill() })
	if err == nil {
		t.Error("adopt into an endpoint that died succeeded")
	}
	t.Log(err)
	n.isOn(t, name, onImage)

	n.serve(n.sparse(t, name+".ended", size), socket)
	ended, cancel := context.WithCancel(ctx)
	defer cancel()
	if err := n.h.Adopt(ended, name, to, func(int64, int64) { cancel() }); !errors.Is(err, context.Canceled) {
		t.Errorf("adopt: %v, want the context's error", err)
	}
	n.isOn(t, name, onImage)

	// A copy whose process died is ended, and done anew.
	left := &copyJob{h: n.h, name: name, target: "vda",
		to: "<disk type='network' device='disk'><driver name='qemu' type='raw'/>" +
			endpointSource(socket, "", n.h.reconnect) + "</disk>"}
	must(t, left.start(ctx))
	must(t, n.h.Adopt(ctx, name, to, nil))
	n.isOn(t, name, func(d disk) bool { return d.socket() == socket })
	n.state(t, name, vmmanager.Running)
	must(t, c.await(vmtest.GuestWrote, c.count(vmtest.GuestWrote)+2))
	if k := c.count(vmtest.GuestFailed); k > 0 {
		t.Errorf("the guest saw %d disk errors", k)
	}
}

// testRefit: a running VM gets another definition, then other disks, and the guest does not notice.
func (n *node) testRefit(t *testing.T) {
	const name, size = "refit", 1 << 20
	ctx := vmtest.Context(t)
	image := n.bootDisk(name, size)
	n.run(t, name, n.domain(name, fileDisk(image, "raw", "")))
	n.writing(t, name)
	goesOn := func(there func(disk) bool) {
		t.Helper()
		n.isOn(t, name, there)
		c, err := n.open(name) // QEMU is another process now
		must(t, err)
		must(t, c.await(vmtest.GuestWrote, 2))
		if c.count(vmtest.GuestReady)+c.count(vmtest.GuestFailed) > 0 {
			t.Errorf("the guest was booted anew or saw an error: %q", c.read)
		}
	}
	stops := func(d disk) bool { return d.child("driver").attr("rerror_policy") == "stop" }
	onImage := func(d disk) bool { return d.path() == image }
	events := vmtest.Watch(t, n.h, name)

	// An edit that waits for the next boot, and a device that is plugged in only now, are none of Refit's business.
	for _, hand := range [][]string{
		{"setmaxmem", name, "64M", "--config"},
		{"attach-device", name, n.file(t, name+".xml", "<controller type='scsi' index='0' model='virtio-scsi'/>"), "--live"},
	} {
		_, err := n.virsh(hand...)
		must(t, err)
	}
	hard := func(def vmmanager.Definition) (vmmanager.Definition, error) { return n.h.Harden(def, []string{"vda"}) }
	for range 2 { // nothing is left to do the second time: the guest is not paused
		must(t, n.h.Refit(ctx, name, hard, func() error { return nil }))
	}
	events.Want(vmmanager.Running, vmmanager.ByEdit)
	events.Until(vmmanager.Off, vmmanager.ByDuet)
	events.Until(vmmanager.Running, vmmanager.ByStart) // the edit is told too
	if text, err := n.virsh("dumpxml", "--inactive", name); err != nil ||
		!bytes.Contains([]byte(text), []byte("<memory unit='KiB'>65536</memory>")) {
		t.Errorf("the edit that waits for the next boot is gone (%v):\n%s", err, text)
	}
	if text, err := n.virsh("dumpxml", name); err != nil || !bytes.Contains([]byte(text), []byte("virtio-scsi")) {
		t.Errorf("the device that was plugged in is gone (%v):\n%s", err, text)
	}
	goesOn(func(d disk) bool { return stops(d) && onImage(d) })

	export := filepath.Join(n.dir, name+".export")
	socket := filepath.Join(n.dir, name+".nbd")
	rewired := func(def vmmanager.Definition) (vmmanager.Definition, error) {
		return n.h.Rewire(def, []vmmanager.Endpoint{{Target: "vda", Socket: socket}})
	}
	failed := errors.New("failed")
	if err := n.h.Refit(ctx, name, rewired, func() error { return failed }); !errors.Is(err, failed) {
		t.Errorf("refit: %v, want the error of between", err)
	}
	goesOn(onImage)
	other := func(def vmmanager.Definition) (vmmanager.Definition, error) {
		def.Text = bytes.Replace(def.Text, []byte("model='isa'"), []byte("model='pvpanic'"), 1)
		return def, nil
	}
	called := false
	if err := n.h.Refit(ctx, name, other, func() error { called = true; return nil }); err == nil || called {
		t.Errorf("refit with another device: error %v, between called: %t", err, called)
	}
	goesOn(onImage)

	must(t, n.h.Refit(ctx, name, rewired, func() error {
		data, err := os.ReadFile(image)
		if err == nil {
			err = os.WriteFile(export, data, 0o600)
		}
		n.serve(export, socket)
		return err
	}))
	goesOn(func(d disk) bool { return d.socket() == socket })
	if kept, err := n.h.Definition(ctx, name); err != nil || len(kept.Disks) != 0 {
		t.Errorf("the persistent definition was not exchanged: %v, %v", kept.Disks, err)
	}
}
