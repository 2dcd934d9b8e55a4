package machine

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"duet/testbed/netns"
)

// emulated is a Machine with Debian's own kernel, in QEMU without hardware virtualization: some ten times slower
// than a container, for what depends on the kernel. A Kill loses nothing that QEMU has written: its cache is
// this computer's page cache (cache=writeback), so a guest's unflushed writes may survive.
type emulated struct {
	name     string
	disk     scratch
	lan      *netns.LAN
	networks []netns.Network // one card each, eth0 on; in this order
	kernel   string          // of the image, outside the machine: an upgrade inside changes nothing of it
	initrd   string

	qemu  *child // nil before the first Boot
	agent *agent
}

const (
	emulatedMiB  = 1536             // of memory
	emulatedBoot = 10 * time.Minute // longest that a boot may take
	emulatedDisk = "16G"            // sparse
)

func newEmulated(ctx context.Context, im Image, lan *netns.LAN, nets []netns.Network, name string) (*emulated, error) {
	disk, err := im.scratch()
	if err != nil {
		return nil, err
	}
	e := &emulated{name: name, disk: disk, lan: lan, networks: nets}
	err = e.find(im)
	if err == nil {
		err = identity(disk, name, lan)
	}
	if err == nil {
		err = e.interfaces()
	}
	if err == nil {
		err = e.image(ctx, im)
	}
	if err != nil {
		return nil, errors.Join(err, disk.remove())
	}
	return e, nil
}

// find looks for the kernel in the image.
func (e *emulated) find(im Image) error {
	boot := filepath.Join(im.layers[0], "boot")
	kernels, _ := filepath.Glob(filepath.Join(boot, "vmlinuz-*")) // the pattern is right
	if len(kernels) != 1 {
		return fmt.Errorf("%d kernels in %s", len(kernels), boot)
	}
	e.kernel = kernels[0]
	e.initrd = filepath.Join(boot, "initrd.img-"+strings.TrimPrefix(filepath.Base(e.kernel), "vmlinuz-"))
	return nil
}

// interfaces gives the machine's own network cards their addresses.
func (e *emulated) interfaces() error {
	var b strings.Builder
	b.WriteString("auto lo\niface lo inet loopback\n")
	for i, n := range e.networks {
		addr := netip.PrefixFrom(e.lan.Addr(e.name, n.Name), n.Subnet.Bits())
		fmt.Fprintf(&b, "auto eth%d\niface eth%d inet static\n\taddress %s\n", i, i, addr)
		if i == 0 {
			fmt.Fprintf(&b, "\tgateway %s\n", e.lan.Addr(netns.Gateway, n.Name))
		}
	}
	dir := filepath.Join(e.disk.upper(), "etc/network")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "interfaces"), []byte(b.String()), 0o644)
}

// image turns the root tree into a file with ext4. It copies the whole tree, which takes a while; the file is
// sparse.
func (e *emulated) image(ctx context.Context, im Image) error {
	const fstab = "/dev/vda / ext4 errors=remount-ro 0 1\n"
	if err := os.WriteFile(filepath.Join(e.disk.upper(), "etc/fstab"), []byte(fstab), 0o644); err != nil {
		return err
	}
	const making = `mkfs.ext4 -q -F -d "$1" "$2" "$3"` + "\n"
	_, err := run(exec.CommandContext(ctx, "unshare", "--mount", "sh", "-c", im.mount(e.disk)+making, "sh",
		e.disk.root(), e.file("disk"), emulatedDisk))
	return err
}

func (e *emulated) file(name string) string { return filepath.Join(e.disk.dir, name) }

func (e *emulated) Name() string    { return e.name }
func (e *emulated) Console() string { return e.file("console") }

// plugging runs in the machine's network namespace: what was the machine's end of a cable becomes a port of a
// bridge with its network card. $1 is the number of the card, $2 the cable. So a cut of the LAN's switch strikes
// the card as it strikes a container: the switch sees the same port.
const plugging = `set -e
ip address flush dev "$2"
ip link add "br$1" type bridge
ip link set "$2" master "br$1"
ip tuntap add "tap$1" mode tap
ip link set "tap$1" master "br$1" up
ip link set "br$1" up
`

// Boot implements Machine.
func (e *emulated) Boot(ctx context.Context) error {
	if e.qemu.running() {
		return nil
	}
	if err := e.boot(ctx); err != nil {
		return errors.Join(fmt.Errorf("boot %s (console: %s): %w", e.name, tail(e.Console()), err), e.Kill())
	}
	return nil
}

