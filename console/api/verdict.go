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

// level is how a module stands. One that an operator has stopped stands as it should. Where a node does not answer,
// what it said last makes no copy and runs nothing.
func (m ModuleStatus) level() Level {
	switch {
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
	return m.runs() == "" && slices.ContainsFunc(m.Nodes,
		func(n NodeState) bool { return !n.Stale && n.Status == "Transient" })
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

// survives: the module goes on by itself when the node is lost. Where nobody decides it stands still until a human
// does, even if the node that is lost only has the second copy.
func (m ModuleStatus) survives(node string) bool {
	if m.Stopped() || !slices.ContainsFunc(m.Nodes, func(n NodeState) bool { return n.Node == node }) {
		return true
	}
	at := m.runs()
	if at == "" || m.Decides == Nobody {
		return false
	}
	return at != node || m.second() != ""
}

// Each module is counted once, by the first of the cases that fits: what stands still or is being started is Down
// as well, and told apart. A node that was removed only says that.
func (s Status) verdict(now time.Time) Verdict {
	if s.Removed != "" {
		return Verdict{Level: Down, Text: s.Removed, Safe: []string{}}
	}
	v := Verdict{Level: OK, Safe: s.safe()}
	var down, single, moving, still, alarmed []string
	stopped := 0
	for _, m := range s.Modules {
		switch {
		case m.Stopped():
			stopped++
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
	for _, trouble := range s.troubles(now) {
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
	if all > 0 {
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
		if !w.Alive && !w.Spare {
			out = append(out, "the witness "+w.Addr+" is silent")
		}
	}
	return out
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
