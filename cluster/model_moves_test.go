package cluster

import "fmt"

// What a data node may do by itself, at any moment at which it is possible.

// model is one search: its bounds and the rule that is broken in it, if any.
type model struct {
	bounds
	without  flaw
	unpruned bool   // keep messages that can do nothing
	strict   bool   // an active holder votes for nobody, as in the engine
	out      []succ // of the state that is being expanded
}

// succ is a state that follows and how.
type succ struct {
	how step
	to  state
}

// step is one move, for the trace: who did what, with which message.
type step struct {
	did verb
	who uint8
	msg message
}

func (t step) String() string {
	s := fmt.Sprintf("%s %v", nodeID(t.who), t.did)
	if t.msg != 0 {
		s += fmt.Sprintf(" [%v]", t.msg)
	}
	return s
}

// verb names a move. Those before lastGoal are interesting: TestAuthorityModel asserts that each happens.
type verb uint8

const (
	takesOverByWitness verb = iota
	takesOverByPeer
	goesOnByWitness
	goesOnByPeer
	goesOnStale
	rejoins
	isResynced
	isConfirmed
	resumesAlone
	resumesFrozen
	handsOver
	inherits
	saysAgain
	isHandedOver
	outvotesHolder
	isDeposed
	asksOnYield
	lastGoal
	writes
	sends
	freezes
	loosens
	losesLink
	attaches
	isAttached
	syncs
	drains
	requires
	asks
	votes
	learns
	follows
	fails
	crashes
	applies
	acknowledged
	opens
)

func (v verb) String() string {
	return [...]string{
		takesOverByWitness: "takes over by the yes of the witness",
		takesOverByPeer:    "takes over by the yes of its peer",
		goesOnByWitness:    "goes on alone by the yes of the witness",
		goesOnByPeer:       "goes on alone by the yes of its peer",
		goesOnStale:        "goes on alone: its peer says that it is not complete",
		rejoins:            "is in step with its peer again, at the same epoch",
		isResynced:         "is complete after a resync",
		isConfirmed:        "hears that its peer is complete",
		resumesAlone:       "resumes alone",
		resumesFrozen:      "opens; writes wait",
		handsOver:          "holds writes and promises the next epoch to its peer",
		inherits:           "holds the epoch that was handed over",
		saysAgain:          "says again that it holds the epoch",
		isHandedOver:       "hears that its peer has taken over and is complete",
		outvotesHolder:     "holds the epoch, closes its volumes and says yes",
		isDeposed:          "hears of a newer epoch and closes its volumes",
		asksOnYield:        "asks although not complete: its peer has given it the right",
		lastGoal:           "",
		writes:             "writes, acknowledged at once",
		sends:              "sends a write to its peer",
		freezes:            "loses its peer: writes wait",
		loosens:            "loses a peer that it did not need",
		losesLink:          "loses the connection of its primary",
		attaches:           "greets its peer",
		isAttached:         "accepts its primary",
		syncs:              "begins the resync of its peer",
		drains:             "has sent everything to its peer",
		requires:           "durably needs its peer and tells it that it is complete",
		asks:               "promises the epoch to itself and asks",
		votes:              "says yes",
		learns:             "hears of a newer epoch",
		follows:            "opens as secondary",
		fails:              "gives up waiting for the confirmation of its peer",
		crashes:            "crashes and restarts",
		applies:            "applies a write and acknowledges it",
		acknowledged:       "acknowledges a write to the guest",
		opens:              "opens the attachment",
	}[v]
}

// next returns every state that may follow s. The slice is good until the next call.
func (m *model) next(s state) []succ {
	m.out = m.out[:0]
	for i := range uint8(2) {
		switch n := s.n[i]; {
		case n.phase.holds():
			m.holder(s, i)
		case n.phase.hands():
			t := s
			t.n[i].close(idle)
			m.add(step{fails, i, 0}, t)
		case n.phase == following && n.link > 0:
			t := s
			t.n[i].link = 0
			m.add(step{losesLink, i, 0}, t)
		case n.phase == idle:
			m.begin(s, i)
		}
		m.ask(s, i)
		m.news(s, i)
		if s.n[i].phase != idle {
			m.crash(s, i)
		}
	}
	for k, x := range s.msgs {
		if x != 0 {
			m.deliver(s, k)
		}
	}
	return m.out
}

