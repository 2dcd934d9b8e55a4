// Package backing holds the local copies of volumes: what implements blockrepl.Device.
//
//	File     a raw image file or a block device, through the page cache
//	Memory   a disk of a test; PowerCut takes back what was not flushed
//	Faulty   wraps a Device and fails, delays or holds chosen operations
//
// A File is locked while it is open, against a second File on it in any process
// and against QEMU, which honours the same locks. All of a Device's promises
// (package blockrepl) hold; a range outside the device is ErrRange.
//
// Nothing here buffers, orders or repeats I/O, and no goroutine is started: a call lasts as long as the kernel
// does, and one on a broken disk may never return. Who must not wait for that is the caller's matter (package
// blockrepl watches its calls).
//
// Memory and Faulty are for tests and simulations only. Both keep the whole contract, so that what is found with them
// would happen on a disk as well.
//
// Files: file.go is what systems have in common, file_linux.go and file_windows.go what they do not; place.go looks
// at paths before anything is opened.
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
	// ErrClosed is returned after Close by what works on the descriptor itself: Flush, Discard, Zero and Data. Reads and
	// writes get os.ErrClosed in an os.PathError.
	ErrClosed = errors.New("image is closed")
)

// checkRange reports ErrRange unless [off, off+n) lies within size.
func checkRange(off, n, size int64) error {
	if off < 0 || n < 0 || off > size || n > size-off {
		return fmt.Errorf("%w: %d+%d of %d", ErrRange, off, n, size)
	}
	return nil
}
