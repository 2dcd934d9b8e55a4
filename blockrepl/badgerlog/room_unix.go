//go:build unix

package badgerlog

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// probeLock fails if another Store holds dir. badger locks the directory itself by flock.
func probeLock(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	// Closing the file gives the lock back.
	return errors.Join(unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB), f.Close())
}
