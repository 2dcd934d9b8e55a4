package engine

import (
	"fmt"
	"time"

	"duet/appmodules"
	"duet/cluster"
)

// facts computes what is true now. It changes nothing and waits for nothing. What the peer told of itself counts only
// while it answers: here, or by a guard that asks for PeerAnswers besides.
func (e *Engine) facts() appmodules.Facts {
	p := e.link.state.Record
	answers := e.answers()
	return appmodules.Facts{
		Tries: appmodules.Tries{
			RestartsLeft: e.left(e.keep.Restarts) > 0, MovesLeft: e.left(e.keep.Moves) > 0,
			GaveUp: e.failure != "", Balked: e.work.balked, PeerBalked: answers && e.link.state.Balked,
		},
		Holder:      e.rec.Holds(e.self),
		Complete:    e.rec.IsComplete() || e.coldComplete(),
		Alone:       e.rec.Alone,
		Worse:       answers && e.rec.Worse(p),
		PeerAnswers: answers,
		PeerHolds:   e.rec.Holder == e.peer,
		PeerActive:  e.link.state.Active,
		PeerYields:  answers && e.yields(p),
		TakesBack:   answers && e.rec.TakesBack(e.peer, p, e.link.state.Active || e.handed != e.rec.Epoch),
		Silent:      e.silent(),
		Up:          e.work.now.Up,
		Home:        e.belongs(e.peer),
		AtHome:      e.belongs(e.self),
		Impaired:    e.impaired,
		Rests:       e.rests(),
		Wanted:      e.keep.Wanted && !e.leaving,
		Open:        e.leading.isOpen(),
		EndsFrozen:  e.cfg.Module.Policy.Frozen > 0,
	}
}

// belongs: the policy moves the module to that node by itself.
func (e *Engine) belongs(on cluster.NodeID) bool {
	return e.cfg.Module.Policy.Failback == "auto" && e.cfg.Module.Preferred() == string(on)
}

// rests: the storage here failed while this node followed, and is not tried yet. Without that pause each Look would
// open its volumes again.
func (e *Engine) rests() bool {
	return !e.failed.IsZero() && e.rt.Now().Sub(e.failed) < e.cfg.Times.Rest
}

// noteStorage remembers that the storage failed while this node followed.
func (e *Engine) noteStorage(ev appmodules.Event, from appmodules.Phase) {
	if ev == appmodules.StorageFailed && (from == appmodules.Following || from == appmodules.Standby) && !e.impaired {
		e.failed = e.rt.Now()
	}
}

// coldComplete: this copy lost power, and the policy lets it do all the same because the
// peer, whose copy may be better, has not been heard for long enough.
func (e *Engine) coldComplete() bool {
	return e.rec.Cold && e.rec.Complete == e.rec.Epoch && e.coldStart() && e.silent()
}

// yields: the peer has durably promised this node an epoch that it does not know yet.
// While the peer is handing over, its own call is on the way and says more.
func (e *Engine) yields(peer cluster.Record) bool {
	better := peer.TakesBack(e.self, e.rec, true) // it will ask for it back
	return !better && peer.Holder == e.self && peer.Epoch > e.rec.Epoch && e.link.state.Status.Phase != appmodules.Handing
}

// answers: the peer's daemon answered one of the last exchanges. One that does not is not silent yet.
func (e *Engine) answers() bool {
	return !e.link.heard.IsZero() && e.rt.Now().Sub(e.link.heard) < 3*e.cfg.Times.Tell
}

// silent: no path, replication among them, has carried a sign of life for the detection time, which the
// heartbeats measure; one that left on purpose is given longer. A node that has just
// started has not listened long enough to say so.
func (e *Engine) silent() bool {
	v := e.cfg.View()
	if v.Alive(e.peer) || e.answers() || e.following.heard() || e.rt.Now().Sub(e.began) < e.cfg.Times.Detection {
		return false
	}
	p := v.Peers[e.peer]
	if p.Leaving && !p.Silent.IsZero() && e.rt.Now().Sub(p.Silent) < e.cfg.Times.LeaveGrace {
		return false
	}
	return true
}

// countdown says when cold_start lets this node go on by itself, as the end of a sentence; empty: it does not.
func (e *Engine) countdown() string {
	after := time.Duration(e.cfg.Module.Policy.ColdStart)
	left := after - e.rt.Now().Sub(e.vigil.unbroken())
	if after == 0 || left <= 0 || e.hasMet() || e.rec.Complete != e.rec.Epoch {
		return ""
	}
	return fmt.Sprintf(", or cold_start in %v", left.Round(time.Second))
}

// missing says what a waiting phase waits for, for the admin.
func (e *Engine) missing() string {
	f := e.facts()
	switch {
	case e.m.Phase != appmodules.Waiting && !(e.m.Phase == appmodules.Asking && e.repeats()):
		return ""
	case e.impaired:
		return "this node cannot save what it decides: its metadata disk is full or broken; it takes part again when that " +
			"is mended"
	case f.Rests:
		return fmt.Sprintf("it is tried again in %v, or at once with `duet start %s`",
			(e.cfg.Times.Rest - e.rt.Now().Sub(e.failed)).Round(time.Second), e.cfg.Module.Name)
	case e.rec.Epoch == 0:
		return "nothing is known of this module yet; it waits for " + string(e.peer)
	case !f.PeerAnswers && f.Holder:
		why := "may have gone on"
		if e.rec.Cold {
			why = "may have gone on, or may have writes that were not on disk when this node lost power"
		}
		return fmt.Sprintf("this node holds epoch %d, but %s does not answer and %s; its return or `duet prim %s` ends "+
			"this%s", e.rec.Epoch, e.peer, why, e.cfg.Module.Name, e.countdown())
	case !f.PeerAnswers:
		return fmt.Sprintf("%s holds epoch %d and does not answer; its return or `duet prim %s` ends this%s", e.rec.Holder,
			e.rec.Epoch, e.cfg.Module.Name, e.countdown())
	case f.Balked && f.PeerBalked:
		return fmt.Sprintf("it did not start here, nor on %s: `duet log %s` says why, `duet start %s` tries again", e.peer,
			e.cfg.Module.Name, e.cfg.Module.Name)
	case !f.PeerActive:
		return fmt.Sprintf("the module is stopped on %s, which has the newest data: start it there", e.peer)
	}
	return "waits for " + string(e.peer)
}
