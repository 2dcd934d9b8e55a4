package cluster

import (
	"fmt"
	"slices"
	"strings"
)

// A model of one module on two data nodes and a witness, small enough to visit every
// state. All decisions about authority are made by the functions of authority.go; the
// model adds what the engine and the replication do around them: phases, attachments,
// messages that are late, lost or repeated, crashes.
//
// What it leaves out, and why that hides nothing:
//   - Time. Whatever a timer may start may happen at any moment.
//   - Refusals and other bad news as messages. A refusal that is lost is the worse case,
//     and the knowledge it carries may reach a node at any time (see news), in any order.
//   - Which call an answer belongs to: a yes counts for every ask of that epoch.
//   - Dirty regions. They are kept until the peer is complete, so a resync copies what
//     differs. Regions that only an unacknowledged write touched are free to differ.
//   - The peer's copy of writes during a resync: the holder may lose that peer at any
//     time and needs no acknowledgement from it, so such a write counts at once.
//   - The order local write, remote write: a write that is in no copy is not acknowledged.
//   - Power loss (Cold), rule 3c and 3d, operators: no part of the search.
//
// It allows more than the engine does in two places: an active holder may vote for its
// peer (the engine always says no), and a crash costs nothing, so there may be any number.

// bounds limit a search. Crashes, attachments and asks are not limited.
type bounds struct {
	epochs   Epoch // newest epoch that may be asked for, at most 7
	writes   uint8 // guest writes, at most 3
	messages int   // in flight at once, at most slots
	states   int   // give up after so many
}

const slots = 4

// phase is what a data node does with the module. All but idle and following hold it.
type phase uint8

const (
	idle        phase = iota // not taking part, or asking to take over
	following                // secondary; link is the attachment it serves, 0 none
	frozen                   // holder without its peer: writes wait
	frozenJoin               // the same, greeting the peer on link
	lone                     // acknowledges writes at once
	loneJoin                 // the same, greeting the peer on link
	syncing                  // the same, while the peer catches up on link
	drained                  // everything is on the peer: its acknowledgement is needed
	required                 // the same, and the peer was told that it is complete
	inStep                   // the peer is known to be complete
	handing                  // gave the right to the peer and waits for its confirmation
	handingHeld              // the same, and both copies are equal
)

func (p phase) String() string {
	return [...]string{"idle", "following", "frozen", "frozen, greets", "alone", "alone, greets", "alone, syncing",
		"drained", "peer required", "in step", "handing over", "handing over, held"}[p]
}

// holds reports that the node is, or may soon be, acknowledging writes.
func (p phase) holds() bool { return p >= frozen && p <= inStep }

// needsPeer reports that a write is acknowledged when the peer has it.
func (p phase) needsPeer() bool { return p >= drained && p <= inStep }

// alone reports that a write is acknowledged at once.
func (p phase) alone() bool { return p >= lone && p <= syncing }

func (p phase) joins() bool { return p == frozenJoin || p == loneJoin }

func (p phase) hands() bool { return p == handing || p == handingHeld }

// node is one data node. Record and data survive a crash.
type node struct {
	rec    packed
	data   uint8 // the writes its copy has, one bit each
	phase  phase
	link   uint8 // attachment of the replication, 0 none
	asking bool  // a yes to its open promise counts
}

// state is one state of the model: a comparable value without padding.
type state struct {
	n       [2]node
	witness packed
	acked   uint8  // writes the guest got success for
	writes  uint8  // how many there were
	granted ledger // to whom a voter believes an epoch was granted: what may be heard
	won     ledger // who really won it
	msgs    [slots]message
}

const (
	alphaNode = iota
	betaNode
	witnessNode
)

func nodeID(i uint8) NodeID {
	switch i {
	case alphaNode:
		return a
	case betaNode:
		return b
	}
	return "witness"
}

// packed is a Record in 14 bits: epochs in 3, names in 2 (0 none, else node+1). Took is
// left out: nothing but Split reads it.
type packed uint16

func nameCode(n NodeID) packed {
	switch n {
	case a:
		return 1
	case b:
		return 2
	}
	return 0
}

func pack(r Record) packed {
	if max(r.Epoch, r.Promised, r.Complete) > 7 {
		panic(fmt.Sprintf("the model has no room for %+v", r))
	}
	p := packed(r.Epoch) | nameCode(r.Holder)<<3 | packed(r.Promised)<<5 | nameCode(r.To)<<8 | packed(r.Complete)<<10
	if r.Alone {
		p |= 1 << 13
	}
	return p
}

func (p packed) unpack() Record {
	names := [4]NodeID{"", a, b, ""}
	return Record{
		Epoch: Epoch(p & 7), Holder: names[p>>3&3], Promised: Epoch(p >> 5 & 7), To: names[p>>8&3],
		Complete: Epoch(p >> 10 & 7), Alone: p>>13&1 == 1,
	}
}

// ledger keeps a name (node+1) for each epoch.
type ledger uint16

func (l ledger) get(e Epoch) uint8 { return uint8(l >> (2 * e) & 3) }

