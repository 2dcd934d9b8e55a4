package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"duet/appmodules"
	"duet/blockrepl"
	"duet/cluster"
)

// volumes are all disks of a module, seen by the machine as one: they open, close,
// connect and are lost together. Owned by the engine's goroutine, but for the list,
// which status reads under mu.
type volumes struct {
	e        *Engine
	disks    []appmodules.Volume // that are opened
	session  uint64              // counts openings, losses and new connects; ends of older work are recognised by it
	stop     context.CancelFunc  // ends the connect loop of the session
	linked   bool                // every volume is attached to the peer
	linkedAt time.Time           // since when linked is true
	stalls   int                 // how often the peer was lost because it was too slow, without a good time between
	watching bool                // watch comes again by itself
	dropped  error               // why this node ended the link; nil: it did not

	mu      sync.Mutex
	all     []*volume               // nil: closed
	idle    map[string]VolumeStatus // by target: what was known when they closed
	problem string                  // why the peer is not attached, for the status
}

// volume is one open disk: primary or secondary.
type volume struct {
	cfg      appmodules.Volume
	prim     Primary
	sec      Secondary
	conn     io.Closer // of the link, to end it
	link     uint64    // Hello.Link of a secondary's newest attachment
	attached bool
	verify   chan<- blockrepl.VerifyDone // waits for the verify under way; nil: none
}

func newVolumes(e *Engine) *volumes {
	return &volumes{e: e, disks: e.cfg.Module.Replicated()}
}

func (v *volumes) set(all []*volume) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.all = all
}

func (v *volumes) setProblem(text string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.problem = text
}

// serving: frontends answer, so a VM that waits for its disks can go on.
func (v *volumes) serving() bool { return len(v.all) > 0 && v.all[0].prim != nil }

// openPrimary opens images, primaries and frontends; all I/O waits.
func (v *volumes) openPrimary() {
	v.close()
	v.session++
	var all []*volume
	for _, c := range v.disks {
		vol, err := v.primary(c)
		if err != nil {
			v.closeAll(all)
			v.e.event(appmodules.OpenFailed, err.Error())
			return
		}
		all = append(all, vol)
	}
	v.set(all)
	v.e.event(appmodules.Opened, "")
}

func (v *volumes) primary(c appmodules.Volume) (*volume, error) {
	vol := &volume{cfg: c}
	session := v.session
	var err error
	vol.prim, err = v.e.cfg.Storage.Primary(c, func(ev blockrepl.Event) {
		v.e.post(func() { v.onEvent(session, vol, ev) })
	})
	if err != nil {
		return nil, fmt.Errorf("volume %s: %w", c.Target, err)
	}
	vol.prim.SetStallBudget(time.Duration(v.e.cfg.Module.Policy.StallBudget)) // an edit counts from now on
	return vol, nil
}

// setStallBudget gives open volumes what the policy says now.
func (v *volumes) setStallBudget() {
	for _, vol := range v.all {
		if vol.prim != nil {
			vol.prim.SetStallBudget(time.Duration(v.e.cfg.Module.Policy.StallBudget))
		}
	}
}

// flush makes everything acknowledged durable, if it can within ctx and a moment.
// Writes wait from then on. Called at the end, when the goroutine is gone.
func (v *volumes) flush(ctx context.Context) bool {
	if len(v.all) == 0 {
		return false // closed before, and what was written then may not be on disk yet
	}
	ctx, cancel := v.e.rt.WithTimeout(ctx, flushTime)
	defer cancel()
	for _, vol := range v.all {
		err := ctx.Err()
		switch {
		case err != nil:
		case vol.prim != nil:
			err = vol.prim.Hold(ctx)
		case vol.sec != nil:
			err = vol.sec.Flush()
		}
		if err != nil {
			return false
		}
	}
	return true
}

// flushTime bounds the flush of a daemon that stops.
const flushTime = 3 * time.Second

// close ends everything; when it returns nothing more is written or acknowledged.
func (v *volumes) close() {
	v.session++
	if v.stop != nil {
		v.stop()
		v.stop = nil
	}
	v.linked = false
	all := v.all
	v.set(nil)
	v.closeAll(all)
	if len(all) > 0 && v.e.ctx.Err() == nil {
		v.e.spawn(func(context.Context) { v.idles() }) // a vote may be waiting for the close
	}
}

