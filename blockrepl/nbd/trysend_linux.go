package nbd

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// maxVec is the most buffers the kernel takes at once.
const maxVec = 1024

// trier is the send under way. It is kept, with the function that sends, to
// save allocations for each answer.
type trier struct {
	segs []segment
	err  error
	vec  []unix.Iovec
	fn   func(fd uintptr) bool
}

// trySend sends what the socket takes at once and returns what is left of segs, whose first element it may have
// shortened. An error is one of the connection; a full socket is none.
func (l *link) trySend(segs []segment) ([]segment, error) {
	t := &l.try
	if t.fn == nil {
		t.fn = t.send
	}
	t.segs, t.err = segs, nil
	if err := l.raw.Write(t.fn); err != nil {
		return segs, err
	}
	segs, t.segs = t.segs, nil
	return segs, t.err
}

// send always reports true: the poller must not wait for the socket.
func (t *trier) send(fd uintptr) bool {
	for len(t.segs) > 0 && t.err == nil {
		t.vec = t.vec[:0]
		for _, s := range t.segs[:min(len(t.segs), maxVec)] {
			v := unix.Iovec{Base: &s.ch.buf[s.from]}
			v.SetLen(s.to - s.from)
			t.vec = append(t.vec, v)
		}
		msg := unix.Msghdr{Iov: unsafe.SliceData(t.vec)}
		msg.SetIovlen(len(t.vec))
		n, _, errno := unix.Syscall(unix.SYS_SENDMSG, fd, uintptr(unsafe.Pointer(&msg)), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		switch errno {
		case 0:
			t.segs = advance(t.segs, int(n))
		case unix.EINTR:
		case unix.EAGAIN:
			return true
		default:
			t.err = errno
		}
	}
	return true
}
