package engine

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"duet/appmodules"
)

// reading returns a function for another goroutine that brings the definition on this node
// up to date, or takes over what an admin has made of it, also while this engine did not run.
// A workload without one has nothing to read. Only the newest reading counts: an older one may have compared with a
// definition that is not kept any more. The function waits for the hypervisor.
func (e *Engine) reading() func(ctx context.Context) error {
	defined, ok := e.cfg.Workload.(appmodules.Defined)
	if !ok {
		return func(context.Context) error { return nil }
	}
	e.work.reads++
	read, version := e.work.reads, e.keep.Definition.Version
	kept := appmodules.Kept{Text: e.keep.Definition.Text, Known: e.keep.Defined == version, Strayed: e.keep.Strayed,
		Had: e.keep.Had}
	return func(ctx context.Context) error {
		found, err := defined.Compare(ctx, kept)
		if err == nil {
			e.post(func() { e.take(read, version, found) })
		}
		return err
	}
}

// take follows what was found here to be of the definition; version is the one that it was compared with. An edit that
// the peer must not get is not kept: the peer would start the definition before. One that the peer refuses is kept, as
// it may take it later.
func (e *Engine) take(read, version uint64, found appmodules.Edit) {
	if read != e.work.reads || version != e.keep.Definition.Version {
		return // there is a newer reading, or the peer has sent a newer definition
	}
	if found.Replaced != nil {
		e.noteReplaced(found.Replaced)
	}
	if e.isEdit(found) {
		e.takeUp(found)
		return
	}
	e.setUnfit(nil)
	if e.work.edits.waits != nil {
		e.work.edits.waits = nil
		e.publish()
	}
	if e.keep.Defined != version || e.keep.Had != found.Has {
		e.keep.Defined, e.keep.Had = version, found.Has
		e.saveKept()
	}
}

// hasOwn: the definition says what there was before the module; an older version of Duet did not.
func (d Definition) hasOwn() bool {
	var own struct{ Text []byte }
	return json.Unmarshal(d.Own, &own) == nil && len(own.Text) > 0
}

// sends is how the definition goes to the peer.
type sends struct {
	busy    bool      // it is being sent
	again   time.Time // not before
	refused error     // ErrUnfit, as the peer said last; nil: it has not, or has the newest
}

// setUnfit notes why the peer must not get the definition that this node has; nil: it may.
func (e *Engine) setUnfit(why error) { e.setKeptBack(&e.work.unfit, why) }

// setRefused notes why the peer does not take it; nil: it does.
func (e *Engine) setRefused(why error) { e.setKeptBack(&e.work.sends.refused, why) }

// setKeptBack notes in at why the peer lacks the newest definition.
func (e *Engine) setKeptBack(at *error, why error) {
	if (*at == nil) == (why == nil) && (why == nil || (*at).Error() == why.Error()) {
		return
	}
	*at = why
	if why != nil {
		e.cfg.Logger.Warn("an edit of the definition cannot be followed", "module", e.cfg.Module.Name, "peer", e.peer, "why",
			why)
	}
	e.publish()
}

// keptBack is why the peer does not have the definition that this node has, or did not when this node last had the
// right; nil: it has, or will soon.
func (e *Engine) keptBack() error { return cmp.Or(e.work.unfit, e.work.sends.refused) }

// send sends the peer a definition that is newer than that of version, which it has. What it refuses is sent again
// after a pause, as what it lacks may be there by then.
func (e *Engine) send(version uint64) {
	if version >= e.keep.Definition.Version {
		e.setRefused(nil)
		return
	}
	s := &e.work.sends
	if s.busy || e.rt.Now().Before(s.again) {
		return
	}
	s.busy = true
	def := e.keep.Definition
	def.Module = e.cfg.Module.Name
	e.spawn(func(ctx context.Context) {
		ctx, cancel := e.rt.WithTimeout(ctx, quickTime)
		defer cancel()
		err := e.cfg.Peer.Define(ctx, def)
		if err != nil && !errors.Is(err, ErrUnfit) && ctx.Err() == nil {
			e.cfg.Logger.Warn("the peer does not take the definition", "module", e.cfg.Module.Name, "err", err)
		}
		e.post(func() {
			if s.busy = false; errors.Is(err, ErrUnfit) && def.Version == e.keep.Definition.Version {
				s.again = e.rt.Now().Add(lookEvery)
				e.setRefused(err)
			}
		})
	})
}

