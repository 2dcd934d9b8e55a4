package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"duet/appmodules"
	"duet/blockrepl"
	"duet/cluster"
)

// The link of a leading node to its peer: all volumes are attached, or none.

// connect keeps trying to attach every volume to the peer, until all are attached
// or the session ends. It ends an attempt that is under way. It does not end a link: whoever calls it has lost that,
// or has had every volume go on alone. Where the engine is apart it tries nothing.
func (l *leading) connect() {
	if l.stop != nil {
		l.stop()
	}
	l.attempt++
	l.linked, l.dropped = false, nil
	if !l.isOpen() {
		return
	}
	if l.e.apart() {
		l.e.shelf.setProblem("")
		return
	}
	attempt, epoch, all, wait := l.attempt, l.e.rec.Epoch, l.all, l.backoff()
	ctx, cancel := context.WithCancel(l.ctx)
	l.stop = cancel
	l.e.spawn(func(context.Context) {
		defer cancel()
		_ = sleep(ctx, l.e.rt, wait) // the loop looks at ctx
		for ctx.Err() == nil {
			conns, err := l.attachAll(ctx, all, uint64(epoch))
			if err == nil {
				l.e.post(func() { l.onLinked(attempt, conns) })
				return
			}
			l.e.post(func() { l.onAttachFailed(attempt, err) })
			_ = sleep(ctx, l.e.rt, retryAfter(err)) // the loop looks at ctx
		}
	})
}

// reconnect connects a peer that is not linked. A link that is being ended on purpose is connected again when its end
// is told.
func (l *leading) reconnect() {
	if l.isOpen() && !l.linked {
		l.connect()
	}
}

// part ends the link and does not connect again until connect is called and the engine is not apart any more. The end
// is told as an event, like any loss: where the peer was in step writes wait until this node may go on alone, which
// it asks for.
func (l *leading) part() {
	for _, vol := range l.all {
		if l.linked && vol.attached {
			l.drop(vol, errApart) // what follows calls connect
			return
		}
	}
	if l.stop != nil {
		l.connect()
	}
}

// countStall notes a peer that was too slow; a good minute forgives it.
func (l *leading) countStall(cause error) {
	if l.e.rt.Now().Sub(l.linkedAt) > time.Minute {
		l.stalls = 0
	}
	if errors.Is(cause, blockrepl.ErrStalled) {
		l.stalls++
	}
}

// backoff is how long a peer that was too slow is left alone before it is tried again:
// each time costs the guest a stall budget.
func (l *leading) backoff() time.Duration {
	if l.stalls < 2 {
		return 0 // once is no habit
	}
	return min(time.Second<<min(l.stalls-1, 6), time.Minute)
}

// retryAfter: a peer that is away is tried often, one that refused for good seldom.
func retryAfter(err error) time.Duration {
	var verdict *blockrepl.VerdictError
	if errors.As(err, &verdict) {
		return 5 * time.Second
	}
	return 200 * time.Millisecond
}

// attachAll attaches every volume or none. On a goroutine of the attempt; it waits for the network, at most 7 s for a
// volume. Whoever gets the connections owns them: to close one loses the peer.
func (l *leading) attachAll(ctx context.Context, all []*led, epoch uint64) (conns []io.Closer, err error) {
	defer func() {
		if err != nil {
			for _, c := range conns {
				_ = c.Close() // the attempt failed as a whole
			}
		}
	}()
	for _, vol := range all {
		dialCtx, cancel := l.e.rt.WithTimeout(ctx, 2*time.Second)
		nc, err := l.e.cfg.Peer.Dial(dialCtx)
		cancel()
		if err != nil {
			return conns, fmt.Errorf("volume %s: %w", vol.cfg.Target, err)
		}
		greetCtx, cancel := l.e.rt.WithTimeout(ctx, 5*time.Second)
		conn, err := vol.Attach(greetCtx, nc, epoch)
		cancel()
		if err != nil {
			return conns, fmt.Errorf("volume %s: %w", vol.cfg.Target, err)
		}
		conns = append(conns, conn)
	}
	return conns, nil
}

// onLinked takes the link of an attempt: conns are of l.all, in its order. The peer may be lost again by now: the
// loss of one volume is an event that comes later, so what the volumes say of themselves counts.
func (l *leading) onLinked(attempt uint64, conns []io.Closer) {
	if l.attempt != attempt {
		for _, c := range conns {
			_ = c.Close() // the link came too late
		}
		return
	}
	l.linked, l.linkedAt = true, l.e.rt.Now()
	l.e.resumes = resumes{} // what cannot be read here is read there
	l.e.shelf.setProblem("")
	inStep := true
	for i, vol := range l.all {
		state := vol.Progress().State
		vol.conn, vol.attached = conns[i], state == blockrepl.Syncing || state == blockrepl.Required ||
			state == blockrepl.Connected
		inStep = inStep && state != blockrepl.Syncing
	}
	l.proofs((*proving).begunAnew)
	event := appmodules.LinkUp
	if inStep && !l.e.rec.Alone {
		event = appmodules.LinkInStep
	}
	l.e.step(event, "")
	if !l.everyAttached() {
		l.lost(errors.New("the connection broke at once"))
		return
	}
	l.checkDrained()
}

