package node

import (
	"os"
	"strings"
)

// isBlock reports whether path is a block device.
func isBlock(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.Mode()&os.ModeDevice != 0 && st.Mode()&os.ModeCharDevice == 0
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
