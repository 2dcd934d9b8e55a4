package blockrepl

import (
	"context"
	"encoding/binary"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"duet/blockrepl/wire"
)

// compareWorkers is how many Compare and Read requests a session works on at once.
const compareWorkers = 2

// session is one connection of a Secondary. The goroutine that receives also writes
// to the device, so a small write costs no wake-up; what may take long (Flush,
// Compare, Read) is done beside it. Acknowledgements are sent when everything
// received was applied, many with one system call.
//
// A flush covers what was received before it, as that was applied by the same goroutine. Helpers end with ctx, and a
// failure of one closes the connection, by which the receiving goroutine ends.
type session struct {
	s       *Secondary
	conn    *wire.Conn
	epoch   uint64
	link    uint64 // Hello.Link
	peer    string
	stopped atomic.Bool
	ended   chan struct{} // closed when nothing of it runs any more
	hangs   chan struct{} // closed when a call of the device hangs and is not waited for

	complete bool  // at the start
	finished bool  // complete now; guarded by Secondary.storing
	partial  bool  // Partial is durable, or need not be; of the receiving goroutine
	why      error // it ended; set before ended is closed

	ctx     context.Context
	cancel  context.CancelFunc
	helpers sync.WaitGroup
	jobs    chan job    // when it is full the receiving goroutine waits, and with it the primary
	flushes chan uint64 // Seq of flushes not begun; as jobs
	places  places
}

// places are those of a session's goroutines in the device: the one that receives, the one
// that flushes, and those that answer. They are watched from its beginning to its end, and
// no longer; Secondary.mu is held by whoever begins or ends that.
type places struct {
	receiving, flushing visit
	answering           [compareWorkers]*observed
}

// watch has w look at them.
func (x *places) watch(w *localWatch, dev Device) {
	x.receiving.what, x.flushing.what = "write", "flush"
	w.add(&x.receiving)
	w.add(&x.flushing)
	for i := range x.answering {
		x.answering[i] = newObserved(dev, "read")
		w.add(&x.answering[i].visit)
	}
}

// unwatch ends that.
func (x *places) unwatch(w *localWatch) {
	w.remove(&x.receiving)
	w.remove(&x.flushing)
	for _, o := range x.answering {
		w.remove(&o.visit)
	}
}

// job is a request that is worked on beside the receiving goroutine.
type job struct {
	h       wire.Header
	payload []byte
}

func newSession(s *Secondary, conn *wire.Conn, hello Hello, complete bool) *session {
	n := &session{
		s: s, conn: conn, epoch: hello.Epoch, link: hello.Link, peer: hello.Node,
		complete: complete, finished: complete, partial: complete,
		ended: make(chan struct{}), hangs: make(chan struct{}), jobs: make(chan job, 64), flushes: make(chan uint64, 64),
	}
	n.ctx, n.cancel = context.WithCancel(context.Background())
	return n
}

// live is the goroutine of the session, from the welcome to the end of all its parts. After it nothing of the session
// uses the device: another session may begin, or Close return.
func (n *session) live(welcome Welcome, entries []Entry) {
	n.s.log.Info("primary attached", "peer", n.peer, "epoch", n.epoch, "complete", n.complete)
	err := sendWelcome(n.conn, n.epoch, welcome, entries)
	if err == nil {
		err = n.run()
	}
	_ = n.conn.Close() // the reason of the end is err
	n.cancel()
	n.helpers.Wait()
	s := n.s
	s.mu.Lock()
	if n.why = err; s.failed != nil {
		n.why = s.failed // the connection ended because of it
	}
	s.session = nil
	n.places.unwatch(&s.local)
	s.mu.Unlock()
	close(n.ended)
}

