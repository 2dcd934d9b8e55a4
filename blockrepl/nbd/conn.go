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

// conn serves one client in the transmission phase. What is not in out belongs to the goroutine that reads;
// Complete and CompleteBatch come on any goroutine of the volume.
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
	roomy    int  // size of the next chunk: larger while payloads are
	pending  bool // something was submitted since the last Kick
}

// Reading into less room than this costs more system calls than moving a few bytes costs time.
const (
	minRoom  = 16 << 10
	maxMove  = 4 << 10
	maxRoomy = 4 << 20
)

// negotiate greets the client and lets it choose. Patience is for the whole phase, so that a client that trickles
// bytes does not hold a place for ever; afterwards there is no bound, as an idle guest is no fault. It reads no
// byte more than the options have: a client may send its first requests at once.
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

// receive reads and submits requests until it cannot. Each round submits all that was received, kicks the volume
// once, and lets the answers that were ready by then leave together.
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

// kick sends on what was submitted. Nothing is left unkicked when the reader waits, for the client or for room: a
// request that nobody kicks might never end.
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

// fill reads once, at least one byte, into a chunk with room for need unparsed bytes. An end within a request is not a
// leave, but what was asked before it is answered in both cases; see outbox.end.
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

// room gives the reader a chunk that can hold the next need bytes. The reader has one reference to its chunk, each
// write in flight one more: so one with a single reference has nothing that anybody still reads, and may be written
// over. What was received of the next request is moved when the rest does not fit, which is little or, of a large
// write, done once. It waits, with the budget spent, until answers have left.
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
// connection without an answer: an error would reach the guest's file system, while a client that was dropped
// connects again and repeats the request.
func (c *conn) Complete(r *blockrepl.Request, err error) {
	if err != nil && errors.Is(err, blockrepl.ErrClosed) {
		c.out.fail(err)
	}
	c.out.finish(own(r), err)
}

// CompleteBatch sends the answers put up so far.
func (c *conn) CompleteBatch() { c.out.flush() }
