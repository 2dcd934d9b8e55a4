// Package outcome tells what becomes of an operator's order: an order is accepted at once and what follows takes
// its time or comes to nothing, so whoever gave it looks at the module until the outcome is known. It is pure: it
// knows a module by what the API says of it, and the time by what it is told.
//
// Three ends: it is as ordered, it has ended otherwise for good, or nothing has got on for too long. Only the first
// is sure; the others are a sentence for a human, and the order stands. Reading order: New, At, reached, missed.
package outcome

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"duet/console/api"
)

const (
	// stillFor: nothing is on the way for so long, and what was ordered is not so: it will not be.
	stillFor = 5 * time.Second
	// stuckFor: something is on the way and has not got on for so long, which no start of a VM takes.
	stuckFor = 75 * time.Second
)

// Order is one order that is followed. One goroutine uses it. It is of one module with its nodes as they were when
// it was given.
type Order struct {
	module string // name
	action api.Action
	nodes  []string             // that are to follow it; empty: the action says where
	from   string               // where it ran, empty: nowhere
	to     string               // the other node
	began  map[string]time.Time // since when each node was in its state then: another time is another state
	came   map[string]time.Time // when the right had come to each node then

	seen  string    // how it stood when it last got on
	since time.Time // by the caller's clock
}

// Look is what one look at the module says. Err is set only with Done.
type Look struct {
	Done bool
	Said string // how far it is, or in the end how it stands: a sentence without the module's name
	Err  error  // why it has ended without what was ordered
}

// New follows an order that is about to be given to m, for one node or where the action says (empty). It has to be
// called before the order is given: what it remembers is how it was before.
func New(m api.ModuleStatus, a api.Action, node string) *Order {
	o := &Order{module: m.Name, action: a, began: map[string]time.Time{}, came: map[string]time.Time{},
		from: runs(m, false)}
	for _, n := range m.Nodes {
		o.began[n.Node], o.came[n.Node] = n.Since, cameAt(n)
		if n.Node != o.from && (o.to == "" || !n.Stale) {
			o.to = n.Node
		}
		if node == "" || n.Node == node {
			o.nodes = append(o.nodes, n.Node)
		}
	}
	return o
}

// At looks at the module as it stands at now. Looks come in the order of time, several in stillFor.
func (o *Order) At(m api.ModuleStatus, now time.Time) Look {
	if said, err, done := o.reached(m); done {
		return Look{Done: true, Said: said, Err: err}
	}
	if err := o.missed(m); err != nil {
		return Look{Done: true, Err: err}
	}
	limit := stillFor
	if busy(m) {
		limit = stuckFor
	}
	if seen := standing(m); seen != o.seen {
		o.seen, o.since = seen, now
	} else if now.Sub(o.since) >= limit {
		return o.still(m)
	}
	return Look{Said: onTheWay(m)}
}

// still is what is said of an order that has not got on for too long. A module that was to start and runs has started,
// whatever keeps the other node from following: that is said beside it. Where one node was to start, it is about that.
func (o *Order) still(m api.ModuleStatus) Look {
	what := fmt.Sprintf("%s of %s", o.action, o.module)
	whole := len(o.nodes) == len(m.Nodes)
	if at := runs(m, true); o.action == api.Start && whole && at != "" {
		return Look{Done: true, Said: runsOn(m, at)}
	}
	if !whole {
		what += " on " + strings.Join(o.nodes, " and ")
	}
	return Look{Done: true, Err: fmt.Errorf("%s has come to nothing so far: %s", what, facts(m))}
}

