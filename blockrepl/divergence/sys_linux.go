package divergence

import (
	"errors"
	"fmt"
	"os"
	"syscall"
)

// openLocked opens path for reading and writing and locks it until it is closed; ErrInUse if it is locked. The lock
// is one of flock(2): it holds between two descriptors of one process too, and ends with a process that was killed.
func openLocked(path string, flag int) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|flag, 0o600)
	if err != nil {
		return nil, err
	}
	err = retry(func() error { return syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) })
	if err != nil {
		_ = f.Close() // nothing was written
		if errors.Is(err, syscall.EWOULDBLOCK) {
			err = ErrInUse
		}
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return f, nil
}

// dataSync is fdatasync, which also makes a new length durable, as the map grows.
func dataSync(f *os.File) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	failed := raw.Control(func(fd uintptr) {
		err = retry(func() error { return syscall.Fdatasync(int(fd)) })
	})
	return errors.Join(failed, err)
}

// makeSparse does nothing: files are.
func makeSparse(*os.File) error { return nil }

func retry(call func() error) error {
	for {
		if err := call(); !errors.Is(err, syscall.EINTR) {
			return err
		}
	}
}
