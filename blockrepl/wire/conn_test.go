package wire

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func loopback(t testing.TB) (net.Conn, net.Conn) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	near, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	far, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	return near, far
}

var frames = []struct {
	h    Header
	size int
}{
	{Header{Type: Ping}, 0},
	{Header{Type: Write, Epoch: 7, Seq: 1, Offset: 1 << 40, Flags: FlagError}, 512},
	{Header{Type: Discard, Epoch: 7, Seq: 2, Count: 1 << 31}, 0},
	{Header{Type: Write, Seq: 3}, byReference - 1},
	{Header{Type: Write, Seq: 4}, byReference},
	{Header{Type: Write, Seq: 5}, MaxPayload},
	{Header{Type: Ack, Seq: 6, Flags: FlagError}, 20},
}

// What is appended arrives, whole and in order, from several goroutines and however
// the bytes are cut.
func TestConn(t *testing.T) {
	for name, dial := range map[string]func() (net.Conn, net.Conn){
		"pipe": net.Pipe, "tcp": func() (net.Conn, net.Conn) { return loopback(t) },
	} {
		t.Run(name, func(t *testing.T) {
			near, far := dial()
			a, b := NewConn(near), NewConn(&chopped{Conn: far})
			defer a.Close()
			defer b.Close()
			var senders sync.WaitGroup
			const lanes, rounds = 3, 20
			payload := bytes.Repeat([]byte("payload."), MaxPayload/8)
			for lane := range lanes {
				senders.Go(func() {
					for range rounds {
						for _, f := range frames {
							h := f.h
							h.Count = uint32(lane) // any field will do
							a.Append(&h, payload[:f.size])
						}
						if err := a.Flush(); err != nil {
							t.Error(err)
						}
					}
				})
			}
			next := [lanes]int{}
			for range lanes * rounds * len(frames) {
				h, got, err := b.Next()
				if err != nil {
					t.Fatal(err)
				}
				lane := int(h.Count)
				want := frames[next[lane]%len(frames)]
				next[lane]++
				want.h.Count, want.h.Length = h.Count, uint32(want.size)
				if h != want.h || !bytes.Equal(got, payload[:want.size]) {
					t.Fatalf("lane %d: got %+v, want %+v", lane, h, want.h)
				}
			}
			senders.Wait()
		})
	}
}

// chopped reads in odd pieces.
type chopped struct{ net.Conn }

func (c *chopped) Read(p []byte) (int, error) {
	return c.Conn.Read(p[:min(len(p), 1+rand.IntN(70000))])
}

// Flush does not wait for a peer that does not read, and Close ends what is pending.
func TestFlushDoesNotWait(t *testing.T) {
	near, far := loopback(t)
	defer far.Close()
	c := NewConn(near)
	big := make([]byte, MaxData)
	began := time.Now()
	for range 64 {
		c.Append(&Header{Type: Write}, big)
		if err := c.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Fatalf("took %v", took)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	clear(big) // nothing refers to it any more: the race detector would tell
	if err := c.Flush(); !errors.Is(err, net.ErrClosed) {
		t.Fatal(err)
	}
}

// A flipped bit anywhere is noticed.
func TestCorruption(t *testing.T) {
	frame := encode(Header{Type: Write, Epoch: 3, Seq: 9, Offset: 4096}, []byte("some guest data"))
	for bit := range len(frame) * 8 {
		damaged := bytes.Clone(frame)
		damaged[bit/8] ^= 1 << (bit % 8)
		if _, _, err := decode(damaged); err == nil {
			t.Fatalf("bit %d flipped and not noticed", bit)
		}
	}
	for n := range len(frame) {
		want := io.ErrUnexpectedEOF
		if n == 0 {
			want = io.EOF
		}
		if _, _, err := decode(frame[:n]); !errors.Is(err, want) {
			t.Fatalf("cut at %d: %v", n, err)
		}
	}
}

func encode(h Header, payload []byte) []byte {
	near, far := net.Pipe()
	c := NewConn(near)
	c.Append(&h, payload)
	_ = c.Flush()
	b := make([]byte, HeaderSize+len(payload))
	_, _ = io.ReadFull(far, b)
	_ = c.Close()
	return b
}

// source is a connection that only reads.
type source struct {
	net.Conn
	r io.Reader
}

func (s source) Read(p []byte) (int, error) { return s.r.Read(p) }

func decode(b []byte) (Header, []byte, error) {
	return NewConn(source{r: bytes.NewReader(b)}).Next()
}

// FuzzNext: any bytes end in frames and an error, and a frame taken in encodes back to its bytes.
func FuzzNext(f *testing.F) {
	f.Add(encode(Header{Type: Ping, Epoch: 1}, nil))
	f.Add(append(encode(Header{Type: Write, Seq: 1}, []byte("x")), encode(Header{Type: Ack, Seq: 1}, nil)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		c := NewConn(source{r: bytes.NewReader(b)})
		at := 0
		for {
			h, payload, err := c.Next()
			if err != nil {
				return
			}
			n := HeaderSize + len(payload)
			if !bytes.Equal(encode(h, payload), b[at:at+n]) {
				t.Fatalf("frame %+v encodes differently", h)
			}
			at += n
		}
	})
}

// FuzzHeader: a header survives its encoding.
func FuzzHeader(f *testing.F) {
	f.Add(uint8(3), uint16(1), uint64(2), uint64(3), uint64(4), uint32(5))
	f.Fuzz(func(t *testing.T, typ uint8, flags uint16, epoch, seq, off uint64, count uint32) {
		h := Header{Type: 1 + Type(typ)%(typeEnd-1), Flags: flags % flagEnd, Epoch: epoch, Seq: seq, Offset: off >> 2,
			Count: count}
		var b [HeaderSize]byte
		h.put(b[:], 77)
		got, sum, err := parse(b[:])
		if err != nil || got != h || sum != 77 {
			t.Fatalf("%+v came back as %+v, %v", h, got, err)
		}
	})
}
