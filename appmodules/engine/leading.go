package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"duet/appmodules"
	"duet/blockrepl"
	"duet/cluster"
)

// leading are all disks of a module on the node that has the right to write, or is about
// to: seen by the machine as one, they open, close, connect and are lost together. It is
// made when they are opened, and its context ends with the role. Owned by the engine's
// goroutine.
type leading struct {
	e    *Engine
	ctx  context.Context // ends with the role
	end  context.CancelFunc
	uses []*use
	all  []*led // nil: not open yet, or not any more

	attempt  uint64             // counts connects, losses and goAlone; ends of older ones are recognised by it
	stop     context.CancelFunc // ends the connect loop of the attempt
	linked   bool               // every volume is attached to the peer
	linkedAt time.Time          // since when linked is true
	stalls   int                // how often the peer was lost because it was too slow, without a good time between
	watching bool               // watch comes again by itself
	dropped  error              // why this node ended the link; nil: it did not
}

// led is one open disk of them.
type led struct {
	Primary
	cfg      appmodules.Volume
	conn     io.Closer                   // of the link, to end it; it stays when that has ended
	attached bool                        // as was told; see attachedNow
	verify   chan<- blockrepl.VerifyDone // waits for the verify under way; nil: none
	began    time.Time                   // of the last verify
	proving  atomic.Pointer[proving]     // set once, by the owner, and read by status; nil: nothing is proven
}

// newLeading returns a role without volumes: nothing is open in it, and nothing happens to it.
func newLeading(e *Engine) *leading {
	l := &leading{e: e}
	l.ctx, l.end = context.WithCancel(e.ctx)
	return l
}

// lead opens images, primaries and frontends; all I/O waits. It ends in Opened or OpenFailed, after as long as the
// disks take, or in StorageFailed at once if it cannot be noted that they are open. It may be called in a role: a
// disk that hung is opened again so, after the use before is over.
func (e *Engine) lead() {
	e.dismiss()
	if !e.noteOpen() {
		return
	}
	l := newLeading(e)
	e.leading = l
	e.cancelAsk() // its end would go on with volumes that are not open
	e.clock()
	all := make([]*led, len(e.cfg.Module.Replicated()))
	l.uses = e.shelf.take(l.open(all), func(err error) {
		switch {
		case e.leading != l:
		case err != nil:
			e.step(appmodules.OpenFailed, err.Error())
		default:
			l.all, e.resumes, e.entered = all, resumes{}, e.rt.Now()
			l.prove()
			l.configure()
			e.clock()
			e.step(appmodules.Opened, "")
		}
	})
}

// open returns what opens one volume and puts it in its place. Any goroutine: each call has a place of its own, and
// who reads all waits for the last. Events of a volume come by the mailbox, so after what was posted earlier.
func (l *leading) open(all []*led) func(int, appmodules.Volume) (disk, error) {
	return func(i int, c appmodules.Volume) (disk, error) {
		vol := &led{cfg: c}
		var err error
		vol.Primary, err = l.e.cfg.Storage.Primary(c, func(ev blockrepl.Event) {
			l.e.post(func() { l.onEvent(vol, ev) })
		})
		if err != nil {
			return nil, err
		}
		all[i] = vol
		return vol, nil
	}
}

// isOpen: all its volumes are open.
func (l *leading) isOpen() bool { return len(l.all) > 0 }

// configure gives open volumes what the policy says now. It is called when they open, too: Storage makes them with the
// policy that it was made with.
func (l *leading) configure() {
	l.proofs(func(v *proving) { v.configure(l.e.cfg.Module.Policy) })
	for _, vol := range l.all {
		vol.SetStallBudget(time.Duration(l.e.cfg.Module.Policy.StallBudget))
		vol.SetLocalBudget(l.e.diskBudget())
	}
}

// close ends the role: when it returns nothing more is acknowledged. The images are
// closed in their own time. Requests of the guest that were not answered get no answer, not even an error: see Close
// of blockrepl.Primary.
func (l *leading) close() {
	for _, vol := range l.all {
		vol.answer(blockrepl.VerifyDone{Err: errors.New("the volume was closed")})
	}
	l.end()
	opened := l.isOpen()
	l.linked, l.all = false, nil
	l.e.leading = newLeading(l.e)
	l.e.leading.end()
	l.e.release(l.uses, opened)
}

// dismiss ends whatever role the volumes have here: when it returns nothing more is
// written to them or acknowledged, whatever their disks do. What is in a disk already may still end there. It waits
// for no disk, so a vote may follow at once (rule 5).
func (e *Engine) dismiss() {
	e.leading.close()
	e.following.close()
}

// release lets volumes go whose role has ended; opened: they were open.
func (e *Engine) release(uses []*use, opened bool) {
	if len(uses) == 0 {
		return
	}
	e.shelf.release(uses, func() {
		if e.shelf.settled() {
			e.noteSettled(e.ctx)
		}
	})
	if opened && e.ctx.Err() == nil {
		e.shelf.lookAfter(uses)
	}
}

// diskFailure is what people are told of a volume whose disk has failed, or does not answer.
func (e *Engine) diskFailure(v appmodules.Volume, err error) string {
	if errors.Is(err, blockrepl.ErrHung) {
		return fmt.Sprintf("volume %s: a disk of this node does not answer for %v", v.Target, e.diskBudget())
	}
	return fmt.Sprintf("volume %s: %v", v.Target, err)
}

