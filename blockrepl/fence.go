package blockrepl

import "sync/atomic"

// fence is what Fence waits for: answers that are being handed over. Completers do not
// block, so that takes no longer than a few calls.
type fence struct {
	down      atomic.Bool  // set with Primary.mu held
	answering atomic.Int32 // raised with Primary.mu held
}

// Fence ends the volume for the guest, at once: it waits for no device, no log and no
// peer. From its return on nothing is acknowledged any more, and nothing new is written to
// the local device; what was in the device already may still end there. Every request that
// no device has gets ErrClosed now, the others when the device gives them back. It may be
// called more than once, and by a receiver of events; not by a Completer, for which it waits.
//
// The order matters. First, under mu, nothing can begin or end any more; then the socket is closed, which waits
// until nothing reads the data of requests; then answers that others are handing over are awaited; only then are
// the requests given back that no goroutine works on, as their submitters use the memory again.
func (p *Primary) Fence() {
	p.mu.Lock()
	p.stand.move(Closed)
	p.fence.down.Store(true)
	l := p.peer.cut()
	done := p.traffic.dismiss()
	p.crew.cancel()
	p.changed.Broadcast()
	p.mu.Unlock()

	if l != nil {
		_ = l.conn.Close() // the volume ends either way
	}
	p.mu.Lock()
	for p.peer.parting || p.fence.answering.Load() > 0 {
		p.changed.Wait()
	}
	p.mu.Unlock()
	done.deliver() // nothing refers to the data of these any more
}

// Close is Fence and then waits: when it returns the device and the log are not used any
// more. That lasts as long as a call of theirs that is stuck. The frontend drops its
// connection, so that the guest's writes are submitted again elsewhere.
func (p *Primary) Close() {
	p.Fence()
	p.crew.wg.Wait()
	p.mu.Lock()
	for !p.crew.idle() || p.ledger.running {
		p.changed.Wait()
	}
	p.mu.Unlock()
}

// unlock gives up mu and then hands over what was collected under it. Fence waits for that: an answer that was decided
// before it is given before it returns, or never. So answering is raised while mu is still held.
func (p *Primary) unlock(done *completions) {
	if len(done.list) == 0 {
		p.mu.Unlock()
		return
	}
	p.fence.answering.Add(1)
	p.mu.Unlock()
	done.deliver()
	if p.fence.answering.Add(-1) == 0 && p.fence.down.Load() {
		p.mu.Lock()
		p.changed.Broadcast()
		p.mu.Unlock()
	}
}
