package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"duet/appmodules"
	"duet/cluster"
)

// asking is one ask under way; its address tells it from later ones. Whoever takes it off Engine.asking cancels it.
type asking struct{ cancel context.CancelFunc }

const (
	// askTime bounds one ask, but for a fence agent: a voter that answers does so within one round trip.
	askTime = time.Second
	// peerFirst is how long the peer alone is asked. A witness that says yes to a node whose
	// peer then says no would refuse the peer later, for nothing.
	peerFirst = 250 * time.Millisecond
	// fenceTime bounds switching the peer off.
	fenceTime = time.Minute
)

// evidence is what one ask brought back. The goroutine of the ask writes it, and the owner reads it after its end.
type evidence struct {
	cluster.Evidence
	policy appmodules.Policy // when it was begun
	knows  []cluster.Record  // what the voters that answered know
	silent map[string]error  // witnesses that were asked and did not vote; nil: none was asked
}

// ask durably promises the next epoch to this node and asks for the rest of the
// majority. One ask runs at a time; asking again while one runs changes nothing. It ends in Granted, in Denied, or in
// Deposed where a voter knows a newer epoch; one that is cancelled, by another phase or a vote, ends in nothing. The
// promise stays: the same epoch is asked for again, unless somebody else has promised it by then (above).
func (e *Engine) ask() bool {
	if e.asking != nil {
		return true
	}
	if f := e.facts(); !f.Complete && !f.PeerYields && !f.TakesBack {
		e.event(appmodules.Denied, "the data here are not complete (rule 4)")
		return true
	}
	if !e.save(e.rec.Promise(e.self, e.above)) {
		return false
	}
	ctx, cancel := context.WithCancel(e.ctx)
	ask := cluster.Ask{Module: e.cfg.Module.Identity(), Node: e.self, Epoch: e.rec.Promised, Complete: e.rec.Complete,
		Cold: e.rec.Cold}
	mine := &asking{cancel: cancel}
	e.asking = mine
	ev := evidence{policy: e.cfg.Module.Policy, Evidence: cluster.Evidence{Met: e.hasMet() ||
		e.coldStart(), TakeOver: !e.rec.Holds(e.self)}}
	e.spawn(func(context.Context) {
		defer cancel()
		e.gather(ctx, ask, &ev)
		e.post(func() {
			if e.asking == mine { // else: cancelled, or outvoted meanwhile
				e.asking = nil
				e.decide(ask, ev)
			}
		})
	})
	return true
}

// gather asks the peer, then whoever counts when it is silent. The peer's call goes on while the witnesses are asked:
// an answer that comes before theirs are all in decides. A no of the peer is an answer too.
func (e *Engine) gather(ctx context.Context, ask cluster.Ask, ev *evidence) {
	short, cancel := e.rt.WithTimeout(ctx, askTime)
	defer cancel()
	pinged, answered := make(chan struct{}), make(chan struct{})
	e.rt.Go(func() {
		defer close(pinged)
		ev.Ping = len(e.cfg.Witnesses()) == 0 && e.cfg.Ping(short)
	})
	var ans cluster.Answer
	var err error
	e.rt.Go(func() {
		defer close(answered)
		ans, err = e.cfg.Peer.Ask(short, ask)
	})
	first, stop := e.rt.WithTimeout(short, peerFirst)
	silent := e.rt.Wait(first, answered, nil) != nil || err != nil
	stop()
	if silent {
		e.askWitnesses(short, ask, ev)
	}
	_ = e.rt.Wait(context.Background(), pinged, nil) // bounded by short
	cancel()                                         // a peer that has not answered by now is silent
	_ = e.rt.Wait(context.Background(), answered, nil)
	if err == nil {
		ev.knows = append(ev.knows, ans.Know)
		if ev.PeerYes = ans.Yes; !ans.Yes {
			ev.PeerNo = ans.Why
		}
		return
	}
	e.fence(ctx, ev)
}

