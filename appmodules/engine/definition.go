package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"duet/vmmanager"
)

// edit is what was found of the VM's definition in the hypervisor of this node.
type edit struct {
	text  []byte // an admin's; nil: it is what this node has stored there
	unfit error  // why it is not followed
}

// reading returns a function for another goroutine that brings the hypervisor's
// definition up to date, or takes over what an admin has made of it, also while this
// engine did not run.
func (e *Engine) reading() func(ctx context.Context) error {
	e.guest.reads++
	read, kept, known := e.guest.reads, e.keep.Definition, e.keep.Defined == e.keep.Definition.Version
	strayed := e.keep.Strayed
	return func(ctx context.Context) error {
		found, err := e.compare(ctx, kept, known, strayed)
		if err == nil {
			e.post(func() { e.take(read, kept.Version, found) })
		}
		return err
	}
}

// compare holds the hypervisor's definition against the one that is kept; strayed: the VM's newest
// data may be where the definition says and not on its volumes. Any goroutine.
func (e *Engine) compare(ctx context.Context, kept Definition, known, strayed bool) (edit, error) {
	hv := e.cfg.Hypervisor
	stored := vmmanager.Definition{Name: e.domain(), Text: kept.Text}
	now, err := hv.Definition(ctx, e.domain())
	switch {
	case errors.Is(err, vmmanager.ErrNotFound), !known:
		return edit{}, hv.Define(ctx, stored)
	case err != nil || bytes.Equal(now.Text, kept.Text):
		return edit{}, err
	}
	rewired, unfit := hv.Rewire(now, e.cfg.Endpoints)
	if on := hv.On(now); slices.ContainsFunc(e.cfg.Endpoints, func(to vmmanager.Endpoint) bool { return !slices.Contains(on, to) }) {
		// A disk was taken off its volume: the guest would write past the replication. But where it
		// does so by now, its newest data are there.
		if live, err := hv.Strays(ctx, e.domain(), e.cfg.Endpoints); err != nil {
			return edit{}, err
		} else if strayed || (strays{found: live}).away() != nil {
			return edit{now.Text, errStrayed}, nil
		}
		if unfit == nil {
			stored = rewired
		}
		e.cfg.Logger.Warn("the VM's definition was edited so that a disk is not on its volume: it is put back", "module", e.cfg.Module.Name)
		if err := hv.Define(ctx, stored); err != nil {
			return edit{}, err
		}
		now = stored
	}
	return edit{now.Text, unfit}, nil
}

// errStrayed is why a definition does not follow to the peer.
var errStrayed = errors.New("a disk is not on its volume")

// take makes an edit the newest version of the definition, which then follows to the
// peer; version is the one that it was compared with.
func (e *Engine) take(read, version uint64, found edit) {
	if read != e.guest.reads || version != e.keep.Definition.Version {
		return // there is a newer reading, or the peer has sent a newer definition
	}
	e.setUnfit(found.unfit)
	if found.text != nil && found.unfit == nil && !bytes.Equal(found.text, e.keep.Definition.Text) {
		e.keep.Definition.Text = found.text
		e.keep.Definition.Version++
	}
	if e.keep.Defined == e.keep.Definition.Version {
		return
	}
	e.keep.Defined = e.keep.Definition.Version
	e.saveKept()
	e.tellSoon()
}

// setUnfit notes why the peer does not get the definition that this node's VM has.
func (e *Engine) setUnfit(why error) {
	text := ""
	if why != nil {
		text = fmt.Sprintf("%s does not get the VM's present definition and would start the one before: %v", e.peer, why)
	}
	if text != "" && text != e.unfit {
		e.cfg.Logger.Warn("an edit of the VM cannot be followed", "module", e.cfg.Module.Name, "peer", e.peer, "why", why)
	}
	if text != e.unfit {
		e.unfit = text
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
		ctx, cancel := e.rt.WithTimeout(ctx, hvTime)
		defer cancel()
		if err := read(ctx); err != nil {
			e.cfg.Logger.Warn("cannot read the VM's definition", "module", e.cfg.Module.Name, "err", err)
		}
	})
}

// Definition is the newest version of the VM's definition that both nodes can run.
func (e *Engine) Definition(ctx context.Context) (d Definition, err error) {
	err = e.call(ctx, func() { d = e.keep.Definition })
	d.Module = e.cfg.Module.Name
	return d, err
}

// OnDefine stores a newer definition that came from the peer, here and in the hypervisor.
func (e *Engine) OnDefine(ctx context.Context, d Definition) error {
	newer := false
	err := e.call(ctx, func() {
		if d.Version <= e.keep.Definition.Version || e.rec.Holds(e.self) && e.primary() {
			return
		}
		newer = true
		if len(d.Own.Text) == 0 {
			d.Own = e.keep.Definition.Own // the peer's version does not know of it
		}
		e.keep.Definition = d
		e.saveKept()
		e.setUnfit(nil)
	})
	if err != nil || !newer {
		return err
	}
	if err := e.cfg.Hypervisor.Define(ctx, vmmanager.Definition{Name: e.domain(), Text: d.Text}); err != nil {
		return fmt.Errorf("define %s: %w", e.domain(), err) // the next start of the VM does it
	}
	return e.call(ctx, func() {
		e.keep.Defined = d.Version
		if e.keep.Definition.Version != d.Version {
			e.keep.Defined = 0 // a newer one came meanwhile, and which was stored last is not known
		}
		e.saveKept()
	})
}
