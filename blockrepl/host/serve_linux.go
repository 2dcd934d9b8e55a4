package host

import (
	"fmt"
	"log/slog"
	"os"
	"runtime"

	"golang.org/x/sys/unix"

	"duet/blockrepl/host/onefile"
	"duet/blockrepl/nbd"
)

// Serve is the process behind one device: it makes a file in a directory of what is served at socket, and returns when
// that directory is unmounted. It never gives the kernel an error because the daemon is away.
func Serve(dir, socket, export string, logger *slog.Logger) error {
	dev, err := nbd.Dial(socket, export)
	if err != nil {
		return err
	}
	defer dev.Close()
	s, err := onefile.Mount(dir, dev, slog.NewLogLogger(logger.Handler(), slog.LevelWarn))
	if err != nil {
		return fmt.Errorf("mount %s: %w", dir, err)
	}
	s.Serve()
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