// askWitnesses asks all of them at the same time, within ctx. While one takes the place of another the yes of both is
// needed, which is for cluster.Granted to judge.
func (e *Engine) askWitnesses(ctx context.Context, ask cluster.Ask, ev *evidence) {
	witnesses := e.cfg.Witnesses()
	answers := make([]cluster.Answer, len(witnesses))
	errs := make([]error, len(witnesses))
	together(e.rt, len(witnesses), func(i int) { answers[i], errs[i] = witnesses[i].Ask(ctx, ask) })
	ev.Witnesses = make(map[string]cluster.Said, len(witnesses))
	ev.silent = make(map[string]error)
	for i, w := range witnesses {
		if errs[i] != nil {
			ev.silent[w.Name()] = errs[i]
			continue
		}
		ev.Witnesses[w.Name()] = cluster.Said{Yes: answers[i].Yes, Why: answers[i].Why}
		ev.knows = append(ev.knows, answers[i].Know)
	}
}

// noteSilent tells of a witness that does not vote, once until it does: a node that waits asks several times a second.
func (e *Engine) noteSilent(silent map[string]error) {
	if silent == nil {
		return
	}
	for name, err := range silent {
		if _, told := e.mute[name]; !told {
			e.cfg.Logger.Warn("a witness does not vote", "module", e.cfg.Module.Name, "witness", name, "err", err)
		}
	}
	e.mute = silent
}

// fence switches the peer off if its confirmation decides: where there is no witness,
// or where the policy wants it before a VM starts here. Not before this node has met its peer since its start (rule
// 6). A peer that is alive again by then is left on.
func (e *Engine) fence(ctx context.Context, ev *evidence) {
	m := e.means(ev.policy)
	if !m.Fence || !ev.Met || (len(m.Witnesses) > 0 && !(m.First && ev.TakeOver)) {
		return
	}
	if m.First { // not for a right that would not be granted anyway
		m.First = false
		if ok, _ := cluster.Granted(m, ev.Evidence); !ok && len(m.Witnesses) > 0 {
			return
		}
	}
	ctx, cancel := e.rt.WithTimeout(ctx, fenceTime)
	defer cancel()
	// Where nobody else has decided, a live holder shoots first: two nodes must not
	// switch each other off.
	if ev.TakeOver && len(m.Witnesses) == 0 && sleep(ctx, e.rt, 3*e.cfg.Times.Detection/2) != nil {
		return
	}
	if e.cfg.View().Alive(e.peer) {
		ev.FenceWhy = "it answers again"
		return
	}
	err := e.cfg.Fence(ctx)
	if ev.Fenced = err == nil; err != nil {
		ev.FenceWhy = err.Error()
	}
}

// inform tells the witnesses of the epoch this node holds, which it may have got without
// them: from its peer, by an operator, or before there was a witness. One that did not
// know would agree to a stale copy. A refusal is no news: only the peer deposes a
// holder that it is connected with.
func (e *Engine) inform() {
	witnesses := e.cfg.Witnesses()
	maps.DeleteFunc(e.informed, func(w Witness, _ cluster.Epoch) bool { return !slices.Contains(witnesses, w) })
	if !e.rec.Holds(e.self) || !e.primary() || e.rec.Complete != e.rec.Epoch {
		return
	}
	ask := cluster.Ask{Module: e.cfg.Module.Identity(), Node: e.self, Epoch: e.rec.Epoch, Complete: e.rec.Complete}
	for _, w := range witnesses {
		if e.informed[w] >= ask.Epoch {
			continue
		}
		if e.informed == nil {
			e.informed = make(map[Witness]cluster.Epoch)
		}
		e.informed[w] = ask.Epoch
		e.spawn(func(ctx context.Context) {
			ctx, cancel := e.rt.WithTimeout(ctx, askTime)
			defer cancel()
			ans, err := w.Ask(ctx, ask)
			switch {
			case err != nil:
				e.post(func() { delete(e.informed, w) })
			case !ans.Yes:
				e.cfg.Logger.Warn("the witness knows better", "module", e.cfg.Module.Name, "witness", w.Name(), "epoch", ask.Epoch,
					"why", ans.Why)
			}
		})
	}
}

