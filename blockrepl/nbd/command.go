package nbd

import (
	"encoding/binary"
	"fmt"

	"duet/blockrepl"
)

// command is one kind of request: the flags it takes and how it is handled. An
// error ends the connection.
type command struct {
	flags  uint16
	ranged bool // has an offset and a length that must lie within the volume
	handle func(c *conn, h header, payload []byte) error
}

// commands by number. FUA is allowed, and without meaning, on those that change nothing. Other flags that a command
// does not have are refused: to ignore one the client relies on would be a lie.
var commands = [...]command{
	cmdRead:        {flagFUA | flagDF, true, (*conn).read},
	cmdWrite:       {flagFUA, true, (*conn).write},
	cmdDisc:        {0xffff, false, (*conn).disconnect},
	cmdFlush:       {flagFUA, false, (*conn).flush},
	cmdTrim:        {flagFUA, true, (*conn).trim},
	cmdCache:       {flagFUA, true, (*conn).cache},
	cmdWriteZeroes: {flagFUA | flagNoHole | flagFastZero, true, (*conn).writeZeroes},
	cmdBlockStatus: {flagFUA | flagReqOne, true, (*conn).blockStatus},
}

// handle checks a request and passes it to its command. A write that is refused has had its payload taken off the
// stream already, so the connection goes on.
func (c *conn) handle(h header, payload []byte) error {
	if int(h.cmd) >= len(commands) {
		return c.refuse(h, eInval)
	}
	cmd := commands[h.cmd]
	if h.flags&^cmd.flags != 0 {
		return c.refuse(h, eInval)
	}
	if cmd.ranged {
		if code := c.check(h); code != 0 {
			return c.refuse(h, code)
		}
	}
	return cmd.handle(c, h, payload)
}

// check returns the protocol's error for a range that cannot be served, or 0. Writing past the end is ENOSPC, anything
// else there EINVAL, as proto.md wants it. The comparison cannot overflow: the offset is known to lie within.
func (c *conn) check(h header) uint32 {
	switch {
	case h.length == 0, h.length%blockrepl.Sector != 0, h.off%blockrepl.Sector != 0:
		return eInval
	case h.off > c.size || uint64(h.length) > c.size-h.off:
		if h.cmd == cmdWrite || h.cmd == cmdWriteZeroes {
			return eNoSpc
		}
		return eInval
	case h.cmd == cmdRead && h.length > maxPayload:
		return eInval
	}
	return 0
}

// refuse answers a request that never reaches the volume; code 0 is success. Once structured replies were agreed a
// read and a block status must be answered by one; the other commands may be answered simply.
func (c *conn) refuse(h header, code uint32) error {
	if c.out.structured && (h.cmd == cmdRead || h.cmd == cmdBlockStatus) {
		return c.reply(errorSize, func(b []byte) { putError(b, h.cookie, code) })
	}
	return c.reply(simpleSize, func(b []byte) { putSimple(b, h.cookie, code) })
}

// reply puts up an answer of n bytes that needs nothing of the volume. It leaves when the reader uncorks.
func (c *conn) reply(n int, put func(b []byte)) error {
	if err := c.admit(n); err != nil {
		return err
	}
	defer c.out.mu.Unlock()
	ch, at := c.out.reserve(n)
	put(ch.buf[at:])
	c.out.push(ch, at, at+n)
	return nil
}

// admit waits until a request with n bytes of answer may begin and returns with the outbox locked; not so on an error.
// While it waits nothing more is read from the client, which is how its memory is bounded.
func (c *conn) admit(n int) error {
	o := c.out
	o.mu.Lock()
	if o.fits(n) && o.err == nil {
		return nil
	}
	// What was submitted must get on and what was answered must leave before there is room.
	o.mu.Unlock()
	c.kick()
	o.uncork()
	o.mu.Lock()
	if err := o.await(func() bool { return o.fits(n) }); err != nil {
		o.mu.Unlock()
		return err
	}
	o.corked = true
	return nil
}

// submit sends r to the volume. The outbox must not be locked: r may be complete before Submit returns.
func (c *conn) submit(r *request, op blockrepl.Op, h header) error {
	r.cookie = h.cookie
	r.Op, r.Off, r.Len, r.By = op, int64(h.off), int64(h.length), c
	r.FUA = h.flags&flagFUA != 0 && op != blockrepl.OpRead && op != blockrepl.OpFlush
	c.reads.pending = true
	c.q.Submit(&r.Request)
	return nil
}