// boot: a reboot keeps the disk and makes everything else anew: namespace, bridges, cards.
func (e *emulated) boot(ctx context.Context) error {
	// The kernel of a machine forgets its network when it goes off; a first boot has nothing to forget.
	if err := errors.Join(e.lan.Reset(e.name), e.lan.Restore(netns.Around(e.name, "")...)); err != nil {
		return err
	}
	inside := "--net=" + e.lan.Path(e.name)
	// What a processor has for speed costs time where it is emulated: AVX, and what a kernel does against leaks. Without
	// both a machine boots with two thirds of the work. One processor, by one thread: with two, a guest kernel has stood
	// still for good, each of them waiting for the other (QEMU 7.2, soft lockups on both), and two machines share two real
	// ones anyway.
	args := []string{inside, "qemu-system-x86_64", "-machine", "q35", "-accel", "tcg,thread=single", "-cpu", "Westmere",
		"-smp", "1",
		"-m", fmt.Sprint(emulatedMiB), "-nodefaults", "-display", "none", "-no-reboot",
		"-kernel", e.kernel, "-initrd", e.initrd, "-append",
		"root=/dev/vda rw console=ttyS0 net.ifnames=0 quiet mitigations=off",
		"-drive", "if=virtio,format=raw,discard=unmap,file=" + e.file("disk"),
		"-chardev", "file,id=console,append=on,path=" + e.Console(), "-serial", "chardev:console",
		"-device", "virtio-serial", "-chardev", "socket,id=agent,server=on,wait=off,path=" + e.file("agent"),
		"-device", "virtserialport,chardev=agent,name=org.qemu.guest_agent.0", "-device", "virtio-rng-pci"}
	for i, n := range e.networks {
		plug := exec.CommandContext(ctx, "nsenter", inside, "sh", "-c", plugging, "sh", fmt.Sprint(i), n.Name)
		if _, err := run(plug); err != nil {
			return err
		}
		addr := e.lan.Addr(e.name, n.Name).As4()
		mac := fmt.Sprintf("52:54:00:%02x:%02x:%02x", i, addr[2], addr[3])
		args = append(args, "-netdev", fmt.Sprintf("tap,id=net%d,ifname=tap%d,script=no,downscript=no", i, i),
			"-device", fmt.Sprintf("virtio-net-pci,netdev=net%d,mac=%s", i, mac))
	}
	qemu, err := start(e.Console(), nil, "nsenter", args...)
	if err != nil {
		return err
	}
	e.qemu, e.agent = qemu, &agent{socket: e.file("agent")}
	ctx, cancel := context.WithTimeout(ctx, emulatedBoot)
	defer cancel()
	return e.up(ctx)
}

// up waits until systemd in the machine has ended its start. Degraded is good enough: a unit may have failed
// that has nothing to do here.
func (e *emulated) up(ctx context.Context) error {
	for {
		r, err := e.Run(ctx, "systemctl is-system-running --wait")
		if err == nil && (r.Output == "running" || r.Output == "degraded") {
			return nil
		}
		select {
		case <-time.After(500 * time.Millisecond): // the agent is not there yet
		case <-e.qemu.ended:
			return fmt.Errorf("QEMU ended: %s", e.qemu.state())
		case <-ctx.Done():
			return fmt.Errorf("%w: %s %v", ctx.Err(), r.Output, err)
		}
	}
}

// Run implements Machine.
func (e *emulated) Run(ctx context.Context, command string) (Result, error) {
	if !e.qemu.running() {
		return Result{}, fmt.Errorf("run on %s: it is off", e.name)
	}
	r, err := e.agent.run(ctx, e.qemu.ended, command)
	if err != nil {
		return Result{}, fmt.Errorf("run %q on %s: %w", command, e.name, err)
	}
	return r, nil
}

// Push implements Machine.
func (e *emulated) Push(ctx context.Context, file, path string) error {
	if !e.qemu.running() {
		return fmt.Errorf("push %s to %s: it is off", file, e.name)
	}
	if err := e.agent.push(ctx, e.qemu.ended, file, path); err != nil {
		return fmt.Errorf("push %s to %s: %w", file, e.name, err)
	}
	return nil
}

// Kill implements Machine. Cables first, as with a container: QEMU's end must not be seen on the network.
func (e *emulated) Kill() error {
	if !e.qemu.running() {
		return nil
	}
	err := errors.Join(e.lan.CutAll(e.name), e.qemu.signal(unix.SIGKILL))
	<-e.qemu.ended
	if err != nil {
		return fmt.Errorf("kill %s: %w", e.name, err)
	}
	return nil
}

// Reboot implements Machine. QEMU ends with the machine's kernel. -no-reboot makes QEMU end then, so devices are
// new as well.
func (e *emulated) Reboot(ctx context.Context) error {
	r, err := e.Run(ctx, "systemctl --no-block reboot")
	if err == nil && r.Code != 0 {
		err = fmt.Errorf("exit %d: %s", r.Code, r.Output)
	}
	if err != nil {
		return fmt.Errorf("reboot %s: %w", e.name, err)
	}
	select {
	case <-e.qemu.ended:
	case <-ctx.Done():
		return fmt.Errorf("reboot %s: it has not gone down: %w", e.name, ctx.Err())
	}
	return e.Boot(ctx)
}

// Close implements Machine.
func (e *emulated) Close() error { return errors.Join(e.Kill(), e.disk.remove()) }
