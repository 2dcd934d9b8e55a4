package backing

import (
	"io"
	"os"
)

// IsBlock reports whether path leads to a block device; false also if it cannot be looked at.
func IsBlock(path string) bool {
	st, err := os.Stat(path)
	return err == nil && isBlockDevice(st.Mode())
}

// SizeOf is the size of a file or block device, in bytes. It takes no lock, so it can be asked of an image in use.
func SizeOf(path string) (int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	return f.Seek(0, io.SeekEnd)
}

// Passage makes a directory in which whoever knows a name can go on, and nobody can list: QEMU, which has a user of
// its own, finds its volume's socket or its image there. What lies in it has an owner and a mode of its own.
func Passage(dir string) error {
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return err
	}
	return os.Chmod(dir, 0o711) // whatever the process's umask is
}
