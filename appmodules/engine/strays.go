package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"duet/vmmanager"
)

// strays are the disks of the running VM that are not on their volumes. Snapshots and block
// copies move a disk while the guest writes, and no table of this module would notice:
// what the peer holds is not what the guest has written any more. So the peer is given up,
// which makes its copy outdated, until the disk is back; then it is resynced.
type strays struct {
	found   []vmmanager.Stray
	reading bool // the hypervisor is asked
	again   bool // something changed since
}

// away are the disks that have left their volumes.
func (s strays) away() []vmmanager.Stray {
	var out []vmmanager.Stray
	for _, d := range s.found {
		if !d.Extra && d.On != "" {
			out = append(out, d)
		}
	}
	return out
}

// diskElsewhere is the code of the notice that a disk has left its volume.
const diskElsewhere = "disk-elsewhere"

// notices say for each what to do.
func (s strays) notices(module, vm string) []Notice {
	var out []Notice
	for _, d := range s.found {
		switch {
		case d.Extra:
			out = append(out, Notice{Code: "disk-not-replicated",
				Text: fmt.Sprintf("disk %s (%s) was added to the VM and is not replicated", d.Target, d.On),
				Remedy: fmt.Sprintf("take it off: virsh detach-disk %s %s --live --config; or release the VM and protect it again with it",
					vm, d.Target),
			})
		case d.On == "":
			out = append(out, Notice{Code: "disk-detached",
				Text: fmt.Sprintf("the running VM has no disk %s any more", d.Target), Remedy: "it has it again after its next start"})
		case d.Above:
			out = append(out, Notice{Alarm: true, Code: diskElsewhere,
				Text:   fmt.Sprintf("disk %s is on %s, a snapshot over its volume: what the guest writes is not replicated", d.Target, d.On),
				Remedy: fmt.Sprintf("virsh blockcommit %s %s --active --pivot --wait", vm, d.Target)})
		default:
			out = append(out, Notice{Alarm: true, Code: diskElsewhere,
				Text:   fmt.Sprintf("disk %s is on %s and not on its volume: what the guest writes is not replicated", d.Target, d.On),
				Remedy: fmt.Sprintf("duet vm return %s, which copies it back while the VM runs", module)})
		}
	}
	return out
}

// readStrays asks the hypervisor where the disks of the VM are. One question runs at a time.
func (e *Engine) readStrays() {
	if !e.primary() || !e.guest.up() {
		return
	}
	if e.strays.reading {
		e.strays.again = true
		return
	}
	e.strays.reading, e.strays.again = true, false
	e.spawn(func(ctx context.Context) {
		ctx, cancel := e.rt.WithTimeout(ctx, hvTime)
		defer cancel()
		found, err := e.cfg.Hypervisor.Strays(ctx, e.domain(), e.cfg.Endpoints)
		e.post(func() {
			e.strays.reading = false
			if err == nil {
				e.takeStrays(found)
			}
			if e.strays.again {
				e.readStrays()
			}
		})
	})
}

// takeStrays compares what was found with what is known.
func (e *Engine) takeStrays(found []vmmanager.Stray) {
	if !e.primary() || !e.guest.up() {
		return // the VM has ended meanwhile
	}
	if slices.Equal(found, e.strays.found) {
		return
	}
	e.strays.found = found
	for _, n := range e.strays.notices(e.cfg.Module.Name, e.domain()) {
		log := e.cfg.Logger.Warn
		if n.Alarm {
			log = e.cfg.Logger.Error
		}
		log(n.Text, "module", e.cfg.Module.Name, "remedy", n.Remedy)
	}
	if strayed := e.strays.away() != nil; strayed != e.keep.Strayed {
		e.keep.Strayed = strayed
		e.saveKept()
		if strayed {
			e.vols.part()
		} else {
			e.cfg.Logger.Info("the disks are back on their volumes: the peer is resynced", "module", e.cfg.Module.Name)
			e.vols.reconnect()
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
// returns nil, so that the VM can be taken off its volumes. If it cannot, all is as
// before. It is for a module that runs here; Rejoin undoes it.
func (e *Engine) Part(ctx context.Context, why string) error {
	err := e.call(ctx, func() {
		e.parting = why
		e.vols.part()
	})
	for err == nil {
		alone := false
		if err = e.call(ctx, func() { alone = e.rec.Alone && e.rec.Holds(e.self) && !e.vols.linked }); err != nil || alone {
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
		e.vols.reconnect()
	})
}
