package cluster

import "fmt"

// The voting rules of cluster/DESIGN.md, as pure functions over a Record. Whoever
// changes a Record makes the new value durable before acting or answering on it.

// Record is what one voter knows durably about the right to write one module.
//
// Invariants: Promised >= Epoch; Complete <= Epoch; Alone implies that
// the owner of the record holds Epoch. Checked by Valid.
type Record struct {
	// Epoch is the newest epoch known to have been granted, Holder whom to.
	Epoch  Epoch  `json:"epoch"`
	Holder NodeID `json:"holder"`
	// Promised is the newest epoch this voter said yes to, To whom. A yes to
	// another node is knowledge and raises Epoch too; a yes to itself is not.
	Promised Epoch  `json:"promised"`
	To       NodeID `json:"to"`
	// Complete is the newest epoch at which this node's data hold every write
	// acknowledged in that epoch; 0 on a voter without data.
	Complete Epoch `json:"complete"`
	// Cold: the owner's computer lost power since its data were complete. Writes that
	// were acknowledged and never flushed may be missing from this copy, so it counts
	// as complete again only after a resync, or when no better copy exists.
	Cold bool `json:"cold,omitempty"`
	// Alone: the owner holds Epoch and knows that its peer is not complete at it,
	// so nobody else can be granted a newer one without the owner's data (rule 5).
	Alone bool `json:"alone,omitempty"`
	// Took: the owner took Epoch from its peer, without being given it. Of two nodes that
	// hold one epoch, the one that took it gives way (rule 11).
	Took bool `json:"took,omitempty"`
}

// Ask is a node's request for the right to write.
type Ask struct {
	Module   string `json:"module"`
	Node     NodeID `json:"node"`
	Epoch    Epoch  `json:"epoch"`
	Complete Epoch  `json:"complete"`       // the asker's Record.Complete
	Cold     bool   `json:"cold,omitempty"` // and Record.Cold
}

// Answer is a voter's durable yes, or a no with its reason and what the voter knows.
type Answer struct {
	Yes  bool   `json:"yes"`
	Why  string `json:"why"`
	Know Record `json:"know"`
}

// Valid reports the first invariant r breaks; owner is the node that keeps it.
func (r Record) Valid(owner NodeID) error {
	switch {
	case r.Promised < r.Epoch:
		return fmt.Errorf("record: promised epoch %d is older than granted epoch %d", r.Promised, r.Epoch)
	case r.Complete > r.Epoch:
		return fmt.Errorf("record: complete at epoch %d, newer than granted epoch %d", r.Complete, r.Epoch)
	case r.Alone && r.Holder != owner:
		return fmt.Errorf("record: alone, but epoch %d is held by %q", r.Epoch, r.Holder)
	}
	return nil
}

// Holds reports whether owner is the holder of the newest epoch it knows (rule 1).
func (r Record) Holds(owner NodeID) bool { return r.Epoch > 0 && r.Holder == owner }

// IsComplete reports whether the data hold every write acknowledged at the newest epoch known.
func (r Record) IsComplete() bool { return r.Epoch > 0 && r.Complete == r.Epoch && !r.Cold }

// Worse reports whether the peer's copy is to be preferred to the owner's although
// the owner holds the epoch: the owner lost power and the peer, who has everything
// acknowledged in it, did not. A newer epoch that the peer promised to the owner does
// not matter: the owner does not know it, so it never wrote in it.
func (r Record) Worse(peer Record) bool {
	return r.Cold && !r.Alone && !peer.Cold && peer.Complete == r.Epoch &&
		(peer.Epoch == r.Epoch || peer.Holder == r.Holder)
}

// TakesBack reports whether the owner may ask its peer to give back the newest epoch,
// which the owner gave away: the peer does not know it, so it never wrote in it, and it
// either lost power since it was complete, while the owner did not, or takes no part (active
// is false) and does not ask for it. Only the peer's own yes makes that safe: it says that the
// peer still does not know the epoch, and never will.
func (r Record) TakesBack(peer NodeID, theirs Record, active bool) bool {
	return r.Holder == peer && r.Epoch > theirs.Epoch && theirs.Epoch > 0 && r.Complete == theirs.Epoch && !r.Cold &&
		(theirs.Cold || !active && theirs.Promised < r.Epoch)
}

// Learn returns what the owner knows after hearing that e was granted to holder.
// Older news changes nothing (rule 5), and neither does a second holder of the
// same epoch: that is a divergence, which the generations of the data show. News
// that the owner itself holds e is ignored too: a node knows its own grants, and
// one that forgot them has lost its memory and must not act on hearsay.
func (r Record) Learn(owner NodeID, e Epoch, holder NodeID) Record {
	if e <= r.Epoch || holder == owner {
		return r
	}
	r.Epoch, r.Holder, r.Alone, r.Took = e, holder, false, false
	if r.Promised < e {
		r.Promised, r.To = e, holder
	}
	return r
}

