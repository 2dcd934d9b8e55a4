// Package backing holds the local copies of volumes: what implements blockrepl.Device.
//
//	File     a raw image file or a block device, through the page cache
//	Memory   a disk of a test; PowerCut takes back what was not flushed
//	Faulty   wraps a Device and fails, delays or holds chosen operations
//
// A File is locked while it is open, against a second File on it in any process
// and against QEMU, which honours the same locks. All of a Device's promises
// (package blockrepl) hold; a range outside the device is ErrRange.
package backing

import (
	"errors"
	"fmt"
)

var (
	// ErrInUse is returned when another process, or another File of this one, has the image open.
	ErrInUse = errors.New("image is in use")
	// ErrKind is returned when the path is neither a regular file nor a block device.
	ErrKind = errors.New("not a file or block device")
	// ErrSize is returned when the size is not a multiple of a sector or not the expected one.
	ErrSize = errors.New("wrong image size")
	// ErrRange is returned for a range that does not lie within the device.
	ErrRange = errors.New("range outside the device")
	// ErrClosed is returned by operations on a File after Close.
	ErrClosed = errors.New("image is closed")
)

// checkRange reports ErrRange unless [off, off+n) lies within size.
func checkRange(off, n, size int64) error {
	if off < 0 || n < 0 || off > size || n > size-off {
		return fmt.Errorf("%w: %d+%d of %d", ErrRange, off, n, size)
	}
	return nil
}