// watch waits for the end of the session, or for a call of the device or log that is older
// than the budget. It returns why the session ended. It runs on Serve's goroutine, which is so never stuck in the
// device.
func (n *session) watch() error {
	budget := n.s.localBudget()
	if budget == 0 {
		<-n.ended
		return n.why
	}
	every := max(budget/8, time.Millisecond)
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	pulse := pulse{ticked: n.s.clock()}
	for {
		select {
		case <-n.ended:
			return n.why
		case <-ticker.C:
		}
		now := n.s.clock()
		pulse.beat(now, int64(every))
		if edited := n.s.localBudget(); edited != budget && edited != 0 {
			budget, every = edited, max(edited/8, time.Millisecond)
			ticker.Reset(every)
		}
		if err := n.s.overdue(now, pulse.thawed); err != nil {
			n.stopped.Store(true)
			_ = n.conn.Close() // the reason of the end is err
			n.cancel()
			close(n.hangs)
			return err
		}
	}
}

// overdue notes the failure of a copy that hangs, and returns it.
func (s *Secondary) overdue(now, thawed int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.local.overdue(now, thawed, func(v *visit) { _ = s.fail(s.local.hung(v)) })
	return s.failed
}

// run receives and applies until the connection ends.
func (n *session) run() error {
	n.helpers.Go(n.flusher)
	for _, o := range n.places.answering {
		n.helpers.Go(func() { n.worker(o) })
	}
	n.conn.OnWait(func() {
		n.s.heard.Store(time.Now().UnixNano())
		_ = n.conn.Flush() // a failure shows in the next read
	})
	for {
		h, payload, err := n.conn.Next()
		if err == nil && n.stopped.Load() {
			err = errStopped
		}
		if err == nil {
			err = n.handle(&h, payload)
		}
		if err != nil {
			return err
		}
	}
}

// handle applies or dispatches one frame.
func (n *session) handle(h *wire.Header, payload []byte) error {
	if h.Epoch != n.epoch {
		r := Refusal{Epoch: n.epoch,
			Reason: fmt.Sprintf("rule 2: frame of epoch %d in a session of epoch %d", h.Epoch, n.epoch)}
		_ = Refuse(n.conn, r) // best effort: the session ends anyway
		return fmt.Errorf("refused: %s", r.Reason)
	}
	if err := n.inside(h); err != nil {
		return err
	}
	var err error
	switch h.Type {
	case wire.Write, wire.Zero, wire.Discard:
		switch err = n.apply(h, payload); {
		case err != nil && n.stopped.Load():
			return errStopped
		case err != nil:
			return n.failed(h.Seq, err)
		}
		n.s.applied.Add(1)
		n.conn.Append(&wire.Header{Type: wire.Ack, Epoch: n.epoch, Seq: h.Seq}, nil)
	case wire.Ping:
		n.conn.Append(&wire.Header{Type: wire.Ack, Epoch: n.epoch, Seq: h.Seq}, nil)
	case wire.Flush:
		select {
		case n.flushes <- h.Seq:
		case <-n.ctx.Done():
			err = n.ctx.Err()
		}
	case wire.Compare, wire.Read:
		select {
		case n.jobs <- job{*h, append([]byte(nil), payload...)}:
		case <-n.ctx.Done():
			err = n.ctx.Err()
		}
	default:
		err = fmt.Errorf("unexpected frame %v", h.Type)
	}
	return err
}

// inside checks that a frame stays within the device.
func (n *session) inside(h *wire.Header) error {
	length := max(h.Length, h.Count)
	switch h.Type {
	case wire.Write, wire.Zero, wire.Discard, wire.Read:
		if h.Offset > uint64(n.s.dev.Size()) || uint64(length) > uint64(n.s.dev.Size())-h.Offset {
			return fmt.Errorf("%v of %d bytes at %d: %w", h.Type, length, h.Offset, ErrRange)
		}
		if h.Type == wire.Read && h.Count > wire.MaxData {
			return fmt.Errorf("read of %d bytes: %w", h.Count, ErrRange)
		}
	}
	return nil
}

