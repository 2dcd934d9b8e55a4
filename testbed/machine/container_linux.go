package machine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"duet/testbed/netns"
)

// container is a Machine on this computer's kernel: a whole Debian with systemd in systemd-nspawn. What it has
// written survives Kill, as the page cache is this computer's. Its network namespace is the LAN's and new at
// each boot but the first.
type container struct {
	name  string
	image Image      // what its disk is a copy of
	disk  scratch    // its own until Close
	lan   *netns.LAN // of the site, which closes it
	group group      // made at each boot, removed when it is off

	nspawn *child // nil before the first Boot
	leader int    // the container's process 1, seen from outside
}

// newContainer: the control group has the name of site and machine, so what a process that died has left there
// is killed and removed.
func newContainer(im Image, lan *netns.LAN, prefix, name string) (*container, error) {
	g, err := newGroup(prefix, name)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(g.kill(), g.remove()); err != nil { // what a dead process has left
		return nil, err
	}
	disk, err := im.scratch()
	if err != nil {
		return nil, err
	}
	c := &container{name: name, image: im, disk: disk, lan: lan, group: g}
	if err := identity(disk, name, lan); err != nil {
		return nil, errors.Join(err, disk.remove())
	}
	return c, nil
}

func (c *container) Name() string    { return c.name }
func (c *container) Console() string { return filepath.Join(c.disk.dir, "console") }

// booting runs in a mount namespace of its own. $1 is the root, $2 the network namespace, $3 the host name, then come
// the folders of the control group. A machine may do what root may on a computer of its own: no capability and no
// system call is kept from it. Without --register there is no machined to talk to here, and --keep-unit spares a scope.
const booting = `
root=$1 net=$2 name=$3; shift 3
for group; do echo $$ >"$group/cgroup.procs"; done
exec systemd-nspawn --quiet --boot --register=no --keep-unit --directory="$root" --network-namespace-path="$net" \
	--machine="$name" --hostname="$name" --notify-ready=yes --console=read-only --link-journal=no \
	--resolv-conf=off --timezone=off --capability=all --bind=/dev/net/tun --bind=/dev/fuse
`

// Boot implements Machine.
func (c *container) Boot(ctx context.Context) error {
	if c.nspawn.running() {
		return nil
	}
	if err := c.boot(ctx); err != nil {
		return errors.Join(fmt.Errorf("boot %s (console: %s): %w", c.name, tail(c.Console()), err), c.Kill())
	}
	return nil
}

// boot: it waits for the READY=1 of its systemd; a unit that has failed does not show here.
func (c *container) boot(ctx context.Context) error {
	if c.nspawn != nil { // the kernel of a machine forgets its network when it goes off
		if err := c.lan.Reset(c.name); err != nil {
			return err
		}
		if err := c.lan.Restore(netns.Around(c.name, "")...); err != nil {
			return err
		}
	}
	if err := c.group.make(); err != nil {
		return err
	}
	notify, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: c.notify(), Net: "unixgram"})
	if err != nil {
		return err
	}
	defer os.Remove(c.notify())
	defer notify.Close()
	if err := c.start(); err != nil {
		return err
	}
	return c.up(ctx, notify)
}

// notify is the socket on which nspawn says how far the machine is.
func (c *container) notify() string { return filepath.Join(c.disk.dir, "notify") }

// start runs nspawn and returns at once. Its end ends everything in the container: nsenter, unshare and nspawn
// are one chain, whose process-id namespace dies with it.
func (c *container) start() error {
	// nspawn makes /sys before it enters the network namespace, so it is in there from the beginning.
	network := c.lan.Path(c.name)
	// Process 1 of the container would outlive nspawn; nothing outlives process 1 of the namespace around both.
	args := []string{"--net=" + network, "unshare", "--pid", "--mount-proc", "--fork", "--kill-child",
		"sh", "-c", c.image.mount(c.disk) + booting, "sh", c.disk.root(), network, c.name}
	env := []string{"SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1", "SYSTEMD_SECCOMP=0", "NOTIFY_SOCKET=" + c.notify()}
	nspawn, err := start(c.Console(), env, "nsenter", append(args, c.group...)...)
	c.nspawn, c.leader = nspawn, 0
	return err
}