// reached: it is as ordered, or as near to that as it can be now: then err says what is missing. What is so already
// is reached at the first look, but for a restart or a swap.
func (o *Order) reached(m api.ModuleStatus) (said string, err error, done bool) {
	at := runs(m, true)
	switch o.action {
	case api.Start:
		return o.started(m, at)
	case api.Stop:
		return o.stopped(m, at)
	case api.Restart:
		n, _ := m.On(at)
		return "runs on " + at + " again", nil, at != "" && at == o.from && !n.Since.Equal(o.began[at])
	case api.Swap:
		return "runs on " + at, nil, o.from != "" && at == o.to
	case api.Prim:
		return runsOn(m, at), nil, at != "" && slices.Contains(o.nodes, at)
	case api.Second:
		follower := o.follower()
		n, err := m.On(follower)
		return runsOn(m, at), nil, err == nil && at != "" && at != follower && follows(n)
	}
	return "was ordered", nil, true // an action of a newer version
}

// follower is the node that is to follow. Nothing is asked of the one that runs it but to change with its peer.
func (o *Order) follower() string {
	if len(o.nodes) == 1 {
		return o.nodes[0]
	}
	return o.to
}

// started: each node that was to start and answers runs it or follows.
func (o *Order) started(m api.ModuleStatus, at string) (string, error, bool) {
	for _, n := range m.Nodes {
		if slices.Contains(o.nodes, n.Node) && !n.Stale && n.Node != at && !(at != "" && follows(n)) {
			return "", nil, false
		}
	}
	return runsOn(m, at), nil, at != ""
}

// stopped: each node that was to stop has, and where only one was, the other one knows what it does. One that does
// not answer ends the waiting, with an error: it would never be known. One that takes the answering node for no member
// was not told to stop.
func (o *Order) stopped(m api.ModuleStatus, at string) (string, error, bool) {
	var silent, here, parted, down []string
	for _, n := range m.Nodes {
		if n.Parted {
			parted = append(parted, n.Node)
		} else {
			here = append(here, n.Node)
		}
		switch {
		case !slices.Contains(o.nodes, n.Node) || n.Parted:
		case n.Stale:
			silent = append(silent, n.Node)
		case n.Role != "STOP" || n.Status == "Transient":
			return "", nil, false
		default:
			down = append(down, n.Node)
		}
	}
	switch {
	case len(silent) > 0:
		err := fmt.Errorf("%s does not answer, so it is not known whether %s has stopped there", strings.Join(silent,
			" and "), o.module)
		if len(down) > 0 {
			err = fmt.Errorf("%w; on %s it stays stopped until `duet start %s`", err, strings.Join(down, " and "), o.module)
		}
		return "", err, true
	case len(parted) > 0:
		return fmt.Sprintf("is stopped on %s; %s takes it for no member of the cluster, and what runs there goes on",
			strings.Join(here, " and "), strings.Join(parted, " and ")), nil, true
	case len(o.nodes) == len(m.Nodes):
		return "is stopped", nil, true
	case at != "":
		return "is stopped on " + o.nodes[0] + " and runs on " + at, nil, true
	}
	return "is stopped on " + o.nodes[0] + " and runs nowhere", nil, !busy(m)
}

// missed: it has ended otherwise, and no waiting will change that. Only a node that has come to run it since the
// order was given says so; while one is on its way it is too early.
func (o *Order) missed(m api.ModuleStatus) error {
	at := runs(m, true)
	n, err := m.On(at)
	if err != nil || n.Since.Equal(o.began[at]) || busy(m) {
		return nil
	}
	switch {
	case o.action == api.Swap && at == o.from:
		return fmt.Errorf("%s runs on %s again and has not moved: %s: `duet log %s` has more", o.module, at,
			o.cause(n), o.module)
	case o.action == api.Restart && at != o.from:
		return fmt.Errorf("%s runs on %s now: %s: `duet log %s` has more", o.module, at, o.cause(n), o.module)
	}
	return nil
}

// cause is why a node has come to run it since the order was given: where the right came there since, how it did says
// more than that it runs.
func (o *Order) cause(n api.NodeState) string {
	if n.Came != nil && !cameAt(n).Equal(o.came[n.Node]) {
		return n.Came.Why
	}
	return n.Why
}

// cameAt is when the right came to a node; zero: it has not, or that is not known.
func cameAt(n api.NodeState) time.Time {
	if n.Came == nil || n.Came.At == nil {
		return time.Time{}
	}
	return *n.Came.At
}

