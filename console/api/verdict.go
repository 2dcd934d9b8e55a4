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
	Level Level  `json:"level" enum:"ok,degraded,down" doc:"ok; degraded: all run, but not all on two copies, or something is wrong, or nobody decides; down: something does not run"`
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
// for how long a node has been down, and whether one that has left is still waited for.
func (s Status) Judged(now time.Time) Status {
	s.Modules = slices.Clone(s.Modules)
	for i := range s.Modules {
		m := &s.Modules[i]
		m.Nodes, m.Awaited = s.current(m.Nodes), nil
		for j := range m.Nodes {
			n := &m.Nodes[j]
			n.Quiet = n.Quiet || n.Node != s.Self && !s.is(n.Node, NodeStatus.beats)
			if n.Node != s.Self && s.is(n.Node, func(x NodeStatus) bool { return x.awaited(now) }) {
				m.Awaited = append(m.Awaited, n.Node)
			}
			n.Unheard = !n.Heard() && !n.Parted && (n.Node == s.Self || s.is(n.Node, NodeStatus.stays))
		}
		m.Level = m.level()
	}
	s.Verdict = s.verdict(now)
	return s
}

// current are those states without what is said of a node that is no member any more, or by it: it is over.
func (s Status) current(nodes []NodeState) []NodeState {
	nodes = slices.Clone(nodes)
	gone := func(n NodeState) bool { return !s.is(n.Node, func(NodeStatus) bool { return true }) }
	if s.Removed != "" || !slices.ContainsFunc(nodes, gone) {
		return nodes
	}
	for i := range nodes {
		nodes[i].Notices = slices.DeleteFunc(slices.Clone(nodes[i].Notices), func(x Notice) bool {
			return gone(nodes[i]) || slices.Contains(ofPeer, x.Code)
		})
	}
	return nodes
}

// ofPeer are codes of notices that say what a node and its peer have of each other.
var ofPeer = []string{Undecided, "definition-unfit", "definition-lies", "definition-elsewhere"}

// is: there is a node of that name, and that is true of it.
func (s Status) is(node string, what func(NodeStatus) bool) bool {
	return slices.ContainsFunc(s.Nodes, func(n NodeStatus) bool { return n.Name == node && what(n) })
}

// beats: its heartbeats are heard, none is overdue.
func (n NodeStatus) beats() bool { return n.Alive && !n.Quiet }

// stays: it is taken to be there, and to stay.
func (n NodeStatus) stays() bool { return n.Alive && !n.Leaving }

// awaited: it said that it stops, and the others give it the time to come back.
func (n NodeStatus) awaited(now time.Time) bool {
	return n.Leaving && (n.Alive || n.Awaited != nil && now.Before(*n.Awaited))
}

// plights are what may be said of modules that are to run, in the order in which it is said. A module has the first
// one that fits.
var plights = []struct {
	level     Level
	noun      string
	one, many string
	is        func(ModuleStatus) bool
}{
	// What one does that does not answer is not known: it may be cut off only, and run them.
	{Down, "module", "runs on no node that answers", "run on no node that answers",
		func(m ModuleStatus) bool { return m.off() && len(m.heard()) < len(m.Nodes) }},
	{Down, "module", "does not run", "do not run", ModuleStatus.off},
	{Down, "module", "stands still", "stand still", ModuleStatus.still},
	{Degraded, "module", "is not known to run", "are not known to run", ModuleStatus.unknown},
	{Degraded, "module", "is being protected", "are being protected", ModuleStatus.joins},
	{Down, "module", "is being started", "are being started", ModuleStatus.moves},
	{Down, "module", "has ended otherwise than by Duet", "have ended otherwise than by Duet", ModuleStatus.ended},
	{Degraded, "module", "is being stopped", "are being stopped", ModuleStatus.ends},
	{Degraded, "module", "runs, but its newest writes are not replicated",
		"run, but their newest writes are not replicated", ModuleStatus.astray},
	{Degraded, "VM", "is paused", "are paused", ModuleStatus.paused},
	{Degraded, "module", "runs on both nodes, each on its own", "run on both nodes, each on its own",
		ModuleStatus.contested},
	{Degraded, "module", "is not known to be on both of its nodes", "are not known to be on both of their nodes",
		ModuleStatus.doubted},
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
	told := map[string]bool{} // modules of which something was said that is worse than what is to be mended
	for _, m := range s.Modules {
		if m.Level == Degraded && v.Level == OK {
			v.Level = Degraded // also where the sentence says it only as what may be lost
		}
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
				names, told[m.Name] = append(names, m.Name), true
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
	v.Text += mends(slices.DeleteFunc(slices.Clone(s.Modules), func(m ModuleStatus) bool {
		return m.refusal() != nil || told[m.Name]
	}))
	return v
}

// mends say of which modules something is to be mended that takes nothing away yet; of one alone also what.
func mends(modules []ModuleStatus) string {
	modules = slices.DeleteFunc(modules, func(m ModuleStatus) bool { return m.mend() == nil })
	var names []string
	for _, m := range modules {
		names = append(names, m.Name)
	}
	switch len(names) {
	case 0:
		return ""
	case 1:
		return "; " + names[0] + " has something to mend: " + modules[0].mend().Text
	}
	return "; " + few(names) + " have something to mend"
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

// safe are the nodes that are there and that every module survives, where no other node of it is about to go. They are
// safe one at a time, not together.
func (s Status) safe() []string {
	out := []string{}
	for _, n := range s.Nodes {
		leaves := func(o NodeState) bool {
			return o.Node != n.Name && s.is(o.Node, func(x NodeStatus) bool { return x.Leaving })
		}
		lost := func(m ModuleStatus) bool { return !m.survives(n.Name) || slices.ContainsFunc(m.Nodes, leaves) }
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
			if x == nil || !n.Heard() || m.Stopped() {
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
		case n.Name == s.Self || n.stays() && n.beats():
		case n.Leaving && (n.Alive || n.Silent == nil):
			out = append(out, n.Name+" leaves")
		case n.Leaving:
			out = append(out, fmt.Sprintf("duetd was stopped on %s %s ago: start it there%s", n.Name,
				now.Sub(*n.Silent).Round(time.Second), s.orWait(n, now)))
		case n.Alive:
			out = append(out, "the heartbeats of "+n.Name+" are overdue")
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

// orWait says what else ends the standstill of the modules that wait for a node that has left, as the end of a
// sentence. Where nobody decides, waiting ends nothing; empty, too, where none waits.
func (s Status) orWait(n NodeStatus, now time.Time) string {
	waits := slices.ContainsFunc(s.Modules, func(m ModuleStatus) bool {
		return m.awaits() && m.Decides != Nobody && slices.Contains(m.Awaited, n.Name)
	})
	if !waits || n.Awaited == nil {
		return ""
	}
	return fmt.Sprintf(", or wait %s: then the other node may take over", n.Awaited.Sub(now).Round(time.Second))
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
