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
		s.Modules[i].Level = s.Modules[i].level()
	}
	s.Verdict = s.verdict(now)
	return s
}

// level is how a module stands. One that an operator has stopped stands as it should where its data are on two nodes.
// Where a node does not answer, what it said last makes no copy and runs nothing.
func (m ModuleStatus) level() Level {
	switch {
	case m.Stopped() && m.lone():
		return Degraded
	case m.Stopped():
		return OK
	case m.runs() == "":
		return Down
	case m.second() == "" || m.alarmed():
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

// runs is the node on which it runs, as far as is known; empty: on none.
func (m ModuleStatus) runs() string { return m.where("PRIM", "ALONE", "UP") }

// second is the node that has a whole second copy and may take over; empty: none.
func (m ModuleStatus) second() string { return m.where("SECOND") }

// where is the node that answers, is in one of the roles, and is Ready.
func (m ModuleStatus) where(roles ...string) string {
	for _, n := range m.Nodes {
		if !n.Stale && n.Status == "Ready" && slices.Contains(roles, n.Role) {
			return n.Node
		}
	}
	return ""
}

// moves: it runs nowhere, and a node is about to change that.
func (m ModuleStatus) moves() bool {
	return m.runs() == "" && slices.ContainsFunc(m.Nodes, m.OnTheWay)
}

// OnTheWay: the node answers, and is about to be in another state than it is. One that follows is not where the other
// node has stopped: it may wait for ever.
func (m ModuleStatus) OnTheWay(n NodeState) bool {
	stopped := func(o NodeState) bool {
		return o.Node != n.Node && !o.Stale && o.Role == "STOP" && o.Status == "NotReady"
	}
	return !n.Stale && n.Status == "Transient" && (n.Role != "SECOND" || !slices.ContainsFunc(m.Nodes, stopped))
}

// still: its writes wait for the right to go on, and it with them.
func (m ModuleStatus) still() bool {
	return slices.ContainsFunc(m.Nodes, func(n NodeState) bool { return !n.Stale && n.VM == "frozen" })
}

// alarmed: data are not on both nodes, as one of them says or said last.
func (m ModuleStatus) alarmed() bool {
	return slices.ContainsFunc(m.Nodes, func(n NodeState) bool {
		return slices.ContainsFunc(n.Notices, func(x Notice) bool { return x.Level == "alarm" })
	})
}

// survives: the module goes on by itself when the node is lost, with all its data; a stopped one still has them. Where
// nobody decides it stands still until a human does, even if the node that is lost only has the second copy. Where the
// copies are known to differ, and it is not known which is right, none may be lost.
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
	return (at != node || m.second() != "") && !slices.ContainsFunc(m.Nodes, stuck)
}

// notice is the first of a code; nil: there is none.
func (n NodeState) notice(code string) *Notice {
	for i := range n.Notices {
		if n.Notices[i].Code == code {
			return &n.Notices[i]
		}
	}
	return nil
}

// Each module is counted once, by the first of the cases that fits: what stands still or is being started is Down
// as well, and told apart. A node that was removed only says that.
func (s Status) verdict(now time.Time) Verdict {
	if s.Removed != "" {
		return Verdict{Level: Down, Text: s.Removed, Safe: []string{}}
	}
	v := Verdict{Level: OK, Safe: s.safe()}
	var down, single, moving, still, alarmed, lone []string
	stopped := 0
	for _, m := range s.Modules {
		switch {
		case m.Stopped():
			if stopped++; m.lone() {
				lone = append(lone, m.Name)
			}
		case m.still():
			still = append(still, m.Name)
		case m.moves():
			moving = append(moving, m.Name)
		case m.Level == Down:
			down = append(down, m.Name)
		case m.second() == "":
			single = append(single, m.Name)
		case m.Level == Degraded:
			alarmed = append(alarmed, m.Name)
		}
	}
	all := len(s.Modules) - stopped
	var facts []string
	say := func(level Level, names []string, one, many string) {
		if len(names) == 0 {
			return
		}
		if level == Down || v.Level == OK {
			v.Level = level
		}
		words := many
		if len(names) == 1 {
			words = one
		}
		facts = append(facts, fmt.Sprintf("%d of %s %s (%s)", len(names), count(all, "module"), words, few(names)))
	}
	say(Down, down, "does not run", "do not run")
	say(Down, still, "stands still", "stand still")
	say(Down, moving, "is being started", "are being started")
	say(Degraded, single, "has one copy only", "have one copy only")
	say(Degraded, alarmed, "has an alarm", "have an alarm")
	if len(lone) > 0 {
		if v.Level == OK {
			v.Level = Degraded
		}
		words := "is stopped with one copy only"
		if len(lone) > 1 {
			words = "are stopped with one copy only"
		}
		facts = append(facts, few(lone)+" "+words)
	}
	for _, trouble := range append(s.troubles(now), s.stuck()...) {
		facts = append(facts, trouble)
		if v.Level == OK {
			v.Level = Degraded
		}
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
	undecided := func(m ModuleStatus) bool { return !m.Stopped() && m.Decides == Nobody }
	if slices.ContainsFunc(s.Modules, undecided) {
		return "no node, because nobody decides when they lose each other: add a witness"
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
