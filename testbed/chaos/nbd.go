package chaos

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// NBD commands and flags, as far as a guest would use them: the section "Request message" of the NBD specification.
const (
	cmdRead       = 0
	cmdWrite      = 1
	cmdFlush      = 3
	cmdWriteZeros = 6
	flagFUA       = 1
)

// errLost is returned for a request whose connection ended before its answer came.
var errLost = errors.New("connection lost")

// refused is the error number of an answer. It is an errno of the NBD specification, "Error values".
type refused uint32

func (r refused) Error() string { return fmt.Sprintf("NBD error %d", uint32(r)) }

// conn is one NBD connection. Its requests may be made by several goroutines. receive must run on a goroutine,
// or no request ends. Nothing bounds a request: a volume whose writes are frozen does not answer for as long as
// that lasts, as a guest is to wait.
type conn struct {
	net.Conn
	send sync.Mutex // one request after the other on the wire; never held together with mu

	mu      sync.Mutex
	cookie  uint64           // of the newest request
	waiting map[uint64]*call // nil when the connection is lost
}

type call struct {
	into []byte     // where the data of a read goes
	done chan error // capacity one: receive never waits for it
}

// dialNBD connects to the volume of a unix socket. It shares no code with the server. A server and a client that
// share a mistake would agree on it.
func dialNBD(path string) (*conn, error) {
	const patience = 2 * time.Second // a frozen daemon's socket accepts and is silent
	nc, err := net.DialTimeout("unix", path, patience)
	if err != nil {
		return nil, err
	}
	c := &conn{Conn: nc, waiting: map[uint64]*call{}}
	_ = nc.SetDeadline(time.Now().Add(patience))
	if err := c.negotiate(); err != nil {
		nc.Close()
		return nil, err
	}
	_ = nc.SetDeadline(time.Time{})
	return c, nil
}

// negotiate asks for the default export, without structured replies. It is NBD_OPT_EXPORT_NAME, the oldest way:
// the server answers with size and flags, without the 124 zeroes that were declined.
func (c *conn) negotiate() error {
	var hello [18]byte
	if _, err := io.ReadFull(c, hello[:]); err != nil {
		return err
	}
	if string(hello[:16]) != "NBDMAGICIHAVEOPT" {
		return fmt.Errorf("greeting %q", hello)
	}
	const fixedNoZeroes, optExportName = 3, 1
	b := binary.BigEndian.AppendUint32(nil, fixedNoZeroes)
	b = append(b, "IHAVEOPT"...)
	b = binary.BigEndian.AppendUint32(b, optExportName)
	b = binary.BigEndian.AppendUint32(b, 0)
	if _, err := c.Write(b); err != nil {
		return err
	}
	var export [10]byte // size and flags
	_, err := io.ReadFull(c, export[:])
	return err
}

// receive hands answers to their requests until the connection ends. It is for one goroutine. Whoever waits is
// told errLost, and do makes no further request.
func (c *conn) receive() {
	r := bufio.NewReaderSize(c, 64<<10)
	for c.answer(r) == nil {
	}
	c.Close()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, w := range c.waiting {
		w.done <- errLost
	}
	c.waiting = nil
}

// answer hands over one simple reply. The error ends the connection: after a wrong header nobody knows where the
// next one begins.
func (c *conn) answer(r io.Reader) error {
	var h [16]byte
	if _, err := io.ReadFull(r, h[:]); err != nil {
		return err
	}
	const magicSimple = 0x67446698
	if m := binary.BigEndian.Uint32(h[:]); m != magicSimple {
		return fmt.Errorf("answer begins with %#x", m)
	}
	cookie := binary.BigEndian.Uint64(h[8:])
	c.mu.Lock()
	w := c.waiting[cookie]
	c.mu.Unlock()
	if w == nil {
		return fmt.Errorf("answer to request %d, which nobody made", cookie)
	}
	var end error
	if code := binary.BigEndian.Uint32(h[4:]); code != 0 {
		end = refused(code)
	} else if _, err := io.ReadFull(r, w.into); err != nil {
		return err
	}
	c.mu.Lock()
	delete(c.waiting, cookie)
	c.mu.Unlock()
	w.done <- end
	return nil
}

// request is what do sends.
type request struct {
	cmd, flags uint16
	off        int64  // bytes
	length     int    // bytes; of a flush 0
	data       []byte // of a write; where a read goes
}

// do makes a request and waits for its answer: nil, refused or errLost. The data of a write are copied before it
// returns; a read is written to until it does. A connection that is lost with a request under way leaves it
// unknown whether that happened.
func (c *conn) do(q request) error {
	w := &call{done: make(chan error, 1)}
	if q.cmd == cmdRead {
		w.into = q.data
	}
	c.mu.Lock()
	if c.waiting == nil {
		c.mu.Unlock()
		return errLost
	}
	c.cookie++
	cookie := c.cookie
	c.waiting[cookie] = w
	c.mu.Unlock()
	b := binary.BigEndian.AppendUint32(make([]byte, 0, 28+len(q.data)), 0x25609513)
	b = binary.BigEndian.AppendUint16(b, q.flags)
	b = binary.BigEndian.AppendUint16(b, q.cmd)
	b = binary.BigEndian.AppendUint64(b, cookie)
	b = binary.BigEndian.AppendUint64(b, uint64(q.off))
	b = binary.BigEndian.AppendUint32(b, uint32(q.length))
	if q.cmd == cmdWrite {
		b = append(b, q.data...)
	}
	c.send.Lock()
	_, err := c.Write(b)
	c.send.Unlock()
	if err != nil {
		c.Close() // receive ends all requests, this one included
	}
	return <-w.done
}
