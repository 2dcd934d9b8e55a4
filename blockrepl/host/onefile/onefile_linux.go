package onefile

import (
	"errors"
	"fmt"
	"log"
	"os"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"duet/blockrepl"
)

// Name is the name of the one file.
const Name = "volume"

const (
	rootID fuseID = fuse.FUSE_ROOT_ID
	fileID fuseID = 2
)

type fuseID = uint64

// blockSize in bytes is what the file's users are told to align to.
const blockSize = 4096

// maxRequest is the largest read or write, in bytes: the kernel's own limit of pages in one request.
const maxRequest = 1 << 20

// inFlight is how many requests the kernel sends in the background before it waits. A loop device has as many.
const inFlight = 128

// forever is how long the kernel may keep what it knows of the two inodes: they do not change.
const forever = uint64(365 * 24 * time.Hour / time.Second)

// Server serves one mounted file.
type Server struct {
	fuse *fuse.Server
}

// Mount mounts a file system on a directory that exists. Whoever has the file that it returns serves it: see Open. It
// needs CAP_SYS_ADMIN.
func Mount(dir string) (*os.File, error) {
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open /dev/fuse: %w", err)
	}
	how := fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0,max_read=%d", fd, maxRequest)
	if err := unix.Mount("duet", dir, "fuse.duet", unix.MS_NOSUID|unix.MS_NODEV, how); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("mount a file on %s: %w", dir, err)
	}
	return os.NewFile(uintptr(fd), "/dev/fuse"), nil
}

// Open makes dev the content of the file that was mounted with descriptor fd. The file can be used once Serve runs.
func Open(fd int, dev blockrepl.Device, logger *log.Logger) (*Server, error) {
	s, err := fuse.NewServer(&files{RawFileSystem: fuse.NewDefaultRawFileSystem(), dev: dev},
		fmt.Sprintf("/dev/fd/%d", fd), &fuse.MountOptions{MaxWrite: maxRequest, MaxBackground: inFlight,
			DisableXAttrs: true, DisableReadDirPlus: true, DisableSplice: true, Logger: logger})
	if err != nil {
		return nil, err
	}
	return &Server{s}, nil
}

// Serve answers the kernel until the file system is unmounted, by whomever.
func (s *Server) Serve() { s.fuse.Serve() }

// files are the two inodes. Its methods are called by any number of goroutines.
type files struct {
	fuse.RawFileSystem
	dev blockrepl.Device
}

func (f *files) String() string { return "duet" }

// attributes of an inode.
func (f *files) attributes(id fuseID, out *fuse.Attr) {
	out.Ino, out.Nlink, out.Blksize = id, 1, blockSize
	if id == rootID {
		out.Mode = syscall.S_IFDIR | 0o500
		return
	}
	out.Mode, out.Size, out.Blocks = syscall.S_IFREG|0o600, uint64(f.dev.Size()), uint64(f.dev.Size()/blockrepl.Sector)
}

// Lookup finds the file.
func (f *files) Lookup(_ <-chan struct{}, h *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	if h.NodeId != rootID || name != Name {
		return fuse.ENOENT
	}
	out.NodeId, out.AttrValid, out.EntryValid = fileID, forever, forever
	f.attributes(fileID, &out.Attr)
	return fuse.OK
}

// GetAttr tells what the inodes are.
func (f *files) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	out.AttrValid = forever
	f.attributes(in.NodeId, &out.Attr)
	return fuse.OK
}

// Open lets the kernel read and write the file past its cache, several requests at a time: who writes through a block
// device orders what overlaps.
func (f *files) Open(_ <-chan struct{}, _ *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	out.OpenFlags = fuse.FOPEN_DIRECT_IO | fuse.FOPEN_PARALLEL_DIRECT_WRITES
	return fuse.OK
}

// Read reads.
func (f *files) Read(_ <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	left := f.dev.Size() - int64(in.Offset)
	if left <= 0 {
		return fuse.ReadResultData(nil), fuse.OK
	}
	n, err := f.dev.ReadAt(buf[:min(int64(len(buf)), left)], int64(in.Offset))
	return fuse.ReadResultData(buf[:n]), status(err)
}

// Write writes.
func (f *files) Write(_ <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	n, err := f.dev.WriteAt(data, int64(in.Offset))
	return uint32(n), status(err)
}

// Fsync makes durable what was written; of data alone or of all is the same here.
func (f *files) Fsync(_ <-chan struct{}, _ *fuse.FsyncIn) fuse.Status { return status(f.dev.Flush()) }

// Flush is what close does: it promises nothing.
func (f *files) Flush(<-chan struct{}, *fuse.FlushIn) fuse.Status { return fuse.OK }

// Release has nothing to let go.
func (f *files) Release(<-chan struct{}, *fuse.ReleaseIn) {}

// Fallocate discards and zeroes.
func (f *files) Fallocate(_ <-chan struct{}, in *fuse.FallocateIn) fuse.Status {
	off, n := int64(in.Offset), int64(in.Length)
	switch in.Mode &^ unix.FALLOC_FL_KEEP_SIZE {
	case unix.FALLOC_FL_PUNCH_HOLE:
		return status(f.dev.Discard(off, n))
	case unix.FALLOC_FL_ZERO_RANGE:
		return status(f.dev.Zero(off, n))
	}
	return fuse.Status(syscall.EOPNOTSUPP)
}

// StatFs has nothing to say.
func (f *files) StatFs(<-chan struct{}, *fuse.InHeader, *fuse.StatfsOut) fuse.Status { return fuse.OK }

// Access is root's.
func (f *files) Access(<-chan struct{}, *fuse.AccessIn) fuse.Status { return fuse.OK }

// status is the error as the kernel knows it.
func status(err error) fuse.Status {
	var errno syscall.Errno
	switch {
	case err == nil:
		return fuse.OK
	case errors.As(err, &errno):
		return fuse.Status(errno)
	}
	return fuse.EIO
}