// means is what arbitration may call on now under a policy, which is given as only the owner reads that of Config. Any
// goroutine.
func (e *Engine) means(p appmodules.Policy) cluster.Means {
	m := cluster.Means{Module: e.cfg.Module.Name, Arbitration: cluster.Arbitration(p.Arbitration),
		First: p.Fence == appmodules.FenceBeforeStart,
		Fence: e.cfg.Fence != nil && (e.cfg.CanFence == nil || e.cfg.CanFence())}
	for _, w := range e.cfg.Witnesses() {
		m.Witnesses = append(m.Witnesses, w.Name())
	}
	return m
}

// coldStart: the policy lets this node do without having met its peer by now (rule 6).
func (e *Engine) coldStart() bool {
	after := time.Duration(e.cfg.Module.Policy.ColdStart)
	return after > 0 && e.rt.Now().Sub(e.vigil.unbroken()) >= after
}

// decide applies the end of an ask. The world may have moved on since it was begun: the promise has to be the newest
// still, and witnesses and policy count as they are now. Two grants hold only by the peer's own yes: of a right that
// was given away (TakesBack), and of a copy that lost power beside a peer that answers.
func (e *Engine) decide(ask cluster.Ask, ev evidence) {
	e.noteSilent(ev.silent)
	if e.rec.Promised != ask.Epoch || e.rec.To != e.self || e.rec.Epoch >= ask.Epoch {
		e.step(appmodules.Denied, "a newer epoch was promised meanwhile")
		return
	}
	for _, know := range ev.knows { // who knows a newer epoch deposes this node, whatever was voted
		if e.learn(know) {
			return
		}
	}
	ev.Met = ev.Met && (e.hasMet() || e.coldStart()) // it may have stood still since it asked
	ok, why := cluster.Granted(e.means(e.cfg.Module.Policy), ev.Evidence)
	if ok && !ev.PeerYes && ask.Complete < e.rec.Epoch {
		ok, why = false, "only the peer itself can give the right back"
	}
	if ok && !ev.PeerYes && ask.Cold && !e.silent() {
		ok, why = false, "the peer answers again, and its copy may be better than this one, which lost power"
	}
	if !ok {
		for _, know := range ev.knows {
			e.above = max(e.above, know.Promised)
		}
		e.step(appmodules.Denied, why)
		e.askAgainSoon()
		return
	}
	if e.save(e.rec.Won(e.self, ask.Epoch, true)) {
		if ev.TakeOver {
			e.arrive(e.cause + "; " + why)
		}
		e.step(appmodules.Granted, fmt.Sprintf("epoch %d: %s", ask.Epoch, why))
	}
}

// askAgain is how soon an ask that was denied is repeated, and not sooner.
const askAgain = 250 * time.Millisecond

// askAgainSoon looks again without waiting for the next exchange of states. Until then patience keeps every Look from
// asking, such as that of the new phase.
func (e *Engine) askAgainSoon() {
	token := e.token
	e.patience = e.rt.Now().Add(askAgain)
	e.spawn(func(ctx context.Context) {
		if sleep(ctx, e.rt, askAgain) != nil {
			return
		}
		e.lookIn(token)
	})
}

// learn takes over what a peer knows; true if it knows a newer epoch of its own. That is durable before anything
// follows from it. If it cannot be saved nothing was learned, and StorageFailed follows.
func (e *Engine) learn(know cluster.Record) bool {
	after := e.rec.Learn(e.self, know.Epoch, know.Holder)
	if after == e.rec || !e.save(after) {
		return false
	}
	e.cancelAsk()
	e.step(appmodules.Deposed, fmt.Sprintf("%s holds epoch %d", after.Holder, after.Epoch))
	e.publish() // also where that changes nothing else, as in a module that is stopped
	return true
}

func (e *Engine) cancelAsk() {
	if e.asking != nil {
		e.asking.cancel()
		e.asking = nil
	}
}