// readDefinition takes over an admin's edit.
func (e *Engine) readDefinition() {
	if !e.rec.Holds(e.self) || !e.primary() {
		e.readIdle()
		return
	}
	read := e.reading()
	e.spawn(func(ctx context.Context) {
		ctx, cancel := e.rt.WithTimeout(ctx, quickTime)
		defer cancel()
		if err := read(ctx); err != nil {
			e.cfg.Logger.Warn("cannot read the definition", "module", e.cfg.Module.Name, "err", err)
		}
	})
}

// Definition is the newest version of the definition that both nodes can run.
func (e *Engine) Definition(ctx context.Context) (d Definition, err error) {
	err = e.call(ctx, func() { d = e.keep.Definition })
	d.Module = e.cfg.Module.Name
	return d, err
}

// OnDefine stores a newer definition that came from the peer, here and where the workload has it; what runs goes on
// with its own. One that is not newer is ignored without an error, and any while a start may be storing another one:
// the peer sends it again. One that this host would refuse is ErrUnfit: what could run here must not be replaced by
// what cannot, and neither by what is not judged, which is an error too. It waits for the hypervisor, as long as ctx
// lasts. While Defined is behind, the next start stores it.
func (e *Engine) OnDefine(ctx context.Context, d Definition) error {
	newer, holds, own := false, false, ""
	look := func() {
		newer = d.Version > e.keep.Definition.Version && !(e.m.Phase == appmodules.Starting && e.work.changing())
		holds, own = e.rec.Holds(e.self), e.ownOnly()
	}
	if err := e.call(ctx, look); err != nil || !newer {
		return err
	}
	var lies appmodules.Edit
	defined, ok := e.cfg.Workload.(appmodules.Defined)
	if ok {
		refusal, err := own, error(nil)
		if refusal == "" {
			refusal, err = defined.Judge(ctx, d.Text)
		}
		if err == nil && refusal != "" {
			err = cmp.Or(e.call(ctx, func() { e.refuse(d.Version) }), fmt.Errorf("%w: %s", ErrUnfit, refusal))
		}
		if err == nil {
			lies, err = defined.Stored(ctx)
		}
		if err != nil {
			return err
		}
		if holds && lies.Text == nil { // it may be on its way off them, by a release
			return fmt.Errorf("%w: what lies there is not on its volumes", ErrUnfit)
		}
	}
	err := e.call(ctx, func() {
		if look(); !newer { // any more
			return
		}
		if e.keep.Had != "" && e.isEdit(lies) && !bytes.Equal(lies.Text, d.Text) {
			e.noteReplaced(lies.Text)
		}
		if !d.hasOwn() {
			d.Own = e.keep.Definition.Own // the peer's version does not know of it
		}
		e.keep.Definition = d // Had stays that of what lies here, until it is stored
		e.work.edits.waits = nil
		e.work.reads++ // what is being read is compared with the one before
		e.saveKept()
		e.setUnfit(nil)
		e.setRefused(nil)
		e.publish() // the peer need not send it again, whatever the workload makes of it here
	})
	if err != nil || !newer {
		return err
	}
	has := ""
	if ok {
		if err := defined.Define(ctx, d.Text); err != nil {
			return err // the next start does it
		}
		if stored, err := defined.Stored(ctx); err == nil { // which may be another text: hypervisors have their own ways
			has = stored.Has
		}
	}
	return e.call(ctx, func() {
		e.keep.Defined, e.keep.Had = d.Version, has
		if e.keep.Definition.Version != d.Version {
			e.keep.Defined, e.keep.Had = 0, "" // a newer one came meanwhile, and which was stored last is not known
		}
		e.work.reads++
		e.saveKept()
	})
}

// ownOnly is why no definition of the peer's may be stored here while this node has the right: its own says where the
// newest data are, or has what only this node has. Empty: nothing.
func (e *Engine) ownOnly() string {
	switch {
	case !e.rec.Holds(e.self):
	case e.keep.Strayed:
		return "a disk is not on its volume there"
	case e.work.unfit != nil:
		return "an edit there is for that node only: " + e.work.unfit.Error()
	}
	return ""
}

// refuse notes that this host would not run a version of the peer's, which an edit here then answers.
func (e *Engine) refuse(version uint64) {
	e.work.edits.refused = max(e.work.edits.refused, version)
	e.takeWaiting()
}
