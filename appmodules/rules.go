package appmodules

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// rule is what the value of a key of the policy may be, in words and as a judge: both come of the same limits.
type rule struct {
	path   string
	values string                // for people
	fault  func(p Policy) string // what is wrong, empty: nothing; nil: whatever can be read is good
}

// Values says what the value of a key may be, for people; empty where the key's own text does.
func Values(path string) string {
	all := append(rules([]string{"the name of a node"}), rule{path: "kind", values: strings.Join(Kinds(), ", ")})
	if i := slices.IndexFunc(all, func(r rule) bool { return r.path == path }); i >= 0 {
		return all[i].values
	}
	return ""
}

// rules are those of every key of the policy, for a module on nodes.
func rules(nodes []string) []rule {
	return []rule{
		choice("policy.arbitration", func(p Policy) string { return p.Arbitration }, "safe", "available"),
		choice("policy.primary", func(p Policy) string { return p.Primary }, append([]string{"last", "any"}, nodes...)...),
		choice("policy.split_brain", func(p Policy) string { return p.SplitBrain }, SplitKeep, SplitHold),
		choice("policy.fence", func(p Policy) string { return p.Fence }, FenceIfNeeded, FenceBeforeStart),
		choice("policy.failback", func(p Policy) string { return p.Failback }, "manual", "auto"),
		choice("policy.proof_repair", func(p Policy) string {
			if p.ProofRepair.IsZero() {
				return string(RepairAsk)
			}
			return string(p.ProofRepair)
		}, string(RepairAsk), string(RepairAuto)),
		{"policy.proof", "week, off, or a duration from " + between(leastProof, longestProof), func(p Policy) string {
			if d := p.Proof.Every(); d != 0 && (d < leastProof || d > longestProof) {
				return fmt.Sprintf("%s must be \"off\", or from %s", short(d), between(leastProof, longestProof))
			}
			return ""
		}},
		// What is above the limit was stored by older releases: see Mistakes.
		{"policy.restart.max", "a number " + restartRange(), func(p Policy) string {
			if p.Restart.Max < 0 {
				return "must be " + restartRange()
			}
			return ""
		}},
		span("policy.restart.window", func(p Policy) time.Duration { return time.Duration(p.Restart.Window) }, 0, 0),
		{"policy.restart.pause", "a duration from " + between(leastPause, longestPause), nil},
		{"policy.start.order", "a number", nil},
		span("policy.start.delay", func(p Policy) time.Duration { return time.Duration(p.Start.Delay) }, 0, 0),
		span("policy.disk_budget", Policy.Disk, time.Second, 10*time.Minute),
		span("policy.stall_budget", func(p Policy) time.Duration { return time.Duration(p.StallBudget) },
			200*time.Millisecond, time.Minute),
		span("policy.shutdown", func(p Policy) time.Duration { return time.Duration(p.Shutdown) }, time.Second, 0),
		reaction("policy.on.crash", func(p Policy) Reaction { return p.On.Crash }),
		reaction("policy.on.panic", func(p Policy) Reaction { return p.On.Panic }),
		reaction("policy.on.shutdown", func(p Policy) Reaction { return p.On.Shutdown }),
		reaction("policy.on.admin", func(p Policy) Reaction { return p.On.Admin }),
		{"policy.cold_start", coldNever + ", or such as " + coldAfter + "5m", nil},
		{"policy.frozen", frozenWait + ", or such as " + frozenAfter + "5m", nil},
	}
}

// choice is the rule of a key with words of its own.
func choice(path string, of func(Policy) string, allowed ...string) rule {
	return rule{path, strings.Join(allowed, ", "), func(p Policy) string { return notOneOf(of(p), allowed) }}
}

func reaction(path string, of func(Policy) Reaction) rule {
	return choice(path, func(p Policy) string { return string(of(p)) }, string(React), string(ReactMove),
		string(ReactStop))
}

// span is the rule of a key with a duration; to 0 is no upper limit.
func span(path string, of func(Policy) time.Duration, from, to time.Duration) rule {
	if to == 0 {
		return rule{path, "a duration of " + short(from) + " or more", func(p Policy) string {
			if of(p) < from {
				return "must be ≥ " + short(from)
			}
			return ""
		}}
	}
	return rule{path, "a duration from " + between(from, to), func(p Policy) string {
		if d := of(p); d < from || d > to {
			return fmt.Sprintf("%s must be from %s", short(d), between(from, to))
		}
		return ""
	}}
}

func between(from, to time.Duration) string { return short(from) + " to " + short(to) }

// short is a duration without units that say nothing: "10m", not "10m0s".
func short(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

// notOneOf says that a word is none of those allowed; empty: it is one.
func notOneOf(word string, allowed []string) string {
	if slices.Contains(allowed, word) {
		return ""
	}
	return fmt.Sprintf("%q is not one of %s", word, strings.Join(allowed, ", "))
}
