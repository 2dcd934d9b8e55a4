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
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"duet/testbed/netns"
)

// container is a Machine on this computer's kernel: a whole Debian with systemd in systemd-nspawn.
type container struct {
	name  string
	image Image
	disk  scratch
	lan   *netns.LAN
	group group

	nspawn *exec.Cmd
	ended  chan struct{} // closed when nspawn was reaped; nil before the first Boot
	leader int           // the container's process 1, seen from outside
}

func newContainer(im Image, lan *netns.LAN, prefix, name string) (*container, error) {
	g, err := newGroup("duet-" + prefix + "-" + name)
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
	if err := c.identity(); err != nil {
		return nil, errors.Join(err, disk.remove())
	}
	return c, nil
}

// identity writes what an installer would ask for: names and addresses.
func (c *container) identity() error {
	id, err := os.ReadFile("/proc/sys/kernel/random/uuid")
	if err != nil {
		return err
	}
	etc := filepath.Join(c.disk.upper(), "etc")
	if err := os.MkdirAll(etc, 0o755); err != nil {
		return err
	}
	for file, text := range map[string]string{
		"hostname":   c.name + "\n",
		"machine-id": strings.ReplaceAll(string(id), "-", ""),
		"hosts":      "127.0.0.1 localhost\n127.0.1.1 " + c.name + "\n" + c.lan.Hosts(),
	} {
		if err := os.WriteFile(filepath.Join(etc, file), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
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
	if c.running() {
		return nil
	}
	if err := c.boot(ctx); err != nil {
		return errors.Join(fmt.Errorf("boot %s (console: %s): %w", c.name, c.tail(), err), c.Kill())
	}
	return nil
}

func (c *container) boot(ctx context.Context) error {
	if c.ended != nil { // the kernel of a machine forgets its network when it goes off
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
	notify, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(c.disk.dir, "notify"), Net: "unixgram"})
	if err != nil {
		return err
	}
	defer os.Remove(filepath.Join(c.disk.dir, "notify"))
	defer notify.Close()
	if err := c.start(); err != nil {
		return err
	}
	return c.up(ctx, notify)
}

// start runs nspawn and returns at once.
func (c *container) start() error {
	console, err := os.OpenFile(c.Console(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	defer console.Close()
	// nspawn makes /sys before it enters the network namespace, so it is in there from the beginning.
	network := c.lan.Path(c.name)
	args := append([]string{"--net=" + network, "unshare", "--mount", "sh", "-c", c.image.mount(c.disk) + booting, "sh",
		c.disk.root(), network, c.name}, c.group...)
	cmd := exec.Command("nsenter", args...)
	cmd.Stdout, cmd.Stderr = console, console
	cmd.Env = []string{"PATH=" + path, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1", "SYSTEMD_SECCOMP=0",
		"NOTIFY_SOCKET=" + filepath.Join(c.disk.dir, "notify")}
	// A session of its own: a ctrl-C at the terminal is for the test. Linux sends the death signal when the thread ends
	// that started the process, so one is kept for it; nspawn's end is the end of all in it.
	cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true, Pdeathsig: unix.SIGKILL}
	started, ended := make(chan error, 1), make(chan struct{})
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // the result stays in cmd.ProcessState
		}
		close(ended)
	}()
	if err := <-started; err != nil {
		return err
	}
	c.nspawn, c.ended, c.leader = cmd, ended, 0
	return nil
}

// up waits for the two messages of nspawn: which process is the container's first, and that its systemd is ready.
func (c *container) up(ctx context.Context, notify *net.UnixConn) error {
	messages := make(chan string)
	stop := make(chan struct{})
	defer close(stop)
	go func() {
		defer close(messages)
		buf := make([]byte, 4096)
		for {
			n, err := notify.Read(buf)
			if err != nil {
				return
			}
			select {
			case messages <- string(buf[:n]):
			case <-stop:
				return
			}
		}
	}()
	for {
		select {
		case message := <-messages:
			for _, line := range strings.Split(message, "\n") {
				if pid, ok := strings.CutPrefix(line, "X_NSPAWN_LEADER_PID="); ok {
					c.leader, _ = strconv.Atoi(pid)
				}
				if line == "READY=1" && c.leader != 0 {
					return nil
				}
			}
		case <-c.ended:
			return fmt.Errorf("systemd-nspawn ended: %s", c.nspawn.ProcessState)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// tail returns the end of the console.
func (c *container) tail() string {
	text, _ := os.ReadFile(c.Console())
	return strings.TrimSpace(string(text[max(0, len(text)-2<<10):]))
}

func (c *container) running() bool {
	if c.ended == nil {
		return false
	}
	select {
	case <-c.ended:
		return false
	default:
		return true
	}
}

const path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// Run implements Machine.
func (c *container) Run(ctx context.Context, command string) (Result, error) {
	return c.run(ctx, nil, command)
}

func (c *container) run(ctx context.Context, stdin io.Reader, command string) (Result, error) {
	if !c.running() {
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
		"env", "--ignore-environment", "PATH="+path, "HOME=/root", "LOGNAME=root", "USER=root", "TERM=dumb", "LANG=C.UTF-8",
		"DEBIAN_FRONTEND=noninteractive", "sh", "-c", command)
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

// Push implements Machine.
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

// Kill implements Machine.
func (c *container) Kill() error {
	if !c.running() {
		return nil
	}
	// First the silence: the kernel would still close the connections of those it kills.
	err := c.lan.CutAll(c.name)
	err = errors.Join(err, c.group.kill())
	<-c.ended
	if err = errors.Join(err, c.group.remove()); err != nil {
		return fmt.Errorf("kill %s: %w", c.name, err)
	}
	return nil
}

// rebooted is how nspawn says that the container asked for a reboot.
const rebooted = 133

// Reboot implements Machine.
func (c *container) Reboot(ctx context.Context) error {
	began := time.Now()
	if _, err := c.Run(ctx, "systemctl reboot"); err != nil {
		return fmt.Errorf("reboot %s: %w", c.name, err)
	}
	select {
	case <-c.ended:
	case <-ctx.Done():
		return fmt.Errorf("reboot %s: it has not gone down after %v: %w", c.name, time.Since(began).Round(time.Second), ctx.Err())
	}
	if code := c.nspawn.ProcessState.ExitCode(); code != rebooted {
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
