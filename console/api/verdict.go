package api

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Level is how a cluster or a module stands, for people and for monitors.
type Level string

// The levels, the better first.
const (
	OK       Level = "ok"       // everything that should run does, on two whole copies
	Degraded Level = "degraded" // everything runs; one more fault may end or lose something
	Down     Level = "down"     // something that should run does not
)

// Verdict is what an admin wants to know first.
type Verdict struct {
	Level Level  `json:"level" enum:"ok,degraded,down" doc:"ok; degraded: all run, but not all on two copies; down: something does not run"`
	Text  string `json:"text" doc:"one sentence"`
	// Safe are the nodes that may be lost now without any module standing still for longer than a failover.
	Safe []string `json:"safe" doc:"nodes of which any one may be lost now"`
}

// Undecided is the code of the notice of a node that nobody would let go on without its peer at present.
const Undecided = "undecided"

// undecidedEnd is what follows in its text on what does not decide.
const undecidedEnd = ": without "

// CannotDecide is that notice: what does not decide at present, for the VM or so of a module whose peer is a node.
func CannotDecide(what, peer, noun, remedy string) Notice {
	return Notice{Level: "warning", Code: Undecided,
		Text: what + undecidedEnd + peer + " the " + noun + " would stand still here", Remedy: remedy}
}

// Nobody is the Decides of a module that waits for a human when its nodes lose each other.
const Nobody = "nobody"

// Judged returns s with its verdict and those of its modules, as they are at now. s itself is not changed. now is
// only for how long a node has been down.
func (s Status) Judged(now time.Time) Status {
	s.Modules = slices.Clone(s.Modules)
	for i := range s.Modules {
		m := &s.Modules[i]
		m.Nodes = slices.Clone(m.Nodes)
		for j := range m.Nodes {
			m.Nodes[j].Unheard = m.Nodes[j].Stale && !m.Nodes[j].Parted && s.hears(m.Nodes[j].Node)
		}
		m.Level = m.level()
	}
	s.Verdict = s.verdict(now)
	return s
}

// hears: the heartbeats of another node are heard now.
func (s Status) hears(node string) bool {
	return slices.ContainsFunc(s.Nodes, func(n NodeStatus) bool {
		return n.Name == node && node != s.Self && n.Alive && !n.Leaving
	})
}

// level is how a module stands. One that an operator has stopped stands as it should where its data are on two nodes.
// Where a node does not answer, what it said last makes no copy and runs nothing.
func (m ModuleStatus) level() Level {
	switch {
	case m.Stopped() && m.lone():
		return Degraded
	case m.Stopped():
		return OK
	case m.ends(), m.unknown():
		return Degraded
	case m.runs() == "":
		return Down
	case m.second() == "" || m.alarmed() || m.paused() || m.refusal() != nil:
		return Degraded
	}
	return OK
}

// Stopped: an operator has stopped it on all its nodes that answer. If none answers it is not known, and counts as
// no.
func (m ModuleStatus) Stopped() bool {
	heard := slices.DeleteFunc(slices.Clone(m.Nodes), func(n NodeState) bool { return n.Stale })
	return len(heard) > 0 && !slices.ContainsFunc(heard, func(n NodeState) bool { return !n.Stopped })
}

// lone: it is stopped, and not two nodes that answer have all of its data, of those that it has on volumes.
func (m ModuleStatus) lone() bool {
	return slices.ContainsFunc(m.Nodes, func(n NodeState) bool { return len(n.Volumes) > 0 }) && len(m.whole()) < 2
}

// whole are the nodes that answer and have every acknowledged write, by what they say themselves.
func (m ModuleStatus) whole() (nodes []string) {
	var newest uint64
	for _, n := range m.Nodes {
		newest = max(newest, n.Epoch)
	}
	for _, n := range m.Nodes {
		if n.Complete && !n.Stale && n.Epoch == newest {
			nodes = append(nodes, n.Node)
		}
	}
	return nodes
}

// runs is the node on which it runs, as far as is known; empty: on none. One that writes elsewhere than to its volumes
// is not Ready, and runs.
func (m ModuleStatus) runs() string {
	return m.where(func(n NodeState) bool {
		up := n.Status == "Ready" || n.Status == "NotReady" && (n.VM == "running" || n.VM == "paused")
		return up && (n.Role == "PRIM" || n.Role == "ALONE" || n.Role == "UP")
	})
}

// second is the node that has a whole second copy and may take over; empty: none.
func (m ModuleStatus) second() string {
	return m.where(func(n NodeState) bool { return n.Status == "Ready" && n.Role == "SECOND" })
}

// where is the first node that answers and of which that is true; empty: none.
func (m ModuleStatus) where(is func(NodeState) bool) string {
	for _, n := range m.Nodes {
		if !n.Stale && is(n) {
			return n.Node
		}
	}
	return ""
}

