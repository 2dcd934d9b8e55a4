package nbd

import (
	"errors"
	"io"
	"sync"
	"unsafe"

	"duet/blockrepl"
)

// Bounds of one connection. A single request is always let in, so that the
// most a connection takes is budget and one largest read or write.
const (
	budget      = 64 << 20 // bytes of chunks
	maxInFlight = 1024     // requests
	maxRounds   = 64       // sends by one completing goroutine before the writer takes over
)

// request is a blockrepl.Request with what its answer needs. It is used again when it was answered; between Submit and
// finish only the volume touches it.
type request struct {
	blockrepl.Request // first: see own

	cookie uint64
	in     *chunk // holds the payload of a write
	out    *chunk // holds the answer of a read, at out.buf[at:]
	at     int
}

// own returns the request around r. The contract gives back the very pointer
// that was submitted, which is the first field of a request. Without it each request would need a map, or an
// allocation, to find its answer.
func own(r *blockrepl.Request) *request { return (*request)(unsafe.Pointer(r)) }

// segment is a piece of a chunk ready to be sent; it holds refs references.
type segment struct {
	ch       *chunk
	from, to int
	refs     int
}

// advance drops the first n bytes of segs, in place. It gives no references back: sent does, from the whole list
// that was begun, so that a chunk is not used again while a part of it is still to be sent.
func advance(segs []segment, n int) []segment {
	for n > 0 && n >= segs[0].to-segs[0].from {
		n -= segs[0].to - segs[0].from
		segs = segs[1:]
	}
	if n > 0 {
		segs[0].from += n
	}
	return segs
}

// outbox collects the answers of one connection and sends them; it also counts
// what the connection holds. Answers leave in the order they became ready.
//
// Invariant: whoever sets busy owns sending and left, and alone sends on the link, until it clears busy or gives
// left to the writer by wake. At most one goroutine awaits, the one that reads. err is never taken back; once it is
// set nothing is sent, but requests still come back from the volume and give up what they hold.
type outbox struct {
	link       *link
	pool       *chunkPool
	structured bool

	mu     sync.Mutex
	change sync.Cond // broadcast when err is set or, if waiting, when something was given back
	err    error     // why the connection ended; nothing is sent any more

	ch       *chunk // answers are put into ch.buf[used:]; has one reference of its own
	used     int
	ready    []segment // to send next
	sending  []segment // being sent by whoever set busy
	busy     bool
	corked   bool // the reader will send soon
	waiting  bool // somebody is in await
	inFlight int  // requests with the volume
	held     int  // bytes of chunks, in and out
	free     []*request
	empty    func() // called when the connection ended and inFlight becomes 0

	// left is what the writer has to send; a value is in wake only while busy is set for it.
	left []segment
	wake chan struct{}
}

func newOutbox(l *link, pool *chunkPool, structured bool) *outbox {
	o := &outbox{link: l, pool: pool, structured: structured, wake: make(chan struct{}, 1)}
	o.change.L = &o.mu
	return o
}

// take gets a chunk with one reference, counted. Called with mu held.
func (o *outbox) take(n int) *chunk {
	ch := o.pool.get(n)
	o.held += len(ch.buf)
	return ch
}

// drop gives back references; with the last one the chunk may go to another connection. Called with mu held.
func (o *outbox) drop(ch *chunk, refs int) {
	if ch.refs -= refs; ch.refs > 0 {
		return
	}
	o.held -= len(ch.buf)
	o.pool.put(ch)
	o.given()
}

// given tells a waiter that something changed. Called with mu held.
func (o *outbox) given() {
	if o.waiting {
		o.change.Broadcast()
	}
}

// idle reports that nothing is under way. Called with mu held.
func (o *outbox) idle() bool { return o.inFlight == 0 && len(o.ready) == 0 && !o.busy }

// fits reports whether a request with n bytes of answer may begin. When nothing is under way any may, however large:
// otherwise it could wait for ever. Called with mu held.
func (o *outbox) fits(n int) bool {
	return o.idle() || (o.inFlight < maxInFlight && o.held+n <= budget)
}

// await waits until ok or the connection ended, and returns why it ended. Called with mu held.
func (o *outbox) await(ok func() bool) error {
	for o.err == nil && !ok() {
		o.waiting = true
		o.change.Wait()
		o.waiting = false
	}
	return o.err
}

// reserve makes room for n contiguous bytes of answers. Called with mu held;
// the caller owns one reference to the chunk, which push takes over. Room is never given back singly, as answers
// become ready in another order than they were reserved in.
func (o *outbox) reserve(n int) (*chunk, int) {
	if o.ch != nil && o.ch.refs == 1 {
		o.used = 0 // all sent: start over while it is still in the processor's cache
	}
	if o.ch != nil && (len(o.ch.buf)-o.used < n || (o.used == 0 && len(o.ch.buf) > chunkSize+slack)) {
		o.drop(o.ch, 1)
		o.ch = nil
	}
	if o.ch == nil {
		o.ch, o.used = o.take(n), 0
	}
	at := o.used
	o.used += n
	o.ch.refs++
	return o.ch, at
}

// push makes ch.buf[from:to] ready to be sent and takes over the caller's
// reference. Neighbours become one segment, so that many small answers are few buffers of a system call. Called
// with mu held.
func (o *outbox) push(ch *chunk, from, to int) {
	if n := len(o.ready); n > 0 && o.ready[n-1].ch == ch && o.ready[n-1].to == from {
		o.ready[n-1].to = to
		o.ready[n-1].refs++
		return
	}
	o.ready = append(o.ready, segment{ch: ch, from: from, to: to, refs: 1})
}

