package watchdog

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// sysfs is where the kernel describes its devices.
const sysfs = "/sys"

// Numbers of /dev/watchdog, which is the same as /dev/watchdog0.
const (
	miscMajor     = 10
	watchdogMinor = 130
)

// file is a watchdog of the kernel.
type file struct{ *os.File }

func open(path string) (timer, error) {
	fi, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	stat, ok := fi.Sys().(*syscall.Stat_t)
	if !ok || fi.Mode()&os.ModeCharDevice == 0 {
		return nil, errors.New("not a character device")
	}
	// To be asked before: opening arms it for good.
	if noWayOut(sysfs, unix.Major(stat.Rdev), unix.Minor(stat.Rdev)) {
		return nil, ErrNoWayOut
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if errors.Is(err, unix.EBUSY) {
		return nil, fmt.Errorf("%w: another program has it: systemd (RuntimeWatchdogSec) or the package watchdog", err)
	}
	if err != nil {
		return nil, err
	}
	return file{f}, nil
}

// noWayOut reports whether the kernel says so. Kernels without the file are believed to let go.
func noWayOut(root string, major, minor uint32) bool {
	name := fmt.Sprintf("%s/dev/char/%d:%d/nowayout", root, major, minor)
	if major == miscMajor && minor == watchdogMinor {
		name = root + "/class/watchdog/watchdog0/nowayout"
	}
	text, err := os.ReadFile(name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return true
	}
	return strings.TrimSpace(string(text)) == "1"
}

// control runs a call on the open device.
func (f file) control(call func(fd int) error) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var result error
	if err := raw.Control(func(fd uintptr) { result = call(int(fd)) }); err != nil {
		return err
	}
	return result
}

// SetTimeout is WDIOC_SETTIMEOUT.
func (f file) SetTimeout(seconds int) error {
	return f.control(func(fd int) error { return unix.IoctlSetPointerInt(fd, unix.WDIOC_SETTIMEOUT, seconds) })
}

// Timeout is WDIOC_GETTIMEOUT. The kernel writes an int of C: 32 bits.
func (f file) Timeout() (seconds int, err error) {
	err = f.control(func(fd int) error {
		v, err := unix.IoctlGetUint32(fd, unix.WDIOC_GETTIMEOUT)
		seconds = int(int32(v))
		return err
	})
	return seconds, err
}

// Keepalive is WDIOC_KEEPALIVE.
func (f file) Keepalive() error { return f.control(unix.IoctlWatchdogKeepalive) }