// takeByOrder takes the next epoch on an operator's word; data that were not
// complete count as complete from here on, and what differs shows in the generations. The epoch is above every promise
// that this node has heard of, but the peer may have taken the same one: rule 11 parts them.
func (e *Engine) takeByOrder() bool {
	e.cancelAsk()
	e.override = e.rt.Now()
	rec, had := e.rec.Promise(e.self, max(e.above, e.link.state.Record.Promised)), e.rec.Holds(e.self)
	if !e.save(rec.Won(e.self, rec.Promised, true)) {
		return false
	}
	if !had {
		e.arrive("an operator made this node primary")
	}
	return true
}

// goAlone lets writes go on here only, after that is durable. After a restart this node need not ask again.
func (e *Engine) goAlone() bool {
	if !e.save(e.rec.Lead()) {
		return false
	}
	e.leading.goAlone(e.rec.Epoch)
	return true
}

// errForgetful is the answer of a voter that could not save its vote. To the asker it
// is as if the voter had not answered.
var errForgetful = errors.New("the vote cannot be saved")

// OnAsk is the peer asking for this node's vote. The caller has made sure that it is the node in whose name it asks.
// A yes is durable, and nothing is acknowledged here any more, when it returns. After an error, such as that of a
// metadata disk that does not answer, the vote may have been given all the same: the asker counts on nothing, and
// asks again.
func (e *Engine) OnAsk(ctx context.Context, a cluster.Ask) (cluster.Answer, error) {
	type vote struct {
		cluster.Answer
		err error
	}
	var v vote
	if err := e.soon(ctx, func(func() bool) { v.Answer, v.err = e.vote(a) }); err != nil {
		return cluster.Answer{}, err
	}
	return v.Answer, v.err
}

// vote is OnAsk on the owner's goroutine. Beside the rules of Record.Vote it refuses while this node holds the epoch
// and acts, or is about to after a restart of its daemon, and where an ask that was granted is repeated late.
func (e *Engine) vote(a cluster.Ask) (cluster.Answer, error) {
	if a.Node != e.peer {
		return cluster.Answer{Why: fmt.Sprintf("%s is not the other node of %s", a.Node, e.cfg.Module.Name), Know: e.rec}, nil
	}
	if e.rec.Holds(e.self) && e.primary() {
		return cluster.Answer{Why: fmt.Sprintf("rule 1: %s holds epoch %d and runs the module", e.self, e.rec.Epoch),
			Know: e.rec}, nil
	}
	if e.rec.Holds(e.self) && e.goesOn() {
		return cluster.Answer{Why: fmt.Sprintf("rule 1: %s holds epoch %d and has just started: its %s goes on", e.self,
			e.rec.Epoch, e.work.words.Noun), Know: e.rec}, nil
	}
	rec, ans := e.rec.Vote(e.self, a)
	if !ans.Yes {
		return ans, nil
	}
	if rec == e.rec && rec.IsComplete() {
		// The ask was granted, and since then the asker has made this node complete: what
		// comes now is a repetition that was late on its way.
		return cluster.Answer{Why: fmt.Sprintf("rule 5: %s holds epoch %d already", rec.Holder, rec.Epoch), Know: rec}, nil
	}
	// Rule 2 before rule 5: first nothing more is acknowledged, then the yes is given. Neither
	// waits for the disks of the volumes.
	e.dismiss()
	e.cancelAsk()
	if !e.save(rec) {
		return cluster.Answer{}, errForgetful
	}
	e.step(appmodules.Outvoted, fmt.Sprintf("epoch %d was promised to %s", rec.Epoch, rec.Holder))
	e.publish()
	return ans, nil
}

// primary: this node acknowledges writes, is about to, or waits to go on.
func (e *Engine) primary() bool {
	switch e.m.Phase {
	case appmodules.Stopped, appmodules.Waiting, appmodules.Asking, appmodules.Following, appmodules.Standby,
		appmodules.Killing:
		return false
	}
	return true
}

