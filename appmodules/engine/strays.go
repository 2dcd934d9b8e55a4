package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"duet/appmodules"
)

// strays are the disks of the running workload that are not on their volumes. Snapshots and
// block copies move a disk while the guest writes, and no table of this module would notice:
// what the peer holds is not what the guest has written any more. So the peer is given up,
// which makes its copy outdated, until the disk is back; then it is resynced.
type strays struct {
	found   []appmodules.Stray
	reading bool // the workload is asked
	again   bool // something changed since
}

// away: a disk has left its volume.
func (s strays) away() bool { return slices.ContainsFunc(s.found, isAway) }

func isAway(d appmodules.Stray) bool { return d.Away }

// notices say for each what to do.
func (s strays) notices() []appmodules.Notice {
	var out []appmodules.Notice
	for _, d := range s.found {
		out = append(out, d.Notice)
	}
	return out
}

// readStrays asks where the disks of the workload are. One question runs at a time; what changes while it runs has it
// asked again. An answer that fails changes nothing: the next look of reconcile asks again.
func (e *Engine) readStrays() {
	straying, ok := e.cfg.Workload.(appmodules.Straying)
	if !ok || !e.primary() || !e.work.now.Up {
		return
	}
	if e.work.strays.reading {
		e.work.strays.again = true
		return
	}
	e.work.strays.reading, e.work.strays.again = true, false
	e.spawn(func(ctx context.Context) {
		ctx, cancel := e.rt.WithTimeout(ctx, quickTime)
		defer cancel()
		found, err := straying.Strays(ctx)
		e.post(func() {
			e.work.strays.reading = false
			if err == nil {
				e.takeStrays(found)
			}
			if e.work.strays.again {
				e.readStrays()
			}
		})
	})
}

// takeStrays compares what was found with what is known. That a disk has left, or is back, is kept before the link is
// ended or connected again: else a daemon that starts would bring the peer in step with volumes that the guest does
// not write.
func (e *Engine) takeStrays(found []appmodules.Stray) {
	if !e.primary() || !e.work.now.Up {
		return // it has ended meanwhile
	}
	known := slices.Equal(found, e.work.strays.found)
	e.work.strays.found = found
	if known && e.work.strays.away() == e.keep.Strayed { // which an earlier run of the daemon may have noted
		return
	}
	for _, n := range e.work.strays.notices() {
		log := e.cfg.Logger.Warn
		if n.Alarm {
			log = e.cfg.Logger.Error
		}
		log(n.Text, "module", e.cfg.Module.Name, "remedy", n.Remedy)
	}
	if strayed := e.work.strays.away(); strayed != e.keep.Strayed {
		e.keep.Strayed = strayed
		e.saveKept()
		if strayed {
			e.leading.part()
		} else {
			e.cfg.Logger.Info("the disks are back on their volumes: the peer is resynced", "module", e.cfg.Module.Name)
			e.leading.reconnect()
		}
	}
	e.publish()
	e.tellSoon()
}

// apart: the peer is not to be connected.
func (e *Engine) apart() bool { return e.parting != "" || e.keep.Strayed }

// partLook is the time between two looks whether the peer is given up.
const partLook = 10 * time.Millisecond

// errApart is why a link is ended on purpose.
var errApart = errors.New("this node goes on without it on purpose")

// Part has this node go on without its peer, whose copy is durably outdated when Part
// returns nil, so that the workload can be taken off its volumes. If it cannot, all is as
// before. It is for a module that runs here; Rejoin undoes it. It lasts until somebody grants the right to go on
// alone, within ctx: meanwhile the guest's writes wait. A run of the daemon that follows knows nothing of it.
func (e *Engine) Part(ctx context.Context, why string) error {
	err := e.call(ctx, func() {
		e.parting = why
		e.leading.part()
	})
	for err == nil {
		alone := false
		if err = e.call(ctx, func() { alone = e.rec.Alone && e.rec.Holds(e.self) && !e.leading.linked }); err != nil ||
			alone {
			break
		}
		err = sleep(ctx, e.rt, partLook)
	}
	if err != nil {
		e.Rejoin()
		return fmt.Errorf("go on without %s: %w", e.peer, err)
	}
	return nil
}

// Rejoin connects the peer again after Part. Without a Part it changes nothing.
func (e *Engine) Rejoin() {
	e.post(func() {
		e.parting = ""
		e.leading.reconnect()
	})
}