// runs is the node that has the right to write, and with ready runs the workload too; empty: none.
func runs(m api.ModuleStatus, ready bool) string {
	for _, n := range m.Nodes {
		if acts(n) && (!ready || n.Status == "Ready") {
			return n.Node
		}
	}
	return ""
}

// acts: it has the right to write, as its role says. A node that does not answer is not believed.
func acts(n api.NodeState) bool {
	return !n.Stale && (n.Role == "PRIM" || n.Role == "ALONE" || n.Role == "UP")
}

// follows: it has the primary's writes, or is getting what it lacks.
func follows(n api.NodeState) bool { return !n.Stale && n.Role == "SECOND" }

// busy: a node is on the way. One that gets what it lacks while another runs is where it should be; one whose writes
// wait stands still.
func busy(m api.ModuleStatus) bool {
	at := runs(m, true)
	return slices.ContainsFunc(m.Nodes, func(n api.NodeState) bool {
		return m.OnTheWay(n) && n.VM != "frozen" && (at == "" || n.Role != "SECOND")
	})
}

// standing is how the module stands, the same as long as it does not get on. Besides states it counts what a resync
// has compared and the seconds that a guest has left: both are progress.
func standing(m api.ModuleStatus) string {
	var b strings.Builder
	for _, n := range m.Nodes {
		fmt.Fprintf(&b, "%s %s %s %v %s %v;", n.Node, n.Role, n.Status, n.Stale, n.VM, n.Since.UnixNano())
		if n.KillIn > 0 {
			fmt.Fprintf(&b, "%.0f", n.KillIn) // the guest has its time
		}
		for _, v := range n.Volumes {
			if v.Sync != nil {
				fmt.Fprintf(&b, "%d", v.Sync.Compared)
			}
		}
	}
	return b.String()
}

// runsOn says where it runs, and how the other node stands to that.
func runsOn(m api.ModuleStatus, at string) string {
	said := "runs on " + at
	on, _ := m.On(at)
	for _, n := range m.Nodes {
		switch {
		case n.Node == at:
		case n.Stale:
			said += "; " + n.Node + " does not answer: there is one copy"
		case follows(n) && n.Status == "Ready" && n.Heard() && on.Role == "PRIM": // else it says what was so before
			said += "; " + n.Node + " has the second copy"
		case follows(n):
			said += "; " + n.Node + " is getting its copy: there is one until then"
		default:
			said += fmt.Sprintf("; %s is %s (%s): there is one copy: %s", n.Node, n.Role, n.Status, n.Why)
		}
	}
	return said
}

// onTheWay says what is waited for. Of several nodes that are on their way the first is told. Why a node does not get
// on is told in the end only (facts): until the order has come to it, that is the failure from before.
func onTheWay(m api.ModuleStatus) string {
	for _, n := range m.Nodes {
		if n.Stale || n.Status != "Transient" || n.Role == "SECOND" {
			continue
		}
		text := fmt.Sprintf("%s is %s (%s): %s", n.Node, n.Role, n.Status, n.Why)
		if n.KillIn > 0 {
			text += fmt.Sprintf("; what has not ended by itself is ended in %.0f s", n.KillIn)
		}
		return text
	}
	return stands(m, func(n api.NodeState) bool { return n.Status != "NotReady" })
}

// facts are how every node stands, and why.
func facts(m api.ModuleStatus) string { return stands(m, func(api.NodeState) bool { return true }) }

// stands is how every node stands, and why where that is so.
func stands(m api.ModuleStatus, why func(api.NodeState) bool) string {
	var out []string
	for _, n := range m.Nodes {
		if n.Stale {
			out = append(out, n.Node+" does not answer")
			continue
		}
		text := fmt.Sprintf("%s is %s (%s)", n.Node, n.Role, n.Status)
		if why(n) {
			text += ": " + n.Why
		}
		out = append(out, text)
	}
	return strings.Join(out, "; ")
}
