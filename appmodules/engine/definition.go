package engine

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"

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
	read, kept, known := e.work.reads, e.keep.Definition, e.keep.Defined == e.keep.Definition.Version
	strayed := e.keep.Strayed
	return func(ctx context.Context) error {
		found, err := defined.Compare(ctx, kept.Text, known, strayed)
		if err == nil {
			e.post(func() { e.take(read, kept.Version, found) })
		}
		return err
	}
}

// take makes an edit the newest version of the definition, which then follows to the
// peer; version is the one that it was compared with. An edit that the peer must not get is not kept: the peer would
// start the definition before.
func (e *Engine) take(read, version uint64, found appmodules.Edit) {
	if read != e.work.reads || version != e.keep.Definition.Version {
		return // there is a newer reading, or the peer has sent a newer definition
	}
	e.setUnfit(found.Unfit)
	if found.Text != nil && found.Unfit == nil && !bytes.Equal(found.Text, e.keep.Definition.Text) {
		e.keep.Definition.Text = found.Text
		e.keep.Definition.Version++
	}
	if e.keep.Defined == e.keep.Definition.Version {
		return
	}
	e.keep.Defined = e.keep.Definition.Version
	e.saveKept()
	e.tellSoon()
}

// hasOwn: the definition says what there was before the module; an older version of Duet did not.
func (d Definition) hasOwn() bool {
	var own struct{ Text []byte }
	return json.Unmarshal(d.Own, &own) == nil && len(own.Text) > 0
}

// setUnfit notes why the peer does not get the definition that this node has.
func (e *Engine) setUnfit(why error) {
	text := ""
	if why != nil {
		text = fmt.Sprintf("%s does not get the %s's present definition and would start the one before: %v", e.peer,
			e.work.words.Noun, why)
	}
	if text != "" && text != e.work.unfit {
		e.cfg.Logger.Warn("an edit of the definition cannot be followed", "module", e.cfg.Module.Name, "peer", e.peer, "why",
			why)
	}
	if text != e.work.unfit {
		e.work.unfit = text
		e.publish()
	}
}

// readDefinition takes over an admin's edit.
func (e *Engine) readDefinition() {
	if !e.rec.Holds(e.self) || !e.primary() {
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

// OnDefine stores a newer definition that came from the peer, here and where the workload has it. One that is not
// newer, and any while this node acts, is ignored without an error. It waits for the hypervisor, as long as ctx
// lasts. While Defined is behind, the next start stores it.
func (e *Engine) OnDefine(ctx context.Context, d Definition) error {
	newer := false
	err := e.call(ctx, func() {
		if d.Version <= e.keep.Definition.Version || e.rec.Holds(e.self) && e.primary() {
			return
		}
		newer = true
		if !d.hasOwn() {
			d.Own = e.keep.Definition.Own // the peer's version does not know of it
		}
		e.keep.Definition = d
		e.saveKept()
		e.setUnfit(nil)
		e.publish() // the peer need not send it again, whatever the workload makes of it here
	})
	if err != nil || !newer {
		return err
	}
	if defined, ok := e.cfg.Workload.(appmodules.Defined); ok {
		if err := defined.Define(ctx, d.Text); err != nil {
			return err // the next start does it
		}
	}
	return e.call(ctx, func() {
		e.keep.Defined = d.Version
		if e.keep.Definition.Version != d.Version {
			e.keep.Defined = 0 // a newer one came meanwhile, and which was stored last is not known
		}
		e.saveKept()
	})
}
