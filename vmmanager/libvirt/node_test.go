//go:build linux && cgo && libvirt_dlopen

package libvirt

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"duet/testbed/libvirtd"
	"duet/testbed/netns"
	"duet/testbed/proc"
	"duet/vmmanager"
	"duet/vmmanager/vmtest"
)

func TestMain(m *testing.M) {
	if image := os.Getenv(serveImage); image != "" {
		serveVolume(image, os.Getenv(serveSocket))
		return
	}
	// libvirt's event loop and the schema checks belong to the process, see startLoop and schemas.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("duet/vmmanager/libvirt.init.func1.1"),
		goleak.IgnoreAnyFunction("duet/vmmanager/libvirt.onOneThread"))
}

// node is a host with a libvirtd of its own.
type node struct {
	t    *testing.T
	dir  string // images and sockets; the same path inside and outside
	proc *proc.Node
	*libvirtd.Daemon
	h *Hypervisor

	mu       sync.Mutex
	consoles map[string]*console
}

// newNode boots a node, or skips the test where that cannot work.
func newNode(t *testing.T) *node {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root to make namespaces")
	}
	for _, tool := range []string{"ip", "nft", "libvirtd", "virsh", "qemu-system-x86_64", "qemu-img", "qemu-nbd"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip("needs the command " + tool)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 90*time.Second)
	defer cancel()
	lan, err := netns.New("dvm", netns.Config{Nodes: []string{"kvm"}, Networks: []netns.Network{
		{Name: "hb1", Subnet: netip.MustParsePrefix("10.99.1.0/24")},
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { check(t, lan.Close()) })
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = os.TempDir()
	}
	cfg := libvirtd.Config{Dir: t.TempDir(), Capabilities: filepath.Join(cache, "duet-testbed", "qemu-capabilities")}
	binds, err := libvirtd.Prepare(cfg, "kvm")
	must(t, err)
	n := &node{t: t, proc: proc.New(proc.Config{Name: "kvm", NetNS: lan.Path("kvm"), Binds: binds}),
		consoles: map[string]*console{}}
	n.dir, err = os.MkdirTemp("", "dvm") // short: socket paths have 108 bytes
	must(t, err)
	must(t, os.Chmod(n.dir, 0o755)) // QEMU has a user of its own
	t.Cleanup(func() { check(t, os.RemoveAll(n.dir)) })
	must(t, n.proc.Boot())
	t.Cleanup(func() { check(t, n.proc.Kill()) })
	n.Daemon = libvirtd.New(n.proc, cfg)
	must(t, n.Start(ctx))
	n.h = n.hypervisor()
	return n
}

// hypervisor returns a new Hypervisor for the node's libvirtd.
func (n *node) hypervisor() *Hypervisor {
	uri, err := n.URI()
	must(n.t, err)
	runDir, err := n.proc.Outside("/run/libvirt/qemu")
	must(n.t, err)
	h, err := New(Config{URI: uri, RunDir: runDir, Logger: slog.New(
		slog.NewTextHandler(n.t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))})
	must(n.t, err)
	n.t.Cleanup(func() { check(n.t, h.Close()) })
	return h
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Error(err)
	}
}

// virsh runs virsh as an admin would, past Duet.
func (n *node) virsh(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	return n.Virsh(ctx, args...)
}

// bootDisk makes a raw image with the guest of vmtest in it.
func (n *node) bootDisk(name string, size int64) string {
	path := filepath.Join(n.dir, name+".img")
	image := make([]byte, size)
	copy(image, vmtest.BootSector())
	must(n.t, os.WriteFile(path, image, 0o600))
	return path
}

// domain returns a definition whose one disk is described by the given XML.
func (n *node) domain(name, disk string) string {
	return fmt.Sprintf(`<domain type='qemu'>
  <name>%s</name>
  <memory unit='MiB'>32</memory>
  <vcpu>1</vcpu>
  <os><type arch='x86_64' machine='pc'>hvm</type><boot dev='hd'/></os>
  <features><acpi/></features>
  <on_crash>preserve</on_crash>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    %s
    <controller type='usb' model='none'/>
    <serial type='unix'><source mode='bind' path='%s'/><target port='0'/></serial>
    <panic model='isa'/>
    <memballoon model='none'/>
  </devices>
</domain>`, name, disk, n.serial(name))
}

func (n *node) serial(name string) string { return filepath.Join(n.dir, name+".serial") }

func fileDisk(path, format, extra string) string {
	return fmt.Sprintf(`<disk type='file' device='disk'>
      <driver name='qemu' type='%s'%s/>
      <source file='%s'/>
      <target dev='vda' bus='virtio'/>
    </disk>`, format, extra, path)
}

// definition returns a VM whose disk is not for replication, for the conformance suite.
func (n *node) definition(name string) vmmanager.Definition {
	disk := strings.Replace(fileDisk(n.bootDisk(name, 1<<20), "raw", ""), "<target", "<shareable/>\n      <target", 1)
	return vmmanager.Definition{Name: name, Text: []byte(n.domain(name, disk))}
}

