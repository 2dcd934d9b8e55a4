package cluster

// Messages: what is in flight, what its arrival does, when it can do nothing any more.

// add notes that t follows.
func (m *model) add(how step, t state) {
	m.prune(&t)
	t.tidy()
	m.out = append(m.out, succ{how, t})
}

// send is add with x in flight. Where there is no room, any other message is lost for
// it: a message that is never delivered is lost, so no other loss is needed.
func (m *model) send(how step, t state, x message) {
	m.prune(&t)
	count, free := 0, 0
	for k, y := range t.msgs {
		switch y {
		case x:
			m.add(how, t)
			return
		case 0:
			free = k
		default:
			count++
		}
	}
	if count < m.messages {
		t.msgs[free] = x
		m.add(how, t)
		return
	}
	for k, y := range t.msgs {
		if y != 0 {
			u := t
			u.msgs[k] = x
			m.add(how, u)
		}
	}
}

// prune drops messages that can do nothing any more, whatever follows. It only saves
// time (TestPruneHidesNothing): whoever receives such a message ignores it.
func (m *model) prune(s *state) {
	if m.unpruned {
		return
	}
	for k, x := range s.msgs {
		if x != 0 && m.dead(s, x) {
			s.msgs[k] = 0
		}
	}
}

// dead: promised and known epochs only grow, and an attachment that ended never
// comes back, as its hello was taken out when it arrived.
func (m *model) dead(s *state, x message) bool {
	i := x.who()
	sender, receiver := &s.n[i], &s.n[1-i]
	sent, r := sender.rec.unpack(), receiver.rec.unpack()
	e := x.epoch()
	switch x.kind() {
	case ask:
		return m.deadAsk(s, x)
	case yes:
		return m.without != rule1Outvoted && !awaits(sent, nodeID(i), e)
	case hello:
		return e < r.Epoch || (e == r.Epoch && r.Holder != nodeID(i))
	case open:
		return receiver.link != x.link() || !receiver.phase.joins() || sender.phase != following
	case welcome:
		return receiver.link != x.link() || !receiver.phase.joins()
	case write:
		return !m.serves(s, i, x.link()) || (m.without == rule2Refusal && sender.link != x.link())
	case ack:
		return receiver.link != x.link()
	case complete:
		late, other := m.without == rule5Late, m.without == rule7Ticket
		return (e < r.Epoch && !late) || (receiver.link != x.link() && !late && !other)
	case confirm:
		return receiver.link != x.link() || receiver.phase != required
	case hand:
		waits := sender.phase.hands() && sent.Epoch == e
		return m.without != rule9Inherits && (r.Epoch > e || r.Promised > e || (r.Promised == e && r.To != nodeID(1-i)) ||
			(r.Epoch == e && !waits && m.without == none))
	case handed:
		return r.Epoch != e || (!receiver.phase.hands() && m.without != rule9Late)
	}
	return false
}

// awaits reports that a yes to e makes a difference to the owner of r.
func awaits(r Record, owner NodeID, e Epoch) bool {
	return r.Promised == e && r.To == owner && r.Epoch < e
}

func (m *model) deadAsk(s *state, x message) bool {
	asker := nodeID(x.who())
	voter := s.n[1-x.who()].rec.unpack()
	if x.witness() {
		voter = s.witness.unpack()
	}
	if m.without == rule5Twice {
		return x.epoch() < voter.Promised
	}
	used := !awaits(s.n[x.who()].rec.unpack(), asker, x.epoch())
	return x.epoch() < voter.Promised || (x.epoch() == voter.Promised && (voter.To != asker || used))
}