// withdraw has nobody wait here for volumes that are closed for good.
func (v *volumes) withdraw() {
	if v.e.cfg.Withdraw != nil {
		v.e.cfg.Withdraw()
	}
}

// closeAll closes them at the same time: none acknowledges anything for long while another closes.
func (v *volumes) closeAll(all []*volume) {
	together(v.e.rt, len(all), func(i int) {
		vol := all[i]
		if vol.prim != nil {
			if vol.verify != nil {
				vol.verify <- blockrepl.VerifyDone{Err: errors.New("the volume was closed")}
				vol.verify = nil
			}
			vol.prim.Close()
		}
		if vol.sec != nil {
			vol.sec.Close()
		}
	})
}

// connect keeps trying to attach every volume to the peer, until all are attached
// or the session ends.
func (v *volumes) connect() {
	if v.stop != nil {
		v.stop()
	}
	v.session++
	v.linked, v.dropped = false, nil
	if v.e.apart() {
		v.setProblem("")
		return
	}
	session, epoch, all, wait := v.session, v.e.rec.Epoch, v.all, v.backoff()
	ctx, cancel := context.WithCancel(v.e.ctx)
	v.stop = cancel
	v.e.spawn(func(context.Context) {
		defer cancel()
		_ = sleep(ctx, v.e.rt, wait) // the loop looks at ctx
		for ctx.Err() == nil {
			conns, err := v.attachAll(ctx, all, uint64(epoch))
			if err == nil {
				v.e.post(func() { v.onLinked(session, conns) })
				return
			}
			v.e.post(func() { v.onAttachFailed(session, err) })
			_ = sleep(ctx, v.e.rt, retryAfter(err)) // the loop looks at ctx
		}
	})
}

// reconnect connects a peer that is not linked. A link that is being ended on purpose is connected again when its end
// is told.
func (v *volumes) reconnect() {
	if v.serving() && !v.linked {
		v.connect()
	}
}

// part ends the link and does not connect again until connect is called and the engine is not apart any more.
func (v *volumes) part() {
	for _, vol := range v.all {
		if v.linked && vol.attached {
			v.drop(vol, errApart) // what follows calls connect
			return
		}
	}
	if v.stop != nil {
		v.connect()
	}
}

// countStall notes a peer that was too slow; a good minute forgives it.
func (v *volumes) countStall(cause error) {
	if v.e.rt.Now().Sub(v.linkedAt) > time.Minute {
		v.stalls = 0
	}
	if errors.Is(cause, blockrepl.ErrStalled) {
		v.stalls++
	}
}

// backoff is how long a peer that was too slow is left alone before it is tried again:
// each time costs the guest a stall budget.
func (v *volumes) backoff() time.Duration {
	if v.stalls < 2 {
		return 0 // once is no habit
	}
	return min(time.Second<<min(v.stalls-1, 6), time.Minute)
}

// retryAfter: a peer that is away is tried often, one that refused for good seldom.
func retryAfter(err error) time.Duration {
	var verdict *blockrepl.VerdictError
	if errors.As(err, &verdict) {
		return 5 * time.Second
	}
	return 200 * time.Millisecond
}

// attachAll attaches every volume or none.
func (v *volumes) attachAll(ctx context.Context, all []*volume, epoch uint64) (conns []io.Closer, err error) {
	defer func() {
		if err != nil {
			for _, c := range conns {
				_ = c.Close() // the attempt failed as a whole
			}
		}
	}()
	for _, vol := range all {
		dialCtx, cancel := v.e.rt.WithTimeout(ctx, 2*time.Second)
		nc, err := v.e.cfg.Peer.Dial(dialCtx)
		cancel()
		if err != nil {
			return conns, fmt.Errorf("volume %s: %w", vol.cfg.Target, err)
		}
		greetCtx, cancel := v.e.rt.WithTimeout(ctx, 5*time.Second)
		conn, err := vol.prim.Attach(greetCtx, nc, epoch)
		cancel()
		if err != nil {
			return conns, fmt.Errorf("volume %s: %w", vol.cfg.Target, err)
		}
		conns = append(conns, conn)
	}
	return conns, nil
}

