package engine

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"duet/appmodules"
	"duet/blockrepl"
	"duet/blockrepl/proof"
)

// CopiesDiffer is the code of the notice that the proof has found a difference.
const CopiesDiffer = "copies-differ"

// ProofStatus is how the proof of a volume stands, on the node that leads.
type ProofStatus struct {
	Ledger proof.Ledger  `json:"ledger"`
	Pass   time.Duration `json:"pass"` // a whole one is wished to take; 0: there is none
	Ends   time.Time     `json:"ends,omitzero"`
	Late   bool          `json:"late,omitempty"` // it takes longer than is wished: the disks' time does not suffice
}

// status is for people and for the peer. Any goroutine.
func (v *proving) status() *ProofStatus {
	l := v.ledger()
	v.mu.Lock()
	defer v.mu.Unlock()
	st := &ProofStatus{Ledger: l, Pass: v.wish}
	if v.wish > 0 {
		st.Ends, st.Late = v.pace.Ends(l, v.l.e.rt.Now(), v.wish)
	}
	return st
}

// OnProof is Transition.On of a line that tells what a proof has found: nothing changes its state.
const OnProof = "proof"

// tell writes a line into the module's journal that is no transition. Any goroutine.
func (e *Engine) tell(text string) {
	e.post(func() {
		at := display(e.m)
		e.cfg.Logger.Error(text, "module", e.cfg.Module.Name)
		e.cfg.Log(Transition{Time: e.rt.Now(), Module: e.cfg.Module.Name, From: at, To: at, On: OnProof, Why: text})
	})
}

// difference is a sentence on a place where the copies differ.
func (e *Engine) difference(target string, p proof.Place) string {
	since := "both were last found equal"
	if p.Proven > 0 {
		since += " (" + time.UnixMilli(p.Proven).Local().Format(time.DateTime) + " or later)"
	}
	who := "which one changed is not known"
	switch {
	case p.Both:
		who = "both have changed by themselves since " + since
	case p.Changed != "" && p.Lost:
		who = fmt.Sprintf("the one on %s cannot be read", p.Changed)
	case p.Changed != "":
		who = fmt.Sprintf("the one on %s has changed by itself since %s", p.Changed, since)
	}
	return fmt.Sprintf("volume %s: the copies differ in %d KiB between byte %d and %d; %s", target,
		p.Regions*blockrepl.RegionSize>>10, p.Off, p.Off+p.Len, who)
}

// proofNotices are what an admin should do about places that differ, on the node that leads: one notice for a volume.
// The remedy follows from whose copy has changed; a verify with repair always overwrites the peer's, so where this
// node's is the wrong one the module moves first.
func (e *Engine) proofNotices(v VolumeStatus) []appmodules.Notice {
	if v.Proof == nil {
		return nil
	}
	var at []proof.Place
	for _, p := range v.Proof.Ledger.Open {
		if p.Differs() {
			at = append(at, p)
		}
	}
	if len(at) == 0 {
		return nil
	}
	first := at[0]
	var more []string
	for _, p := range at[1:min(len(at), 4)] {
		more = append(more, fmt.Sprint(p.Off))
	}
	text := e.difference(v.Target, first)
	if n := len(at) - 1; n > 0 {
		text += fmt.Sprintf("; and at %d more places, such as byte %s", n, strings.Join(more, ", "))
	}
	name := e.cfg.Module.Name
	verify := fmt.Sprintf("duet volume verify %s/%s --repair", name, v.Target)
	one := !slices.ContainsFunc(at, func(p proof.Place) bool { return p.Changed != first.Changed || p.Both })
	var remedy string
	switch {
	case one && first.Changed == string(e.peer):
		remedy = fmt.Sprintf("%s makes the copy on %s follow; look at that node's disk", verify, e.peer)
	case one && first.Changed == string(e.self):
		remedy = fmt.Sprintf("duet swap %s, so that it runs on the copy that is right, then %s; look at the disk of %s",
			name, verify, e.self)
	default:
		remedy = fmt.Sprintf("find out which copy is right, duet swap %s if it is not the one it runs on, then %s: "+
			"it overwrites the other", name, verify)
	}
	return []appmodules.Notice{{Alarm: true, Code: CopiesDiffer, Text: text, Remedy: remedy}}
}

// provenAt is when the oldest part of the volume was proven; zero: a part never was in this run.
func (vol *led) provenAt(p blockrepl.Progress, st *ProofStatus) time.Time {
	if st == nil {
		return p.Identical
	}
	return cmp.Or(st.Ledger.Oldest(), p.Identical)
}