const (
	overdue    = 300 * time.Millisecond // an answer of a peer that is quiet on every other path
	watchAgain = 100 * time.Millisecond
)

// watch gives up a peer that is quiet on all heartbeat paths and owes an answer here as
// well, before the stall budget has passed: where a witness decides, or during a resync,
// which the writes do not need, waiting only prolongs the pause.
func (l *leading) watch() {
	e := l.e
	if !l.linked && e.cfg.View().Peers[e.peer].Quiet {
		e.shelf.setProblem("") // what it said last is no news any more
	}
	needless := e.m.Link == appmodules.Syncing || e.m.Link == appmodules.InStep && len(e.cfg.Witnesses()) > 0
	if !needless || !l.linked || !e.cfg.View().Peers[e.peer].Quiet {
		return
	}
	for _, vol := range l.all {
		if vol.attached && vol.Progress().Lag > overdue {
			l.drop(vol, errQuiet)
			return
		}
	}
	if l.watching {
		return
	}
	l.watching = true
	e.rt.After(watchAgain, func() {
		e.post(func() {
			l.watching = false
			l.watch()
		})
	})
}

// errQuiet is why watch drops a peer.
var errQuiet = errors.New("it is quiet on every path")

// drop ends the link of one volume; its loss is reported as an event.
func (l *leading) drop(vol *led, why error) {
	if l.dropped == nil {
		l.dropped = why
	}
	_ = vol.conn.Close() // reported, see above
}

// attachedAll asks the volumes themselves: a loss may not have been told yet. It is false without volumes.
func (l *leading) attachedAll() bool {
	for _, vol := range l.all {
		if !vol.attachedNow() {
			return false
		}
	}
	return len(l.all) > 0
}

// everyAttached is so as far as this goroutine was told.
func (l *leading) everyAttached() bool {
	for _, vol := range l.all {
		if !vol.attached {
			return false
		}
	}
	return true
}

// onAttachFailed tells the machine what it must know of a failed attempt.
func (l *leading) onAttachFailed(attempt uint64, err error) {
	if l.attempt != attempt {
		return
	}
	var refused *blockrepl.RefusedError
	var verdict *blockrepl.VerdictError
	switch {
	case errors.As(err, &refused):
		l.e.shelf.setProblem(l.e.said(err))
		know := cluster.Record{Epoch: cluster.Epoch(refused.Epoch), Holder: cluster.NodeID(refused.Holder)}
		if l.e.learn(know) {
			return
		}
		if know.Epoch > l.e.rec.Epoch && know.Holder == l.e.self {
			l.e.cancelAsk() // it may be about to fence a peer that has agreed
			l.e.step(appmodules.Agreed, "")
		}
	case errors.Is(err, blockrepl.ErrPeerIncomplete):
		l.e.step(appmodules.PeerStale, "")
	case errors.As(err, &verdict):
		if l.e.shelf.trouble() != err.Error() {
			l.e.cfg.Logger.Error("the copies cannot be joined", "module", l.e.cfg.Module.Name, "err", err)
		}
		l.e.shelf.setProblem(err.Error())
	default:
		l.e.shelf.setProblem(l.e.said(err))
	}
}

// said is why a link has ended or did not come about, for people, whatever it is wrapped in. A peer that is not ready
// for it, as on each start, is no failure, and an end without a reason has nothing to say: that is empty.
func (e *Engine) said(err error) string {
	var refused *blockrepl.RefusedError
	switch {
	case errors.As(err, &refused):
		return fmt.Sprintf("%s does not follow yet: %s", e.peer, refused.Reason)
	case err == nil, cluster.Ended(err):
		return ""
	}
	return cluster.Plain(err)
}

// lost ends the whole link when one volume's part of it is gone, and tells the
// machine when every volume has noticed: only then may any of them go on alone. It is called again for each of them;
// the cause that people see is that of the first, or why this node ended the link.
func (l *leading) lost(cause error) {
	for _, vol := range l.all {
		if vol.attached {
			l.drop(vol, cause)
			return
		}
	}
	if l.dropped != nil {
		cause, l.dropped = l.dropped, nil
	}
	l.linked = false
	l.attempt++
	if !l.e.rec.Alone {
		l.e.step(appmodules.PeerLost, l.e.said(cause))
		return
	}
	// The peer was never told that it is complete, so it was not needed yet.
	for _, vol := range l.all {
		if err := vol.GoAlone(uint64(l.e.rec.Epoch)); err != nil {
			l.e.event(appmodules.StorageFailed, fmt.Sprintf("volume %s: %v", vol.cfg.Target, err))
		}
	}
	l.e.step(appmodules.LinkLost, l.e.said(cause))
}

// checkDrained tells the machine once all volumes are in step.
func (l *leading) checkDrained() {
	if l.e.m.Link != appmodules.InStep && l.drained() {
		l.e.step(appmodules.Drained, "")
	}
}

// drained: all volumes are attached and nothing differs any more. A ticket without a link is of a volume whose
// attachment has not drained, or that has none.
func (l *leading) drained() bool {
	return l.linked && len(l.all) > 0 && !slices.ContainsFunc(l.all, func(vol *led) bool { return vol.Ticket().Link == 0 })
}
