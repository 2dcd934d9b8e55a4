package wire

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io"
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
// pending is bounded by what the callers have in flight.
type Conn struct {
	nc     net.Conn // what frames are written to and read from: TLS, or the stream itself
	socket *stream  // the lowest layer known
	secure bool     // nc encrypts into socket

	mu    sync.Mutex
	idle  sync.Cond // broadcast when busy ends
	open  []byte    // small frames being collected
	queue []segment // before open, in order
	spare []segment
	free  [][]byte
	busy  bool  // one goroutine owns the socket's sending side
	err   error // the first failure; nothing is sent after it

	// Of the goroutine that is busy: the segments being sent, how far they were cut
	// into bytes for the socket, those bytes, and the buffer for ciphertext.
	segs   []segment
	sent   int // segments
	offset int // bytes of segs[sent], when encrypting
	raw    []byte
	cipher []byte

	rbuf []byte // parsed in place; rbuf[r:w] is not consumed
	r, w int
	last int    // bytes of rbuf the frame returned last occupies
	big  []byte // payloads too large for rbuf
}

// blank makes room for a header. The header is built in the buffer itself, as one on
// the stack would move to the heap when its checksum is taken.
var blank [HeaderSize]byte

// segment is a run of bytes to send; own ones go back to the free list.
type segment struct {
	b   []byte
	own bool
}

// NewConn makes a Conn of nc, which it owns from now on. For a TLS connection made
// over Buffered it batches below the encryption.
func NewConn(nc net.Conn) *Conn {
	c := &Conn{nc: nc, rbuf: make([]byte, readSize)}
	c.idle.L = &c.mu
	if c.socket = below(nc); c.socket != nil && net.Conn(c.socket) != nc {
		c.secure = true
		c.socket.cork()
	} else if c.socket == nil {
		c.socket = newStream(nc)
		c.nc = c.socket
	}
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
// the moment to Flush answers or to settle a batch. Set it before the first Next.
func (c *Conn) OnWait(f func()) { c.socket.onWait = f }

// Append queues a frame; it is sent by a later Flush. Length is set by it. A
// payload of 64 KiB or more must not change until the frame was answered or Close
// returned. On a failed connection Append does nothing.
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
// does not wait for the peer. It returns the failure of the connection, if any.
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
		c.segs, c.queue, c.spare = c.queue, c.spare[:0], nil
		c.mu.Unlock()
		err := c.transmit(wait)
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
	err := c.transmit(true)
	c.mu.Lock()
	c.recycle(err)
	_ = c.send(true) // kept in c.err, the next caller sees it
}

// transmit sends segs. Without wait it returns errWait when the socket is full, and
// goes on from there when it is called again.
func (c *Conn) transmit(wait bool) error {
	for {
		if len(c.raw) == 0 {
			more, err := c.cut()
			if !more || err != nil {
				return err
			}
		}
		var n int
		var err error
		if wait {
			n, err = c.socket.Conn.Write(c.raw)
		} else {
			n, err = c.socket.try(c.raw)
		}
		c.raw = c.raw[n:]
		if err != nil {
			return err
		}
	}
}

// cut sets raw to the next bytes for the socket: a segment, or, encrypted, about
// sealAtOnce bytes of them. It reports false when nothing is left.
func (c *Conn) cut() (bool, error) {
	if !c.secure {
		if c.sent == len(c.segs) {
			return false, nil
		}
		c.raw = c.segs[c.sent].b
		c.sent++
		return true, nil
	}
	for room := sealAtOnce; room > 0 && c.sent < len(c.segs); {
		s := &c.segs[c.sent]
		n := min(room, len(s.b)-c.offset)
		if _, err := c.nc.Write(s.b[c.offset : c.offset+n]); err != nil {
			return false, err
		}
		room -= n
		if c.offset += n; c.offset == len(s.b) {
			c.sent, c.offset = c.sent+1, 0
		}
	}
	c.cipher = c.socket.swap(c.cipher)
	c.raw = c.cipher
	return len(c.raw) > 0, nil
}

// recycle keeps the buffers of sent segments for reuse and notes the first failure.
func (c *Conn) recycle(err error) {
	segs := c.segs
	for i := range segs {
		if segs[i].own && cap(segs[i].b) <= keepBuffer && len(c.free) < 4 {
			c.free = append(c.free, segs[i].b)
		}
		segs[i] = segment{}
	}
	c.spare, c.segs, c.sent, c.raw = segs[:0], nil, 0, nil
	if c.err == nil && err != nil {
		c.err = fmt.Errorf("send frames: %w", err)
	}
}

// Next returns the next frame. The payload is valid until the next call. An error
// ends the connection: io.EOF if the peer closed it between frames.
func (c *Conn) Next() (Header, []byte, error) {
	c.r, c.last = c.r+c.last, 0
	for c.w-c.r < HeaderSize {
		if err := c.fill(); err != nil {
			return Header{}, nil, err
		}
	}
	h, sum, err := parse(c.rbuf[c.r:])
	if err != nil {
		return h, nil, err
	}
	payload, err := c.payload(int(h.Length))
	if err != nil {
		return h, nil, err
	}
	return h, payload, check(payload, sum)
}

// payload returns the n bytes after the header at rbuf[r:].
func (c *Conn) payload(n int) ([]byte, error) {
	if n >= byReference {
		if c.big == nil {
			c.big = make([]byte, MaxPayload)
		}
		have := copy(c.big[:n], c.rbuf[c.r+HeaderSize:c.w])
		c.last = HeaderSize + have
		if _, err := io.ReadFull(c.nc, c.big[have:n]); err != nil {
			return nil, fmt.Errorf("read payload: %w", err)
		}
		return c.big[:n], nil
	}
	for c.w-c.r < HeaderSize+n {
		if err := c.fill(); err != nil {
			return nil, err
		}
	}
	c.last = HeaderSize + n
	return c.rbuf[c.r+HeaderSize : c.r+HeaderSize+n], nil
}

// fill reads more into rbuf.
func (c *Conn) fill() error {
	if c.r > 0 && (c.r == c.w || len(c.rbuf)-c.w < readSize/4) {
		c.w = copy(c.rbuf, c.rbuf[c.r:c.w])
		c.r = 0
	}
	n, err := c.nc.Read(c.rbuf[c.w:])
	c.w += n
	switch {
	case n > 0:
		return nil
	case errors.Is(err, io.EOF) && c.w > c.r:
		return fmt.Errorf("read frame: %w", io.ErrUnexpectedEOF)
	case err == nil:
		return fmt.Errorf("read frame: %w", io.ErrNoProgress)
	}
	return err
}

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
// referred to any more. It makes Next return; it may be called more than once.
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