// apply changes the device. Before the first change of a copy that is not complete,
// it is durably Partial: from then on it belongs to no point of the history.
func (n *session) apply(h *wire.Header, payload []byte) error {
	if !n.partial {
		if err := n.s.markPartial(n); err != nil {
			return err
		}
		n.partial = true
	}
	if n.stopped.Load() {
		return errStopped
	}
	off := int64(h.Offset)
	var err error
	n.places.receiving.enter()
	switch h.Type {
	case wire.Write:
		_, err = n.s.dev.WriteAt(payload, off)
	case wire.Zero:
		err = n.s.dev.Zero(off, int64(h.Count))
	case wire.Discard:
		err = n.s.dev.Discard(off, int64(h.Count))
	}
	n.places.receiving.leave()
	return err
}

// failed notes that this copy has failed, tells the primary, and returns why the session ends.
func (n *session) failed(seq uint64, err error) error {
	n.s.mu.Lock()
	err = n.s.fail(err)
	n.s.mu.Unlock()
	n.tell(seq, err)
	return err
}

// tell tells the primary, best effort, that this copy has failed: the session ends anyway.
func (n *session) tell(seq uint64, err error) {
	n.conn.Append(&wire.Header{Type: wire.Ack, Flags: wire.FlagError, Epoch: n.epoch, Seq: seq}, []byte(err.Error()))
	_ = n.conn.Flush()
}

// ack answers one request from a helper, if the session was not stopped meanwhile: the rest of its answers is
// dropped, as the connection is closed.
func (n *session) ack(seq uint64, payload []byte) {
	if n.stopped.Load() {
		return
	}
	n.conn.Append(&wire.Header{Type: wire.Ack, Epoch: n.epoch, Seq: seq}, payload)
}

// flusher makes durable what was applied; requests that wait are merged into one.
func (n *session) flusher() {
	var seqs []uint64
	for {
		select {
		case <-n.ctx.Done():
			return
		case seq := <-n.flushes:
			seqs = append(seqs[:0], seq)
		}
		for more := true; more; {
			select {
			case seq := <-n.flushes:
				seqs = append(seqs, seq)
			default:
				more = false
			}
		}
		n.places.flushing.enter()
		err := n.s.dev.Flush()
		n.places.flushing.leave()
		if err != nil {
			_ = n.failed(seqs[0], fmt.Errorf("flush: %w", err)) // it is told when the session has ended
			_ = n.conn.Close()                                  // ends the receiving goroutine
			return
		}
		for _, seq := range seqs {
			n.ack(seq, nil)
		}
		_ = n.conn.Flush() // a failure shows in the next read
	}
}

// worker answers Compare and Read. What cannot be read is no failure of the copy: a Compare
// says that it differs, so that it is written over, a Read is answered without data.
func (n *session) worker(dev *observed) {
	buf := make([]byte, runRegions*RegionSize)
	var sums []byte
	for {
		var j job
		select {
		case <-n.ctx.Done():
			return
		case j = <-n.jobs:
		}
		var reply []byte
		var unread error
		if j.h.Type == wire.Compare {
			var differs uint64
			var err error
			differs, sums, unread, err = compareSums(dev, int64(j.h.Offset), j.payload, buf, sums)
			if err != nil {
				n.s.log.Error("answer primary", "error", err)
				_ = n.conn.Close() // ends the receiving goroutine
				return
			}
			reply = binary.LittleEndian.AppendUint64(nil, differs)
		} else {
			reply = make([]byte, j.h.Count)
			if unread = dev.readAt(reply, int64(j.h.Offset)); unread != nil {
				reply = nil
			}
		}
		if unread != nil {
			n.s.log.Error("local copy cannot be read", "offset", j.h.Offset, "asked", j.h.Type.String(), "error", unread)
		}
		n.ack(j.h.Seq, reply)
		_ = n.conn.Flush() // a failure shows in the next read
	}
}
