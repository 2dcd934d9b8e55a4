package blockrepl

// Sector is the smallest unit of I/O, in bytes. Offsets and lengths of requests are multiples of it.
const Sector = 512

// Device is a local disk image: a file, a block device, memory.
//
// A write is visible to later reads when WriteAt returns; it survives power
// loss only after a later Flush returned nil. After a failed Flush nothing
// written since the last good one may be taken as durable, ever (the kernel
// drops dirty pages on a writeback error), so callers treat it as the loss of
// this copy. All methods may be called by several goroutines at once; the
// effect of overlapping writes is undefined, callers order them.
type Device interface {
	// ReadAt fills p from off or returns an error; a short read is an error.
	ReadAt(p []byte, off int64) (int, error)
	// WriteAt writes all of p at off or returns an error. It does not keep p.
	WriteAt(p []byte, off int64) (int, error)
	// Discard makes [off, off+n) read as zeroes and may give the space back.
	Discard(off, n int64) error
	// Zero makes [off, off+n) read as zeroes and keeps the space allocated.
	Zero(off, n int64) error
	// Flush makes every write that returned before this call durable.
	Flush() error
	// Size is the length in bytes; it does not change.
	Size() int64
}

// FastReader is a Device that can tell whether a read would wait for the disk.
// Without it every read is taken to wait, and is done by another goroutine.
type FastReader interface {
	// TryReadAt fills p and reports true, or reads nothing usable and reports
	// false when it would have to wait; the caller then uses ReadAt.
	TryReadAt(p []byte, off int64) bool
}

// Mapper is a Device that knows its holes. Without it everything is data.
type Mapper interface {
	// Data returns the first allocated range at or after off, start < end; when
	// there is none up to the end of the device it returns Size, Size.
	// Holes read as zeroes. The answer may be stale as soon as it is given. Data may always be said where a hole is,
	// never the other way round: a hole is taken for zeroes without being read, so what is there would never reach the
	// peer. It may wait for the disk.
	Data(off int64) (start, end int64, err error)
}

// Frontend offers one volume to a hypervisor, and its holes if the Queue is a Mapper.
type Frontend interface {
	// Endpoint is the address a hypervisor connects to, such as the path of a unix socket.
	Endpoint() string
	// Serve answers requests from q until Close; it returns only after the last
	// request in flight was answered or its connection is gone.
	Serve(q Queue) error
	// Close makes Serve return. It may be called more than once.
	Close() error
}
