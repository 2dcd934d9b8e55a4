package nbd_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"duet/blockrepl"
	"duet/blockrepl/blocktest"
	"duet/blockrepl/nbd"
)

// client speaks NBD by the letter of the specification, so that it can also break
// it. It shares no code with the server.
type client struct {
	net.Conn
	structured bool
	cookie     uint64
}

// be builds big-endian messages.
func be(vs ...any) []byte {
	var b []byte
	for _, v := range vs {
		switch v := v.(type) {
		case string:
			b = append(b, v...)
		case []byte:
			b = append(b, v...)
		default:
			var err error
			if b, err = binary.Append(b, binary.BigEndian, v); err != nil {
				panic(err)
			}
		}
	}
	return b
}

const limit = 20 * time.Second

// dialRaw connects, takes the greeting and sends the client flags.
func dialRaw(t testing.TB, sock string) *client {
	t.Helper()
	nc, err := net.Dial("unix", sock)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	nc.SetDeadline(time.Now().Add(limit))
	c := &client{Conn: nc}
	greet := c.take(t, 18)
	if string(greet) != "NBDMAGICIHAVEOPT\x00\x03" {
		t.Fatalf("greeting %q", greet)
	}
	c.put(t, be(uint32(3)))
	return c
}

func (c *client) put(t testing.TB, b []byte) {
	t.Helper()
	if _, err := c.Write(b); err != nil {
		t.Fatalf("send: %v", err)
	}
}

func (c *client) take(t testing.TB, n int) []byte {
	t.Helper()
	b := make([]byte, n)
	if _, err := io.ReadFull(c, b); err != nil {
		t.Fatalf("receive: %v", err)
	}
	return b
}

// option sends an option and returns the types and data of its replies up to the last.
func (c *client) option(t testing.TB, opt uint32, data []byte) (kinds []uint32, datas [][]byte) {
	t.Helper()
	c.put(t, be("IHAVEOPT", opt, uint32(len(data)), data))
	for {
		h := c.take(t, 20)
		if m := binary.BigEndian.Uint64(h); m != 0x3e889045565a9 {
			t.Fatalf("option reply magic %#x", m)
		}
		if got := binary.BigEndian.Uint32(h[8:]); got != opt {
			t.Fatalf("reply to option %d, want %d", got, opt)
		}
		kind := binary.BigEndian.Uint32(h[12:])
		kinds = append(kinds, kind)
		datas = append(datas, c.take(t, int(binary.BigEndian.Uint32(h[16:]))))
		if kind == 1 || kind>>31 == 1 {
			return kinds, datas
		}
	}
}

// dial connects and enters the transmission phase.
func dial(t testing.TB, sock string, structured bool) *client {
	t.Helper()
	c := dialRaw(t, sock)
	if structured {
		if kinds, _ := c.option(t, 8, nil); kinds[0] != 1 {
			t.Fatalf("structured reply refused: %v", kinds)
		}
		c.structured = true
		c.option(t, 10, be(uint32(0), uint32(1), uint32(15), "base:allocation"))
	}
	kinds, _ := c.option(t, 7, be(uint32(3), "vol", uint16(0)))
	if kinds[len(kinds)-1] != 1 {
		t.Fatalf("go refused: %v", kinds)
	}
	return c
}

// request sends one request and returns its cookie.
func (c *client) request(flags, cmd uint16, off uint64, length uint32, payload []byte) (uint64, error) {
	c.cookie++
	_, err := c.Write(be(uint32(0x25609513), flags, cmd, c.cookie, off, length, payload))
	return c.cookie, err
}

// answer is one reply.
type answer struct {
	cookie uint64
	code   uint32
	kind   uint16
	data   []byte
}

// answer reads one reply; n is the data a simple reply carries if it is good.
func (c *client) answer(n int) (a answer, err error) {
	h := make([]byte, 16)
	if _, err := io.ReadFull(c, h); err != nil {
		return a, err
	}
	a.cookie = binary.BigEndian.Uint64(h[8:])
	switch magic := binary.BigEndian.Uint32(h); magic {
	case 0x67446698:
		a.code = binary.BigEndian.Uint32(h[4:])
		if a.code != 0 || c.structured {
			n = 0
		}
	case 0x668e33ef:
		if !c.structured || binary.BigEndian.Uint16(h[4:]) != 1 {
			return a, fmt.Errorf("unexpected structured reply %x", h)
		}
		l := make([]byte, 4)
		if _, err := io.ReadFull(c, l); err != nil {
			return a, err
		}
		a.kind, n = binary.BigEndian.Uint16(h[6:]), int(binary.BigEndian.Uint32(l))
	default:
		return a, fmt.Errorf("reply magic %#x", magic)
	}
	a.data = make([]byte, n)
	if _, err := io.ReadFull(c, a.data); err != nil {
		return a, err
	}
	if a.kind == 1<<15+1 {
		a.code = binary.BigEndian.Uint32(a.data)
	}
	if a.kind == 1 {
		a.data = a.data[8:]
	}
	return a, nil
}

func (c *client) do(cmd uint16, off int64, length int, payload []byte) ([]byte, error) {
	cookie, err := c.request(0, cmd, uint64(off), uint32(length), payload)
	if err != nil {
		return nil, err
	}
	n := 0
	if cmd == 0 {
		n = length
	}
	a, err := c.answer(n)
	switch {
	case err != nil:
		return nil, err
	case a.cookie != cookie:
		return nil, fmt.Errorf("answer to %d, want %d", a.cookie, cookie)
	case a.code != 0:
		return nil, blocktest.Refused{Code: a.code}
	}
	return a.data, nil
}

func (c *client) ReadAt(p []byte, off int64) (int, error) {
	data, err := c.do(0, off, len(p), nil)
	return copy(p, data), err
}

func (c *client) WriteAt(p []byte, off int64) (int, error) {
	_, err := c.do(1, off, len(p), p)
	return len(p), err
}

func (c *client) Flush() error {
	_, err := c.do(3, 0, 0, nil)
	return err
}

func TestFrontend(t *testing.T) {
	for name, structured := range map[string]bool{"simple": false, "structured": true} {
		t.Run(name, func(t *testing.T) {
			blocktest.Frontend(t, blocktest.FrontendParts{
				New: func(t *testing.T) blockrepl.Frontend {
					srv := nbd.New(nbd.Options{Socket: socketPath(t), Name: "vol", Log: testLog(t)})
					if err := srv.Listen(); err != nil {
						t.Fatal(err)
					}
					return srv
				},
				Dial: func(t *testing.T, endpoint string) blocktest.Client { return dial(t, endpoint, structured) },
			})
		})
	}
}

// gone fails unless the server has closed the connection without a word.
func (c *client) gone(t *testing.T) {
	t.Helper()
	n, err := c.Read(make([]byte, 1))
	if n != 0 || err == nil || errors.Is(err, net.ErrClosed) {
		t.Errorf("connection still talks: %d bytes, %v", n, err)
	}
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		t.Error("connection still open")
	}
}
