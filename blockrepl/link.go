package blockrepl

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"

	"duet/blockrepl/wire"
)

// link is one attachment of a peer: from a successful handshake to its loss.
type link struct {
	conn  *wire.Conn
	id    uint64 // Hello.Link
	epoch uint64
	peer  string
	// complete: since it attached the peer holds every write acknowledged in this epoch, as
	// the engine says; intact: it also lost none of them in a crash since, or has them again.
	complete, intact bool
	whole            bool // it began with a comparison of everything

	ctx    context.Context // ends with the link
	cancel context.CancelFunc

	window  window // guarded by Primary.mu
	pinged  int64  // clock of the last ping; guarded by Primary.mu, as drained
	drained bool   // all that differed is durable on the peer

	acked []uint64    // received and not settled; of the listening goroutine
	done  completions // its own as well
}

// errLinkLost ends the calls of a link that is gone.
var errLinkLost = errors.New("peer lost")

// Attach greets the peer over conn, which it owns from now on, and starts to
// replicate at epoch. It returns when replication has begun or is refused: a
// *RefusedError by the peer, a *VerdictError by Decide, ErrPeerIncomplete if the
// volume may only go on with a complete peer and this one is not.
//
// A peer that is complete is Required at once; otherwise the volume is Syncing
// until everything that differs was sent.
//
// It waits for the answer of the peer, for as long as ctx allows, and for an earlier link to be closed; ctx ends the
// handshake and nothing later. ErrState: another link or handshake is there, or the epoch is not that of the volume. A
// local copy that has failed does not keep a peer from being attached: it may be the better one.
func (p *Primary) Attach(ctx context.Context, conn *wire.Conn, epoch uint64) error {
	err := p.attach(ctx, conn, epoch)
	if err != nil {
		_ = conn.Close() // the reason to close it is the error reported
	}
	return err
}

func (p *Primary) attach(ctx context.Context, conn *wire.Conn, epoch uint64) error {
	p.mu.Lock()
	for p.peer.parting && p.stand.state != Closed {
		p.changed.Wait()
	}
	if !p.peer.vacant() || !p.fits(epoch) {
		defer p.mu.Unlock()
		return fmt.Errorf("attach at epoch %d while %v at %d: %w", epoch, p.stand.state, p.ledger.epoch, ErrState)
	}
	p.peer.greeting(true)
	hello := Hello{Node: p.cfg.Node, Epoch: epoch, Size: p.dev.Size(), Lineage: p.ledger.lineage, Link: rand.Uint64()}
	p.mu.Unlock()

	welcome, suspects, err := greet(ctx, conn, hello)

	p.mu.Lock()
	defer p.mu.Unlock()
	p.peer.greeting(false)
	if err != nil {
		return err
	}
	if !p.fits(epoch) {
		return fmt.Errorf("attach at epoch %d: %w", epoch, ErrState)
	}
	return p.join(conn, hello, welcome, suspects)
}

// fits says that a peer may be attached at epoch: once the volume has left Detached, only at its own.
func (p *Primary) fits(epoch uint64) bool {
	return p.stand.state == Detached || p.stand.state != Closed && epoch == p.ledger.epoch
}

// join judges the welcome and installs the link. The caller holds mu from the verdict on until writes go to the new
// link: a write that ended in between would be in neither the worklist nor the link. What is under way is sent
// again by review.
func (p *Primary) join(conn *wire.Conn, greeted Hello, w Welcome, suspects map[uint32]uint64) error {
	epoch := greeted.Epoch
	for id, mask := range p.tracker.dirty() {
		suspects[id] |= mask
	}
	// The lineage may have grown during the handshake, so the verdict takes it anew.
	hello := Hello{Epoch: epoch, Size: p.dev.Size(), Lineage: p.ledger.lineage}
	verdict := Decide(hello, w, len(suspects) > 0)
	if verdict.Refused() {
		return &VerdictError{Verdict: verdict, Local: p.ledger.lineage, Remote: w.Lineage}
	}
	if p.stand.state != Alone && !w.Complete {
		return ErrPeerIncomplete
	}
	if w.Complete && p.beginning() {
		return fmt.Errorf("attach a complete peer while a generation begins: %w", ErrState)
	}
	if verdict == ResyncAll {
		suspects = everything(p.dev.Size())
	}
	l := &link{
		conn: conn, id: greeted.Link, epoch: epoch, peer: w.Node,
		complete: w.Complete, intact: w.Complete && w.Intact, pinged: p.clock(), whole: verdict == ResyncAll,
	}
	l.ctx, l.cancel = context.WithCancel(p.crew.ctx)
	p.peer.install(l)
	p.ledger.writesAt(epoch)
	p.stand.move(Syncing)
	if w.Complete {
		p.stand.move(Required)
	}
	p.catchup.begin(suspects, p.dev.Size(), p.clock())
	p.log.Info("peer attached", "peer", w.Node, "epoch", epoch, "state", p.stand.state.String(),
		"verdict", verdict.String(), "suspect_bytes", p.catchup.work.left*RegionSize)
	p.review(nil) // with a new link nothing can end
	conn.OnWait(func() { p.settle(l) })
	p.crew.wg.Add(2)
	go p.listen(l)
	go p.resync(l)
	p.reopen()
	if p.stand.failed != nil {
		p.emit(DeviceFailed{Err: p.stand.failed}) // whoever attached it may not have been told
	}
	return nil
}