// read lets the volume read straight into the answer: the room is taken when the request comes, so what a client has
// asked for is counted before any of it is read.
func (c *conn) read(h header, _ []byte) error {
	head, n := c.out.readHeader(), int(h.length)
	if err := c.admit(head + n); err != nil {
		return err
	}
	r := c.out.request()
	r.out, r.at = c.out.reserve(head + n)
	r.Data = r.out.buf[r.at+head : r.at+head+n : r.at+head+n]
	c.out.mu.Unlock()
	return c.submit(r, blockrepl.OpRead, h)
}

// write lends the volume the payload where it was received. The reference to the chunk goes with it until finish:
// until then nobody may write there, as the bytes may be on their way to the disk and to the peer.
func (c *conn) write(h header, payload []byte) error {
	if err := c.admit(0); err != nil {
		return err
	}
	r := c.out.request()
	r.in, r.Data = c.reads.in, payload
	r.in.refs++
	c.out.mu.Unlock()
	return c.submit(r, blockrepl.OpWrite, h)
}

// plain submits a request without data.
func (c *conn) plain(op blockrepl.Op, h header) error {
	if err := c.admit(0); err != nil {
		return err
	}
	r := c.out.request()
	c.out.mu.Unlock()
	return c.submit(r, op, h)
}

func (c *conn) flush(h header, _ []byte) error {
	h.off, h.length = 0, 0 // reserved
	return c.plain(blockrepl.OpFlush, h)
}

func (c *conn) trim(h header, _ []byte) error { return c.plain(blockrepl.OpDiscard, h) }

// writeZeroes gives the space back where the client allows it. FAST_ZERO is not
// offered: nobody can promise here that the peer's file system is fast at it.
func (c *conn) writeZeroes(h header, _ []byte) error {
	switch {
	case h.flags&flagFastZero != 0:
		return c.refuse(h, eNotSup)
	case h.flags&flagNoHole != 0:
		return c.plain(blockrepl.OpZero, h)
	}
	return c.plain(blockrepl.OpDiscard, h)
}

// cache is a hint; there is nothing to do for it that a read does not do as well.
func (c *conn) cache(h header, _ []byte) error { return c.refuse(h, 0) }

func (c *conn) disconnect(header, []byte) error { return errDone }

// Extents of a block status.
const (
	stateHole  = 1 << 0
	stateZero  = 1 << 1
	maxExtents = 1024 // in one answer, which may cover less than was asked
	extentSize = 8
)

// blockStatus tells data from holes. It asks the volume for its map on this goroutine, before the client's next request
// is read: it is a matter of microseconds, and of a disk that hangs the volume tells.
func (c *conn) blockStatus(h header, _ []byte) error {
	if c.dev == nil {
		return c.refuse(h, eInval)
	}
	limit := maxExtents
	if h.flags&flagReqOne != 0 {
		limit = 1
	}
	extents, err := mapRange(c.dev, int64(h.off), int64(h.off)+int64(h.length), limit)
	if err != nil {
		return c.refuse(h, codeOf(fmt.Errorf("map volume: %w", err)))
	}
	return c.reply(structuredSize+4+len(extents), func(b []byte) {
		putChunk(b, chunkBlockStatus, h.cookie, 4+len(extents))
		binary.BigEndian.PutUint32(b[structuredSize:], allocID)
		copy(b[structuredSize+4:], extents)
	})
}

// mapRange encodes at most limit extents from off on, none beyond end, each as long as it is: the volume may tell it in
// pieces. It always gives one at least, as the protocol wants progress.
func mapRange(dev blockrepl.Mapper, off, end int64, limit int) ([]byte, error) {
	var b []byte
	last := uint32(0) // state of the last extent
	for n := int64(0); off < end; off += n {
		from, to, err := dev.Data(off)
		if err != nil {
			return nil, err
		}
		state := uint32(0)
		if n = min(to, end) - off; from > off {
			n, state = min(from, end)-off, stateHole|stateZero
		}
		if len(b) > 0 && state == last {
			length := b[len(b)-extentSize:]
			binary.BigEndian.PutUint32(length, binary.BigEndian.Uint32(length)+uint32(n))
			continue
		}
		if len(b) == limit*extentSize {
			break
		}
		b = binary.BigEndian.AppendUint32(b, uint32(n))
		b = binary.BigEndian.AppendUint32(b, state)
		last = state
	}
	return b, nil
}
