package engine

import (
	"bytes"
	"context"
	"fmt"

	"duet/appmodules"
)

// edits is what an admin has made of the definition on this node that the module does not have by now. An edit
// counts on the node that has the right to write, also while the module is stopped; another node keeps its own of
// the time when it had the right, and follows its peer for the rest.
type edits struct {
	elsewhere bool             // it was edited here while the peer has the right, and that does not count
	lies      bool             // editLies, as it was told last
	early     *appmodules.Edit // what was found before the peer was heard; nil: nothing
	digest    struct {         // of the text that is kept
		of  []byte
		sum string
	}
}

// EditLies is the code of the notice that a node would start an edit of its own that its peer, which has the right,
// does not have.
const EditLies = "definition-lies"

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

// noteRead notes what the hypervisor here has. A run that does not know it, as the first after an older release, takes
// what it finds for that.
func (e *Engine) noteRead(found appmodules.Edit) {
	if e.keep.Had != found.Has {
		e.keep.Had = found.Has
		e.saveKept()
	}
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
func (e *Engine) lookIdle(ctx context.Context) {
	defined, ok := e.cfg.Workload.(appmodules.Defined)
	if !ok {
		return
	}
	var read, version uint64
	idle := false
	if e.call(ctx, func() {
		if idle = !e.primary() && !e.work.now.Up; idle { // else its start reads, and must not be overtaken
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
		if read == e.work.reads && version == e.keep.Definition.Version && !e.primary() && found.Text != nil {
			e.takeIdle(found)
		}
	})
}

// takeIdle takes an edit over where this node has the right, or mends the edit that lies here. Another one does not
// count. Where the hypervisor may have an older version, that is for the next start; and until the peer was heard it is
// not known what lies here.
func (e *Engine) takeIdle(found appmodules.Edit) {
	holds, had, version := e.rec.Holds(e.self), e.keep.Had, e.keep.Definition.Version
	same := bytes.Equal(found.Text, e.keep.Definition.Text)
	e.work.edits.early = nil
	switch {
	case e.keep.Defined != e.keep.Definition.Version:
		return
	case !holds && !same && e.link.heard.IsZero():
		e.work.edits.early = &found
		return
	}
	was, lies := e.work.edits.elsewhere, e.editLies()
	e.work.edits.elsewhere = false
	switch {
	case same:
		e.setUnfit(nil)
	case holds && (!e.keep.Unread || had == "" || had == found.Has):
		e.setUnfit(found.Unfit)
		if found.Unfit == nil {
			e.adopt(found.Text)
			e.keep.Defined = e.keep.Definition.Version
		}
	case had == "" || had == found.Has: // as it was when edits last counted here
	case lies && (e.work.unfit != nil) == (found.Unfit != nil): // that is what the peer would not get
		if e.setUnfit(found.Unfit); found.Unfit == nil {
			e.keep.Definition.Text = found.Text
			e.saveKept()
		}
	default:
		e.setUnfit(nil)
		e.work.edits.elsewhere = true
		if !was {
			e.cfg.Logger.Warn("the definition was edited where it does not count", "module", e.cfg.Module.Name, "remedy",
				"edit it on the other node")
		}
		e.publish()
		return
	}
	e.noteRead(found)
	if e.keep.Definition.Version != version {
		e.saveKept()
		e.tellSoon()
	}
	e.publish()
}

// editLies: this node would start an edit of its own that the peer, which has the right, does not have: it was refused
// there, or did not get there before the right did.
func (e *Engine) editLies() bool {
	p := e.link.state
	if e.rec.Holder != e.peer || !p.Record.Holds(e.peer) { // what it said before it had the right is no news
		return false
	}
	// A peer that took over without having heard of this version may have made another one of that number.
	mine := e.keep.Definition.Version == e.keep.Made &&
		(e.keep.Made > p.Definition || e.keep.Made == p.Definition && p.Digest != "")
	return e.work.unfit != nil || mine && p.Digest != e.digest()
}

// hearEdits looks again at what lies here when the peer has told its version.
func (e *Engine) hearEdits() {
	if early := e.work.edits.early; early != nil && !e.primary() {
		e.takeIdle(*early)
	}
	if lies := e.editLies(); lies != e.work.edits.lies {
		e.work.edits.lies = lies
		e.publish()
	}
}

// editNotices say which edit is not on both nodes, and where it is to be mended.
func (e *Engine) editNotices() []appmodules.Notice {
	noun, why := e.work.words.Noun, e.keptBack()
	switch {
	case e.work.edits.elsewhere && !e.rec.Holds(e.self):
		return []appmodules.Notice{{Code: "definition-elsewhere",
			Text: fmt.Sprintf("the %s's definition was edited on %s, which does not have the right to run it: the "+
				"definition of %s counts, and is put back before it starts on %s", noun, e.self, e.peer, e.self),
			Remedy: fmt.Sprintf("edit it on %s", e.peer)}}
	case e.editLies():
		text := fmt.Sprintf("an edit of the %s's definition lies on %s only, which would start it; %s has another one",
			noun, e.self, e.peer)
		if why != nil {
			text += fmt.Sprintf(": %s did not get it: %v", e.peer, why)
		}
		return []appmodules.Notice{{Code: EditLies, Text: text,
			Remedy: fmt.Sprintf("edit it on %s again, or on %s, whose next edit replaces it", e.self, e.peer)}}
	case why != nil && e.rec.Holds(e.self):
		return []appmodules.Notice{{Code: "definition-unfit",
			Text: fmt.Sprintf("%s does not get the %s's present definition and would start the one before: %v", e.peer,
				noun, why)}}
	}
	return nil
}
