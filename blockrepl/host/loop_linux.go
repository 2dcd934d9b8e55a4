package host

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"duet/blockrepl/host/onefile"
)

// Loop is a Driver of loop devices.
type Loop struct {
	// Dir has a directory for each device, named as that, on which the file behind it is mounted.
	Dir string
	// Program is the command that runs Serve when dir, socket and export are added to it. It must go on when this process
	// ends.
	Program []string
	Logger  *slog.Logger

	mu sync.Mutex // a leaf
	// held has the devices of this process open: the kernel lets one go (LO_FLAGS_AUTOCLEAR) when nobody has it open and
	// no file system on it is mounted. So none outlives its host's end, or a daemon that died before it mounted it.
	held map[string]*os.File
}

var _ Driver = (*Loop)(nil)

// sector in bytes is that of every device here, so that a file system made on one is at home on any other.
const sector = 4096

// lookPause is between looks at what has no event.
const lookPause = 10 * time.Millisecond

func (l *Loop) dir(name string) string  { return filepath.Join(l.Dir, name) }
func (l *Loop) file(name string) string { return filepath.Join(l.Dir, name, onefile.Name) }

// Attach starts the process behind the device, unless there is one, and puts a loop device on its file.
func (l *Loop) Attach(ctx context.Context, name, socket, export string) (string, error) {
	device, err := l.Attached(name)
	if err != nil {
		return "", err
	}
	if device != "" && l.hold(name, device) == nil && l.sameStill(name, device) {
		return device, nil
	}
	if !l.lives(name) { // what a process left that has died goes first
		if err := l.Detach(ctx, name); err != nil {
			return "", err
		}
		if err := l.begin(ctx, name, socket, export); err != nil {
			return "", fmt.Errorf("make a file of volume %s: %w", name, err)
		}
	}
	if device, err = l.loop(name); err != nil {
		return "", fmt.Errorf("make a loop device of volume %s: %w", name, err)
	}
	return device, nil
}

// hold keeps a device that is there. It may have been let go before: see sameStill.
func (l *Loop) hold(name, device string) error {
	dev, err := os.OpenFile(device, os.O_RDWR, 0)
	if err == nil {
		l.keep(name, dev)
	}
	return err
}

// sameStill: a device that was held is that of the volume, and so will be.
func (l *Loop) sameStill(name, device string) bool {
	now, err := l.on(name)
	return err == nil && now == device
}

// keep holds an open device in place of the one before; nil: none.
func (l *Loop) keep(name string, dev *os.File) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if before := l.held[name]; before != nil {
		before.Close()
	}
	if dev == nil {
		delete(l.held, name)
		return
	}
	if l.held == nil {
		l.held = map[string]*os.File{}
	}
	l.held[name] = dev
}

// begin mounts the file, starts the process behind it and waits until it serves it.
func (l *Loop) begin(ctx context.Context, name, socket, export string) (err error) {
	if err := os.MkdirAll(l.dir(name), 0o700); err != nil {
		return err
	}
	file, err := onefile.Mount(l.dir(name))
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, unmount(l.dir(name)))
		}
	}()
	ready, said, err := os.Pipe()
	if err != nil {
		file.Close()
		return err
	}
	defer ready.Close()
	cmd := exec.Command(l.Program[0], append(slices.Clone(l.Program[1:]), l.dir(name), socket, export)...)
	cmd.Stderr, cmd.Dir = os.Stderr, "/"
	cmd.ExtraFiles = []*os.File{file, said} // fuseFD, readyFD
	// A session of its own, as a signal to the daemon's terminal is not for it; its mounts: see apart.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Unshareflags: unix.CLONE_NEWNS}
	err = cmd.Start()
	file.Close() // that process alone has it, so its end is that of the file
	said.Close()
	if err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	stop := context.AfterFunc(ctx, func() { cmd.Process.Kill() })
	defer stop()
	if n, _ := ready.Read(make([]byte, 1)); n == 1 {
		return nil
	}
	return fmt.Errorf("its process has ended, and says why: %w", cmp.Or(ctx.Err(), <-ended, io.ErrUnexpectedEOF))
}

// lives: the process behind a device answers. Only a statfs asks it: the kernel knows the rest by itself.
func (l *Loop) lives(name string) bool {
	var st unix.Statfs_t
	return unix.Statfs(l.file(name), &st) == nil && st.Type == unix.FUSE_SUPER_MAGIC
}

// loop puts a loop device on the file of a volume.
func (l *Loop) loop(name string) (string, error) {
	file, err := os.OpenFile(l.file(name), os.O_RDWR|unix.O_DIRECT, 0)
	if err != nil {
		return "", err
	}
	defer file.Close()
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return "", err
	}
	defer control.Close()
	for {
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return "", err
		}
		device := fmt.Sprintf("/dev/loop%d", n)
		switch dev, err := configure(device, file, name); {
		case err == nil:
			l.keep(name, dev)
			return device, nil
		case !errors.Is(err, unix.EBUSY): // somebody else was quicker
			return "", err
		}
	}
}

