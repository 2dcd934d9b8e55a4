package nbd

import (
	"bufio"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"sync"
	"syscall"
	"time"

	"duet/blockrepl"
)

// Client uses a volume over its socket and outlives the server: a request that was not answered when the connection
// was lost waits, and is sent again, in its old order, to the next server. So a volume that is closed, moved to another
// process or served again after a crash is a pause. It is a blockrepl.Device. Any number of goroutines may use it.
//
// A write that was answered before the server was lost is not sent again: the server promises that it is in the volume,
// and Flush that it is durable. That a request may be done twice is for the caller to allow: it orders requests that
// overlap, as a Device's caller does.
type Client struct {
	socket, name string
	size         int64 // of the export when it was first met; a smaller one is not used
	done         chan struct{}
	ended        chan struct{} // keep has returned

	// sending has the one that writes to a connection. It is taken before mu and held over the write, which may wait
	// until the server reads on; the answers are read meanwhile, without it.
	sending sync.Mutex

	mu     sync.Mutex // a leaf
	conn   net.Conn   // nil: none
	cookie uint64
	calls  map[uint64]*exchange // that have no answer
	closed bool
}

var _ blockrepl.Device = (*Client)(nil)

// exchange is one request. Its fields are set before it is sent; err is the reader's until done.
type exchange struct {
	h    header
	data []byte // of a write: sent; of a read: filled
	err  error
	done chan struct{}
}

// dialPause is between tries to reach a server.
const dialPause = 20 * time.Millisecond

// Dial meets the server of a socket for the first time and returns its one export as a device. It fails where there is
// no server; from then on every server of that socket that has an export as large is as good.
func Dial(socket, name string) (*Client, error) {
	c := &Client{socket: socket, name: name, calls: map[uint64]*exchange{}, done: make(chan struct{}),
		ended: make(chan struct{})}
	conn, in, size, err := c.meet()
	if err != nil {
		return nil, err
	}
	c.size, c.conn = size, conn
	go c.keep(conn, in)
	return c, nil
}

// Close ends the connection. What waits for an answer fails with blockrepl.ErrClosed.
func (c *Client) Close() error {
	c.mu.Lock()
	if !c.closed {
		c.closed = true
		close(c.done)
	}
	if c.conn != nil {
		c.conn.Close()
	}
	c.mu.Unlock()
	<-c.ended
	return nil
}

// Size is that of the export in bytes.
func (c *Client) Size() int64 { return c.size }

// ReadAt reads; it waits while there is no server, as all that follow do.
func (c *Client) ReadAt(p []byte, off int64) (int, error) { return c.io(cmdRead, p, off) }

// WriteAt writes.
func (c *Client) WriteAt(p []byte, off int64) (int, error) { return c.io(cmdWrite, p, off) }

// io reads or writes, in as many requests as it takes.
func (c *Client) io(cmd uint16, p []byte, off int64) (int, error) {
	done := 0
	for part := range slices.Chunk(p, maxPayload) {
		h := header{cmd: cmd, off: uint64(off) + uint64(done), length: uint32(len(part))}
		if err := c.do(h, part); err != nil {
			return done, err
		}
		done += len(part)
	}
	return done, nil
}

// Discard is the protocol's TRIM: the servers here promise that what was trimmed reads as zeroes.
func (c *Client) Discard(off, n int64) error { return c.span(cmdTrim, 0, off, n) }

// Zero is WRITE_ZEROES that keep the space.
func (c *Client) Zero(off, n int64) error { return c.span(cmdWriteZeroes, flagNoHole, off, n) }

// maxSpan is what one request without a payload may cover, in bytes.
const maxSpan = 1 << 30

func (c *Client) span(cmd, flags uint16, off, n int64) error {
	for n > 0 {
		part := min(n, maxSpan)
		if err := c.do(header{cmd: cmd, flags: flags, off: uint64(off), length: uint32(part)}, nil); err != nil {
			return err
		}
		off, n = off+part, n-part
	}
	return nil
}

// Flush makes durable what was answered before it.
func (c *Client) Flush() error { return c.do(header{cmd: cmdFlush}, nil) }

// do sends one request and waits for its answer, over as many servers as it takes.
func (c *Client) do(h header, data []byte) error {
	e := &exchange{h: h, data: data, done: make(chan struct{})}
	c.sending.Lock()
	conn, err := c.enter(e)
	if err == nil && conn != nil && send(conn, e) != nil {
		conn.Close() // the reader notices
	}
	c.sending.Unlock()
	if err != nil {
		return err
	}
	<-e.done
	return e.err
}

// enter lists a request as one without an answer, and tells where to send it now; nil: whoever connects next sends it.
func (c *Client) enter(e *exchange) (net.Conn, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, blockrepl.ErrClosed
	}
	c.cookie++
	e.h.cookie = c.cookie
	c.calls[c.cookie] = e
	return c.conn, nil
}

// send writes a request. One at a time may: the payload follows its header.
func send(conn net.Conn, e *exchange) error {
	b := make([]byte, 0, requestSize)
	b = binary.BigEndian.AppendUint32(b, magicRequest)
	b = binary.BigEndian.AppendUint16(b, e.h.flags)
	b = binary.BigEndian.AppendUint16(b, e.h.cmd)
	b = binary.BigEndian.AppendUint64(b, e.h.cookie)
	b = binary.BigEndian.AppendUint64(b, e.h.off)
	b = binary.BigEndian.AppendUint32(b, e.h.length)
	parts := net.Buffers{b}
	if e.h.cmd == cmdWrite {
		parts = append(parts, e.data)
	}
	_, err := parts.WriteTo(conn)
	return err
}