// up waits for the message that the container's systemd is ready.
func (c *container) up(ctx context.Context, notify *net.UnixConn) error {
	ready := make(chan error, 1)
	go func() {
		buf := make([]byte, 4096)
		for {
			n, err := notify.Read(buf)
			if err != nil || slices.Contains(strings.Split(string(buf[:n]), "\n"), "READY=1") {
				ready <- err
				return
			}
		}
	}()
	select {
	case err := <-ready:
		if err == nil {
			c.leader, err = c.group.leader()
		}
		return err
	case <-c.nspawn.ended:
		return fmt.Errorf("systemd-nspawn ended: %s", c.nspawn.state())
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Run implements Machine.
func (c *container) Run(ctx context.Context, command string) (Result, error) {
	return c.run(ctx, nil, command)
}

// run: the command is in all namespaces and the root of process 1, but not in its control group. It dies with
// the process-id namespace. A command whose ctx ends is killed; what it has started goes on.
func (c *container) run(ctx context.Context, stdin io.Reader, command string) (Result, error) {
	if !c.nspawn.running() {
		return Result{}, fmt.Errorf("run on %s: it is off", c.name)
	}
	// A file and no pipe: a process that stays in the background keeps it, as it would keep a terminal.
	out, err := os.CreateTemp(c.disk.dir, "output-")
	if err != nil {
		return Result{}, fmt.Errorf("run on %s: %w", c.name, err)
	}
	defer out.Close()
	defer os.Remove(out.Name())
	cmd := exec.CommandContext(ctx, "nsenter", "--all", "--root", "--wd", "--target", strconv.Itoa(c.leader),
		"sh", "-c", command)
	cmd.Env = environment
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, out, out
	err = cmd.Run()
	if ctx.Err() != nil {
		err = ctx.Err()
	} else if cmd.ProcessState != nil {
		err = nil // it is in the code
	}
	text, e := os.ReadFile(out.Name())
	if err = errors.Join(err, e); err != nil {
		return Result{}, fmt.Errorf("run %q on %s: %w: %s", command, c.name, err, text)
	}
	return Result{Output: strings.TrimRight(string(text), "\n"), Code: cmd.ProcessState.ExitCode()}, nil
}

// Push implements Machine. The file is read here and written inside, so it may be larger than an argument. A
// path must not have a quote in it.
func (c *container) Push(ctx context.Context, file, path string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	r, err := c.run(ctx, f, fmt.Sprintf("install -D -m %o /dev/stdin '%s'", st.Mode().Perm(), path))
	if err == nil && r.Code != 0 {
		err = errors.New(r.Output)
	}
	if err != nil {
		return fmt.Errorf("push %s to %s: %w", file, c.name, err)
	}
	return nil
}

// Kill implements Machine. Cables are cut for good: the next boot gives it new ones.
func (c *container) Kill() error {
	if !c.nspawn.running() {
		return nil
	}
	// First the silence: the kernel would still close the connections of those it kills.
	err := c.lan.CutAll(c.name)
	err = errors.Join(err, c.group.kill())
	<-c.nspawn.ended
	if err = errors.Join(err, c.group.remove()); err != nil {
		return fmt.Errorf("kill %s: %w", c.name, err)
	}
	return nil
}

// rebooted is how nspawn says that the container asked for a reboot. Any other code is a machine that has gone
// down instead.
const rebooted = 133

// Reboot implements Machine. The network is a new one, as after any boot. If it fails the container may be off.
func (c *container) Reboot(ctx context.Context) error {
	began := time.Now()
	if _, err := c.Run(ctx, "systemctl reboot"); err != nil {
		return fmt.Errorf("reboot %s: %w", c.name, err)
	}
	select {
	case <-c.nspawn.ended:
	case <-ctx.Done():
		return fmt.Errorf("reboot %s: it has not gone down after %v: %w", c.name, time.Since(began), ctx.Err())
	}
	if code := c.nspawn.state().ExitCode(); code != rebooted {
		return fmt.Errorf("reboot %s: systemd-nspawn ended with code %d", c.name, code)
	}
	if err := c.group.remove(); err != nil {
		return fmt.Errorf("reboot %s: %w", c.name, err)
	}
	return c.Boot(ctx)
}

// Close implements Machine.
func (c *container) Close() error {
	return errors.Join(c.Kill(), c.disk.remove(), c.group.remove())
}
