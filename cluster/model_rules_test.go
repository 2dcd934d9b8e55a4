package cluster

import (
	"flag"
	"testing"
	"time"
)

// flaw is one rule taken out of the model.
type flaw uint8

const (
	none flaw = iota
	rule1Outvoted
	rule1Deposed
	rule1Restart
	rule2Refusal
	rule3Freeze
	rule4Complete
	rule5Twice
	rule5Durable
	rule5Stale
	rule5Knowledge
	rule5Late
	rule5Reuse
	rule5Forgets
	rule7Need
	rule7Order
	rule7Applied
	rule7Ticket
	rule7Welcome
	rule8Mark
	rule9Confirmation
	rule9Late
	rule9Promise
	rule9Inherits
	rule9Alone
	volumesClosed
	flaws
)

func (f flaw) String() string {
	return [...]string{
		none:              "all rules",
		rule1Outvoted:     "1: a late yes counts although a newer epoch is known",
		rule1Deposed:      "1: a holder goes on although it knows a newer epoch",
		rule1Restart:      "1: a node that restarts opens an epoch that is over",
		rule2Refusal:      "2: a peer acknowledges writes of an older attachment",
		rule3Freeze:       "3: a holder that loses its peer goes on without a grant",
		rule4Complete:     "4: a node whose data are not complete asks",
		rule5Twice:        "5: a voter says yes to both in one epoch",
		rule5Durable:      "5: the witness forgets its yes",
		rule5Stale:        "5: a voter does not look at the asker's data",
		rule5Knowledge:    "5: a yes to the other is not knowledge",
		rule5Late:         "5: the end of a resync of an older epoch counts",
		rule5Reuse:        "5: an epoch promised to itself is handed over",
		rule5Forgets:      "5: a node's own promise is not durable",
		rule7Need:         "7: the peer is told that it is complete before it is needed",
		rule7Order:        "7: the peer is told before the need of it is durable",
		rule7Applied:      "7: the peer is told before everything was applied",
		rule7Ticket:       "7: the ticket of another attachment counts",
		rule7Welcome:      "7: complete or not is said before the older attachment has ended",
		rule8Mark:         "8: the peer says yes and does not mark itself outdated",
		rule9Confirmation: "9: the old holder is complete without a confirmation",
		rule9Late:         "9: a confirmation counts after the handover was given up",
		rule9Promise:      "9: the peer is told without a durable promise",
		rule9Inherits:     "9: the peer takes over without looking at its own record",
		rule9Alone:        "9: the peer confirms an epoch that it holds alone",
		volumesClosed:     "a voter says yes before its volumes are closed",
	}[f]
}

// secondLine are the flaws that another rule makes harmless, and which.
func (f flaw) secondLine() string {
	switch f {
	case rule1Restart:
		return "its peer refuses the old epoch (2) and its own data count as outdated (4)"
	case rule5Twice:
		return "the first yes is knowledge, so the data of whoever asks second are stale"
	}
	return ""
}

var (
	big    = flag.Bool("model.big", false, "search the authority model with larger bounds: minutes, 4 GiB")
	traces = flag.Bool("model.traces", false, "show how each broken rule breaks a promise")
)

// TestAuthorityModel visits every state of the model.
func TestAuthorityModel(t *testing.T) {
	limits := bounds{epochs: 3, writes: 2, messages: 3}
	switch {
	case *big:
		limits = bounds{epochs: 4, writes: 2, messages: 4, states: 60e6}
	case testing.Short() || raceDetector:
		limits = bounds{epochs: 3, writes: 1, messages: 2}
	}
	began := time.Now()
	res := (&model{bounds: limits}).search()
	t.Logf("%d states, at most %d steps deep, all visited: %v, %v", res.states, res.depth, res.complete,
		time.Since(began).Round(time.Millisecond))
	if res.violation != "" {
		t.Fatal(res)
	}
	if !res.complete && !*big {
		t.Error("the search was cut off")
	}
	for v := range lastGoal {
		if !res.seen[v] {
			t.Errorf("never reached: a node %v", v)
		}
	}
}

// TestEveryRuleIsNeeded takes out one rule at a time: the search has to see it.
func TestEveryRuleIsNeeded(t *testing.T) {
	if testing.Short() || raceDetector {
		t.Skip("minutes with the race detector, and there is one goroutine: run it without -race and -short")
	}
	for f := none + 1; f < flaws; f++ {
		m := &model{bounds: bounds{epochs: 4, writes: 1, messages: 2, states: 4e6}, without: f}
		if f.secondLine() != "" {
			m.epochs = 3
		}
		res := m.search()
		switch {
		case res.violation == "" && f.secondLine() == "":
			t.Errorf("%v: no violation in %d states", f, res.states)
		case res.violation == "" && !res.complete:
			t.Errorf("%v: the search was cut off", f)
		case res.violation == "":
			t.Logf("%v: harmless in all %d states: %s", f, res.states, f.secondLine())
		case f.secondLine() != "":
			t.Errorf("%v is no longer harmless: %v", f, res)
		case *traces:
			t.Logf("%v: %v", f, res)
		default:
			t.Logf("%v: %d states, %d steps: %s", f, res.states, len(res.trace)-1, res.violation)
		}
	}
}

// TestPruneHidesNothing: with and without messages that can do nothing any more the
// nodes come to the same states.
func TestPruneHidesNothing(t *testing.T) {
	reached := func(unpruned bool) map[state]bool {
		m := &model{bounds: bounds{epochs: 2, writes: 1, messages: 2}, unpruned: unpruned}
		res, v := m.visit()
		if res.violation != "" {
			t.Fatal(res)
		}
		t.Logf("unpruned %v: %d states", unpruned, res.states)
		out := make(map[state]bool)
		for id := range v.len() {
			s := *v.state(id)
			s.msgs = [slots]message{}
			out[s] = true
		}
		return out
	}
	pruned, all := reached(false), reached(true)
	for s := range all {
		if !pruned[s] {
			t.Fatalf("hidden by pruning:\n%v", s)
		}
	}
	if len(pruned) != len(all) {
		t.Errorf("%d states of the nodes with pruning, %d without", len(pruned), len(all))
	}
}