// goesOn: this node is about to act again after a restart of the daemon, and its workload is up, or may be:
// to give the right away in this moment would end what only has to be resumed.
func (e *Engine) goesOn() bool {
	if !e.keep.Wanted || e.leaving || e.impaired {
		return false
	}
	if !e.booted {
		return e.keep.Boot != "" // the volumes were open, and the computer has kept its power since
	}
	return e.m.Phase == appmodules.Waiting && e.work.now.Up
}

// completePeer makes durable that the peer is needed from now on, then tells it
// that it is complete (rule 7). It keeps telling as long as the link and the epoch last, and ends in PeerCompleted.
// The order matters: a peer that is complete may be granted the next epoch, so from before it hears of that no write
// may be acknowledged without it, also after a restart of this daemon.
func (e *Engine) completePeer() bool {
	if !e.save(e.rec.Together()) {
		return false
	}
	c := Complete{Module: e.cfg.Module.Name, Epoch: e.rec.Epoch, Tickets: e.leading.tickets()}
	l, attempt := e.leading, e.leading.attempt
	e.spawn(func(ctx context.Context) {
		for {
			callCtx, cancel := e.rt.WithTimeout(ctx, 5*time.Second)
			err := e.cfg.Peer.Complete(callCtx, c)
			cancel()
			over := false
			if e.call(ctx, func() {
				over = e.leading != l || l.attempt != attempt || e.rec.Epoch != c.Epoch
				if err == nil && !over {
					e.step(appmodules.PeerCompleted, "")
				}
			}) != nil || over || err == nil {
				return
			}
			if sleep(ctx, e.rt, 200*time.Millisecond) != nil {
				return
			}
		}
	})
	return true
}

// OnComplete is the primary telling that this secondary has everything. When it returns nil the volumes and then the
// record say durably that this copy is complete; the primary forgets what differed on that word. It waits for the
// disks of the volumes, on the caller's goroutine and at most quickTime. Saying it again is fine.
func (e *Engine) OnComplete(ctx context.Context, c Complete) error {
	var adopt func(context.Context) error
	var err error
	if callErr := e.call(ctx, func() { adopt, err = e.complete(c) }); callErr != nil {
		return callErr
	}
	if err != nil || adopt == nil {
		return err
	}
	ctx, cancel := e.rt.WithTimeout(ctx, quickTime)
	defer cancel()
	if err := adopt(ctx); err != nil {
		return fmt.Errorf("complete epoch %d: %w", c.Epoch, err)
	}
	if callErr := e.call(ctx, func() { err = e.completed(c) }); callErr != nil {
		return callErr
	}
	return err
}

// complete returns what makes the volumes durably complete, which takes as long as their disks do. A record that is
// complete is no reason to leave them out: after a restart of this daemon they do not know that they have all again.
// Nil: they are complete, and the tickets are not of what is attached.
func (e *Engine) complete(c Complete) (adopt func(context.Context) error, err error) {
	if err := e.ofThisEpoch(c); err != nil {
		return nil, err
	}
	adopt, err = e.following.adopt(c.Tickets)
	switch {
	case err == nil:
		return adopt, nil
	case e.isStandby():
		return nil, nil
	}
	return nil, fmt.Errorf("complete epoch %d: %w", c.Epoch, err)
}

// isStandby: this copy is complete, durably, and is attached.
func (e *Engine) isStandby() bool { return e.rec.IsComplete() && e.m.Phase == appmodules.Standby }

// ofThisEpoch refuses a completion that has come too late, which rule 5 has change nothing.
func (e *Engine) ofThisEpoch(c Complete) error {
	if c.Epoch != e.rec.Epoch || e.rec.Holder != e.peer {
		return fmt.Errorf("rule 7: complete epoch %d: this node knows epoch %d of %s", c.Epoch, e.rec.Epoch, e.rec.Holder)
	}
	return nil
}

