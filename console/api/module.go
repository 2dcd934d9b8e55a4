package api

import "slices"

// What a module's level is made of. Only what a node says freshly of itself proves anything good: what one said last
// whose heartbeats or whose word are overdue makes no copy and runs nothing. That both copies are in step only the node
// knows that writes to them; a follower says what was so before its primary went on without it.

// level is how a module stands. One that an operator has stopped stands as it should where its data are on two nodes.
// Where nobody decides, the loss of either node ends it until a human comes.
func (m ModuleStatus) level() Level {
	switch {
	case m.Stopped() && m.lone():
		return Degraded
	case m.Stopped():
		return OK
	case m.ends(), m.unknown(), m.joins():
		return Degraded
	case m.runs() == "":
		return Down
	case m.second() == "" || m.alarmed() || m.paused() || m.contested() || m.refusal() != nil || m.Decides == Nobody:
		return Degraded
	}
	return OK
}

// Stopped: an operator has stopped it on all its nodes that answer. If none answers it is not known, and counts as
// no. One that has ended otherwise is to run, whatever keeps it, and so is one that a node which does not answer had
// the right to run, as it said last: it was stopped on the other one only. One that is being protected is about to
// run.
func (m ModuleStatus) Stopped() bool { return m.halted() && !m.joins() }

// joins: the work that protects it goes on, here or as a node says. Its VM ran before, and is paused for moments only;
// one that stands still for longer, or whose work does not get on (its node says STOP, and that nobody has stopped it),
// does not.
func (m ModuleStatus) joins() bool {
	return (m.Task.Joins() || m.where(func(n NodeState) bool { return n.Joins }) != "") && !m.still() && !m.ended() &&
		(m.halted() || m.runs() != "" || m.moves())
}

// halted is Stopped, whatever goes on beside it.
func (m ModuleStatus) halted() bool {
	wanted := func(n NodeState) bool { return n.Heard() && !n.Stopped || !n.Heard() && n.leads() }
	return len(m.heard()) > 0 && !m.ended() && !slices.ContainsFunc(m.Nodes, wanted)
}

// ended: its workload was ended past Duet, or failed, and nothing starts it again; as a node says or said last.
func (m ModuleStatus) ended() bool {
	return m.runs() == "" && slices.ContainsFunc(m.Nodes, func(n NodeState) bool { return n.Ended != "" })
}

// Heard: what it says is fresh.
func (n NodeState) Heard() bool { return !n.Stale && !n.Quiet }

// heard are the nodes that say how it stands now.
func (m ModuleStatus) heard() []NodeState {
	return slices.DeleteFunc(slices.Clone(m.Nodes), func(n NodeState) bool { return !n.Heard() })
}

// lone: it is stopped, and not two nodes that answer have all of its data, of those that it has on volumes. Of one
// that does not answer it is not known.
func (m ModuleStatus) lone() bool {
	return len(m.heard()) < len(m.Nodes) || len(m.whole()) < 2 &&
		slices.ContainsFunc(m.Nodes, func(n NodeState) bool { return len(n.Volumes) > 0 })
}

// whole are the nodes that answer and have every acknowledged write, by what they say themselves.
func (m ModuleStatus) whole() (nodes []string) {
	var newest uint64
	for _, n := range m.Nodes {
		newest = max(newest, n.Epoch)
	}
	for _, n := range m.heard() {
		if n.Complete && n.Epoch == newest {
			nodes = append(nodes, n.Node)
		}
	}
	return nodes
}

// leads: its role has the right to write.
func (n NodeState) leads() bool { return n.Role == "PRIM" || n.Role == "ALONE" || n.Role == "UP" }

// up: it runs there, as the node says. One that writes elsewhere than to its volumes is not Ready, and runs.
func (n NodeState) up() bool {
	return n.leads() && (n.Status == "Ready" || n.Status == "NotReady" && (n.VM == "running" || n.VM == "paused"))
}