func (l ledger) with(e Epoch, node uint8) ledger {
	return l&^(3<<(2*e)) | ledger(node+1)<<(2*e)
}

// newest is the last epoch with a name.
func (l ledger) newest() Epoch {
	for e := Epoch(7); e > 0; e-- {
		if l.get(e) != 0 {
			return e
		}
	}
	return 0
}

// message is one message in flight, in 16 bits; 0 is none. For an ask and its yes, who
// is the asker and witness tells whether the witness is the voter; for all others who
// is the sender and its peer the receiver.
type message uint16

type kind uint8

const (
	nothing  kind = iota
	ask           // epoch, arg: complete at
	yes           // epoch
	hello         // epoch, link: attach
	open          // link, arg: hello is answered, the attachment is not open yet (only without rule 7)
	welcome       // link, arg: complete
	write         // link, arg: which
	ack           // link, arg: which
	complete      // epoch, link
	confirm       // link
	hand          // epoch, arg: from
	handed        // epoch
)

func (k kind) String() string {
	return [...]string{"nothing", "ask", "yes", "hello", "open", "welcome", "write", "ack", "complete", "confirm",
		"handover", "handed"}[k]
}

func msg(k kind, who uint8) message { return message(k)<<11 | message(who)<<10 }

func (x message) at(e Epoch) message    { return x | message(e)<<6 }
func (x message) arg(n uint8) message   { return x | message(n)<<3 }
func (x message) on(link uint8) message { return x&^7 | message(link) }
func (x message) toWitness() message    { return x | 1<<9 }
func (x message) kind() kind            { return kind(x >> 11) }
func (x message) who() uint8            { return uint8(x >> 10 & 1) }
func (x message) witness() bool         { return x>>9&1 == 1 }
func (x message) epoch() Epoch          { return Epoch(x >> 6 & 7) }
func (x message) argument() uint8       { return uint8(x >> 3 & 7) }
func (x message) link() uint8           { return uint8(x & 7) }
func (x message) String() string {
	s := fmt.Sprintf("%v of %s", x.kind(), nodeID(x.who()))
	if x.witness() {
		s += " (witness)"
	}
	if e := x.epoch(); e > 0 {
		s += fmt.Sprintf(" epoch %d", e)
	}
	if l := x.link(); l > 0 {
		s += fmt.Sprintf(" link %d", l)
	}
	switch x.kind() {
	case ask:
		s += fmt.Sprintf(" complete at %d", x.argument())
	case hand:
		s += fmt.Sprintf(" from epoch %d", x.argument())
	case write, ack:
		s += fmt.Sprintf(" w%d", x.argument())
	case welcome, open:
		s += map[uint8]string{0: " not complete", 1: " complete"}[x.argument()]
	}
	return s
}

// tidy gives equal states equal values: messages in order, links numbered as they appear.
func (s *state) tidy() {
	slices.SortFunc(s.msgs[:], descending)
	var to [8]uint8
	last := uint8(0)
	rename := func(l uint8) uint8 {
		if l > 0 && to[l] == 0 {
			last++
			to[l] = last
		}
		return to[l]
	}
	for i := range s.n {
		s.n[i].link = rename(s.n[i].link)
	}
	for i, x := range s.msgs {
		if x.link() > 0 {
			s.msgs[i] = x.on(rename(x.link()))
		}
	}
	slices.SortFunc(s.msgs[:], descending)
}

func descending(x, y message) int { return int(y) - int(x) }

// freeLink is a link number that nothing in s uses.
func (s *state) freeLink() uint8 {
	used := 1<<s.n[0].link | 1<<s.n[1].link
	for _, x := range s.msgs {
		used |= 1 << x.link()
	}
	for l := uint8(1); ; l++ {
		if used>>l&1 == 0 {
			return l
		}
	}
}

// writes that the copies or the guest know, for people.
func mask(m uint8) string {
	var out []string
	for w := range 3 {
		if m>>w&1 == 1 {
			out = append(out, fmt.Sprintf("w%d", w))
		}
	}
	return "{" + strings.Join(out, " ") + "}"
}

func (n node) String() string {
	r := n.rec.unpack()
	s := fmt.Sprintf("%v, knows %d/%s, promised %d/%s, complete %d", n.phase, r.Epoch, r.Holder, r.Promised, r.To,
		r.Complete)
	if r.Alone {
		s += " alone"
	}
	if n.link > 0 {
		s += fmt.Sprintf(", link %d", n.link)
	}
	if n.asking {
		s += ", asking"
	}
	return s + " " + mask(n.data)
}

func (s state) String() string {
	w := s.witness.unpack()
	return fmt.Sprintf("    alpha: %v\n    beta:  %v\n    witness: promised %d/%s; acknowledged %s; in flight %v",
		s.n[0], s.n[1], w.Promised, w.To, mask(s.acked), inFlight(s.msgs[:]))
}

func inFlight(msgs []message) []message {
	return slices.DeleteFunc(slices.Clone(msgs), func(x message) bool { return x == 0 })
}
