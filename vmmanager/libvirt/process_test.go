//go:build linux

package libvirt

import (
	"strings"
	"testing"
)

func TestGuestName(t *testing.T) {
	for _, c := range []struct{ cmdline, want string }{
		{"/usr/bin/qemu-system-x86_64 -name guest=web01,debug-threads=on -S", "web01"},
		{"qemu -S -name guest=web01", "web01"},
		{"qemu -name guest=a,,b,,,debug-threads=on", "a,b,"},
		{"qemu -name web01", ""},
		{"qemu -name", ""},
		{"qemu -object guest=web01", ""},
		{"", ""},
	} {
		if got := guestName([]byte(strings.ReplaceAll(c.cmdline, " ", "\x00"))); got != c.want {
			t.Errorf("%q: %q, want %q", c.cmdline, got, c.want)
		}
	}
}

func FuzzGuestName(f *testing.F) {
	f.Add([]byte("qemu\x00-name\x00guest=a,,b,debug-threads=on"))
	f.Fuzz(func(t *testing.T, cmdline []byte) { guestName(cmdline) })
}
