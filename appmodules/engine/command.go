package engine

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"duet/appmodules"
	"duet/cluster"
)

// The errors of commands.
var (
	ErrRefused = appmodules.ErrRefused
	ErrConfirm = appmodules.ErrConfirm
)

// Command gives the machine an operator's command. It returns when the command was
// accepted; what follows shows in the status. yes confirms what may give up data. An error wraps ErrRefused or
// ErrConfirm, and nothing was changed; or says that the metadata disk does not answer, or is that of ctx: then it may
// be carried out all the same. It waits for the workload, at most quickTime, and then at most commandTime for what is
// about to happen.
func (e *Engine) Command(ctx context.Context, ev appmodules.Event, yes bool) error {
	if err := e.fits(ctx, ev, yes); err != nil {
		return err
	}
	ctx, cancel := e.rt.WithTimeout(ctx, commandTime)
	defer cancel()
	for {
		var err error
		var soon bool
		if callErr := e.soon(ctx, func(func() bool) { err, soon = e.command(ev, yes), e.almost(ev) }); callErr != nil {
			return callErr
		}
		if err == nil || !soon {
			return err
		}
		if sleep(ctx, e.rt, 20*time.Millisecond) != nil {
			return err
		}
	}
}

// fits refuses what the workload, as it is at this moment, would make of a command. It asks on the caller's
// goroutine, so what it finds may have changed when the command is given.
func (e *Engine) fits(ctx context.Context, ev appmodules.Event, yes bool) error {
	primary, fits := false, false
	if err := e.soon(ctx, func(func() bool) { primary, fits = e.primary(), e.keep.Saved }); err != nil {
		return err
	}
	ctx, cancel := e.rt.WithTimeout(ctx, quickTime)
	defer cancel()
	switch ev {
	case appmodules.CmdSwap, appmodules.CmdRestart:
		if primary {
			return e.canEnd(ctx)
		}
	case appmodules.CmdStart, appmodules.CmdPrim:
		saving, ok := e.cfg.Workload.(appmodules.Saving)
		if !ok || primary || fits || yes {
			return nil
		}
		if drops, err := saving.Saved(ctx); err == nil && drops != "" {
			return fmt.Errorf("%w: %s", ErrConfirm, drops)
		}
	}
	return nil
}

// canEnd refuses where the workload cannot end by itself, or its newest data are not on its volumes.
// One that cannot be asked is taken at its table's word.
func (e *Engine) canEnd(ctx context.Context) error {
	if now, err := e.cfg.Workload.State(ctx); err == nil && now.Held.Text != "" {
		return fmt.Errorf("%w: %s and cannot shut down: `%s` first", ErrRefused, now.Held.Text, now.Held.Remedy)
	}
	straying, ok := e.cfg.Workload.(appmodules.Straying)
	if !ok {
		return nil
	}
	found, err := straying.Strays(ctx)
	if i := slices.IndexFunc(found, isAway); err == nil && i >= 0 {
		return fmt.Errorf("%w: %s: first %s", ErrRefused, found[i].Notice.Text, found[i].Notice.Remedy)
	}
	return nil
}

// commandTime bounds how long a command waits for what is about to happen.
const commandTime = 2 * time.Second

// almost: nothing differs any more and this node is about to hear that the peer has noted
// it, so that a swap typed at the sight of SECOND (Ready) there is not refused.
func (e *Engine) almost(ev appmodules.Event) bool {
	return !e.booted || ev == appmodules.CmdSwap && e.m.Phase == appmodules.Running && e.m.Link == appmodules.Syncing &&
		e.leading.drained()
}

// command is Command on the owner's goroutine. What is wanted is noted also where the module is so already; what
// keeps it from being tried, as a pause or a failure too many, is forgotten only if a row applies.
func (e *Engine) command(ev appmodules.Event, yes bool) error {
	if !e.booted {
		return fmt.Errorf("%w: this node has just started and it is not known yet how the %s stands", ErrRefused,
			e.work.words.Noun)
	}
	if ev == appmodules.CmdPrim {
		if err := e.mayOverride(yes); err != nil {
			return err
		}
	}
	_, row := e.m.Step(ev, e.facts())
	if row == nil && !e.satisfied(ev) {
		return fmt.Errorf("%w: %s", ErrRefused, e.refusal(ev))
	}
	switch ev { // also where it is so already: it is to stay so
	case appmodules.CmdSecond, appmodules.CmdStart, appmodules.CmdPrim:
		e.want(true, "")
	case appmodules.CmdStop, appmodules.CmdStopAll:
		e.want(false, "")
	}
	if row == nil {
		e.publish()
		return nil
	}
	e.patience, e.failed, e.outlives = time.Time{}, time.Time{}, e.link.state.Ending
	e.yield = e.yield || yes && ev == appmodules.CmdSecond
	if len(e.keep.Restarts)+len(e.keep.Moves) > 0 {
		e.keep.Restarts, e.keep.Moves = nil, nil
		e.saveKept()
	}
	e.step(ev, "")
	e.resumes = resumes{}
	e.resume()
	e.failure, e.work.balked, e.work.edits.replaced = "", false, "" // whoever has a word lets it be tried anew
	return nil
}