// Next is the epoch the owner asks for: the first above the one it knows that it
// has not promised to the other (rule 5). An own promise still open is asked again.
func (r Record) Next(owner NodeID) Epoch {
	switch {
	case r.Promised <= r.Epoch:
		return r.Epoch + 1
	case r.To == owner:
		return r.Promised
	}
	return r.Promised + 1
}

// Promise is the owner's own durable yes to e, given before it asks the others.
// above is the newest promise it has heard of from another voter, so that a
// contested epoch is not asked for twice.
func (r Record) Promise(owner NodeID, above Epoch) Record {
	e := max(r.Next(owner), above+1)
	r.Promised, r.To = e, owner
	return r
}

// Won returns the record after e was granted to the owner; alone tells whether the
// peer is known not to be complete at e. Only a node whose data are complete is
// granted anything (rule 5), or one that an operator or the former holder itself chose.
func (r Record) Won(owner NodeID, e Epoch, alone bool) Record {
	r.Took = alone && (r.Took || r.Holder != owner)
	r.Epoch, r.Holder, r.Alone = e, owner, alone
	if r.Promised < e {
		r.Promised, r.To = e, owner
	}
	return r.Completed(e)
}

// Inherits reports whether the owner may take epoch e, which its peer hands over from
// epoch from: the owner has everything acknowledged in from, every newer epoch it
// knows was promised to that same peer, and it has promised e to nobody else.
func (r Record) Inherits(owner, peer NodeID, from, e Epoch) bool {
	free := r.Promised < e || (r.Promised == e && r.To == owner)
	return r.Complete == from && !r.Cold && free && (r.Epoch == from || (r.Epoch < e && r.Holder == peer))
}

// Completed returns the record after the owner's data hold everything acknowledged
// at e. The end of a resync of an older epoch comes too late and changes nothing (rule 5).
func (r Record) Completed(e Epoch) Record {
	if e == r.Epoch {
		r.Complete, r.Cold = e, false
	}
	return r
}

// Outdated returns the record to make durable before the owner tells the holder that its
// copy is not complete: the holder goes on alone on that word (Lead), so a copy that lost
// power is given up, which cold_start could have taken for complete later.
func (r Record) Outdated() Record {
	if r.Cold {
		r.Complete, r.Cold = 0, false
	}
	return r
}

// Lead returns the record after the owner, who holds the epoch, found that its peer
// is not complete: its own copy is the best there is.
func (r Record) Lead() Record {
	r.Alone = true
	return r.Completed(r.Epoch)
}

// Together returns the record after the holder decided to need its peer again (rule 7).
func (r Record) Together() Record {
	r.Alone, r.Took = false, false
	return r
}

// Split reports that owner and peer both hold the newest epoch and both went on with
// it (rule 11; possible only with rule 3d or an operator's override), and whether the
// owner is the one that stays: the node that had the right before goes on, the one
// that took it gives way. Where both took it or neither did, the name decides, so
// that both nodes come to the same answer.
func (r Record) Split(owner NodeID, peer Record, other NodeID) (split, stays bool) {
	if r.Epoch != peer.Epoch || r.Holder != owner || peer.Holder != other {
		return false, false
	}
	if r.Took != peer.Took {
		return true, !r.Took
	}
	return true, owner < other
}

// Vote answers a (rule 5). The returned record is the one to make durable before
// the answer is given; it equals r when the answer is no.
func (r Record) Vote(voter NodeID, a Ask) (Record, Answer) {
	no := func(format string, args ...any) (Record, Answer) {
		return r, Answer{Why: fmt.Sprintf(format, args...), Know: r}
	}
	switch {
	case a.Node == voter:
		return no("rule 5: a node does not ask itself")
	case a.Epoch < r.Promised:
		return no("rule 5: epoch %d was promised to %s, which is newer than epoch %d", r.Promised, r.To, a.Epoch)
	case a.Epoch == r.Promised && r.To != a.Node:
		return no("rule 5: epoch %d was promised to %s", r.Promised, r.To)
	case r.Holder != a.Node && a.Complete < r.Epoch:
		return no("rule 5: the data of %s are complete at epoch %d, but epoch %d was granted to %s", a.Node, a.Complete,
			r.Epoch, r.Holder)
	case a.Cold && r.IsComplete():
		return no("rule 5: %s lost power since its data were complete, and the copy of %s did not", a.Node, voter)
	}
	r.Promised, r.To = a.Epoch, a.Node
	r.Epoch, r.Holder, r.Alone, r.Took = a.Epoch, a.Node, false, false
	return r, Answer{Yes: true, Why: fmt.Sprintf("%s is outdated from epoch %d on", voter, a.Epoch), Know: r}
}

