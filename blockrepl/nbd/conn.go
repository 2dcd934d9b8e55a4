package nbd

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"duet/blockrepl"
)

// errDone is returned when the client took its leave.
var errDone = errors.New("client disconnected")

// conn serves one client in the transmission phase.
type conn struct {
	q     blockrepl.Queue
	dev   blockrepl.Mapper // nil if the client did not choose base:allocation
	size  uint64
	out   *outbox
	reads reader
}

var _ blockrepl.Completer = (*conn)(nil)

// reader is what was received and not parsed yet: in.buf[from:to].
type reader struct {
	in       *chunk
	from, to int
	roomy    int // size of the next chunk: larger while payloads are
	pending  bool
}

// Reading into less room than this costs more system calls than moving a few bytes costs time.
const (
	minRoom  = 16 << 10
	maxMove  = 4 << 10
	maxRoomy = 4 << 20
)

// negotiate greets the client and lets it choose, with all the patience it gets.
func negotiate(nc net.Conn, h *negotiation, patience time.Duration) error {
	if err := nc.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	if _, err := nc.Write(greeting()); err != nil {
		return err
	}
	buf := make([]byte, optionHeaderSize)
	if _, err := io.ReadFull(nc, buf[:clientFlagsSize]); err != nil {
		return err
	}
	if err := h.clientFlags(buf); err != nil {
		return err
	}
	for {
		if _, err := io.ReadFull(nc, buf); err != nil {
			return err
		}
		opt, n, err := parseOption(buf)
		if err != nil {
			return err
		}
		data := make([]byte, n)
		if _, err := io.ReadFull(nc, data); err != nil {
			return err
		}
		reply, v, err := h.option(opt, data)
		if err != nil {
			return err
		}
		if _, err := nc.Write(reply); err != nil {
			return err
		}
		switch v {
		case hangUp:
			return errDone
		case transmit:
			return nc.SetDeadline(time.Time{})
		}
	}
}

// serve answers requests until the client leaves, the connection fails or is
// cut; it returns nil after a clean end. Requests that are still with the volume
// after a cut complete into nothing.
func (c *conn) serve() error {
	var writer sync.WaitGroup
	writer.Go(c.out.write)
	err := c.receive()
	err = c.out.end(err)
	close(c.out.wake)
	writer.Wait()
	c.out.link.close()
	if errors.Is(err, errDone) {
		return nil
	}
	return err
}

// receive reads and submits requests until it cannot.
func (c *conn) receive() error {
	for {
		c.out.cork()
		need, err := c.parse()
		c.kick()
		c.out.uncork()
		if err != nil {
			return err
		}
		if err := c.fill(need); err != nil {
			return err
		}
	}
}

// kick sends on what was submitted.
func (c *conn) kick() {
	if c.reads.pending {
		c.reads.pending = false
		c.q.Kick()
	}
}

// parse handles every complete request received and returns how many bytes the next one needs in all.
func (c *conn) parse() (need int, err error) {
	r := &c.reads
	for r.to-r.from >= requestSize {
		h, err := parseHeader(r.in.buf[r.from:])
		if err != nil {
			return 0, err
		}
		need := requestSize + h.payload()
		if r.to-r.from < need {
			return need, nil
		}
		payload := r.in.buf[r.from+requestSize : r.from+need : r.from+need]
		r.from += need
		if err := c.handle(h, payload); err != nil {
			return 0, err
		}
	}
	return requestSize, nil
}

// fill reads once, at least one byte, into a chunk with room for need unparsed bytes.
func (c *conn) fill(need int) error {
	r := &c.reads
	if err := c.room(need); err != nil {
		return err
	}
	n, err := c.out.link.read(r.in.buf[r.to:])
	switch {
	case errors.Is(err, io.EOF) && r.to > r.from:
		return fmt.Errorf("receive request: %w", io.ErrUnexpectedEOF)
	case errors.Is(err, io.EOF):
		return errDone
	case err != nil:
		return fmt.Errorf("receive request: %w", err)
	}
	r.to += n
	return nil
}

// room gives the reader a chunk that can hold the next need bytes.
func (c *conn) room(need int) error {
	r, o := &c.reads, c.out
	o.mu.Lock()
	defer o.mu.Unlock()
	if need > chunkSize {
		r.roomy = min(4*need, maxRoomy)
	} else if r.roomy > chunkSize && need > requestSize {
		r.roomy = chunkSize
	}
	if r.in != nil && r.from == r.to && r.in.refs == 1 && len(r.in.buf) <= maxRoomy+slack {
		r.from, r.to = 0, 0 // all done with: start over while it is in the processor's cache
	}
	unparsed := r.to - r.from
	if r.in != nil && len(r.in.buf)-r.from >= need && (len(r.in.buf)-r.to >= minRoom || unparsed > maxMove) {
		return nil
	}
	old, from := r.in, r.from
	if old != nil && unparsed == 0 {
		o.drop(old, 1)
		r.in, old = nil, nil
	}
	size := max(need, r.roomy, chunkSize)
	if err := o.await(func() bool { return o.fits(size) }); err != nil {
		return err
	}
	r.in, r.from, r.to = o.take(size), 0, 0
	if old != nil {
		r.to = copy(r.in.buf, old.buf[from:from+unparsed])
		o.drop(old, 1)
	}
	return nil
}

// Complete puts up the answer to r. A volume closed under the request ends the
// connection without an answer.
func (c *conn) Complete(r *blockrepl.Request, err error) {
	if err != nil && errors.Is(err, blockrepl.ErrClosed) {
		c.out.fail(err)
	}
	c.out.finish(own(r), err)
}

// CompleteBatch sends the answers put up so far.
func (c *conn) CompleteBatch() { c.out.flush() }
