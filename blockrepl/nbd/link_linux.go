package nbd

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// link is the socket of a connection after the haggling. Its reader blocks in
// the kernel on a thread of its own: compared with Go's poller that saves two
// system calls and a wake-up for each request of a guest that waits for every answer.
type link struct {
	f   *os.File
	fd  int
	vec []unix.Iovec // of the send under way
}

// maxVec is the most buffers the kernel takes at once.
const maxVec = 1024

// newLink takes conn over.
func newLink(conn net.Conn) (*link, error) {
	sock, ok := conn.(interface{ File() (*os.File, error) })
	if !ok {
		return nil, fmt.Errorf("take over %T: not a socket", conn)
	}
	f, err := sock.File() // a duplicate: conn is not needed any more
	if err != nil {
		return nil, fmt.Errorf("take over connection: %w", err)
	}
	conn.Close()
	return &link{f: f, fd: int(f.Fd())}, nil // Fd makes the socket block
}

// read waits for bytes; io.EOF at the end.
func (l *link) read(p []byte) (int, error) {
	for {
		n, err := unix.Read(l.fd, p)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return 0, err
		case n == 0:
			return 0, io.EOF
		default:
			return n, nil
		}
	}
}

// trySend sends what the socket takes at once and returns what is left of segs.
func (l *link) trySend(segs []segment) ([]segment, error) {
	return l.send(segs, unix.MSG_DONTWAIT)
}

// sendAll sends all of segs and waits if it must.
func (l *link) sendAll(segs []segment) error {
	_, err := l.send(segs, 0)
	return err
}

func (l *link) send(segs []segment, flags uintptr) ([]segment, error) {
	for len(segs) > 0 {
		l.vec = l.vec[:0]
		for _, s := range segs[:min(len(segs), maxVec)] {
			v := unix.Iovec{Base: &s.ch.buf[s.from]}
			v.SetLen(s.to - s.from)
			l.vec = append(l.vec, v)
		}
		msg := unix.Msghdr{Iov: unsafe.SliceData(l.vec)}
		msg.SetIovlen(len(l.vec))
		n, _, errno := unix.Syscall(unix.SYS_SENDMSG, uintptr(l.fd), uintptr(unsafe.Pointer(&msg)), flags|unix.MSG_NOSIGNAL)
		switch errno {
		case 0:
			segs = advance(segs, int(n))
		case unix.EINTR:
		case unix.EAGAIN:
			return segs, nil
		default:
			return segs, errno
		}
	}
	return nil, nil
}

// endRead makes read return io.EOF once it has given all that arrived.
func (l *link) endRead() { _ = unix.Shutdown(l.fd, unix.SHUT_RD) }

// cut makes read and send return.
func (l *link) cut() { _ = unix.Shutdown(l.fd, unix.SHUT_RDWR) }

// close frees the socket; nobody may be in read or send.
func (l *link) close() { l.f.Close() }