// close ends everything that is open: after it nothing is written or acknowledged.
func (n *node) close(p phase) { n.phase, n.link, n.asking = p, 0, false }

// save makes a record durable.
func (n *node) save(r Record) { n.rec = pack(r) }

// serves reports that what node i sends on its link arrives at a peer that takes it.
// Rule 2: the peer closes before it votes, asks or takes over, so it serves no older epoch.
func (m *model) serves(s *state, i, link uint8) bool {
	peer := &s.n[1-i]
	return m.without == rule2Refusal || (peer.phase == following && peer.link == link)
}

// alone reports that node i acknowledges writes without asking anybody.
func (m *model) alone(n *node) bool {
	return n.phase.alone() || (m.without == rule7Need && n.phase == required)
}

// holder is what an active holder does.
func (m *model) holder(s state, i uint8) {
	m.write(s, i)
	m.lose(s, i)
	n, peer := s.n[i], s.n[1-i]
	t := s
	switch r := n.rec.unpack(); {
	case n.phase == frozen || n.phase == lone:
		t.n[i].link = s.freeLink()
		t.n[i].phase++
		x := msg(hello, i).at(m.epochOf(&s, i)).on(t.n[i].link)
		m.send(step{attaches, i, x}, t, x)
	case n.phase == syncing && m.without == rule7Applied:
		m.require(t, i)
	case n.phase == syncing && peer.phase == following && peer.link == n.link:
		t.n[1-i].data = n.data
		t.n[i].phase = drained
		m.add(step{drains, i, 0}, t)
	case n.phase == drained, n.phase == required:
		m.require(t, i)
	case n.phase == inStep:
		m.handover(t, i, r)
	}
}

// epochOf is the epoch at which a holder attaches its peer.
func (m *model) epochOf(s *state, i uint8) Epoch {
	if m.without == rule1Restart {
		for e := Epoch(7); e > 0; e-- {
			if s.won.get(e) == i+1 {
				return e
			}
		}
	}
	return s.n[i].rec.unpack().Epoch
}

// write lets the guest write, or sends again what the peer has not acknowledged.
func (m *model) write(s state, i uint8) {
	n := &s.n[i]
	switch {
	case m.alone(n) && s.writes < m.bounds.writes:
		t := s
		t.n[i].data |= 1 << s.writes
		t.acked |= 1 << s.writes
		t.writes++
		m.add(step{writes, i, 0}, t)
	case n.phase.needsPeer():
		for w := range min(s.writes+1, m.bounds.writes) {
			if s.acked>>w&1 == 1 || (w < s.writes && n.data>>w&1 == 0) {
				continue
			}
			t := s
			t.n[i].data |= 1 << w
			t.writes = max(t.writes, w+1)
			x := msg(write, i).arg(w).on(n.link)
			m.send(step{sends, i, x}, t, x)
		}
	}
}

// lose is the loss of the peer, real or believed. A peer that was never told that it
// is complete was not needed; all other holders freeze (rule 3).
func (m *model) lose(s state, i uint8) {
	n := &s.n[i]
	if n.link == 0 {
		return
	}
	how := step{loosens, i, 0}
	switch {
	case n.phase == frozenJoin:
		n.phase = frozen
	case n.phase.needsPeer() && !n.rec.unpack().Alone && m.without != rule3Freeze:
		n.phase, how.did = frozen, freezes
	default:
		n.phase = lone
		s.acked |= n.data
	}
	n.link = 0
	m.add(how, s)
}

// require is rule 7: first the need of the peer is durable, then the peer is told.
func (m *model) require(s state, i uint8) {
	n := &s.n[i]
	r := n.rec.unpack()
	if m.without != rule7Order {
		r.Alone = false
	}
	n.save(r)
	n.phase = required
	x := msg(complete, i).at(r.Epoch).on(n.link)
	m.send(step{requires, i, x}, s, x)
}