// deliver lets message k arrive. It stays in flight, to arrive again, unless it
// belongs to a connection, which repeats nothing.
func (m *model) deliver(s state, k int) {
	x := s.msgs[k]
	i := x.who()
	switch x.kind() {
	case hello, open, welcome, write, ack:
		s.msgs[k] = 0
	}
	switch x.kind() {
	case ask:
		m.onAsk(s, i, x)
	case yes:
		m.onYes(s, i, x)
	case hello:
		m.onHello(s, 1-i, x)
	case open:
		s.n[i].link = x.link()
		m.send(step{opens, i, x}, s, msg(welcome, i).arg(x.argument()).on(x.link()))
	case welcome:
		m.onWelcome(s, 1-i, x)
	case write:
		m.onWrite(s, 1-i, x)
	case ack:
		if n := &s.n[1-i]; n.phase.needsPeer() && n.link == x.link() {
			s.acked |= 1 << x.argument()
			m.add(step{acknowledged, 1 - i, x}, s)
		}
	case complete:
		m.onComplete(s, 1-i, x)
	case confirm:
		m.onConfirm(s, 1-i, x)
	case hand:
		m.onHand(s, 1-i, x)
	case handed:
		m.onHanded(s, 1-i, x)
	}
}

// onAsk is rule 5: the voter closes its volumes, makes its yes durable, answers.
func (m *model) onAsk(s state, asker uint8, x message) {
	q := Ask{Node: nodeID(asker), Epoch: x.epoch(), Complete: Epoch(x.argument())}
	if m.without == rule5Stale {
		q.Complete = 7
	}
	how, voter, r := step{votes, 1 - asker, x}, nodeID(1-asker), s.n[1-asker].rec.unpack()
	if x.witness() {
		how.who, voter, r = witnessNode, nodeID(witnessNode), s.witness.unpack()
	}
	if m.without == rule5Twice && r.Promised == q.Epoch {
		r.Promised, r.To = q.Epoch-1, ""
	}
	after, ans := r.Vote(voter, q)
	refuses := m.strict && !x.witness() && s.n[1-asker].phase.holds()
	if !ans.Yes || refuses {
		return
	}
	if m.without == rule5Knowledge {
		after.Epoch, after.Holder, after.Alone = r.Epoch, r.Holder, r.Alone
	}
	if x.witness() {
		if m.without != rule5Durable {
			s.witness = pack(after)
		}
	} else if m.without != rule8Mark {
		how.did = m.outvoted(&s.n[1-asker])
		s.n[1-asker].save(after)
	}
	s.granted = s.granted.with(q.Epoch, asker)
	answer := msg(yes, asker).at(q.Epoch)
	if x.witness() {
		answer = answer.toWitness()
	}
	m.send(how, s, answer)
}

// outvoted is what a voter does before its yes is durable.
func (m *model) outvoted(n *node) verb {
	n.asking = false
	switch {
	case m.without == volumesClosed:
	case n.phase.holds():
		n.close(idle)
		return outvotesHolder
	case n.phase == following:
		n.link = 0
	}
	return votes
}

// onYes is the end of an ask. The other voter's answer is late or lost.
func (m *model) onYes(s state, i uint8, x message) {
	n, self := &s.n[i], nodeID(i)
	r := n.rec.unpack()
	if m.without != rule1Outvoted && (!n.asking || !awaits(r, self, x.epoch())) {
		return
	}
	ev := Evidence{PeerYes: !x.witness(), TakeOver: !r.Holds(self)}
	how := step{takesOverByPeer, i, x}
	if x.witness() {
		ev.Witnesses = map[string]Said{string(nodeID(witnessNode)): {Yes: true}}
		how.did = takesOverByWitness
	}
	if ok, _ := Granted(Means{Arbitration: Safe, Witnesses: []string{string(nodeID(witnessNode))}}, ev); !ok {
		return
	}
	if !ev.TakeOver {
		how.did += goesOnByWitness - takesOverByWitness
	}
	n.save(r.Won(self, x.epoch(), true))
	n.close(lone)
	s.wins(i, x.epoch())
	s.acked |= n.data // what waited is acknowledged, what others see may not vanish
	m.add(how, s)
}

// wins notes the winner of an epoch; two of them are kept as 3.
func (s *state) wins(i uint8, e Epoch) {
	s.granted = s.granted.with(e, i)
	if had := s.won.get(e); had != 0 && had != i+1 {
		i = 2
	}
	s.won = s.won.with(e, i)
}

