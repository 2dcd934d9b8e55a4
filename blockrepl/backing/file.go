package backing

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"duet/blockrepl"
	"duet/blockrepl/durable"
)

// File is a raw image: a regular file or a block device. It is open from
// OpenFile or CreateFile until Close and locked for that time.
//
// Reads and writes go through the page cache, which survives a killed process but not a loss of power; only Flush
// reaches the disk. Nothing else in this process may open the image: a write past the File is not replicated, and the
// next comparison would call it rot.
type File struct {
	f    *os.File
	size int64

	// mu keeps the descriptor alive under the calls that use its number: one that was closed may be that of another
	// file by then, which would get the discard. It is held for reading during system calls, for writing by Close only.
	mu     sync.RWMutex
	closed bool

	tryless atomic.Bool // the file system cannot read without waiting
	flushes flushes
}

var (
	_ blockrepl.Device     = (*File)(nil)
	_ blockrepl.FastReader = (*File)(nil)
	_ blockrepl.Mapper     = (*File)(nil)
)

// OpenFile opens the image at path and locks it. A size other than 0 must be
// the size of the image in bytes. The errors are fs.ErrNotExist, ErrKind,
// ErrSize, ErrInUse or what the system says. The size is taken now, for good: an image that grows while it is open is
// served with the size it had.
func OpenFile(path string, size int64) (*File, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("open image: %w", err)
	}
	if !info.Mode().IsRegular() && !isBlockDevice(info.Mode()) {
		return nil, fmt.Errorf("open image %s: %w", path, ErrKind)
	}
	f, err := openLocked(path, os.O_RDWR, isBlockDevice(info.Mode()))
	if err != nil {
		return nil, fmt.Errorf("open image: %w", err)
	}
	have, err := f.Seek(0, io.SeekEnd) // right for files and block devices
	if err == nil {
		err = checkSize(have, size)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("open image %s: %w", path, err)
	}
	return &File{f: f, size: have}, nil
}

// CreateFile makes a sparse image of size bytes, all zeroes, that only its owner
// may read, and opens it as OpenFile does. The path must not exist yet. The
// image survives power loss when CreateFile returns. It takes no space yet, so a later write may fail with ENOSPC,
// which fails this copy. After an error there is no file.
func CreateFile(path string, size int64) (*File, error) {
	if err := checkSize(size, size); err != nil {
		return nil, fmt.Errorf("create image %s: %w", path, err)
	}
	f, err := openLocked(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, false)
	if err != nil {
		return nil, fmt.Errorf("create image: %w", err)
	}
	err = f.Truncate(size)
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = durable.SyncDir(filepath.Dir(path))
	}
	if err != nil {
		f.Close()
		os.Remove(path) // ours: O_EXCL
		return nil, fmt.Errorf("create image: %w", err)
	}
	return &File{f: f, size: size}, nil
}

// Written is when the image at path was last changed, by the clock of this node; zero for
// a block device, which does not know, and for an image that cannot be looked at. It is told to people; no rule
// uses it.
func Written(path string) time.Time {
	info, err := os.Stat(path)
	if err != nil || !info.Mode().IsRegular() {
		return time.Time{}
	}
	return info.ModTime()
}

func checkSize(have, want int64) error {
	switch {
	case want != 0 && have != want:
		return fmt.Errorf("%w: has %d bytes, expected %d", ErrSize, have, want)
	case have <= 0:
		return fmt.Errorf("%w: %d bytes", ErrSize, have)
	case have%blockrepl.Sector != 0:
		return fmt.Errorf("%w: %d bytes is not a multiple of %d", ErrSize, have, blockrepl.Sector)
	}
	return nil
}

func isBlockDevice(m os.FileMode) bool {
	return m&os.ModeDevice != 0 && m&os.ModeCharDevice == 0
}

// Path is the name the image was opened by.
func (f *File) Path() string { return f.f.Name() }

// Size is the length in bytes.
func (f *File) Size() int64 { return f.size }