// readHeader is the room an answer to a read has before its data.
func (o *outbox) readHeader() int {
	if o.structured {
		return dataHeaderSize
	}
	return simpleSize
}

// request returns a fresh request. Called with mu held.
func (o *outbox) request() *request {
	o.inFlight++
	if n := len(o.free); n > 0 {
		r := o.free[n-1]
		o.free = o.free[:n-1]
		return r
	}
	return new(request)
}

// finish puts the answer of r up for sending and takes r back. It may be called on any goroutine, waits for
// nothing, and sends nothing: flush does. On a connection that has ended it only gives up what r holds.
func (o *outbox) finish(r *request, err error) {
	o.mu.Lock()
	if r.in != nil {
		o.drop(r.in, 1)
	}
	switch {
	case o.err != nil && r.out != nil:
		o.drop(r.out, 1)
	case o.err != nil:
	case r.out != nil:
		o.push(r.out, r.at, r.at+o.answerRead(r, err))
	default:
		o.simple(r.cookie, codeOf(err))
	}
	r.Data, r.in, r.out = nil, nil, nil // the volume's own field keeps what it wants to use again
	o.free = append(o.free, r)
	o.inFlight--
	o.given()
	empty := o.empty
	last := empty != nil && o.inFlight == 0
	o.mu.Unlock()
	if last {
		empty()
	}
}

// whenEmpty reports whether no request is in flight; if one is, f is called after the last. It is called when the
// reader has ended, so no other request begins.
func (o *outbox) whenEmpty(f func()) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.empty = f
	return o.inFlight == 0
}

// answerRead puts the header of a read's answer before its data and returns the length of the whole. The room
// before the data was reserved for that; of a read that failed the data is not sent.
func (o *outbox) answerRead(r *request, err error) int {
	b := r.out.buf[r.at:]
	switch {
	case !o.structured && err == nil:
		putSimple(b, r.cookie, 0)
	case !o.structured:
		putSimple(b, r.cookie, codeOf(err))
		return simpleSize
	case err == nil:
		putData(b, r.cookie, uint64(r.Off), len(r.Data))
	default:
		putError(b, r.cookie, codeOf(err))
		return errorSize
	}
	return o.readHeader() + len(r.Data)
}

// simple puts up an answer without data. Called with mu held.
func (o *outbox) simple(cookie uint64, code uint32) {
	ch, at := o.reserve(simpleSize)
	putSimple(ch.buf[at:], cookie, code)
	o.push(ch, at, at+simpleSize)
}

// cork holds answers back because the reader will send them soon. It must be followed by uncork before the reader
// waits for anything: no other flush sends meanwhile.
func (o *outbox) cork() {
	o.mu.Lock()
	o.corked = true
	o.mu.Unlock()
}

// uncork sends what was held back.
func (o *outbox) uncork() {
	o.mu.Lock()
	o.corked = false
	o.mu.Unlock()
	o.flush()
}

// flush sends what is ready, unless somebody else is at it or will be soon. It does not wait: it runs on goroutines of
// the volume, which a client that does not read must not hold up. What the socket does not take now, and all after
// maxRounds, is left to the writer. What becomes ready meanwhile is sent by whoever is at it, before busy ends.
func (o *outbox) flush() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.busy || o.corked || o.err != nil || len(o.ready) == 0 {
		return
	}
	o.busy = true
	for round := 0; len(o.ready) > 0 && o.err == nil; round++ {
		o.ready, o.sending = o.sending[:0], o.ready
		o.left = o.sending
		if round < maxRounds {
			o.mu.Unlock()
			left, err := o.link.trySend(o.sending)
			o.mu.Lock()
			o.left = left
			o.failLocked(err)
		}
		if len(o.left) > 0 && o.err == nil {
			o.wake <- struct{}{} // has room: busy is ours and goes over to the writer
			return
		}
		o.sent()
	}
	o.busy = false
	o.given()
}

// sent frees what was sent. Called with mu held by whoever has busy.
func (o *outbox) sent() {
	for _, s := range o.sending {
		o.drop(s.ch, s.refs)
	}
	clear(o.sending)
	o.sending, o.left = o.sending[:0], nil
}

// write sends what flush could not without waiting, until wake is closed. It is the writer, and the only one that may
// wait for the client.
func (o *outbox) write() {
	for range o.wake {
		o.mu.Lock()
		for len(o.left) > 0 && o.err == nil {
			left := o.left
			o.mu.Unlock()
			err := o.link.sendAll(left)
			o.mu.Lock()
			o.failLocked(err)
			o.sent()
			o.ready, o.sending = o.sending[:0], o.ready
			o.left = o.sending
		}
		o.busy = false
		o.given()
		o.mu.Unlock()
	}
}

// end finishes the connection after its reader stopped because of err: what was
// asked before a client left or fell silent still gets its answer. It returns
// why the connection ended once nobody uses the link for sending.
func (o *outbox) end(err error) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if errors.Is(err, errDone) || errors.Is(err, io.ErrUnexpectedEOF) {
		_ = o.await(o.idle)
	}
	o.failLocked(err)
	for o.busy {
		o.waiting = true
		o.change.Wait()
		o.waiting = false
	}
	return o.err
}

// fail ends the connection; the first reason stays. A nil err does nothing.
func (o *outbox) fail(err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.failLocked(err)
}

func (o *outbox) failLocked(err error) {
	if err == nil || o.err != nil {
		return
	}
	o.err = err
	o.link.cut()
	o.change.Broadcast()
}