// console is the serial port of a guest.
type console struct {
	conn net.Conn
	mu   sync.Mutex
	read []byte
	news chan struct{}
}

// open connects to the guest's serial port; a guest has to be asked soon after its start, while it can still buffer.
func (n *node) open(name string) (*console, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	conn, err := net.Dial("unix", n.serial(name))
	if err != nil {
		return nil, err
	}
	c := &console{conn: conn, news: make(chan struct{}, 1)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 256)
		for {
			k, err := conn.Read(buf)
			c.mu.Lock()
			c.read = append(c.read, buf[:k]...)
			c.mu.Unlock()
			select {
			case c.news <- struct{}{}:
			default:
			}
			if err != nil {
				return
			}
		}
	}()
	n.t.Cleanup(func() { conn.Close(); <-done })
	return c, nil
}

func (c *console) count(b byte) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return bytes.Count(c.read, []byte{b})
}

// await waits until the guest has sent the byte more than n times.
func (c *console) await(b byte, n int) error {
	late := time.After(30 * time.Second)
	for c.count(b) <= n {
		select {
		case <-c.news:
		case <-late:
			return fmt.Errorf("guest has not sent %q more than %d times, but %q", b, n, c.read)
		}
	}
	return nil
}

// tell gives a command to the guest of a running VM and waits until it is in force.
func (n *node) tell(name string, command byte) error {
	c, err := n.open(name)
	if err != nil {
		return err
	}
	if _, err = c.conn.Write([]byte{command}); err != nil {
		return err
	}
	return c.await(command, 0)
}

// qemu returns the processes of a VM.
func (n *node) qemu(name string) []process {
	n.t.Helper()
	ps, err := findProcesses(n.h.runDir, name)
	must(n.t, err)
	n.t.Cleanup(func() { closeAll(ps) })
	return ps
}

func (n *node) world() vmtest.World {
	virsh := func(command string) vmtest.Hand {
		return func(name string) error { _, err := n.virsh(command, name); return err }
	}
	tell := func(command byte) vmtest.Hand { return func(name string) error { return n.tell(name, command) } }
	return vmtest.World{
		Hypervisor: n.h, Definition: n.definition, Undefine: n.h.Undefine,
		GuestOff: tell(vmtest.GuestOff), GuestPanic: tell(vmtest.GuestPanic),
		GuestDeaf: tell(vmtest.GuestDeaf),
		AdminButton: func(name string) error {
			// A guest that has not booted yet does not hear the button.
			if err := n.tell(name, vmtest.GuestWrite); err != nil {
				return err
			}
			_, err := n.virsh("shutdown", name)
			return err
		},
		AdminOff: virsh("destroy"), AdminPause: virsh("suspend"), AdminSave: virsh("managedsave"),
		AdminEdit: func(name string) error {
			_, err := n.virsh("desc", name, "--config", "edited by an admin")
			return err
		},
		Crash: func(name string) error {
			for _, p := range n.qemu(name) {
				if err := p.kill(); err != nil {
					return err
				}
			}
			return nil
		},
		RestartDaemon: func() error {
			ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
			defer cancel()
			return n.Restart(ctx)
		},
	}
}

// nbd is an NBD server on a unix socket, in the place of Duet's own.
type nbd struct {
	image, socket string
	cmd           *exec.Cmd
}

func (n *node) serve(image, socket string) *nbd {
	n.t.Helper()
	s := &nbd{image: image, socket: socket}
	n.t.Cleanup(s.kill)
	s.start(n.t)
	return s
}

func (s *nbd) start(t *testing.T) {
	t.Helper()
	_ = os.Remove(s.socket)
	s.cmd = exec.Command("qemu-nbd", "-f", "raw", "-k", s.socket, "--persistent", "--shared=8", "--discard=unmap", s.image)
	s.cmd.Stderr = t.Output()
	must(t, s.cmd.Start())
	for late := time.Now().Add(10 * time.Second); ; {
		conn, err := net.Dial("unix", s.socket)
		if err == nil {
			_, err = io.ReadFull(conn, make([]byte, 8))
			conn.Close()
		}
		if err == nil {
			return
		}
		if time.Now().After(late) {
			t.Fatal(err)
		}
		<-time.After(10 * time.Millisecond)
	}
}

// kill ends the server as a crash would.
func (s *nbd) kill() {
	if s.cmd != nil {
		_ = s.cmd.Process.Kill()
		_ = s.cmd.Wait() // says that it was killed
		s.cmd = nil
	}
}

// until waits for a condition.
func until(t *testing.T, what string, ok func() (bool, error)) {
	t.Helper()
	for late := time.Now().Add(2 * time.Minute); ; {
		done, err := ok()
		if done {
			return
		}
		if time.Now().After(late) {
			t.Fatalf("waited too long for: %s (%v)", what, err)
		}
		<-time.After(20 * time.Millisecond)
	}
}
