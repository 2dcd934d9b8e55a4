package backing

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/windows"
)

// openLocked opens path and locks one byte far beyond any image: byte locks of
// Windows would otherwise keep even readers of the data out.
func openLocked(path string, flag int, _ bool) (*os.File, error) {
	f, err := os.OpenFile(path, flag, 0o600)
	if err != nil {
		return nil, err
	}
	at := windows.Overlapped{OffsetHigh: 1 << 30}
	err = windows.LockFileEx(windows.Handle(f.Fd()), windows.LOCKFILE_EXCLUSIVE_LOCK|windows.LOCKFILE_FAIL_IMMEDIATELY, 0,
		1, 0, &at)
	if err != nil {
		f.Close()
		if errors.Is(err, windows.ERROR_LOCK_VIOLATION) {
			err = ErrInUse
		}
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return f, nil
}

// punchHole and zeroRange are left to writeZeroes: an image only grows here.
func punchHole(uintptr, int64, int64) error { return errors.ErrUnsupported }

func zeroRange(uintptr, int64, int64) error { return errors.ErrUnsupported }

func dataSync(fd uintptr) error { return windows.FlushFileBuffers(windows.Handle(fd)) }

// TryReadAt reports false: Windows does not tell whether a read would wait.
func (f *File) TryReadAt([]byte, int64) bool { return false }

// Data reports everything as allocated.
func (f *File) Data(off int64) (start, end int64, err error) {
	if err := checkRange(off, 0, f.size); err != nil {
		return 0, 0, err
	}
	return off, f.size, nil
}