// moves: it runs nowhere, and a node is about to change that.
func (m ModuleStatus) moves() bool {
	return m.runs() == "" && !m.ends() && slices.ContainsFunc(m.Nodes, m.OnTheWay)
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
// node has stopped: it may wait for ever.
func (m ModuleStatus) OnTheWay(n NodeState) bool {
	stopped := func(o NodeState) bool {
		return o.Node != n.Node && !o.Stale && o.Role == "STOP" && o.Status == "NotReady"
	}
	return !n.Stale && n.Status == "Transient" && (n.Role != "SECOND" || !slices.ContainsFunc(m.Nodes, stopped))
}

// unknown: a node whose heartbeats are heard said last that it runs there, and has not said whether it still does; the
// other one follows it as before.
func (m ModuleStatus) unknown() bool {
	ran := func(n NodeState) bool {
		return n.Unheard && n.Status == "Ready" && (n.Role == "PRIM" || n.Role == "ALONE" || n.Role == "UP")
	}
	follows := m.where(func(n NodeState) bool { return n.Role == "SECOND" }) != ""
	return m.runs() == "" && follows && !m.still() && slices.ContainsFunc(m.Nodes, ran)
}

// still: its writes wait for the right to go on, and it with them, or its disk gives it errors all the time. One that
// runs on a node does not: what another one that stood still has left of it is about to learn that it was taken over.
func (m ModuleStatus) still() bool {
	return m.runs() == "" && m.where(func(n NodeState) bool {
		return n.VM == "frozen" || n.VM == "io-error" && n.Status == "NotReady"
	}) != ""
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
// it is not known which is right, none may be lost.
func (m ModuleStatus) survives(node string) bool {
	if !slices.ContainsFunc(m.Nodes, func(n NodeState) bool { return n.Node == node }) {
		return true
	}
	if m.Stopped() {
		others := slices.DeleteFunc(m.whole(), func(n string) bool { return n == node })
		return len(others) > 0 || !m.lone()
	}
	at := m.runs()
	if at == "" || m.Decides == Nobody || m.alarmed() {
		return false
	}
	stuck := func(n NodeState) bool { return n.Node != node && n.notice(Undecided) != nil }
	return (at != node || m.second() != "" && m.refusal() == nil) && !slices.ContainsFunc(m.Nodes, stuck)
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

// plights are what may be said of modules that are to run, in the order in which it is said. A module has the first
// one that fits.
var plights = []struct {
	level     Level
	noun      string
	one, many string
	is        func(ModuleStatus) bool
}{
	{Down, "module", "does not run", "do not run",
		func(m ModuleStatus) bool { return m.Level == Down && !m.still() && !m.moves() }},
	{Down, "module", "stands still", "stand still", ModuleStatus.still},
	{Degraded, "module", "is not known to run yet", "are not known to run yet", ModuleStatus.unknown},
	{Down, "module", "is being started", "are being started", ModuleStatus.moves},
	{Degraded, "module", "is being stopped", "are being stopped", ModuleStatus.ends},
	{Degraded, "module", "runs, but its newest writes are not replicated",
		"run, but their newest writes are not replicated", ModuleStatus.astray},
	{Degraded, "VM", "is paused", "are paused", ModuleStatus.paused},
	{Degraded, "module", "has one copy only", "have one copy only",
		func(m ModuleStatus) bool { return m.second() == "" }},
	{Degraded, "module", "has an alarm", "have an alarm", ModuleStatus.alarmed},
}

// A node that was removed only says that.
func (s Status) verdict(now time.Time) Verdict {
	if s.Removed != "" {
		return Verdict{Level: Down, Text: s.Removed, Safe: []string{}}
	}
	v := Verdict{Level: OK, Safe: s.safe()}
	var facts, lone []string
	say := func(level Level, fact string) {
		if level == Down || v.Level == OK {
			v.Level = level
		}
		facts = append(facts, fact)
	}
	var wanted []ModuleStatus
	for _, m := range s.Modules {
		if !m.Stopped() {
			wanted = append(wanted, m)
		} else if m.lone() {
			lone = append(lone, m.Name)
		}
	}
	all, stopped := len(wanted), len(s.Modules)-len(wanted)
	for _, p := range plights {
		var names []string
		wanted = slices.DeleteFunc(wanted, func(m ModuleStatus) bool {
			if p.is(m) {
				names = append(names, m.Name)
			}
			return p.is(m)
		})
		if len(names) > 0 {
			say(p.level, fmt.Sprintf("%d of %s %s (%s)", len(names), count(all, p.noun), worded(names, p.one, p.many),
				few(names)))
		}
	}
	for _, fact := range refusals(wanted, all) {
		say(Degraded, fact)
	}
	if len(lone) > 0 {
		say(Degraded, few(lone)+" "+worded(lone, "is", "are")+" stopped with one copy only")
	}
	for _, trouble := range append(s.troubles(now), s.stuck()...) {
		say(Degraded, trouble)
	}
	if len(facts) == 0 {
		facts = append(facts, well(all, stopped))
	}
	if stopped > 0 {
		facts = append(facts, fmt.Sprintf("%d stopped", stopped))
	}
	v.Text = strings.Join(facts, ", ")
	if all > 0 || len(lone) > 0 {
		v.Text += "; safe to lose: " + s.spare(v.Safe)
	}
	return v
}

// refusals say for each node which of the modules it would refuse; of one alone also why. all is of how many.
func refusals(modules []ModuleStatus, all int) (facts []string) {
	refused := slices.DeleteFunc(modules, func(m ModuleStatus) bool { return m.refusal() == nil })
	for len(refused) > 0 {
		node, which := refused[0].second(), refused[0].Name+": "+refused[0].refusal().Text
		var names []string
		refused = slices.DeleteFunc(refused, func(m ModuleStatus) bool {
			there := m.second() == node
			if there {
				names = append(names, m.Name)
			}
			return there
		})
		if len(names) > 1 {
			which = few(names)
		}
		facts = append(facts, fmt.Sprintf("%d of %s would not start on %s (%s)", len(names), count(all, "module"), node,
			which))
	}
	return facts
}

// worded is one or many, as there are names.
func worded(names []string, one, many string) string {
	if len(names) == 1 {
		return one
	}
	return many
}

// well says that a number of modules stands well, beside those that are stopped.
func well(modules, stopped int) string {
	switch {
	case modules == 0 && stopped > 0:
		return "nothing is to run"
	case modules == 0:
		return "no module is protected yet"
	case modules == 1:
		return "1 module on both of its nodes"
	}
	return fmt.Sprintf("%d modules on both of their nodes", modules)
}

// safe are the nodes that are there and that every module survives. They are safe one at a time, not together.
func (s Status) safe() []string {
	out := []string{}
	for _, n := range s.Nodes {
		lost := func(m ModuleStatus) bool { return !m.survives(n.Name) }
		if (n.Alive || n.Name == s.Self) && !slices.ContainsFunc(s.Modules, lost) {
			out = append(out, n.Name)
		}
	}
	return out
}

// spare says which nodes may be lost, and why none.
func (s Status) spare(safe []string) string {
	if len(safe) > 0 {
		return strings.Join(safe, " or ")
	}
	var undecided []string
	for _, m := range s.Modules {
		if !m.Stopped() && m.Decides == Nobody {
			undecided = append(undecided, m.Name)
		}
	}
	if len(undecided) > 0 {
		return "no node, because nobody decides for " + few(undecided) + " when they lose each other: add a witness"
	}
	return "no node"
}

// stuck says what would let nobody go on without its peer, and on which nodes.
func (s Status) stuck() (facts []string) {
	where := map[string][]string{}
	var all []string
	for _, m := range s.Modules {
		for _, n := range m.Nodes {
			x := n.notice(Undecided)
			if x == nil || n.Stale || m.Stopped() {
				continue
			}
			what, _, _ := strings.Cut(x.Text, undecidedEnd)
			if where[what] == nil {
				all = append(all, what)
			}
			if !slices.Contains(where[what], n.Node) {
				where[what] = append(where[what], n.Node)
			}
		}
	}
	for _, what := range all {
		facts = append(facts, fmt.Sprintf("%s on %s", what, strings.Join(where[what], " and ")))
	}
	return facts
}

// troubles are what is wrong with the cluster itself. A spare witness that is silent is none: it takes nothing away
// yet.
func (s Status) troubles(now time.Time) []string {
	var out []string
	for _, n := range s.Nodes {
		switch {
		case n.Name == s.Self || n.Alive && !n.Leaving:
		case n.Leaving:
			out = append(out, n.Name+" leaves")
		case n.Silent == nil:
			out = append(out, n.Name+" is down")
		default:
			out = append(out, fmt.Sprintf("%s is down for %s", n.Name, now.Sub(*n.Silent).Round(time.Second)))
		}
	}
	for _, w := range s.Witnesses {
		if fact := "the witness " + w.Addr + " is silent"; !w.Alive && !w.Spare && !s.tells(fact) {
			out = append(out, fact)
		}
	}
	return out
}

// tells: stuck says that already, with the nodes.
func (s Status) tells(fact string) bool {
	return slices.ContainsFunc(s.stuck(), func(f string) bool { return strings.HasPrefix(f, fact) })
}

// count is a number of things: 1 module, 2 modules.
func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// few names the first of them.
func few(names []string) string {
	const most = 3
	if len(names) > most {
		return strings.Join(names[:most], ", ") + ", …"
	}
	return strings.Join(names, ", ")
}