// listen reads the answers of one link until it is lost. It must not wait for a device or the log: acknowledgements
// are what the guest's latency is made of.
func (p *Primary) listen(l *link) {
	defer p.crew.wg.Done()
	for {
		h, payload, err := l.conn.Next()
		if err == nil {
			err = p.receive(l, &h, payload)
		}
		if err != nil {
			p.settle(l) // what was acknowledged before the end counts
			p.lost(l, err)
			return
		}
	}
}

// receive handles one frame; acknowledgements without payload wait for settle.
func (p *Primary) receive(l *link, h *wire.Header, payload []byte) error {
	switch {
	case h.Type == wire.Refuse:
		err := decodeRefusal(payload)
		if refused := (*RefusedError)(nil); errors.As(err, &refused) {
			p.mu.Lock()
			if p.peer.link == l {
				p.emit(Refused{refused.Refusal})
			}
			p.mu.Unlock()
		}
		return err
	case h.Type != wire.Ack:
		return fmt.Errorf("unexpected frame %v", h.Type)
	case h.Flags&wire.FlagError != 0:
		return fmt.Errorf("peer failed: %s", payload)
	case len(payload) == 0:
		l.acked = append(l.acked, h.Seq)
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.peer.link != l {
		return errLinkLost
	}
	w, ok := l.window.take(h.Seq)
	if !ok || w.call == nil {
		return fmt.Errorf("answer to unknown request %d", h.Seq)
	}
	w.call.reply = append(w.call.reply[:0], payload...)
	w.call.done <- nil
	return nil
}

// settle ends what the acknowledgements received so far end: one lock, and one
// CompleteBatch, for all of them.
func (p *Primary) settle(l *link) {
	if len(l.acked) == 0 {
		return
	}
	p.mu.Lock()
	now, unknown := p.clock(), uint64(0)
	for _, seq := range l.acked {
		if p.peer.link != l {
			break
		}
		w, ok := l.window.take(seq)
		switch {
		case !ok:
			unknown = seq
		case w.call != nil:
			w.call.done <- nil
		case w.flight != nil:
			w.flight.acked = l
			p.tryEnd(w.flight, now, &l.done)
		}
	}
	more := p.traffic.moves()
	p.unlock(&l.done)
	l.acked = l.acked[:0]
	if more {
		wake(p.crew.wakeIssue)
	}
	if unknown != 0 {
		p.lost(l, fmt.Errorf("peer acknowledged request %d, which is not in flight", unknown))
	}
}

// lost ends a link, once. From Syncing the volume goes on alone; when the peer was
// required, everything unacknowledged waits. Any goroutine may call it; it waits for the socket to be closed. Until
// then the peer is parting, and nothing ends as alone: the connection may still read the data of a request.
func (p *Primary) lost(l *link, cause error) {
	p.mu.Lock()
	if p.peer.link != l {
		p.mu.Unlock()
		return
	}
	required := p.stand.state.required()
	p.peer.part(l)
	if required {
		p.stand.move(Frozen)
	} else {
		p.stand.move(Alone)
		p.catchup.drop()
	}
	p.tracker.peerLost()
	p.log.Warn("peer lost", "peer", l.peer, "cause", cause, "state", p.stand.state.String())
	p.mu.Unlock()

	_ = l.conn.Close() // afterwards nothing refers to the data of requests

	var done completions
	p.mu.Lock()
	p.peer.parted()
	p.review(&done)
	if p.stand.state != Closed {
		p.emit(PeerLost{Err: cause, Required: required})
	}
	p.reopen()
	p.unlock(&done)
}

// ask sends a request of the Primary itself and waits for the answer, which is nil if it has no data. Counted says
// that its age is held against the peer: so for what a guest waits for, not for a resync, which may fill the peer's
// disk. The error is that of the link. Mu must not be held.
func (p *Primary) ask(l *link, h wire.Header, payload []byte, counted bool) ([]byte, error) {
	c := &call{done: make(chan error, 1)}
	if err := p.post(l, h, payload, c, counted); err != nil {
		return nil, err
	}
	if err := l.conn.Flush(); err != nil {
		p.lost(l, err)
		return nil, err
	}
	err := <-c.done
	return c.reply, err
}

// post appends a request of the Primary itself; the caller flushes and waits on c.
// The call always ends: by its answer or by the loss of the link. The payload must not change until then, see
// wire.Conn.Append.
func (p *Primary) post(l *link, h wire.Header, payload []byte, c *call, counted bool) error {
	p.mu.Lock()
	if p.peer.link != l {
		p.mu.Unlock()
		return errLinkLost
	}
	h.Epoch = l.epoch
	h.Seq = l.window.add(pending{call: c, sent: p.clock(), counted: counted})
	p.mu.Unlock()
	l.conn.Append(&h, payload)
	return nil
}