// ReadAt fills p from off. A file cut short by somebody else is an error: io.EOF is never returned, as the end of
// the device is not reached by a range that lies in it.
func (f *File) ReadAt(p []byte, off int64) (int, error) {
	if err := checkRange(off, int64(len(p)), f.size); err != nil {
		return 0, err
	}
	n, err := f.f.ReadAt(p, off)
	if errors.Is(err, io.EOF) {
		err = fmt.Errorf("read %s: %w", f.Path(), io.ErrUnexpectedEOF)
	}
	return n, err
}

// WriteAt writes p at off into the page cache. It waits for the disk only when the kernel makes a writer of too many
// dirty pages wait. An error of a write that the kernel does later is told to Flush.
func (f *File) WriteAt(p []byte, off int64) (int, error) {
	if err := checkRange(off, int64(len(p)), f.size); err != nil {
		return 0, err
	}
	return f.f.WriteAt(p, off)
}

// Discard makes the range read as zeroes and gives its space back where the
// file system can; where it cannot, zeroes are written. Durable after a Flush, as any write.
func (f *File) Discard(off, n int64) error {
	return f.clear("discard", punchHole, off, n)
}

// Zero makes the range read as zeroes and keeps its space, by the file system
// where it can, otherwise by writing zeroes. A hole in the range becomes allocated, which a full file system refuses.
func (f *File) Zero(off, n int64) error {
	return f.clear("zero", zeroRange, off, n)
}

// clear does fast, or writes zeroes where the system or the file system cannot do that.
func (f *File) clear(verb string, fast func(fd uintptr, off, n int64) error, off, n int64) error {
	if err := checkRange(off, n, f.size); err != nil || n == 0 {
		return err
	}
	err := f.withFd(func(fd uintptr) error { return fast(fd, off, n) })
	if errors.Is(err, errors.ErrUnsupported) {
		err = f.writeZeroes(off, n)
	}
	if err != nil {
		return fmt.Errorf("%s %s: %w", verb, f.Path(), err)
	}
	return nil
}

// writeZeroes may be interrupted half way by an error; the range is then of both.
func (f *File) writeZeroes(off, n int64) error {
	zeroes := make([]byte, min(n, 1<<20))
	for n > 0 {
		step := min(n, int64(len(zeroes)))
		if _, err := f.f.WriteAt(zeroes[:step], off); err != nil {
			return err
		}
		off, n = off+step, n-step
	}
	return nil
}

// Flush makes every write that returned before it durable. Once it failed it
// fails for ever: the kernel reports a lost page only once, and a later success
// would say nothing about that page. Only a File that is opened anew can flush again, and its owner has to know
// that this copy may lack what was written since the last good Flush.
func (f *File) Flush() error {
	return f.flushes.do(func() error {
		err := f.withFd(dataSync)
		if err != nil && !errors.Is(err, ErrClosed) {
			err = fmt.Errorf("flush %s: %w", f.Path(), err)
		}
		return err
	})
}

// flushes runs one flush at a time. Of two at once the kernel tells one of a page that it lost, and the other that all
// is well: who is told that must not be believed before the one that began before it has ended.
type flushes struct {
	mu     sync.Mutex
	broken error // of the first that failed; never cleared
}

// do returns what flush does, or why an earlier one failed. That a file is closed says nothing about its disk.
func (f *flushes) do(flush func() error) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.broken != nil {
		return f.broken
	}
	err := flush()
	if err != nil && !errors.Is(err, ErrClosed) {
		f.broken = err
	}
	return err
}

// Close unlocks the image. It waits for a Discard, Zero, Flush, TryReadAt or Data under way; a read or write under way
// keeps the descriptor, and with it the lock, until it ends, so the caller ends those first. It does not flush: who is
// to rely on the copy calls Flush before.
func (f *File) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return nil
	}
	f.closed = true
	return f.f.Close()
}

// withFd runs fn while the descriptor is certain to be open.
func (f *File) withFd(fn func(fd uintptr) error) error {
	f.mu.RLock()
	defer f.mu.RUnlock()
	if f.closed {
		return ErrClosed
	}
	return fn(f.f.Fd())
}
