package sim

import (
	"errors"
	"slices"
	"time"

	"duet/blockrepl"
)

var errPeerLost = errors.New("peer lost")

// link is one attachment. It ends once, by drop, GoAlone or Fence; after that every callback finds that p.link
// is another one and does nothing.
type link struct {
	end     *end
	id      uint64
	intact  bool    // the peer lost nothing since it was complete: Welcome.Intact
	drained bool    // all was sent and flushed on both sides; the ticket is good
	calls   []*call // not answered, the oldest first; to be told when it is lost
}

// oldest is when the oldest message was sent that is not answered; 0 if there is none.
func (l *link) oldest() int64 {
	if len(l.calls) == 0 {
		return 0
	}
	return l.calls[0].sent
}

// catchup is what a resync has still to bring in step; left is how much that is. Blocks are taken off only when
// the peer has acknowledged them, and the whole of it is made anew from the log by the next attachment: an
// interrupted resync compares again.
type catchup struct {
	work [blocks]bool
	left int
}

// add puts a block on the list.
func (c *catchup) add(block int) {
	if !c.work[block] {
		c.work[block] = true
		c.left++
	}
}

// done takes it off.
func (c *catchup) done(block int) {
	if c.work[block] {
		c.work[block] = false
		c.left--
	}
}

// call is a message that was not answered yet.
type call struct {
	sent int64
	end  func(error)
}

// ask sends the secondary something to do; end is told its answer, or the loss of the link. End is called once,
// as an event of this process or within drop, and not at all after Fence. An answer with an error is of a copy that
// has failed, and loses the peer; a read that fails there is answered without data instead (secondary.read). What the
// peer does runs in the process of the peer, and only if it still serves this connection. Harsher than production: a
// resync's messages count for the stall clock.
func (p *primary) ask(l *link, do func(s *secondary, answer func(error)), end func(error)) {
	if p.link != l {
		p.n.c.w.quiet(0, p.p, func() { end(errPeerLost) })
		return
	}
	call := &call{p.n.c.w.now, end}
	l.calls = append(l.calls, call)
	there := l.end.other()
	l.end.send(func() {
		s := there.node.second
		if s == nil || s.serving == nil || s.serving.end != there {
			return
		}
		s.heard = s.p.Now()
		do(s, func(err error) {
			there.send(func() {
				if p.link != l {
					return
				}
				if i := slices.Index(l.calls, call); i >= 0 {
					l.calls = slices.Delete(l.calls, i, i+1)
				}
				if err != nil {
					p.drop(l, err)
				}
				end(err)
			})
		})
	})
}

// sendWrite sends one write of the guest.
func (p *primary) sendWrite(f *flight) {
	l := p.link
	block, value, epoch := f.block, f.req.value, p.epoch
	p.ask(l, func(s *secondary, answer func(error)) { s.write(epoch, block, value, answer) }, func(err error) {
		if err == nil && p.link == l {
			f.peer = false
			p.settle(f)
		}
	})
}

// resync brings one block after the other in step, then reports. The block is locked while it is read and sent,
// so a write of the guest comes before or after it as a whole. What is busy is left for later. The content is
// read without a look at what is wrong with the disk.
func (p *primary) resync(l *link, complete bool) {
	if p.link != l {
		return
	}
	block := -1
	for b := range blocks {
		if p.catchup.work[b] && !p.busy(b) {
			block = b
			break
		}
	}
	switch {
	case p.catchup.left == 0:
		p.drain(l, complete)
		return
	case block < 0:
		p.n.c.w.quiet(time.Millisecond, p.p, func() { p.resync(l, complete) })
		return
	}
	lock := &flight{block: block}
	p.flights = append(p.flights, lock)
	value, epoch := p.disk.now()[block], p.epoch
	p.ask(l, func(s *secondary, answer func(error)) { s.write(epoch, block, value, answer) }, func(err error) {
		p.remove(lock)
		if err == nil && p.link == l {
			p.catchup.done(block)
			p.n.c.w.quiet(resyncTime, p.p, func() { p.resync(l, complete) })
		}
		p.pump()
	})
}

// drain requires the peer for every write from now on, makes both sides durable and reports. The order is rule
// 7's: first every new write needs the peer; then all that differed is there; then a flush of both; only then is
// it reported, and the engine asks the peer to say durably that it is complete. If it was complete already the
// volume is Connected when Drained is reported.
func (p *primary) drain(l *link, complete bool) {
	p.state = blockrepl.Required
	p.judge()
	p.rounds.waiting = append(p.rounds.waiting, &request{op: blockrepl.OpFlush, done: func(err error) {
		if err != nil || p.link != l {
			return
		}
		l.drained = true
		if complete {
			p.connected()
		}
		p.report(blockrepl.Drained{})
	}})
	p.pump()
}

// drop is the loss of the peer. A required peer that is lost freezes the writes until the engine has arbitrated
// (rule 3); one that was catching up was not needed, and writes go on at once.
func (p *primary) drop(l *link, cause error) {
	if p.link != l {
		return
	}
	required := p.required()
	p.p.wake()
	p.link, p.state = nil, blockrepl.Alone
	if required {
		p.state = blockrepl.Frozen
	} else {
		p.clear()
	}
	_ = l.end.Close()
	for b := range blocks { // the peer may lose what is not flushed there
		p.rounds.written[b] = false
	}
	calls := l.calls
	l.calls = nil
	for _, call := range calls {
		call.end(errPeerLost)
	}
	if !required {
		p.judge()
		p.releasePeer()
	}
	p.report(blockrepl.PeerLost{Err: cause, Required: required})
	p.pump()
}

// clear forgets what the peer lacks, in memory only: what the log has of it stays until the peer is complete.
func (p *primary) clear() { p.catchup = catchup{} }

// watch loses a peer that does not answer within the stall budget. A tick that comes late says that this process
// did not run, and proves nothing: no age counts from before it. It is also what pings an idle peer, so that a broken
// connection is found without a guest that writes. It looks every eighth of the budget, so a loss is told that much
// late.
func (p *primary) watch() {
	every := p.budget / 8
	due := p.n.c.w.now + int64(every)
	p.n.c.w.quiet(every, p.p, func() {
		now := p.n.c.w.now
		l := p.link
		if now-due > int64(every) {
			p.thawed = now
		}
		if p.overdue() {
			p.broken(errHung)
		}
		switch {
		case p.state == blockrepl.Closed:
			return
		case l == nil:
		case l.oldest() == 0:
			p.ask(l, func(_ *secondary, answer func(error)) { answer(nil) }, func(error) {})
		case now-max(l.oldest(), p.thawed) > int64(p.budget):
			p.drop(l, blockrepl.ErrStalled)
		}
		p.watch()
	})
}