// handover is rule 9: writes are held and the volumes closed, the next epoch is
// durably promised to the peer, the peer is told.
func (m *model) handover(s state, i uint8, r Record) {
	n := &s.n[i]
	e := r.Next(nodeID(1 - i))
	if m.without == rule5Reuse {
		e = r.Epoch + 1
		r.Promised, r.To = r.Epoch, r.Holder
	}
	after, ans := r.Vote(nodeID(i), Ask{Node: nodeID(1 - i), Epoch: e, Complete: r.Epoch})
	if !ans.Yes || e > m.epochs {
		return
	}
	if m.without == rule9Confirmation {
		after = after.Completed(e)
	}
	if m.without != rule9Promise {
		n.save(after)
		s.granted = s.granted.with(e, 1-i)
	}
	held := n.data&^s.acked == 0
	n.close(handing)
	if held {
		n.phase = handingHeld
	}
	x := msg(hand, i).at(e).arg(uint8(r.Epoch))
	m.send(step{handsOver, i, x}, s, x)
}

// begin is what a node does that takes no part: open as what its record says (rule 1).
func (m *model) begin(s state, i uint8) {
	n := &s.n[i]
	r := n.rec.unpack()
	once := m.without == rule1Restart && s.won.get(r.Complete) == i+1
	switch {
	case r.Holds(nodeID(i)) && r.Alone:
		n.close(lone)
		s.acked |= n.data
		m.add(step{resumesAlone, i, 0}, s)
	case r.Holds(nodeID(i)) || once:
		n.close(frozen)
		m.add(step{resumesFrozen, i, 0}, s)
	default:
		n.close(following)
		m.add(step{follows, i, 0}, s)
	}
}

// ask is rules 3 and 4: a node promises itself an epoch and asks its peer or the
// witness. A secondary closes its volumes first.
func (m *model) ask(s state, i uint8) {
	n := &s.n[i]
	r, self := n.rec.unpack(), nodeID(i)
	if n.phase.needsPeer() || n.phase.hands() {
		return
	}
	how := step{did: asks, who: i}
	switch {
	case r.IsComplete() || m.without == rule4Complete:
	case m.yielded(&s, i):
		how.did = asksOnYield
	default:
		return
	}
	if !n.phase.holds() {
		n.close(idle)
	}
	n.asking = true
	other := max(s.n[1-i].rec.unpack().Promised, s.witness.unpack().Promised)
	tried := Epoch(0)
	for _, above := range [...]Epoch{0, other} {
		after := r.Promise(self, above)
		if after.Promised == tried || after.Promised > m.epochs {
			continue
		}
		tried = after.Promised
		n.save(after)
		x := msg(ask, i).at(after.Promised).arg(uint8(r.Complete))
		how.msg = x
		m.send(how, s, x)
		how.msg = x.toWitness()
		m.send(how, s, how.msg)
	}
}

// yielded reports that node i has heard from its peer of an epoch of its own that it does not know.
func (m *model) yielded(s *state, i uint8) bool {
	peer := s.n[1-i].rec.unpack()
	return peer.Holder == nodeID(i) && peer.Epoch > s.n[i].rec.unpack().Epoch && !s.n[1-i].phase.hands()
}

// news is what anybody ever knew, arriving now: by a refusal, a no, an exchange of states.
func (m *model) news(s state, i uint8) {
	r := s.n[i].rec.unpack()
	for e := r.Epoch + 1; e <= m.epochs; e++ {
		g := s.granted.get(e)
		if g == 0 {
			continue
		}
		after := r.Learn(nodeID(i), e, nodeID(g-1))
		if after == r {
			continue
		}
		t := s
		n := &t.n[i]
		how := step{learns, i, 0}
		switch {
		case n.phase.holds() && m.without != rule1Deposed:
			n.close(idle)
			how.did = isDeposed
		case n.phase.hands():
			n.close(idle)
		}
		n.asking = false
		n.save(after)
		m.add(how, t)
	}
}

// crash loses what is not durable; the node is up again at once and does nothing yet.
func (m *model) crash(s state, i uint8) {
	n := &s.n[i]
	if m.without == rule5Forgets {
		r := n.rec.unpack()
		r.Promised, r.To = r.Epoch, r.Holder
		n.save(r)
	}
	n.close(idle)
	m.add(step{crashes, i, 0}, s)
}