func (v *volumes) onLinked(session uint64, conns []io.Closer) {
	if v.session != session {
		for _, c := range conns {
			_ = c.Close() // the link came too late
		}
		return
	}
	v.linked, v.linkedAt = true, v.e.rt.Now()
	v.setProblem("")
	inStep := true
	for i, vol := range v.all {
		state := vol.prim.Progress().State
		vol.conn, vol.attached = conns[i], state == blockrepl.Syncing || state == blockrepl.Required || state == blockrepl.Connected
		inStep = inStep && state != blockrepl.Syncing
	}
	event := appmodules.LinkUp
	if inStep && !v.e.rec.Alone {
		event = appmodules.LinkInStep
	}
	v.e.step(event, "")
	if !v.everyAttached() {
		v.lost(errors.New("the connection broke at once"))
		return
	}
	v.checkDrained()
}

const (
	overdue    = 300 * time.Millisecond // an answer of a peer that is quiet on every other path
	watchAgain = 100 * time.Millisecond
)

// watch gives up a peer that is quiet on all heartbeat paths and owes an answer here as
// well, before the stall budget has passed: where a witness decides, or during a resync,
// which the writes do not need, waiting only prolongs the pause.
func (v *volumes) watch() {
	e := v.e
	needless := e.m.Link == appmodules.Syncing || e.m.Link == appmodules.InStep && len(e.cfg.Witnesses()) > 0
	if !needless || !v.linked || !e.cfg.View().Peers[e.peer].Quiet {
		return
	}
	for _, vol := range v.all {
		if vol.prim != nil && vol.attached && vol.prim.Progress().Lag > overdue {
			v.drop(vol, errQuiet)
			return
		}
	}
	if v.watching {
		return
	}
	v.watching = true
	e.rt.After(watchAgain, func() {
		e.post(func() {
			v.watching = false
			v.watch()
		})
	})
}

// errQuiet is why watch drops a peer.
var errQuiet = errors.New("it is quiet on every path")

// drop ends the link of one volume; its loss is reported as an event.
func (v *volumes) drop(vol *volume, why error) {
	if v.dropped == nil {
		v.dropped = why
	}
	_ = vol.conn.Close() // reported, see above
}

// attachedAll asks the volumes themselves: a loss may not have been told yet.
func (v *volumes) attachedAll() bool {
	for _, vol := range v.all {
		if vol.prim == nil || !vol.attachedNow() {
			return false
		}
	}
	return len(v.all) > 0
}

func (v *volumes) everyAttached() bool {
	for _, vol := range v.all {
		if !vol.attached {
			return false
		}
	}
	return true
}

// onAttachFailed tells the machine what it must know of a failed attempt.
func (v *volumes) onAttachFailed(session uint64, err error) {
	if v.session != session {
		return
	}
	var refused *blockrepl.RefusedError
	var verdict *blockrepl.VerdictError
	switch {
	case errors.As(err, &refused):
		v.setProblem(err.Error())
		know := cluster.Record{Epoch: cluster.Epoch(refused.Epoch), Holder: cluster.NodeID(refused.Holder)}
		if v.e.learn(know) {
			return
		}
		if know.Epoch > v.e.rec.Epoch && know.Holder == v.e.self {
			v.e.cancelAsk() // it may be about to fence a peer that has agreed
			v.e.step(appmodules.Agreed, "")
		}
	case errors.Is(err, blockrepl.ErrPeerIncomplete):
		v.e.step(appmodules.PeerStale, "")
	case errors.As(err, &verdict):
		if v.problem != err.Error() {
			v.e.cfg.Logger.Error("the copies cannot be joined", "module", v.e.cfg.Module.Name, "err", err)
		}
		v.setProblem(err.Error())
	default:
		v.setProblem(err.Error())
	}
}

// onEvent handles what a Primary reports.
func (v *volumes) onEvent(session uint64, vol *volume, ev blockrepl.Event) {
	if v.session < session || !v.has(vol) {
		return
	}
	e := v.e
	switch ev := ev.(type) {
	case blockrepl.PeerLost:
		if v.linked {
			vol.attached = false
			v.countStall(ev.Err)
			v.lost(ev.Err)
		}
	case blockrepl.Drained:
		v.checkDrained()
	case blockrepl.Refused:
		e.learn(cluster.Record{Epoch: cluster.Epoch(ev.Epoch), Holder: cluster.NodeID(ev.Holder)})
	case blockrepl.DeviceFailed:
		e.step(appmodules.StorageFailed, fmt.Sprintf("volume %s: %v", vol.cfg.Target, ev.Err))
	case blockrepl.ReadRepaired:
		e.cfg.Logger.Warn("a read failed here and was served by the peer", "module", e.cfg.Module.Name, "volume", vol.cfg.Target,
			"offset", ev.Off, "length", ev.Len, "cause", ev.Cause, "repair", ev.Repair)
	case blockrepl.VerifyDone:
		v.verified(vol, ev)
	}
}

