package wire

import (
	"fmt"
	"hash/crc32"
	"net"
	"sync"
	"time"
)

const (
	// byReference: payloads at least this long are sent from the caller's memory, smaller ones are copied.
	byReference = 64 << 10
	// keepBuffer is the largest send buffer kept for reuse.
	keepBuffer = 1 << 20
	// sealAtOnce is how much is encrypted for one system call.
	sealAtOnce = 256 << 10
)

// Conn carries frames over a connection.
//
// Append and Flush may be called by several goroutines, Next by one. In the usual
// case no goroutine is woken to send: whoever calls Flush writes to the socket
// itself. Only when the socket is full does a goroutine of the Conn take over
// until everything is out, so that neither Append nor Flush ever waits. What is
// pending is bounded by what the callers have in flight. Frames are sent in the order of Append.
//
// After the first failure nothing is sent, Append does nothing and Flush returns that failure; Next goes on with
// what has arrived. Who owns a Conn has to Close it in any case.
type Conn struct {
	nc net.Conn // what frames are written to and read from: TLS, or the lowest layer itself
	in receiver // of the goroutine that calls Next

	mu    sync.Mutex
	idle  sync.Cond // broadcast when busy ends
	open  []byte    // small frames being collected
	queue []segment // before open, in order
	spare []segment
	free  [][]byte
	busy  bool  // one goroutine owns out, and with it the socket's sending side
	err   error // the first failure, or net.ErrClosed; nothing is sent after it

	out sender // of the goroutine that is busy
}

// blank makes room for a header. The header is built in the buffer itself, as one on
// the stack would move to the heap when its checksum is taken.
var blank [HeaderSize]byte

// NewConn makes a Conn of nc, which it owns from now on. For a TLS connection made
// over Buffered it batches below the encryption; its handshake must be over by then, as what TLS writes is
// collected from now on and leaves with the next frame.
func NewConn(nc net.Conn) *Conn {
	socket := below(nc)
	secure := socket != nil && net.Conn(socket) != nc
	switch {
	case secure:
		socket.cork()
	case socket == nil:
		socket = newStream(nc)
		nc = socket
	}
	c := &Conn{
		nc: nc, in: receiver{nc: nc, buf: make([]byte, readSize)},
		out: sender{nc: nc, socket: socket, secure: secure},
	}
	c.idle.L = &c.mu
	return c
}

// below finds the stream under nc, if Buffered made one.
func below(nc net.Conn) *stream {
	for nc != nil {
		if s, ok := nc.(*stream); ok {
			return s
		}
		u, ok := nc.(interface{ NetConn() net.Conn })
		if !ok {
			return nil
		}
		nc = u.NetConn()
	}
	return nil
}

// OnWait sets a function that Next calls, on its own goroutine, whenever it is
// about to read from the socket: everything received so far was returned. It is
// the moment to Flush answers or to settle a batch. Set it before the first Next. It may also come within a large
// frame, and it must not wait for the peer: nobody reads meanwhile.
func (c *Conn) OnWait(f func()) { c.out.socket.onWait = f }

// Append queues a frame; it is sent by a later Flush. Length is set by it. A
// payload of 64 KiB or more must not change until the frame was answered or Close
// returned: it is sent from where it lies. A smaller one is copied. On a failed connection Append does nothing. A
// payload over MaxPayload is refused by the receiver only.
func (c *Conn) Append(h *Header, payload []byte) {
	h.Length = uint32(len(payload))
	sum := crc32.Update(0, castagnoli, payload)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return
	}
	b := append(c.buffer(), blank[:]...)
	h.put(b[len(b)-HeaderSize:], sum)
	c.open = b
	if len(payload) < byReference {
		c.open = append(c.open, payload...)
		return
	}
	c.seal()
	c.queue = append(c.queue, segment{b: payload})
}

