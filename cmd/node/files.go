package node

import (
	"io"
	"os"
	"strings"
)

// isBlock reports whether path is a block device.
func isBlock(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.Mode()&os.ModeDevice != 0 && st.Mode()&os.ModeCharDevice == 0
}

// sizeOf is the size of a file or block device, in bytes.
func sizeOf(path string) (int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	return f.Seek(0, io.SeekEnd)
}

// passage makes a directory in which whoever knows a name can go on, and nobody can list: QEMU, which has a user of its
// own, finds its volume's socket or its image there. What lies in it has an owner and a mode of its own.
func passage(dir string) error {
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return err
	}
	return os.Chmod(dir, 0o711)
}

// cutVolume splits MODULE/TARGET.
func cutVolume(s string) (module, target string, ok bool) {
	module, target, ok = strings.Cut(s, "/")
	return module, target, ok && module != "" && target != ""
}

// bootID identifies this run of the kernel; empty where that is not known.
func bootID() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}
