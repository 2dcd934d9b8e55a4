package host

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"duet/blockrepl/host/onefile"
	"duet/blockrepl/nbd"
)

// The descriptors that the process behind a device gets: its file system, and a pipe into which it says that it serves
// that.
const (
	fuseFD  = 3
	readyFD = 4
)

// Serve is the process behind one device: the file that was mounted with descriptor fuseFD has what is served at socket
// as its content. It returns when that file system is unmounted, and never gives the kernel an error because the daemon
// is away.
func Serve(socket, export string, logger *slog.Logger) error {
	if err := apart(socket); err != nil {
		return fmt.Errorf("let file systems go: %w", err)
	}
	dev, err := nbd.Dial(socket, export)
	if err != nil {
		return err
	}
	defer dev.Close()
	s, err := onefile.Open(fuseFD, dev, slog.NewLogLogger(logger.Handler(), slog.LevelWarn))
	if err != nil {
		return err
	}
	ready := os.NewFile(readyFD, "ready")
	_, err = ready.Write([]byte{1})
	if err := errors.Join(err, ready.Close()); err != nil {
		return err
	}
	s.Serve()
	return nil
}

// errByHand is returned where a process behind a device was started by somebody else than begin.
var errByHand = errors.New("it is started by duetd apps, in a mount namespace of its own")

// alone returns nil if this process has a mount namespace that its parent has not.
func alone() error {
	mine, err := os.Readlink("/proc/self/ns/mnt")
	if err != nil {
		return err
	}
	theirs, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/mnt", os.Getppid()))
	if err == nil && theirs == mine {
		err = errByHand
	}
	return err
}

// apart lets all file systems go but those on the way to a path. This process has a mount namespace of its own: were it
// the last of one in which a file system on its own device is mounted, its end would unmount that, and wait for ever
// for itself to write it out. And what this host unmounts must not be held here. In the host's own namespace it would
// take all of them from the host.
func apart(path string) error {
	if err := alone(); err != nil {
		return err
	}
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	var at []string
	for line := range strings.Lines(string(text)) {
		if fields := strings.Fields(line); len(fields) > 4 {
			at = append(at, mountPath(fields[4]))
		}
	}
	for _, dir := range slices.Backward(at) {
		if dir == "/" || strings.HasPrefix(path, dir+"/") {
			continue
		}
		// It may have gone with the one above it.
		if err := unix.Unmount(dir, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil && !errors.Is(err, unix.EINVAL) &&
			!errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("%s: %w", dir, err)
		}
	}
	return nil
}

// IntoWritePath has the kernel treat this process as one that memory may wait for to be written out
// (PR_SET_IO_FLUSHER, Linux 5.6): what it allocates does not wait for writes that it has to do itself, and it is held
// back for its own disk only. The kernel keeps that per thread and gives it to those that a thread makes; so the
// program is executed once more, by a thread that has it. It returns nil when this process has it, and may be called
// only before there is anything that an exec would lose.
func IntoWritePath() error {
	if flushes() {
		return nil
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_IO_FLUSHER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("prctl(PR_SET_IO_FLUSHER): %w", err)
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	return fmt.Errorf("exec %s: %w", self, unix.Exec(self, os.Args, os.Environ()))
}

// flushes: this thread has what IntoWritePath gives.
func flushes() bool {
	on, err := unix.PrctlRetInt(unix.PR_GET_IO_FLUSHER, 0, 0, 0, 0)
	return err == nil && on == 1
}
