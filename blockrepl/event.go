package blockrepl

import "time"

// Event tells the module engine what happened to a volume. Events of one Primary
// are delivered in order, one at a time, on a goroutine of the Primary that holds
// no lock; the receiver must not block it for long. What was not delivered when the volume is fenced may never be. An
// event tells what was so when it happened: the state may be another one when it arrives.
type Event interface{ event() }

// PeerLost reports that the replication connection ended. If Required, writes wait
// until Attach, GoAlone or Close; otherwise the volume went on alone.
type PeerLost struct {
	Err      error
	Required bool
}

// Drained reports that everything that differed is durable on the peer. If the
// peer was not complete, the engine has it marked complete and then calls PeerComplete.
type Drained struct{}

// Refused reports that the peer knows a newer right to write than ours; a PeerLost follows.
type Refused struct{ Refusal }

// DeviceFailed reports that the local device or the dirty log failed. Writes wait,
// without error, until Close: the engine moves the module or tells the admin. It is about
// what a guest wrote, a flush or the log, never about data that cannot be read; Err wraps
// ErrHung if the call has not ended, and it may still end at any time.
type DeviceFailed struct{ Err error }

// ReadRepaired reports that data could not be read here, was taken from the peer, and
// whether writing it back worked.
type ReadRepaired struct {
	Off, Len int64
	Cause    error // of the failed read
	Repair   error // nil: the local copy is good again
}

// RegionUnreadable reports that data cannot be read here and is not to be had from the peer
// either, or could not be written back: a guest's read of it fails, a resync that meets it
// does not end until it can be read or a guest has written it anew. Nothing else suffers.
// A region is reported once until it can be read again; Progress.Unreadable says how many
// bytes there are.
type RegionUnreadable struct {
	Off, Len int64 // the range that has the regions, all of one extent
	Err      error // of the read; wraps ErrHung if it has not ended
}

// VerifyDone reports the end of a verify.
type VerifyDone struct {
	Checked  int64   // bytes
	Differs  []int64 // offsets of regions that differ, the first maxReported
	Count    int64   // number of regions that differ
	Repaired int64   // of these, brought in step, durably; 0 with Err
	// Mended regions could not be read here and were written anew from the peer, which is
	// done without being asked; Unreadable ones cannot be read here and could not be mended.
	Mended, Unreadable int64
	At                 time.Time
	Err                error // the verify did not reach the end
}

// Same reports that all was compared, and both copies are equal.
func (d VerifyDone) Same() bool { return d.Err == nil && d.Count == d.Repaired && d.Unreadable == 0 }

func (PeerLost) event()         {}
func (Drained) event()          {}
func (Refused) event()          {}
func (DeviceFailed) event()     {}
func (ReadRepaired) event()     {}
func (RegionUnreadable) event() {}
func (VerifyDone) event()       {}

// emit queues e; the caller holds mu. None is dropped before the fence, as the engine acts on each: a receiver that
// hangs makes the mailbox grow.
func (p *Primary) emit(e Event) {
	p.events.put(e)
}

// mailbox has the events that were not delivered yet, in order. Whoever finds a token in
// wake takes them all; a mailbox that is not empty always has one, or somebody under way.
// Primary.mu guards waiting.
type mailbox struct {
	waiting []Event
	wake    chan struct{} // of capacity one
}

func newMailbox() mailbox { return mailbox{wake: make(chan struct{}, 1)} }

func (m *mailbox) put(e Event) {
	m.waiting = append(m.waiting, e)
	wake(m.wake)
}

func (m *mailbox) take() []Event {
	events := m.waiting
	m.waiting = nil
	return events
}

// notify delivers events until the Primary is closed.
func (p *Primary) notify() {
	defer p.crew.wg.Done()
	for {
		select {
		case <-p.crew.ctx.Done():
			return
		case <-p.events.wake:
		}
		p.mu.Lock()
		events := p.events.take()
		p.mu.Unlock()
		for _, e := range events {
			p.cfg.Events(e)
		}
	}
}

// wake signals a channel of capacity one.
func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