// runs is the node on which it runs, as far as is known; empty: on none. Of two that say so it is the one with the
// newer right: the other is about to learn of that.
func (m ModuleStatus) runs() string {
	var at NodeState
	for _, n := range m.heard() {
		if n.up() && (at.Node == "" || n.Epoch > at.Epoch) {
			at = n
		}
	}
	return at.Node
}

// contested: another node than the one with the newer right says that it runs it, too.
func (m ModuleStatus) contested() bool {
	at := m.runs()
	return m.where(func(n NodeState) bool { return n.Node != at && n.up() && n.Role != "UP" }) != ""
}

// inStep: the node that runs it says that its peer has every write.
func (m ModuleStatus) inStep() bool {
	at := m.at(m.runs())
	return at.Role == "PRIM" && at.Status == "Ready" && at.Complete &&
		!slices.ContainsFunc(at.Volumes, func(v VolumeStatus) bool { return v.State != "connected" })
}

// second is the node that has a whole second copy and may take over, as both nodes say of the same right; empty: none.
func (m ModuleStatus) second() string {
	at := m.at(m.runs())
	if !m.inStep() {
		return ""
	}
	return m.where(func(n NodeState) bool {
		return n.Status == "Ready" && n.Role == "SECOND" && n.Complete && n.Epoch == at.Epoch && n.Holder == at.Holder
	})
}

// doubted: the node that runs it says that its peer has every write, and the peer has said nothing of that lately.
func (m ModuleStatus) doubted() bool {
	return m.inStep() && m.second() == "" && slices.ContainsFunc(m.Nodes, func(n NodeState) bool { return n.Unheard })
}

// where is the first node that answers and of which that is true; empty: none.
func (m ModuleStatus) where(is func(NodeState) bool) string {
	for _, n := range m.heard() {
		if is(n) {
			return n.Node
		}
	}
	return ""
}

// off: it is to run, and no node that answers runs it or is about to.
func (m ModuleStatus) off() bool { return m.Level == Down && !m.still() && !m.moves() && !m.ended() }

// moves: it runs nowhere, and a node is about to change that. Where one that is not heard had the right to run it, as
// it said last, it may run there: only one that has the right since is about to, not one that asks for it.
func (m ModuleStatus) moves() bool {
	had := slices.ContainsFunc(m.Nodes, func(n NodeState) bool { return !n.Heard() && n.leads() })
	about := func(n NodeState) bool { return m.OnTheWay(n) && (n.leads() || !had) }
	return m.runs() == "" && !m.ends() && slices.ContainsFunc(m.Nodes, about)
}

// ends: it is being stopped, and runs nowhere else.
func (m ModuleStatus) ends() bool {
	return m.runs() == "" && m.where(func(n NodeState) bool { return n.Stopping }) != ""
}

// paused: it has the right to run, and somebody keeps it from that.
func (m ModuleStatus) paused() bool { return m.at(m.runs()).VM == "paused" }

// astray: it runs, and writes elsewhere than to its volumes.
func (m ModuleStatus) astray() bool { return m.at(m.runs()).Status == "NotReady" }

// at is its state on a node; that of no node is empty.
func (m ModuleStatus) at(node string) NodeState {
	n, _ := m.On(node)
	return n
}

// refusal is why it would not start on the node that would have to take over; nil: it would.
func (m ModuleStatus) refusal() *Notice {
	return m.at(m.second()).find(func(x Notice) bool { return x.Level == "refused" })
}

// OnTheWay: the node answers, and is about to be in another state than it is. One that follows is not where the other
// node has stopped: it may wait for ever; nor where that one has left and is given the time to come back.
func (m ModuleStatus) OnTheWay(n NodeState) bool {
	stopped := func(o NodeState) bool {
		return o.Node != n.Node && (o.Heard() && o.Role == "STOP" && o.Status == "NotReady" || m.gone(o))
	}
	return n.Heard() && n.Status == "Transient" && (n.Role != "SECOND" || !slices.ContainsFunc(m.Nodes, stopped))
}