// withdraw has nobody wait here for volumes that are closed for good.
func (e *Engine) withdraw() {
	if e.cfg.Withdraw != nil {
		e.cfg.Withdraw()
	}
}

// onEvent handles what a Primary reports. Events of a role that has ended count for nothing, and the loss of a peer
// only while all volumes are linked.
func (l *leading) onEvent(vol *led, ev blockrepl.Event) {
	if l.e.leading != l {
		return
	}
	e := l.e
	switch ev := ev.(type) {
	case blockrepl.PeerLost:
		if l.linked {
			vol.attached = false
			l.countStall(ev.Err)
			l.lost(ev.Err)
		}
	case blockrepl.Drained:
		l.checkDrained()
	case blockrepl.Refused:
		e.learn(cluster.Record{Epoch: cluster.Epoch(ev.Epoch), Holder: cluster.NodeID(ev.Holder)})
	case blockrepl.DeviceFailed:
		event := appmodules.StorageFailed
		if errors.Is(ev.Err, blockrepl.ErrHung) {
			event = appmodules.DiskHung
		}
		e.step(event, e.diskFailure(vol.cfg, ev.Err))
	case blockrepl.ReadRepaired:
		e.cfg.Logger.Warn("a read failed here and was served by the peer", "module", e.cfg.Module.Name, "volume",
			vol.cfg.Target,
			"offset", ev.Off, "length", ev.Len, "cause", ev.Cause, "repair", ev.Repair)
	case blockrepl.RegionUnreadable: // one region, and no reason to end anything: the status counts them
		e.cfg.Logger.Error("data cannot be read on this node", "module", e.cfg.Module.Name, "volume", vol.cfg.Target,
			"offset", ev.Off, "length", ev.Len, "err", ev.Err)
	case blockrepl.VerifyDone:
		l.verified(vol, ev)
	}
}

// goAlone lets the writes go on without the peer; the record says so durably by now. A volume that is attached drops
// its peer. What waited for the peer is acknowledged once the volume's new generation is durable.
func (l *leading) goAlone(epoch cluster.Epoch) {
	l.attempt++
	l.linked = false
	for _, vol := range l.all {
		vol.attached = false
		if err := vol.GoAlone(uint64(epoch)); err != nil {
			l.e.event(appmodules.StorageFailed, fmt.Sprintf("volume %s: %v", vol.cfg.Target, err))
		}
	}
}

// forgetDirty: the peer said durably that it is complete. Not before: what is forgotten here is all that tells a later
// resync where the copies differ.
func (l *leading) forgetDirty() {
	for _, vol := range l.all {
		if vol.Progress().State == blockrepl.Connected {
			continue
		}
		if err := vol.PeerComplete(); err != nil {
			l.e.cfg.Logger.Warn("dirty regions are kept", "module", l.e.cfg.Module.Name, "volume", vol.cfg.Target, "err", err)
		}
	}
	l.proofs((*proving).poke)
}

// hold stops writes on all volumes and flushes both copies, within holdTime. It ends in Held or HoldFailed, or in the
// loss of the peer. Unless it ends in Held no volume holds: one whose Hold fails lets its writes go on by itself, and
// nobody else would let those of the others.
func (l *leading) hold() {
	all, token := l.all, l.e.token
	l.e.spawn(func(ctx context.Context) {
		ctx, cancel := l.e.rt.WithTimeout(ctx, holdTime)
		defer cancel()
		errs := make([]error, len(all))
		together(l.e.rt, len(all), func(i int) {
			errs[i] = beside(ctx, l.e.rt, func() error { return all[i].Hold(ctx) })
		})
		err := errors.Join(errs...)
		l.e.post(func() {
			over := l.e.token != token // the handover was given up meanwhile
			if over || err != nil {
				for _, vol := range all {
					vol.Release()
				}
			}
			switch {
			case over:
			case err != nil && l.attachedAll():
				l.e.step(appmodules.HoldFailed, err.Error())
			case err != nil:
				// The peer is lost, which is told next. It may have lost power, and with it what it
				// never flushed: the right must not go there.
			default:
				l.e.held = true
				l.e.step(appmodules.Held, "")
			}
		})
	})
}

// flush makes everything acknowledged durable on both sides, so that nothing needs to be
// compared later, if that can be done within ctx. Called when the goroutine is gone.
func (l *leading) flush(ctx context.Context) {
	for _, vol := range l.all {
		if err := beside(ctx, l.e.rt, func() error { return vol.Hold(ctx) }); err != nil {
			return // the next attachment compares
		}
	}
}

// flushTime bounds what an engine that stops does for its disks.
const flushTime = 3 * time.Second

// holdTime bounds finishing and flushing what is in flight.
const holdTime = 8 * time.Second

// tickets are what the peer's volumes are made complete with, by target: good for the attachments of this moment only.
func (l *leading) tickets() map[string]blockrepl.Ticket {
	out := make(map[string]blockrepl.Ticket, len(l.all))
	for _, vol := range l.all {
		out[vol.cfg.Target] = vol.Ticket()
	}
	return out
}