// satisfied: what was asked for is so already, or under way.
func (e *Engine) satisfied(ev appmodules.Event) bool {
	role, _ := e.m.Display()
	switch ev {
	case appmodules.CmdStart:
		return e.m.Phase != appmodules.Stopped && e.m.Phase != appmodules.Stopping
	case appmodules.CmdStop, appmodules.CmdStopAll:
		return role == appmodules.Stop || e.m.Phase == appmodules.Stopping
	case appmodules.CmdPrim:
		return role == appmodules.Prim || role == appmodules.Alone
	case appmodules.CmdSwap: // said again by a network that lost the answer
		return e.m.Phase == appmodules.Leaving || e.m.Phase == appmodules.Handing
	case appmodules.CmdRestart:
		return e.m.Phase == appmodules.Restarting
	}
	return false
}

// refusal says why no row applies, and the command that would fit, for whoever gave this one.
func (e *Engine) refusal(ev appmodules.Event) string {
	r, s := e.m.Display()
	at := fmt.Sprintf("the module is %s (%s) on %s", r, s, e.self)
	switch ev {
	case appmodules.CmdSwap:
		if e.m.Phase == appmodules.Running && e.belongs(e.self) {
			return fmt.Sprintf("policy.failback is auto and policy.primary is %s: %s would be moved back at once: `duet "+
				"config set %s policy.failback=manual` first", e.self, e.cfg.Module.Name, e.cfg.Module.Name)
		}
		return at + " and its peer is not in step; a swap needs PRIM (Ready) here and SECOND (Ready) there: `duet status " +
			e.cfg.Module.Name + " --watch`"
	case appmodules.CmdSecond:
		return at + "; to have the peer take over use `duet swap " + e.cfg.Module.Name + "`"
	case appmodules.CmdRestart:
		return at + "; a restart needs PRIM or ALONE (Ready)"
	}
	return at + ": " + e.why
}

// mayOverride: an operator may take the right to write where the rules do not give
// it, but not from a peer that has it and answers, and not unknowingly.
func (e *Engine) mayOverride(yes bool) error {
	p := e.link.state
	if e.answers() && p.Active && p.Record.Holder == e.peer && p.Record.Epoch >= e.rec.Epoch && p.Status.Role.Acts() {
		return fmt.Errorf("%w: %s is %s on %s; to move it use `duet swap %s`", ErrRefused, e.cfg.Module.Name, p.Status.Role,
			e.peer, e.cfg.Module.Name)
	}
	whole, heard := e.rec.IsComplete() && e.rec.Holds(e.self), e.answers()
	if yes || whole && heard || e.satisfied(appmodules.CmdPrim) {
		return nil
	}
	var risks []string
	if !whole {
		risks = append(risks, fmt.Sprintf("the data of %s on %s may lack writes; those that only %s has would be kept "+
			"there but not used",
			e.cfg.Module.Name, e.self, e.peer))
	}
	if !heard {
		risks = append(risks, fmt.Sprintf("%s has not been heard%s: if it is alive there are two writers from then on, and "+
			"one of them loses "+
			"what it wrote. Is it switched off?", e.peer, e.silence()))
	}
	return fmt.Errorf("%w: %s\n%s\n%s", ErrConfirm, strings.Join(risks, ".\n"), e.ours(), e.theirs())
}

// silence is since when the peer has not been heard, as the end of a sentence.
func (e *Engine) silence() string {
	if e.link.heard.IsZero() {
		return " since this node started"
	}
	return fmt.Sprintf(" for %v", e.rt.Now().Sub(e.link.heard).Round(time.Second))
}

// ours and theirs are the facts of both sides, for whoever has to choose.
func (e *Engine) ours() string {
	return side(string(e.self)+" (here)", e.rec, e.shelf.status())
}

func (e *Engine) theirs() string {
	if e.link.heard.IsZero() {
		return fmt.Sprintf("%s: not heard%s", e.peer, e.silence())
	}
	who := string(e.peer)
	if !e.answers() {
		who += fmt.Sprintf(" (last heard %v ago)", e.rt.Now().Sub(e.link.heard).Round(time.Second))
	}
	return side(who, e.link.state.Record, e.link.state.Status.Volumes)
}

// side is one node's record and volumes in lines of text. Dates are by that node's clock, in the time zone of this
// one.
func side(who string, r cluster.Record, volumes []VolumeStatus) string {
	b := &strings.Builder{}
	fmt.Fprintf(b, "%s: knows epoch %d of %s, complete at epoch %d", who, r.Epoch, r.Holder, r.Complete)
	if r.Cold {
		b.WriteString(", lost power since")
	}
	for _, v := range volumes {
		written := "unknown"
		if !v.Written.IsZero() {
			written = v.Written.Local().Format(time.DateTime)
		}
		fmt.Fprintf(b, "\n  %s: generation %s, last written %s, %.1f MiB that the other side may lack", v.Target,
			v.Generation, written, float64(v.Dirty)/(1<<20))
	}
	return b.String()
}