// configure makes one loop device and returns it open. Requests go past the page cache: see package onefile.
func configure(device string, file *os.File, name string) (*os.File, error) {
	dev, err := os.OpenFile(device, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	c := unix.LoopConfig{Fd: uint32(file.Fd()), Size: sector}
	c.Info.Flags = unix.LO_FLAGS_DIRECT_IO | unix.LO_FLAGS_AUTOCLEAR
	copy(c.Info.File_name[:len(c.Info.File_name)-1], "duet:"+name)
	if err := unix.IoctlLoopConfigure(int(dev.Fd()), &c); err != nil {
		dev.Close()
		return nil, err
	}
	return dev, nil
}

// Attached looks for the loop device on the file of a volume: by its file system, as a path means little in another
// mount namespace.
func (l *Loop) Attached(name string) (string, error) {
	if !l.lives(name) {
		return "", nil
	}
	return l.on(name)
}

// on is the loop device on the file system that is mounted for a volume, whether somebody answers there or not; empty:
// none.
func (l *Loop) on(name string) (string, error) {
	mount, err := mounted(l.dir(name))
	if err != nil || mount == 0 {
		return "", err
	}
	all, err := filepath.Glob("/sys/block/loop*/loop")
	if err != nil {
		return "", err
	}
	for _, sys := range all {
		device := "/dev/" + filepath.Base(filepath.Dir(sys))
		if info, err := infoOf(device); err == nil && info.Device == mount {
			return device, nil
		}
	}
	return "", nil
}

func infoOf(device string) (*unix.LoopInfo64, error) {
	dev, err := os.Open(device)
	if err != nil {
		return nil, err
	}
	defer dev.Close()
	return unix.IoctlLoopGetStatus64(int(dev.Fd()))
}

// Abort ends the FUSE connection of the file: the kernel does so when an unmount is forced, though the file system is
// in use and stays.
func (l *Loop) Abort(name string) error {
	if mount, err := mounted(l.dir(name)); mount == 0 || err != nil {
		return err
	}
	if err := unix.Unmount(l.dir(name), unix.MNT_FORCE); err != nil && !errors.Is(err, unix.EBUSY) {
		return fmt.Errorf("abort volume %s: %w", name, err)
	}
	return nil
}

// Detach has the kernel let the loop device go and unmounts the file behind it, whose process ends then.
func (l *Loop) Detach(ctx context.Context, name string) error {
	for {
		device, err := l.on(name)
		if err != nil {
			return err
		}
		if device == "" {
			break
		}
		if inUse(device) {
			err = unix.EBUSY
		} else {
			l.keep(name, nil)
		}
		select { // somebody may look at it for a moment
		case <-ctx.Done():
			return fmt.Errorf("%s of volume %s does not go: %w", device, name, errors.Join(err, ctx.Err()))
		case <-time.After(lookPause):
		}
	}
	l.keep(name, nil)
	if err := unmount(l.dir(name)); err != nil {
		return fmt.Errorf("file of volume %s: %w", name, err)
	}
	if err := os.Remove(l.dir(name)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// mounted is the number of the file system that is mounted on a directory, which need not answer; 0: none is.
func mounted(dir string) (uint64, error) {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		var id, parent, major, minor uint32
		var root, at string
		n, _ := fmt.Sscanf(line, "%d %d %d:%d %s %s", &id, &parent, &major, &minor, &root, &at)
		if n == 6 && mountPath(at) == dir {
			return unix.Mkdev(major, minor), nil
		}
	}
	return 0, nil
}

// mountPath undoes how proc(5) writes blanks and backslashes in a path: as \ooo.
func mountPath(text string) string {
	var out strings.Builder
	for i := 0; i < len(text); i++ {
		if text[i] == '\\' && i+3 < len(text) {
			if n, err := strconv.ParseUint(text[i+1:i+4], 8, 8); err == nil {
				out.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		out.WriteByte(text[i])
	}
	return out.String()
}

// inUse: a file system on the device is mounted, by anybody.
func inUse(device string) bool {
	dev, err := os.OpenFile(device, os.O_RDONLY|unix.O_EXCL, 0)
	if err == nil {
		dev.Close()
	}
	return errors.Is(err, unix.EBUSY)
}

// unmount unmounts a directory; where nothing is mounted that is no error.
func unmount(dir string) error {
	err := unix.Unmount(dir, 0)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}

// Runs returns nil if a process is the one behind the device of a name: root's, and its command line is what begin
// makes.
func (l *Loop) Runs(name string, pid int) error {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil {
		return err
	}
	args := strings.Split(strings.TrimRight(string(text), "\x00"), "\x00")
	if n := len(l.Program); len(args) < n+1 || !slices.Equal(args[:n], l.Program) || args[n] != l.dir(name) {
		return fmt.Errorf("process %d is not behind the device of %s", pid, name)
	}
	return nil
}