// Arbitration is the policy of a module for the case that its peer is silent.
type Arbitration string

// Safe never lets two nodes write; Available prefers to go on where only a ping
// target can tell which node is cut off.
const (
	Safe      Arbitration = "safe"
	Available Arbitration = "available"
)

// Means are what a module may call on when its peer is silent.
type Means struct {
	Module      string // its name, for the texts
	Arbitration Arbitration
	// Witnesses are the names of the voters whose yes is needed besides the asker's own:
	// one, two while one takes the place of another, none.
	Witnesses []string
	// Fence: a fence agent can switch the peer off. First: it has to, before a VM starts elsewhere.
	Fence, First bool
}

// Evidence is what an asker has collected beside its own yes.
type Evidence struct {
	PeerYes   bool            // rule 3a: the peer itself said yes
	PeerNo    string          // the peer answered no, and why; empty if it did not answer
	Witnesses map[string]Said // rule 3b: by name; one that is missing did not answer
	Fenced    bool            // rule 3c: a fence agent confirmed that the peer is off
	FenceWhy  string          // what went wrong with it otherwise
	Ping      bool            // rule 3d: a ping target answers
	// Met: since its own start, and since it last stood still, this node has met its peer once, an operator said so, or
	// cold_start allows it to do without (rule 6).
	Met bool
	// TakeOver: the asker does not hold the epoch before, so a VM would start elsewhere.
	TakeOver bool
}

// Said is the answer of a witness.
type Said struct {
	Yes bool
	Why string
}

// Granted decides whether the asker's own yes and the evidence make an epoch
// chosen. why is a sentence for the admin: the rule that allowed it, or what is missing.
func Granted(m Means, ev Evidence) (ok bool, why string) {
	switch {
	case ev.PeerYes:
		return true, "the peer agreed to be outdated (rule 3a)"
	case ev.PeerNo != "":
		return false, "the peer refused: " + ev.PeerNo
	}
	if len(m.Witnesses) > 0 {
		ok, why = witnessed(m, ev)
	} else {
		ok, why = unwitnessed(m, ev)
	}
	if ok && m.First && ev.TakeOver && !ev.Fenced {
		return false, "the right would be granted, but the policy asks for the peer to be fenced before a VM starts here: " +
			orElse(ev.FenceWhy, "the fence agent has not confirmed it")
	}
	return ok, why
}

// witnessed is rule 3b: where a witness is configured nothing replaces its vote.
func witnessed(m Means, ev Evidence) (ok bool, why string) {
	for _, name := range m.Witnesses {
		switch said, answered := ev.Witnesses[name]; {
		case !answered:
			return false, fmt.Sprintf("neither the peer nor the witness %s answers: the return of either or `duet prim %s` "+
				"ends this (rule 3b)", name, m.Module)
		case !said.Yes:
			return false, fmt.Sprintf("the peer does not answer and the witness %s refused: %s (rule 3b)", name, said.Why)
		}
	}
	return true, fmt.Sprintf("the peer is silent and the witness %s agreed (rule 3b)", m.Witnesses[0])
}

// unwitnessed is rules 3c, 3d and 6.
func unwitnessed(m Means, ev Evidence) (ok bool, why string) {
	switch {
	case !ev.Met:
		return false, "the peer has not been met since this node started, stood still or could not save, so neither a " +
			"fence agent nor a ping proves anything (rule 6): its return or `duet prim " + m.Module + "` ends this"
	case ev.Fenced:
		return true, "a fence agent confirmed that the peer is off (rule 3c)"
	case m.Arbitration != Available && m.Fence:
		return false, "the peer does not answer and could not be fenced: " +
			orElse(ev.FenceWhy, "the fence agent has not confirmed it") + ": its return or `duet prim " + m.Module +
			"` ends this (rule 3c)"
	case m.Arbitration != Available:
		return false, "the peer does not answer, there is no witness, and arbitration is safe: only the peer's return or " +
			"`duet prim " + m.Module + "` ends this"
	case !ev.Ping:
		return false, "neither the peer nor a ping target answers: this node may be the one that is cut off (rule 3d)"
	}
	return true, "the peer is silent, a ping target answers, and arbitration is available (rule 3d)"
}

func orElse(text, other string) string {
	if text != "" {
		return text
	}
	return other
}
