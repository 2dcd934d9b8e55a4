package machine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"
)

// Bind puts a folder of this computer in the place of one inside, which need not exist.
type Bind struct {
	Source string // must be there
	Target string
}

// Command says what Exec runs.
type Command struct {
	Args  []string // program and arguments
	Dir   string   // working folder inside
	Env   []string // all of the environment besides PATH, HOME and LC_ALL
	Binds []Bind
}

// entering makes the root around the program: its own processes, files and network without links, as the testbed's
// own namespaces need them below it. $1 is the root; then come pairs of binds, "--", folder, program and arguments.
// The root is pivoted to: a chroot would be left again by a process that enters another mount namespace.
const entering = `
cd "$1"; shift
mount -t proc proc proc
mount -t sysfs sysfs sys
mount --rbind /dev dev
mount -t tmpfs -o mode=755 tmpfs run
mkdir -m 1777 run/lock
while [ "$1" != -- ]; do
	mkdir -p ".$2"
	mount --bind "$1" ".$2"
	shift 2
done
shift
ip link set lo up
pivot_root . .
umount -l .
cd "$1"; shift
exec "$@"
`

// Exec runs a program in a private copy of the image, with this computer's kernel, in process-id, mount,
// network, IPC and host-name namespaces of its own, without a way out. It is for what makes its own nodes, such
// as the module's tests; a machine with systemd is made by Boot. All of it ends when the program, ctx or this
// process does. The exit code is in the error, as an exec.ExitError. Binds are writable.
func (im Image) Exec(ctx context.Context, c Command, stdout, stderr *os.File) error {
	tmp, err := im.scratch()
	if err == nil {
		err = errors.Join(im.exec(ctx, tmp, c, stdout, stderr), tmp.remove())
	}
	if err != nil {
		return fmt.Errorf("run %s in %s: %w", c.Args[0], im.Release, err)
	}
	return nil
}

// exec: the goroutine keeps its thread until the program ends, as the death signal is bound to it.
func (im Image) exec(ctx context.Context, tmp scratch, c Command, stdout, stderr *os.File) error {
	// /tmp is on a disk, as programs use O_DIRECT there, and short, as unix sockets lie there.
	own := filepath.Join(tmp.dir, "tmp")
	if err := errors.Join(os.Mkdir(own, 0o755), os.Chmod(own, 0o777|os.ModeSticky)); err != nil {
		return err
	}
	args := []string{"--mount", "--pid", "--net", "--ipc", "--uts", "--fork", "--kill-child",
		"sh", "-c", im.mount(tmp) + entering, "sh", tmp.root()}
	for _, b := range append([]Bind{{own, "/tmp"}}, c.Binds...) {
		args = append(args, b.Source, b.Target)
	}
	args = append(args, "--", cmp.Or(c.Dir, "/"))
	cmd := exec.CommandContext(ctx, "unshare", append(args, c.Args...)...)
	cmd.Stdout, cmd.Stderr = stdout, stderr
	cmd.Env = append([]string{"PATH=" + path, "HOME=/root", "LC_ALL=C.UTF-8"}, c.Env...)
	// Linux sends the death signal when the thread ends that started the process.
	cmd.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	return cmd.Run()
}