// keep reads answers, and finds the next server when one is lost, until Close.
func (c *Client) keep(conn net.Conn, in *bufio.Reader) {
	defer close(c.ended)
	for conn != nil {
		c.answers(in)
		conn.Close()
		c.mu.Lock()
		c.conn = nil
		c.mu.Unlock()
		conn, in = c.again()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for cookie, e := range c.calls {
		delete(c.calls, cookie)
		e.err = blockrepl.ErrClosed
		close(e.done)
	}
}

// again waits for a server and has what has no answer sent to it; nil after Close.
func (c *Client) again() (net.Conn, *bufio.Reader) {
	for {
		conn, in, size, err := c.meet()
		if err == nil && size >= c.size {
			c.sending.Lock() // the last one that wrote to the connection before has noticed its end
			go c.resend(conn)
			return conn, in
		}
		if err == nil {
			conn.Close()
		}
		select {
		case <-c.done:
			return nil, nil
		case <-time.After(dialPause):
		}
	}
}

// resend sends what has no answer, oldest first, and then has new requests go to conn. The answers are read meanwhile.
// It has sending, and lets it go.
func (c *Client) resend(conn net.Conn) {
	defer c.sending.Unlock()
	c.mu.Lock()
	waiting := slices.SortedFunc(maps.Values(c.calls), func(a, b *exchange) int {
		return cmp.Compare(a.h.cookie, b.h.cookie)
	})
	c.conn = conn
	if c.closed {
		conn.Close()
	}
	c.mu.Unlock()
	for _, e := range waiting {
		if send(conn, e) != nil {
			conn.Close()
			return
		}
	}
}

// answers reads replies until the connection ends or makes no sense.
func (c *Client) answers(in *bufio.Reader) {
	head := make([]byte, simpleSize)
	for {
		if _, err := io.ReadFull(in, head); err != nil || binary.BigEndian.Uint32(head) != magicSimple {
			return
		}
		code, cookie := binary.BigEndian.Uint32(head[4:]), binary.BigEndian.Uint64(head[8:])
		c.mu.Lock()
		e := c.calls[cookie]
		c.mu.Unlock()
		if e == nil {
			return
		}
		if e.err = errorOf(code); e.err == nil && e.h.cmd == cmdRead {
			if _, err := io.ReadFull(in, e.data); err != nil {
				return // the next server fills it again
			}
		}
		c.mu.Lock()
		delete(c.calls, cookie)
		c.mu.Unlock()
		close(e.done)
	}
}

// errorOf is what a number of the protocol means: codeOf the other way round.
func errorOf(code uint32) error {
	switch code {
	case 0:
		return nil
	case eNoSpc:
		return syscall.ENOSPC
	case eInval:
		return syscall.EINVAL
	case ePerm:
		return syscall.EPERM
	}
	return syscall.EIO
}

// meet connects and chooses the export. It waits as long as the socket is kept and nobody serves it.
func (c *Client) meet() (conn net.Conn, in *bufio.Reader, size int64, err error) {
	conn, err = net.Dial("unix", c.socket)
	if err != nil {
		return nil, nil, 0, err
	}
	stop := make(chan struct{})
	defer close(stop)
	go func() { // Close ends the wait
		select {
		case <-c.done:
			conn.Close()
		case <-stop:
		}
	}()
	in = bufio.NewReaderSize(conn, 64<<10)
	if size, err = choose(conn, in, c.name); err != nil {
		conn.Close()
		return nil, nil, 0, fmt.Errorf("negotiate with %s: %w", c.socket, err)
	}
	return conn, in, size, nil
}

// choose is the client's side of the option phase: GO for one export, without structured replies.
func choose(conn net.Conn, in *bufio.Reader, name string) (size int64, err error) {
	hello := make([]byte, len(greeting()))
	if _, err := io.ReadFull(in, hello); err != nil {
		return 0, err
	}
	if binary.BigEndian.Uint64(hello) != magicServer || binary.BigEndian.Uint64(hello[8:]) != magicOption ||
		binary.BigEndian.Uint16(hello[16:])&handFixedNewstyle == 0 {
		return 0, errProtocol
	}
	flags := handFixedNewstyle | handNoZeroes&binary.BigEndian.Uint16(hello[16:])
	b := binary.BigEndian.AppendUint32(nil, uint32(flags))
	b = binary.BigEndian.AppendUint64(b, magicOption)
	b = binary.BigEndian.AppendUint32(b, optGo)
	b = binary.BigEndian.AppendUint32(b, uint32(4+len(name)+2))
	b = binary.BigEndian.AppendUint32(b, uint32(len(name)))
	b = append(b, name...)
	b = binary.BigEndian.AppendUint16(b, 0) // no information besides the export's
	if _, err := conn.Write(b); err != nil {
		return 0, err
	}
	head := make([]byte, 20)
	for {
		if _, err := io.ReadFull(in, head); err != nil {
			return 0, err
		}
		kind, n := binary.BigEndian.Uint32(head[12:]), binary.BigEndian.Uint32(head[16:])
		if binary.BigEndian.Uint64(head) != magicOptReply || binary.BigEndian.Uint32(head[8:]) != optGo || n > maxOption {
			return 0, errProtocol
		}
		data := make([]byte, n)
		if _, err := io.ReadFull(in, data); err != nil {
			return 0, err
		}
		switch {
		case kind == repAck && size > 0:
			return size, nil
		case kind == repAck:
			return 0, fmt.Errorf("%w: no size was told", errProtocol)
		case kind == repInfo && len(data) >= 12 && binary.BigEndian.Uint16(data) == infoExport:
			if size = int64(binary.BigEndian.Uint64(data[2:])); size <= 0 {
				return 0, fmt.Errorf("%w: a volume of %d bytes", errProtocol, size)
			}
		case kind&(1<<31) != 0:
			return 0, errors.New("the export is refused: " + string(data))
		}
	}
}
