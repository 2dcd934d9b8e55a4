package nbd

import (
	"encoding/binary"
	"errors"
	"fmt"
	"syscall"
)

// Numbers of the protocol (doc/proto.md of NetworkBlockDevice/nbd, "Values"). Everything on the wire is big-endian.
const (
	magicServer     = 0x4e42444d41474943 // "NBDMAGIC"
	magicOption     = 0x49484156454f5054 // "IHAVEOPT"
	magicOptReply   = 0x0003e889045565a9
	magicRequest    = 0x25609513
	magicSimple     = 0x67446698
	magicStructured = 0x668e33ef
)

// Commands.
const (
	cmdRead        = 0
	cmdWrite       = 1
	cmdDisc        = 2
	cmdFlush       = 3
	cmdTrim        = 4
	cmdCache       = 5
	cmdWriteZeroes = 6
	cmdBlockStatus = 7
)

// Command flags.
const (
	flagFUA      = 1 << 0
	flagNoHole   = 1 << 1 // of zeroes: keep the space
	flagDF       = 1 << 2 // of a read: in one chunk, as every answer here is
	flagReqOne   = 1 << 3 // of a block status: one extent is enough
	flagFastZero = 1 << 4 // of zeroes: fail rather than take as long as a write
)

// Transmission flags: what the export can do. canMultiConn promises that a flush on one connection covers what was
// answered on any other, which holds as all of them share one Queue. Fast zeroes are not promised.
const (
	canHasFlags    = 1 << 0
	canFlush       = 1 << 2
	canFUA         = 1 << 3
	canTrim        = 1 << 5
	canWriteZeroes = 1 << 6
	canDF          = 1 << 7
	canMultiConn   = 1 << 8
	canCache       = 1 << 10
)

// Structured replies.
const (
	chunkDone        = 1 // flag: the last chunk of the answer
	chunkOffsetData  = 1
	chunkBlockStatus = 5
	chunkError       = 1<<15 + 1
)

// Sizes in bytes.
const (
	requestSize    = 28
	simpleSize     = 16
	structuredSize = 20
	dataHeaderSize = structuredSize + 8 // of a structured read: then the data
	errorSize      = structuredSize + 6 // number of the error, and a text of length 0

	// maxPayload is the most a read or write may carry: what block size information promises. A client that did not ask
	// may send no more either: a larger write ends its connection, as its payload would have to be read to stay in step.
	maxPayload = 32 << 20
)

// Errors of the protocol: numbers of its own, equal to those of Linux on every system.
const (
	ePerm   = 1
	eIO     = 5
	eInval  = 22
	eNoSpc  = 28
	eNotSup = 95
)

// errProtocol is returned when a client breaks the protocol in a way after which nothing can be in step, so that bytes
// of data could be taken for requests. It ends the connection.
var errProtocol = errors.New("protocol violation")

// header is one request as it comes over the wire; a write's payload follows.
type header struct {
	flags  uint16
	cmd    uint16
	cookie uint64
	off    uint64
	length uint32
}

// payload is how many bytes follow the header.
func (h header) payload() int {
	if h.cmd == cmdWrite {
		return int(h.length)
	}
	return 0
}

// parseHeader decodes the first requestSize bytes of b. Only what would put the stream out of step is an error here; a
// range or a flag that cannot be served is answered, see handle.
func parseHeader(b []byte) (header, error) {
	if magic := binary.BigEndian.Uint32(b); magic != magicRequest {
		return header{}, fmt.Errorf("%w: request magic %#x", errProtocol, magic)
	}
	h := header{
		flags:  binary.BigEndian.Uint16(b[4:]),
		cmd:    binary.BigEndian.Uint16(b[6:]),
		cookie: binary.BigEndian.Uint64(b[8:]),
		off:    binary.BigEndian.Uint64(b[16:]),
		length: binary.BigEndian.Uint32(b[24:]),
	}
	if h.payload() > maxPayload {
		return header{}, fmt.Errorf("%w: write of %d bytes", errProtocol, h.length)
	}
	return h, nil
}

// putSimple encodes a simple reply into b[:simpleSize].
func putSimple(b []byte, cookie uint64, code uint32) {
	binary.BigEndian.PutUint32(b, magicSimple)
	binary.BigEndian.PutUint32(b[4:], code)
	binary.BigEndian.PutUint64(b[8:], cookie)
}

// putChunk encodes the header of a structured reply that is complete with this one chunk. length is what follows the
// header.
func putChunk(b []byte, kind uint16, cookie uint64, length int) {
	binary.BigEndian.PutUint32(b, magicStructured)
	binary.BigEndian.PutUint16(b[4:], chunkDone)
	binary.BigEndian.PutUint16(b[6:], kind)
	binary.BigEndian.PutUint64(b[8:], cookie)
	binary.BigEndian.PutUint32(b[16:], uint32(length))
}

// putData encodes what goes before the data of a structured read into b[:dataHeaderSize].
func putData(b []byte, cookie, off uint64, n int) {
	putChunk(b, chunkOffsetData, cookie, n+8)
	binary.BigEndian.PutUint64(b[structuredSize:], off)
}

// putError encodes a structured error without a text into b[:errorSize].
func putError(b []byte, cookie uint64, code uint32) {
	putChunk(b, chunkError, cookie, 6)
	binary.BigEndian.PutUint32(b[structuredSize:], code)
	binary.BigEndian.PutUint16(b[structuredSize+4:], 0)
}

// codeOf is the protocol's number for an error of the volume. What has none of its own is an I/O error. ErrClosed
// never comes here as an answer: see conn.Complete.
func codeOf(err error) uint32 {
	switch {
	case err == nil:
		return 0
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return eNoSpc
	case errors.Is(err, syscall.EINVAL):
		return eInval
	case errors.Is(err, syscall.EPERM), errors.Is(err, syscall.EROFS):
		return ePerm
	}
	return eIO
}
