package wire

import (
	"errors"
	"fmt"
	"io"
	"net"
)

// receiver cuts what arrives into frames, in place.
//
// Invariant: buf[r:w] was read and not consumed; the first last bytes of it are the frame
// that was returned last, which stays valid until the next call. It belongs to the goroutine that calls Next.
type receiver struct {
	nc   net.Conn
	buf  []byte
	r, w int
	last int
	big  []byte // for payloads too large for buf
}

// next returns the next frame; see Conn.Next.
func (c *receiver) next() (Header, []byte, error) {
	c.r, c.last = c.r+c.last, 0
	for c.w-c.r < HeaderSize {
		if err := c.fill(); err != nil {
			return Header{}, nil, err
		}
	}
	h, sum, err := parse(c.buf[c.r:])
	if err != nil {
		return h, nil, err
	}
	payload, err := c.payload(int(h.Length))
	if err != nil {
		return h, nil, err
	}
	return h, payload, check(payload, sum)
}

// payload returns the n bytes after the header at buf[r:].
func (c *receiver) payload(n int) ([]byte, error) {
	if n >= byReference {
		if c.big == nil {
			c.big = make([]byte, MaxPayload)
		}
		have := copy(c.big[:n], c.buf[c.r+HeaderSize:c.w])
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
	return c.buf[c.r+HeaderSize : c.r+HeaderSize+n], nil
}

// fill reads more into buf.
func (c *receiver) fill() error {
	if c.r > 0 && (c.r == c.w || len(c.buf)-c.w < readSize/4) {
		c.w = copy(c.buf, c.buf[c.r:c.w])
		c.r = 0
	}
	n, err := c.nc.Read(c.buf[c.w:])
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