// buffer returns the open buffer, making one if needed.
func (c *Conn) buffer() []byte {
	if c.open != nil {
		return c.open
	}
	if n := len(c.free); n > 0 {
		b := c.free[n-1]
		c.free = c.free[:n-1]
		return b[:0]
	}
	return make([]byte, 0, 32<<10)
}

// seal ends the open buffer.
func (c *Conn) seal() {
	if len(c.open) > 0 {
		c.queue = append(c.queue, segment{b: c.open, own: true})
		c.open = nil
	}
}

// Flush sends what was appended, or makes sure that somebody is sending it. It
// does not wait for the peer. It returns the failure of the connection, if any; nil does not mean that anything has
// left.
func (c *Conn) Flush() error {
	c.mu.Lock()
	if c.err != nil || c.busy || (len(c.queue) == 0 && len(c.open) == 0) {
		defer c.mu.Unlock()
		return c.err
	}
	c.busy = true
	return c.send(false)
}

// send writes all segments and those appended meanwhile. The caller holds mu and
// has set busy; send gives up both, or, when the socket is full and it may not
// wait, hands both to a goroutine; Close joins that one by waiting for busy to end.
func (c *Conn) send(wait bool) error {
	for c.err == nil {
		c.seal()
		if len(c.queue) == 0 {
			break
		}
		c.out.segs, c.queue, c.spare = c.queue, c.spare[:0], nil
		c.mu.Unlock()
		err := c.out.transmit(wait)
		if err == errWait {
			go c.finish()
			return nil
		}
		c.mu.Lock()
		c.recycle(err)
	}
	c.busy = false
	c.idle.Broadcast()
	err := c.err
	c.mu.Unlock()
	return err
}

// finish is the goroutine that sends while the socket is full.
func (c *Conn) finish() {
	err := c.out.transmit(true)
	c.mu.Lock()
	c.recycle(err)
	_ = c.send(true) // kept in c.err, the next caller sees it
}

// recycle keeps the buffers of sent segments for reuse and notes the first failure.
func (c *Conn) recycle(err error) {
	segs := c.out.done()
	for i := range segs {
		if segs[i].own && cap(segs[i].b) <= keepBuffer && len(c.free) < 4 {
			c.free = append(c.free, segs[i].b)
		}
		segs[i] = segment{}
	}
	c.spare = segs[:0]
	if c.err == nil && err != nil {
		c.err = fmt.Errorf("send frames: %w", err)
	}
}

// Next returns the next frame. The payload is valid until the next call. An error
// ends the connection: io.EOF if the peer closed it between frames, ErrCorrupt if a check failed.
func (c *Conn) Next() (Header, []byte, error) { return c.in.next() }

// SetDeadline bounds the handshake; the zero time removes the bound.
func (c *Conn) SetDeadline(t time.Time) error { return c.nc.SetDeadline(t) }

// RemoteAddr names the other end for logs.
func (c *Conn) RemoteAddr() net.Addr { return c.nc.RemoteAddr() }

// CloseSoon sends what was appended, for at most d, and then closes: for a last word.
func (c *Conn) CloseSoon(d time.Duration) error {
	// An error here is no news: the connection ends, and the word is best effort.
	_ = c.nc.SetWriteDeadline(time.Now().Add(d))
	_ = c.Flush()
	c.mu.Lock()
	for c.busy {
		c.idle.Wait()
	}
	c.mu.Unlock()
	return c.Close()
}

// Close ends the connection, drops what is pending and waits until no payload is
// referred to any more. It makes Next return; it may be called more than once, and by several goroutines. What was
// flushed may or may not arrive.
func (c *Conn) Close() error {
	c.mu.Lock()
	if c.err == nil {
		c.err = net.ErrClosed
	}
	c.mu.Unlock()
	err := c.nc.Close()
	c.mu.Lock()
	for c.busy {
		c.idle.Wait()
	}
	c.open, c.queue, c.free = nil, nil, nil
	c.mu.Unlock()
	return err
}
