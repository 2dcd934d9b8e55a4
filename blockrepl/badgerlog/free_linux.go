package badgerlog

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// freeBytes is what an unprivileged process could still write under dir, so the
// reserve of the root user comes on top.
func freeBytes(dir string) (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, err
	}
	return int64(st.Bavail) * st.Bsize, nil
}

// reserve makes a file that has its blocks.
func reserve(path string, size int) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	err = errors.Join(unix.Fallocate(int(f.Fd()), 0, 0, int64(size)), f.Close())
	if errors.Is(err, unix.EOPNOTSUPP) {
		return writeNoise(path, size)
	}
	return err
}