// completed makes the record complete after the volumes, if nothing has changed meanwhile.
func (e *Engine) completed(c Complete) error {
	if err := e.ofThisEpoch(c); err != nil {
		return err
	}
	if !e.following.adopted(c.Tickets) {
		return fmt.Errorf("complete epoch %d: the primary's connection was lost meanwhile", c.Epoch)
	}
	if e.isStandby() {
		return nil // it was before
	}
	if !e.save(e.rec.Completed(c.Epoch)) {
		return fmt.Errorf("complete epoch %d: the record cannot be saved", c.Epoch)
	}
	if e.keep.Strayed {
		e.keep.Strayed = false // the newest data are on the volumes, whatever the VM was on here
		e.saveKept()
	}
	e.step(appmodules.Completed, "")
	return nil
}

// handover closes the volumes, promises the next epoch to the peer and tells it (rule 9). It ends in HandedOver or
// HandoverFailed. From the save on the right is the peer's, whatever it answers. This copy is complete at the new
// epoch only if both were flushed before (held) and the peer has confirmed; else a resync makes it so.
func (e *Engine) handover() bool {
	from := e.rec.Epoch
	e.dismiss()
	rec, ans := e.rec.Vote(e.self, cluster.Ask{Node: e.peer, Epoch: e.rec.Next(e.peer), Complete: from})
	if !ans.Yes {
		e.event(appmodules.HandoverFailed, ans.Why)
		return true
	}
	if !e.save(rec) {
		return false
	}
	e.handed = rec.Epoch
	h := Handover{Module: e.cfg.Module.Name, From: from, Epoch: rec.Epoch, Why: e.cause}
	token, held := e.token, e.held
	e.spawn(func(ctx context.Context) {
		ctx, cancel := e.rt.WithTimeout(ctx, 3*time.Second)
		defer cancel()
		err := e.cfg.Peer.Handover(ctx, h)
		e.post(func() {
			if err != nil {
				e.eventOf(token, appmodules.HandoverFailed, err.Error())
				return
			}
			if held { // both copies are equal and flushed, and the peer says that it holds the epoch
				e.save(e.rec.Completed(h.Epoch))
			}
			e.eventOf(token, appmodules.HandedOver, fmt.Sprintf("epoch %d", h.Epoch))
		})
	})
	return true
}

// OnHandover is the peer giving this node the right to write. Saying it again is fine. A nil error says that this
// node durably holds the epoch; after another one that is not known.
func (e *Engine) OnHandover(ctx context.Context, h Handover) error {
	var err error
	if callErr := e.call(ctx, func() { err = e.takeOver(h) }); callErr != nil {
		return callErr
	}
	return err
}

// takeOver refuses a right that nobody would use here, and one that the record does not allow.
func (e *Engine) takeOver(h Handover) error {
	switch {
	case e.rec.Epoch == h.Epoch && e.rec.Holds(e.self) && !e.rec.Alone:
		return nil // said again
	case e.rec.Epoch == h.Epoch && e.rec.Holds(e.self):
		// It got the epoch by asking and may have written without the peer: a confirmation
		// would make the peer believe that it is complete.
		return fmt.Errorf("rule 9: hand over epoch %d: this node holds it alone already", h.Epoch)
	case !e.rec.Inherits(e.self, e.peer, h.From, h.Epoch):
		return fmt.Errorf("rule 9: hand over epoch %d: this node is at epoch %d, complete at %d, promised %d", h.Epoch,
			e.rec.Epoch, e.rec.Complete, e.rec.Promised)
	case !e.facts().Wanted || e.retiring:
		return fmt.Errorf("rule 9: hand over epoch %d: the module is to stop on %s", h.Epoch, e.self)
	case e.m.Phase != appmodules.Standby && e.m.Phase != appmodules.Following:
		return fmt.Errorf("rule 9: hand over epoch %d: the module is %s on %s", h.Epoch, e.m.Phase, e.self)
	}
	e.dismiss()
	if !e.save(e.rec.Won(e.self, h.Epoch, false)) {
		return fmt.Errorf("hand over epoch %d: the record cannot be saved", h.Epoch)
	}
	e.arrive(fmt.Sprintf("%s handed over: %s", e.peer, cmp.Or(h.Why, "it did not say why")))
	e.step(appmodules.TakeOver, fmt.Sprintf("epoch %d", h.Epoch))
	return nil
}
