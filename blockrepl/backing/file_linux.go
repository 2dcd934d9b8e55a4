package backing

import (
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// openLocked opens path and takes an exclusive lock of the open file
// description. QEMU takes locks of the same kind on the images it opens, so it
// is kept out as well. A block device is opened exclusively too, which a mounted one refuses.
//
// A lock of the open file description, and not of the process, as a second File in this process must be refused
// too, and as closing any other descriptor of the image would give a lock of the process back. It ends with the
// last descriptor, so a process that was killed leaves none.
func openLocked(path string, flag int, device bool) (*os.File, error) {
	if device {
		flag |= os.O_EXCL
	}
	f, err := os.OpenFile(path, flag, 0o600)
	if errors.Is(err, unix.EBUSY) {
		return nil, fmt.Errorf("%s: %w", path, ErrInUse)
	}
	if err != nil {
		return nil, err
	}
	lock := unix.Flock_t{Type: unix.F_WRLCK} // length 0: to the end, wherever that is
	err = unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &lock)
	switch {
	case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EACCES):
		err = fmt.Errorf("%s: %w", path, ErrInUse)
	case err != nil:
		err = fmt.Errorf("lock %s: %w", path, err)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func punchHole(fd uintptr, off, n int64) error {
	return fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, n)
}

func zeroRange(fd uintptr, off, n int64) error {
	return fallocate(fd, unix.FALLOC_FL_ZERO_RANGE|unix.FALLOC_FL_KEEP_SIZE, off, n)
}

// fallocate serves block devices as well: the kernel turns it into a discard or
// write-zeroes that keeps the page cache right and guarantees zeroes.
func fallocate(fd uintptr, mode uint32, off, n int64) error {
	err := retry(func() error { return unix.Fallocate(int(fd), mode, off, n) })
	// EINVAL: a block device whose own sectors are larger than the range, or the range does not lie on their bounds.
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EINVAL) {
		return errors.ErrUnsupported
	}
	return err
}

// dataSync is fdatasync: the size of an image never changes, and its times do not matter.
func dataSync(fd uintptr) error {
	return retry(func() error { return unix.Fdatasync(int(fd)) })
}

// retry repeats a call that a signal has ended: the runtime of Go sends itself some.
func retry(call func() error) error {
	for {
		if err := call(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// TryReadAt fills p from the page cache, or reports false; p may have changed in part then. It is preadv2 with
// RWF_NOWAIT. A file system that does not know the flag is not asked again.
func (f *File) TryReadAt(p []byte, off int64) bool {
	if f.tryless.Load() || len(p) == 0 || checkRange(off, int64(len(p)), f.size) != nil {
		return false
	}
	f.mu.RLock()
	defer f.mu.RUnlock()
	if f.closed {
		return false
	}
	vec := unix.Iovec{Base: unsafe.SliceData(p)}
	vec.SetLen(len(p))
	n, _, errno := unix.Syscall6(unix.SYS_PREADV2, f.f.Fd(), uintptr(unsafe.Pointer(&vec)), 1,
		uintptr(off), uintptr(uint64(off)>>32), unix.RWF_NOWAIT)
	if errno == unix.EOPNOTSUPP || errno == unix.ENOSYS {
		f.tryless.Store(true)
	}
	return errno == 0 && int(n) == len(p)
}

// Data finds the next allocated range; a file system without SEEK_DATA has everything allocated. Any other error
// counts as data too: what is wrongly called a hole would not be sent to the peer. It moves the file's own
// position, which nothing else here uses after OpenFile.
func (f *File) Data(off int64) (start, end int64, err error) {
	if err := checkRange(off, 0, f.size); err != nil {
		return 0, 0, err
	}
	err = f.withFd(func(fd uintptr) error {
		for start = off; start < f.size; {
			start, err = unix.Seek(int(fd), start, unix.SEEK_DATA)
			if errors.Is(err, unix.ENXIO) {
				break
			}
			if err != nil {
				start, end = off, f.size
				return nil
			}
			end, err = unix.Seek(int(fd), start, unix.SEEK_HOLE)
			if err != nil {
				end = f.size
			}
			if end > start { // else it became a hole between the two calls
				end = min(end, f.size)
				return nil
			}
		}
		start, end = f.size, f.size
		return nil
	})
	return start, end, err
}