// onHello is a primary that attaches (Engine.acceptable, Engine.OnAttach).
func (m *model) onHello(s state, i uint8, x message) {
	n, peer := &s.n[i], nodeID(1-i)
	r := n.rec.unpack()
	if n.phase != following || x.epoch() < r.Epoch || (x.epoch() == r.Epoch && r.Holder != peer) {
		return
	}
	r = r.Learn(nodeID(i), x.epoch(), peer)
	n.save(r)
	answer := msg(welcome, i).on(x.link())
	if m.without == rule7Welcome {
		answer = msg(open, i).on(x.link())
	} else {
		n.link = x.link()
	}
	if r.IsComplete() {
		answer = answer.arg(1)
	}
	m.send(step{isAttached, i, x}, s, answer)
}

// onWelcome is the peer's answer. A holder that may not go on without a complete peer
// and hears that this one is not leads: nobody else has what it has.
func (m *model) onWelcome(s state, i uint8, x message) {
	n := &s.n[i]
	if !n.phase.joins() || n.link != x.link() {
		return
	}
	peerComplete := x.argument() == 1
	how := step{syncs, i, x}
	switch {
	case n.phase == loneJoin && peerComplete:
		n.phase = drained
	case n.phase == loneJoin:
		n.phase = syncing
	case peerComplete:
		n.phase, n.asking, how.did = inStep, false, rejoins
	default:
		n.save(n.rec.unpack().Lead())
		n.close(lone)
		s.acked |= n.data
		how.did = goesOnStale
	}
	m.add(how, s)
}

func (m *model) onWrite(s state, i uint8, x message) {
	if !m.serves(&s, 1-i, x.link()) {
		return
	}
	s.n[i].data |= 1 << x.argument()
	m.send(step{applies, i, x}, s, msg(ack, i).arg(x.argument()).on(x.link()))
}

// onComplete is the end of a resync at the secondary (Engine.complete).
func (m *model) onComplete(s state, i uint8, x message) {
	n := &s.n[i]
	r := n.rec.unpack()
	late := m.without == rule5Late
	if (x.epoch() != r.Epoch && !late) || r.Holder != nodeID(1-i) || n.phase != following {
		return
	}
	answer := msg(confirm, i).on(x.link())
	switch {
	case r.IsComplete():
	case late:
		r.Complete = r.Epoch
	case n.link == x.link(), m.without == rule7Ticket && n.link > 0:
		r = r.Completed(x.epoch())
	default:
		return
	}
	n.save(r)
	m.send(step{isResynced, i, x}, s, answer)
}

// onConfirm is the peer saying that it is durably complete.
func (m *model) onConfirm(s state, i uint8, x message) {
	n := &s.n[i]
	if n.phase != required || n.link != x.link() {
		return
	}
	r := n.rec.unpack()
	r.Alone = false // already so, unless rule 7 is broken
	n.save(r)
	n.phase = inStep
	m.add(step{isConfirmed, i, x}, s)
}

// onHand is the peer giving this node the right to write (Engine.takeOver).
func (m *model) onHand(s state, i uint8, x message) {
	n, self := &s.n[i], nodeID(i)
	r := n.rec.unpack()
	holds := r.Epoch == x.epoch() && r.Holds(self)
	answer := msg(handed, i).at(x.epoch())
	switch {
	case holds && (!r.Alone || m.without == rule9Alone):
		m.send(step{saysAgain, i, x}, s, answer)
		return
	case holds, n.phase != following:
		return
	case !r.Inherits(self, nodeID(1-i), Epoch(x.argument()), x.epoch()) && m.without != rule9Inherits:
		return
	}
	n.save(r.Won(self, x.epoch(), false))
	n.close(frozen)
	s.wins(i, x.epoch())
	m.send(step{inherits, i, x}, s, answer)
}

// onHanded is the confirmation: only now is the former holder complete.
func (m *model) onHanded(s state, i uint8, x message) {
	n := &s.n[i]
	if n.rec.unpack().Epoch != x.epoch() || (!n.phase.hands() && m.without != rule9Late) {
		return
	}
	how := step{follows, i, x}
	if n.phase == handingHeld || m.without == rule9Late {
		n.save(n.rec.unpack().Completed(x.epoch()))
		how.did = isHandedOver
	}
	if n.phase.hands() {
		n.close(following)
	}
	m.add(how, s)
}