// unknown: a node that is taken to be there said last that it had the right to run it, and has not said whether it
// still does; the other one follows it as before, or was stopped. Just after a standstill of the one that is asked that
// is so of itself, too, and nothing is known.
func (m ModuleStatus) unknown() bool {
	had := func(n NodeState) bool { return n.Unheard && n.leads() }
	follows := m.where(func(n NodeState) bool { return n.Role == "SECOND" || n.Stopped }) != ""
	return m.runs() == "" && (follows || len(m.heard()) == 0) && !m.still() && slices.ContainsFunc(m.Nodes, had)
}

// gone: it had the right to run it when duetd was stopped there, and others wait for its return.
func (m ModuleStatus) gone(n NodeState) bool {
	return slices.Contains(m.Awaited, n.Node) && !n.Heard() && n.leads()
}

// awaits: what runs it was left alone when duetd was stopped there, so it has no disks, and its follower waits.
func (m ModuleStatus) awaits() bool {
	return m.runs() == "" && m.where(func(n NodeState) bool { return n.Role == "SECOND" }) != "" &&
		slices.ContainsFunc(m.Nodes, m.gone)
}

// still: its writes wait for the right to go on, and it with them, or its disk gives it errors all the time, or nobody
// serves it. One that runs on a node does not: what another one that stood still has left of it is about to learn that
// it was taken over.
func (m ModuleStatus) still() bool {
	return m.awaits() || m.runs() == "" && m.where(func(n NodeState) bool {
		return n.VM == "frozen" || n.VM == "io-error" && n.Status == "NotReady"
	}) != ""
}

// torn: the node that runs it says that its peer has every write, and the peer says freshly that it has no connection
// or not all of them. The one of both words that is old may be that it runs, as while duetd ends there: its modules end
// before it takes its leave.
func (m ModuleStatus) torn() bool {
	return m.inStep() && m.where(func(n NodeState) bool { return n.Role == "SECOND" && n.Status == "Transient" }) != ""
}

// alarmed: data are not on both nodes, as one of them says or said last.
func (m ModuleStatus) alarmed() bool {
	return slices.ContainsFunc(m.Nodes, func(n NodeState) bool {
		return slices.ContainsFunc(n.Notices, func(x Notice) bool { return x.Level == "alarm" })
	})
}

// survives: the module goes on by itself when the node is lost, with all its data; a stopped one still has them.
// Where nobody decides it stands still until a human does, even if the node that is lost only has the second copy.
// Where the other host would refuse it, nothing is lost and nothing runs. Where the copies are known to differ, and
// it is not known which is right, none may be lost; nor where both nodes say that they run it.
func (m ModuleStatus) survives(node string) bool {
	if !slices.ContainsFunc(m.Nodes, func(n NodeState) bool { return n.Node == node }) {
		return true
	}
	if m.Stopped() {
		others := slices.DeleteFunc(m.whole(), func(n string) bool { return n == node })
		return len(m.heard()) == len(m.Nodes) && len(others) > 0 || !m.lone()
	}
	at := m.runs()
	if at == "" || m.Decides == Nobody || m.alarmed() || m.contested() {
		return false
	}
	stuck := func(n NodeState) bool { return n.Node != node && n.notice(Undecided) != nil }
	return (at != node && !m.torn() || m.second() != "" && m.refusal() == nil) && !slices.ContainsFunc(m.Nodes, stuck)
}

// mend is the worst that is to be mended of it and takes nothing away yet; nil: nothing. What would not let it go on
// without its peer is said of the node.
func (m ModuleStatus) mend() *Notice {
	for _, level := range []string{"refused", "warning"} {
		for _, n := range m.heard() {
			if x := n.find(func(x Notice) bool { return x.Level == level && x.Code != Undecided }); x != nil {
				return x
			}
		}
	}
	return nil
}

// notice is the first of a code; nil: there is none.
func (n NodeState) notice(code string) *Notice {
	return n.find(func(x Notice) bool { return x.Code == code })
}

// find is the first notice of which that is true; nil: there is none.
func (n NodeState) find(is func(Notice) bool) *Notice {
	if i := slices.IndexFunc(n.Notices, is); i >= 0 {
		return &n.Notices[i]
	}
	return nil
}
