package proc

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Config describes a node.
type Config struct {
	Name  string // host name inside
	NetNS string // file of its network namespace; "" = the caller's
	Binds []Bind // folders of its own, which keep their content when it is off
	Hosts string // more lines for its /etc/hosts; nothing else resolves names, as there is no DNS inside
}

// Bind puts a folder of the computer in the place of another one inside the node. Both must exist; Target must not be
// below /run, which is empty after each Boot.
type Bind struct {
	Source string
	Target string
}

// ErrDown is returned when the node is switched off.
var ErrDown = errors.New("node is switched off")

// Node is one host of a cluster on one computer. Its methods may be called from several goroutines.
type Node struct {
	cfg Config

	mu    sync.Mutex
	first *exec.Cmd      // process 1 inside, nil while the node is off
	plug  *os.File       // process 1 ends when this pipe has no writer left: also when this process dies
	pidns uint64         // inode of the process-id namespace
	alive sync.WaitGroup // one count per Process that nobody has reaped yet
}

// New returns a node that is switched off.
func New(cfg Config) *Node { return &Node{cfg: cfg} }

// Name returns the host name.
func (n *Node) Name() string { return n.cfg.Name }

// setup makes the node from inside. Its process 1 stays as a cat that ignores SIGCHLD, an order that survives exec and
// makes the kernel reap the orphans (a shell would undo that order); it ends at the end of its standard input.
const setup = `set -e
mount --make-rprivate /
for f in /run/netns/*; do umount -l "$f" 2>/dev/null || :; done
umount -l /run/netns 2>/dev/null || :
mount -t proc proc /proc
umount -R -l /sys; mount -t sysfs sysfs /sys
echo "$1" >/proc/sys/kernel/hostname
hosts="127.0.0.1 localhost
127.0.1.1 $1
$2"
shift 2
while [ $# -gt 0 ]; do mount --bind "$1" "$2"; shift 2; done
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -m 1777 /run/lock
echo "$hosts" >/run/hosts
mount --bind /run/hosts /etc/hosts
: >/run/resolv.conf
[ ! -e /etc/resolv.conf ] || mount --bind /run/resolv.conf /etc/resolv.conf
exec env --ignore-signal=CHLD cat
`

// Boot switches the node on: with an empty /run, the folders of its Binds, and no process but its first. It does
// nothing if the node is on.
func (n *Node) Boot() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.first != nil {
		return nil
	}
	if err := n.boot(); err != nil {
		return fmt.Errorf("boot %s: %w", n.cfg.Name, err)
	}
	return nil
}

// boot: the mounts are private to the node, so whatever it mounts goes with it; namespaces of others are taken
// out of its /run/netns, or it would keep those alive.
func (n *Node) boot() error {
	args := []string{"-c", setup, "sh", n.cfg.Name, n.cfg.Hosts}
	for _, b := range n.cfg.Binds {
		if strings.HasPrefix(filepath.Clean(b.Target)+"/", "/run/") {
			return fmt.Errorf("bind %s: it is below /run", b.Target)
		}
		args = append(args, b.Source, b.Target)
	}
	stdin, plug, err := os.Pipe()
	if err != nil {
		return err
	}
	defer stdin.Close()
	ready, out, err := os.Pipe()
	if err != nil {
		plug.Close()
		return err
	}
	defer ready.Close()
	var fault bytes.Buffer
	cmd := exec.Command("sh", args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, out, &fault
	cmd.SysProcAttr = &unix.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC,
		Setpgid:    true, // a ctrl-C at the terminal is for the test, which switches its nodes off itself
	}
	err = onThread(func() error {
		if n.cfg.NetNS != "" {
			if err := enterNet(n.cfg.NetNS); err != nil {
				return err
			}
		}
		return cmd.Start()
	})
	out.Close()
	if err != nil {
		plug.Close()
		return err
	}
	// The echo of the final cat tells that all before it succeeded.
	_, _ = plug.WriteString("ready\n")
	if line, err := bufio.NewReader(ready).ReadString('\n'); err != nil || line != "ready\n" {
		plug.Close()
		err = cmd.Wait()
		return fmt.Errorf("set up namespaces: %v: %s", err, bytes.TrimSpace(fault.Bytes()))
	}
	n.pidns, err = inode(cmd.Process.Pid)
	if err != nil {
		plug.Close()
		return errors.Join(err, cmd.Wait())
	}
	n.first, n.plug = cmd, plug
	return nil
}

// Kill switches the node off: every process in it is killed. It returns nil when none is left, and also if the
// node was off. The kernel still closes their connections in order and answers for the node's addresses; to make
// the others see the silence of a power cut, cut the node off the network first (netns.LAN.CutAll), and give it
// a new network (netns.LAN.Reset) before the next Boot. It may wait: a process in a system call that no signal
// ends (a disk that hangs) keeps process 1, and with it mu.
func (n *Node) Kill() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.first == nil {
		return nil
	}
	if err := n.first.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("kill %s: %w", n.cfg.Name, err)
	}
	// The kernel lets process 1 end only after all others are gone, those that our goroutines reap included.
	_ = n.first.Wait() // "killed" is what was asked for
	n.plug.Close()
	n.alive.Wait()
	n.first, n.plug = nil, nil
	left, err := n.processes()
	if err == nil && len(left) > 0 {
		err = fmt.Errorf("%d processes are left: %v", len(left), left)
	}
	if err != nil {
		return fmt.Errorf("kill %s: %w", n.cfg.Name, err)
	}
	return nil
}

