package divergence

import (
	"errors"
	"fmt"
	"os"
	"syscall"
)

const (
	errSharingViolation = syscall.Errno(32)
	fsctlSetSparse      = 0x900c4
	fileShareDelete     = 4
)

// openLocked opens path for reading and writing, shared with nobody until it is closed. It may get another name
// meanwhile.
func openLocked(path string, flag int) (*os.File, error) {
	name, err := syscall.UTF16PtrFromString(path)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	mode := uint32(syscall.OPEN_EXISTING)
	if flag&os.O_CREATE != 0 {
		mode = syscall.OPEN_ALWAYS
	}
	// Sharing its deletion lets nobody read or write it: whoever wants to is still refused.
	const access = syscall.GENERIC_READ | syscall.GENERIC_WRITE
	h, err := syscall.CreateFile(name, access, fileShareDelete, nil, mode, syscall.FILE_ATTRIBUTE_NORMAL, 0)
	if errors.Is(err, errSharingViolation) {
		err = ErrInUse
	}
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return os.NewFile(uintptr(h), path), nil
}

func dataSync(f *os.File) error { return f.Sync() }

// makeSparse asks for holes; a file system without them stores zeroes.
func makeSparse(f *os.File) error {
	var n uint32
	_ = syscall.DeviceIoControl(syscall.Handle(f.Fd()), fsctlSetSparse, nil, 0, nil, 0, &n, nil)
	return nil
}
