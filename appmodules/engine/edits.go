package engine

import (
	"bytes"
	"context"
	"fmt"

	"duet/appmodules"
)

// edits is what an admin has made of the definition on this node. An edit on either node counts: the node on which it
// was made makes it the next version, if it was made of the version that both have, and sends it to the other.
type edits struct {
	waits    *appmodules.Edit // what was found here and is not taken up yet, see current; nil: nothing
	refused  uint64           // the newest version of the peer's that this host would refuse
	replaced string           // what to do about an edit over which a newer version was stored; empty: there is none
	told     bool             // differ, as it was told last
	digest   struct {         // of the text that is kept
		of  []byte
		sum string
	}
}

// editLies is the code of the notice that a node would start an edit of its own that its peer, which has the right,
// does not have.
const editLies = "definition-lies"

// digest is that of the definition that this node keeps.
func (e *Engine) digest() string {
	d, text := &e.work.edits.digest, e.keep.Definition.Text
	if len(text) == 0 {
		return ""
	}
	if d.sum == "" || !bytes.Equal(d.of, text) {
		d.of, d.sum = text, appmodules.Digest(text)
	}
	return d.sum
}

// readIdle notices an edit while this node does not act.
func (e *Engine) readIdle() {
	if _, ok := e.cfg.Workload.(appmodules.Defined); !ok || !e.booted {
		return
	}
	e.spawn(func(ctx context.Context) {
		ctx, cancel := e.rt.WithTimeout(ctx, quickTime)
		defer cancel()
		e.lookIdle(ctx)
	})
}

// lookIdle reads the definition for readIdle, on the caller's goroutine. It changes nothing in the hypervisor: whoever
// stops a module may be about to take it off its volumes. What was read before another reading began is dropped.
// Where the hypervisor may have an older version, that is for the next start.
func (e *Engine) lookIdle(ctx context.Context) {
	defined, ok := e.cfg.Workload.(appmodules.Defined)
	if !ok {
		return
	}
	var read, version uint64
	idle := false
	if e.call(ctx, func() {
		// else its start reads, and must not be overtaken
		if idle = !e.primary() && !e.work.now.Up && e.keep.Defined == e.keep.Definition.Version; idle {
			e.work.reads++
			read, version = e.work.reads, e.keep.Definition.Version
		}
	}) != nil || !idle {
		return
	}
	found, err := defined.Stored(ctx)
	if err != nil {
		if ctx.Err() == nil {
			e.cfg.Logger.Warn("cannot read the definition", "module", e.cfg.Module.Name, "err", err)
		}
		return
	}
	e.post(func() {
		if !e.primary() && found.Text != nil {
			e.take(read, version, found)
		}
	})
}

// current: an edit here is of the newest version that there is. One that the peer has told and this host would refuse
// is answered by it. A node that does not act has to have heard the peer for that; one that acts has the right, and
// what it starts counts.
func (e *Engine) current() bool {
	newest := max(e.keep.Definition.Version, e.work.edits.refused)
	return e.link.state.Definition <= newest && (e.primary() || !e.link.heard.IsZero())
}

// isEdit: an admin has made something of the definition. A node that does not act and does not know what its
// hypervisor had, as in the first run after an older release, takes what it finds for that.
func (e *Engine) isEdit(found appmodules.Edit) bool {
	had := e.keep.Had
	return found.Text != nil && !bytes.Equal(found.Text, e.keep.Definition.Text) &&
		(had == "" && (e.rec.Holds(e.self) || e.primary()) || had != "" && had != found.Has)
}

// takeUp makes an edit the newest version, unless it has to wait, or the peer must not get it.
func (e *Engine) takeUp(found appmodules.Edit) {
	e.work.edits.waits = nil
	e.setUnfit(found.Unfit)
	switch {
	case found.Unfit != nil:
	case e.current():
		e.adopt(found)
	default:
		e.work.edits.waits = &found
	}
	e.publish()
}

// adopt makes what was found here the newest version.
func (e *Engine) adopt(found appmodules.Edit) {
	d, s := &e.keep.Definition, &e.work.edits
	d.Text, d.Version = found.Text, max(d.Version, e.link.state.Definition, s.refused)+1
	e.keep.Defined, e.keep.Had = d.Version, found.Has
	s.replaced = ""
	e.work.sends = sends{busy: e.work.sends.busy}
	e.saveKept()
	e.tellSoon()
}

// takeWaiting takes up what had to wait, when the peer has told its version or this host has refused that.
func (e *Engine) takeWaiting() {
	if waits := e.work.edits.waits; waits != nil && e.current() {
		e.takeUp(*waits)
	}
	if differ := e.differ(); differ != e.work.edits.told {
		e.work.edits.told = differ
		e.publish()
	}
}

// differ: both nodes have made a version of that number, as when they did not hear each other.
func (e *Engine) differ() bool {
	p := e.link.state
	return p.Definition == e.keep.Definition.Version && p.Digest != "" && p.Digest != e.digest()
}

// noteReplaced tells of an edit that a newer version was stored over. Nobody else has it, so it is kept.
func (e *Engine) noteReplaced(text []byte) {
	defined := e.cfg.Workload.(appmodules.Defined) // who else has an edit
	e.spawn(func(context.Context) {
		where, err := defined.Retain(text)
		remedy := fmt.Sprintf("if it is still wanted, make it again: it is kept in %s on %s", where, e.self)
		if err != nil {
			remedy = fmt.Sprintf("if it is still wanted, make it again: it could not be kept: %v", err)
		}
		e.cfg.Logger.Warn("an edit of the definition was replaced by the peer's, which is newer", "module",
			e.cfg.Module.Name, "kept", where, "err", err)
		e.post(func() {
			e.work.edits.replaced = remedy
			e.publish()
		})
	})
}

// editNotices say which edit is not on both nodes, and where it is to be mended.
func (e *Engine) editNotices() (out []appmodules.Notice) {
	noun, why, s := e.work.words.Noun, e.keptBack(), &e.work.edits
	switch {
	case s.waits != nil:
		text := fmt.Sprintf("an edit of the %s's definition on %s counts when %s is heard", noun, e.self, e.peer)
		if !e.link.heard.IsZero() {
			text = fmt.Sprintf("an edit of the %s's definition on %s was made of an older one than %s has", noun, e.self,
				e.peer)
		}
		out = append(out, appmodules.Notice{Code: "definition-elsewhere", Text: text})
	case why != nil && e.rec.Holder == e.peer:
		out = append(out, appmodules.Notice{Code: editLies,
			Text:   fmt.Sprintf("the edit of the %s's definition on %s is not on %s: %v", noun, e.self, e.peer, why),
			Remedy: "mend that, or edit it once more, on either host"})
	case why != nil && e.rec.Holds(e.self):
		out = append(out, appmodules.Notice{Code: "definition-unfit",
			Text: fmt.Sprintf("%s does not get the %s's present definition and would start the one before: %v", e.peer,
				noun, why)})
	case e.differ() && e.rec.Holder == e.peer:
		out = append(out, appmodules.Notice{Code: editLies,
			Text: fmt.Sprintf("the %s's definition was edited on %s and on %s at once: each would start its own", noun, e.self,
				e.peer),
			Remedy: "edit it once more, on either host: that counts on both"})
	}
	if s.replaced != "" {
		out = append(out, appmodules.Notice{Code: "definition-replaced",
			Text: fmt.Sprintf("an edit of the %s's definition on %s was replaced by that of %s, which is newer", noun, e.self,
				e.peer),
			Remedy: s.replaced})
	}
	return out
}