// Info is a process of a node.
type Info struct {
	PID     int    // outside the node
	Command string // its command line, words separated by spaces
	stat    byte   // state letter of /proc/PID/stat
}

// Processes lists what runs in the node, its first process excepted. A node that is off has none. It is a
// picture of an instant: a process in it may be gone.
func (n *Node) Processes() ([]Info, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.first == nil {
		return nil, nil
	}
	return n.processes()
}

func (n *Node) processes() ([]Info, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	var all []Info
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || n.first != nil && pid == n.first.Process.Pid {
			continue
		}
		// A process that ends while we look at it has no namespace any more and is not one of ours any more.
		if ns, err := inode(pid); err != nil || ns != n.pidns {
			continue
		}
		cmdline, _ := os.ReadFile(filepath.Join("/proc", e.Name(), "cmdline"))
		stat, _ := os.ReadFile(filepath.Join("/proc", e.Name(), "stat"))
		info := Info{PID: pid, Command: string(bytes.TrimSpace(bytes.ReplaceAll(cmdline, []byte{0}, []byte{' '})))}
		if _, rest, ok := bytes.Cut(stat, []byte(") ")); ok && len(rest) > 0 {
			info.stat = rest[0]
		}
		all = append(all, info)
	}
	return all, nil
}

// Freeze stops every process of the node with SIGSTOP, as a hanging host would. It returns nil when none of them can
// run a further instruction; a system call that waits for a disk may still end. The node's kernel goes on: addresses
// answer to ping, sockets to the opening of connections.
func (n *Node) Freeze(ctx context.Context) error {
	told := map[int]bool{}
	for {
		running, err := n.stopAll(told)
		if err != nil || running == 0 {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("freeze %s: %d processes go on: %w", n.cfg.Name, running, ctx.Err())
		case <-time.After(time.Millisecond):
		}
	}
}

// stopAll sends SIGSTOP to all and counts those that were not still yet. A process that forks while we look is found
// next time, because the parent counts as running this time.
func (n *Node) stopAll(told map[int]bool) (running int, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.first == nil {
		return 0, fmt.Errorf("freeze %s: %w", n.cfg.Name, ErrDown)
	}
	all, err := n.processes()
	if err != nil {
		return 0, err
	}
	for _, p := range all {
		// A parent that waits for its vforked, stopped child sleeps uninterruptibly: it stays so until the thaw.
		if p.stat == 'T' || p.stat == 'Z' || p.stat == 'X' || p.stat == 'D' && told[p.PID] {
			continue
		}
		running++
		told[p.PID] = true
		if err := unix.Kill(p.PID, unix.SIGSTOP); err != nil && !errors.Is(err, unix.ESRCH) {
			return running, fmt.Errorf("freeze %s: stop %d: %w", n.cfg.Name, p.PID, err)
		}
	}
	return running, nil
}

// Thaw lets every process of the node go on. A node that is off has nothing to thaw: no error.
func (n *Node) Thaw() error {
	all, err := n.Processes()
	if err != nil {
		return fmt.Errorf("thaw %s: %w", n.cfg.Name, err)
	}
	for _, p := range all {
		if err := unix.Kill(p.PID, unix.SIGCONT); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("thaw %s: continue %d: %w", n.cfg.Name, p.PID, err)
		}
	}
	return nil
}

// Outside returns the path by which a process outside the node reaches the absolute path inside it, as long as
// the node is on. Unix sockets can be dialled through it. The path is that of this boot; after the next one it
// leads nowhere.
func (n *Node) Outside(path string) (string, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.first == nil {
		return "", fmt.Errorf("look into %s: %w", n.cfg.Name, ErrDown)
	}
	return filepath.Join("/proc", strconv.Itoa(n.first.Process.Pid), "root", path), nil
}

// inode returns the identity of a process's process-id namespace.
func inode(pid int) (uint64, error) {
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join("/proc", strconv.Itoa(pid), "ns/pid"), &st); err != nil {
		return 0, fmt.Errorf("look at process %d: %w", pid, err)
	}
	return st.Ino, nil
}

// onThread runs fn on an operating system thread of its own, which dies afterwards, whatever fn did to it.
func onThread(fn func() error) error {
	done := make(chan error, 1)
	go func() {
		err := errors.New("function did not return")
		defer func() { done <- err }()
		runtime.LockOSThread()
		err = fn()
	}()
	return <-done
}

func enterNet(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.Setns(int(f.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter %s: %w", path, err)
	}
	return nil
}