func (v *volumes) has(vol *volume) bool {
	for _, have := range v.all {
		if have == vol {
			return true
		}
	}
	return false
}

// lost ends the whole link when one volume's part of it is gone, and tells the
// machine when every volume has noticed: only then may any of them go on alone.
func (v *volumes) lost(cause error) {
	for _, vol := range v.all {
		if vol.attached {
			v.drop(vol, cause)
			return
		}
	}
	if v.dropped != nil {
		cause, v.dropped = v.dropped, nil
	}
	v.linked = false
	v.session++
	if !v.e.rec.Alone {
		v.e.step(appmodules.PeerLost, cause.Error())
		return
	}
	// The peer was never told that it is complete, so it was not needed yet.
	for _, vol := range v.all {
		if err := vol.prim.GoAlone(uint64(v.e.rec.Epoch)); err != nil {
			v.e.event(appmodules.StorageFailed, fmt.Sprintf("volume %s: %v", vol.cfg.Target, err))
		}
	}
	v.e.step(appmodules.LinkLost, cause.Error())
}

// checkDrained tells the machine once all volumes are in step.
func (v *volumes) checkDrained() {
	if v.e.m.Link != appmodules.InStep && v.drained() {
		v.e.step(appmodules.Drained, "")
	}
}

// drained: all volumes are attached and nothing differs any more.
func (v *volumes) drained() bool {
	return v.linked && len(v.all) > 0 && !slices.ContainsFunc(v.all, func(vol *volume) bool { return vol.prim.Ticket().Link == 0 })
}

// goAlone lets the writes go on without the peer.
func (v *volumes) goAlone(epoch cluster.Epoch) {
	v.session++
	v.linked = false
	for _, vol := range v.all {
		vol.attached = false
		if err := vol.prim.GoAlone(uint64(epoch)); err != nil {
			v.e.event(appmodules.StorageFailed, fmt.Sprintf("volume %s: %v", vol.cfg.Target, err))
		}
	}
}

// forgetDirty: the peer said durably that it is complete.
func (v *volumes) forgetDirty() {
	for _, vol := range v.all {
		if vol.prim.Progress().State == blockrepl.Connected {
			continue
		}
		if err := vol.prim.PeerComplete(); err != nil {
			v.e.cfg.Logger.Warn("dirty regions are kept", "module", v.e.cfg.Module.Name, "volume", vol.cfg.Target, "err", err)
		}
	}
}

// hold stops writes on all volumes and flushes both copies.
func (v *volumes) hold() {
	all, token := v.all, v.e.token
	v.e.spawn(func(ctx context.Context) {
		ctx, cancel := v.e.rt.WithTimeout(ctx, holdTime)
		defer cancel()
		errs := make([]error, len(all))
		together(v.e.rt, len(all), func(i int) { errs[i] = all[i].prim.Hold(ctx) })
		err := errors.Join(errs...)
		v.e.post(func() {
			switch {
			case v.e.token != token:
				// The handover was given up meanwhile: nobody else would let the writes go on.
				for _, vol := range all {
					vol.prim.Release()
				}
			case err != nil && v.attachedAll():
				v.e.step(appmodules.HoldFailed, err.Error())
			case err != nil:
				// The peer is lost, which is told next. It may have lost power, and with it what it
				// never flushed: the right must not go there.
			default:
				v.e.held = true
				v.e.step(appmodules.Held, "")
			}
		})
	})
}

// holdTime bounds finishing and flushing what is in flight.
const holdTime = 8 * time.Second

func (v *volumes) tickets() map[string]blockrepl.Ticket {
	out := make(map[string]blockrepl.Ticket, len(v.all))
	for _, vol := range v.all {
		if vol.prim != nil {
			out[vol.cfg.Target] = vol.prim.Ticket()
		}
	}
	return out
}
