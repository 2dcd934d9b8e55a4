package appmodules

import (
	"cmp"
	"fmt"
	"strings"
	"time"
)

// Policy says how a module behaves when something fails.
type Policy struct {
	// Arbitration: safe waits rather than risk two writers; available goes on if a ping target answers.
	Arbitration string `yaml:"arbitration" json:"arbitration"`
	// Primary: a node name, last (where it ran last) or any.
	Primary  string  `yaml:"primary" json:"primary"`
	Failback string  `yaml:"failback" json:"failback"` // manual | auto
	Restart  Restart `yaml:"restart" json:"restart"`
	Start    Turn    `yaml:"start" json:"start"`
	// StallBudget is how long a write waits for a peer that does not answer before the pair separates.
	StallBudget Duration `yaml:"stall_budget" json:"stall_budget"`
	// DiskBudget is how long an operation on a disk of the node that runs the workload may take
	// before the disk counts as one that does not answer; 0 is the default.
	DiskBudget Duration `yaml:"disk_budget" json:"disk_budget"`
	// Shutdown is how long a guest may take to shut down before it is ended.
	Shutdown Duration `yaml:"shutdown" json:"shutdown"`
	On       On       `yaml:"on" json:"on"`
	// ColdStart: never, or after how long a node that has not met its peer since its own
	// start goes on as if it had (cluster/DESIGN.md, rule 6).
	ColdStart ColdStart `yaml:"cold_start" json:"cold_start"`
	// SplitBrain: keep sets the loser's version aside and resyncs, hold waits for a human first.
	SplitBrain string `yaml:"split_brain" json:"split_brain"`
	// Frozen: wait, or after how long a workload is ended whose writes wait because nobody
	// grants the right to go on without the peer.
	Frozen Standstill `yaml:"frozen" json:"frozen"`
	// Fence: if-needed uses a fence agent where nothing else can decide, before-start
	// besides whatever grants the right, before the VM starts on the other node.
	Fence string `yaml:"fence" json:"fence"`
	// Proof is how long a comparison of both copies of all volumes in the background is to take, again
	// and again.
	Proof ProofPass `yaml:"proof" json:"proof,omitzero"`
	// ProofRepair: ask leaves a difference that it finds to a human, auto writes over the copy that
	// changed by itself, where that is known.
	ProofRepair ProofRepair `yaml:"proof_repair" json:"proof_repair,omitzero"`
}

// The values of Policy.SplitBrain and Policy.Fence.
const (
	SplitKeep        = "keep"
	SplitHold        = "hold"
	FenceIfNeeded    = "if-needed"
	FenceBeforeStart = "before-start"
)

// How a ColdStart and a Standstill are written.
const (
	coldNever   = "never"
	coldAfter   = "after "
	frozenWait  = "wait"
	frozenAfter = "kill after "
)

// ColdStart is written "never" (0) or "after 5m".
type ColdStart time.Duration

// MarshalText writes the form UnmarshalText reads.
func (c ColdStart) MarshalText() ([]byte, error) {
	return delayed(time.Duration(c), coldNever, coldAfter)
}

// UnmarshalText reads "never" or "after DURATION".
func (c *ColdStart) UnmarshalText(b []byte) error {
	return undelayed(b, (*time.Duration)(c), coldNever, coldAfter)
}

// Standstill is written "wait" (0) or "kill after 1m".
type Standstill time.Duration

// MarshalText writes the form UnmarshalText reads.
func (f Standstill) MarshalText() ([]byte, error) {
	return delayed(time.Duration(f), frozenWait, frozenAfter)
}

// UnmarshalText reads "wait" or "kill after DURATION".
func (f *Standstill) UnmarshalText(b []byte) error {
	return undelayed(b, (*time.Duration)(f), frozenWait, frozenAfter)
}

// ProofPass is written "week", "off" (negative) or as a duration; 0, of policies that have none, is a week.
type ProofPass time.Duration

// week is the default of a ProofPass, and proofOff none.
const (
	leastProof   = time.Minute
	longestProof = 52 * week

	week     = 7 * 24 * time.Hour
	proofOff = ProofPass(-1)
)

// Every is the time a whole pass is to take; 0: there is none.
func (p ProofPass) Every() time.Duration {
	if p == 0 {
		return week
	}
	return max(time.Duration(p), 0)
}

// IsZero: it is the default, which nodes do not tell each other, as some know of no other.
func (p ProofPass) IsZero() bool { return p.Every() == week }

// MarshalText writes the form UnmarshalText reads.
func (p ProofPass) MarshalText() ([]byte, error) {
	switch d := p.Every(); d {
	case 0:
		return []byte("off"), nil
	case week:
		return []byte("week"), nil
	default:
		return []byte(d.String()), nil
	}
}

// UnmarshalText reads "week", "off" or a duration.
func (p *ProofPass) UnmarshalText(b []byte) error {
	switch string(b) {
	case "week":
		*p = ProofPass(week)
	case "off":
		*p = proofOff
	default:
		d, err := time.ParseDuration(string(b))
		if err != nil || d <= 0 {
			return fmt.Errorf("%q is neither \"week\" nor \"off\" nor a duration such as 48h", b)
		}
		*p = ProofPass(d)
	}
	return nil
}

// ProofRepair is RepairAsk, RepairAuto, or empty in policies that have none, which is RepairAsk.
type ProofRepair string

// The values of a ProofRepair.
const (
	RepairAsk  ProofRepair = "ask"
	RepairAuto ProofRepair = "auto"
)

// IsZero: it is the default.
func (r ProofRepair) IsZero() bool { return r == "" || r == RepairAsk }

// MarshalText writes what is meant.
func (r ProofRepair) MarshalText() ([]byte, error) { return []byte(cmp.Or(r, RepairAsk)), nil }

// delayed writes what happens never (0) or after a time.
func delayed(d time.Duration, never, after string) ([]byte, error) {
	if d == 0 {
		return []byte(never), nil
	}
	return []byte(after + d.String()), nil
}

// undelayed reads what delayed writes.
func undelayed(b []byte, to *time.Duration, never, after string) error {
	if string(b) == never {
		*to = 0
		return nil
	}
	text, ok := strings.CutPrefix(string(b), after)
	d, err := time.ParseDuration(strings.TrimSpace(text))
	if !ok || err != nil || d <= 0 {
		return fmt.Errorf("%q is neither %q nor such as %q", b, never, after+"5m")
	}
	*to = d
	return nil
}

// Restart bounds the restarts on the same node before the module moves to its peer.
type Restart struct {
	Max    int      `yaml:"max" json:"max"`
	Window Duration `yaml:"window" json:"window"`
	// Pause is between two starts of what did not start.
	Pause RestartPause `yaml:"pause" json:"pause,omitzero"`
}

// RestartPause is written as a duration; 0, of policies that have none, is its default.
type RestartPause time.Duration

// defaultPause lets what kept a VM from starting, as a hypervisor that restarts, pass.
const (
	defaultPause = 10 * time.Second
	leastPause   = time.Second
	longestPause = time.Hour
)

// Every is the pause in force.
func (p RestartPause) Every() time.Duration { return cmp.Or(time.Duration(p), defaultPause) }

// IsZero: it is the default, which nodes do not tell each other, as some know of no other.
func (p RestartPause) IsZero() bool { return p.Every() == defaultPause }

// MarshalText writes the form UnmarshalText reads.
func (p RestartPause) MarshalText() ([]byte, error) { return []byte(p.Every().String()), nil }

// UnmarshalText reads a duration of at least a second.
func (p *RestartPause) UnmarshalText(b []byte) error {
	d, err := time.ParseDuration(string(b))
	if err != nil || d < leastPause || d > longestPause {
		return fmt.Errorf("%q is not a duration from %s", b, between(leastPause, longestPause))
	}
	*p = RestartPause(d)
	return nil
}

// Turn is the place of a module among those that start on a node: lower order
// first, then delay before the next order.
type Turn struct {
	Order int      `yaml:"order" json:"order"`
	Delay Duration `yaml:"delay" json:"delay"`
}

// On says what follows each way a workload can end. A guest that shut itself down on
// purpose is not a crash.
type On struct {
	Crash    Reaction `yaml:"crash" json:"crash"`
	Panic    Reaction `yaml:"panic" json:"panic"`
	Shutdown Reaction `yaml:"shutdown" json:"shutdown"` // by the guest itself
	Admin    Reaction `yaml:"admin" json:"admin"`       // virsh destroy, virsh shutdown
}

// Reaction is what follows the end of a workload.
type Reaction string

// The reactions.
const (
	React        Reaction = "restart"  // on this node, then on the peer, within policy.restart
	ReactMove    Reaction = "failover" // on the peer at once
	ReactStop    Reaction = "stop"     // the module stops on both nodes
	defaultGuest          = ReactStop
)

// DefaultPolicy is the policy of a module before its YAML is read.
func DefaultPolicy() Policy {
	return Policy{
		Arbitration: "safe", Primary: "last", Failback: "manual",
		Restart:     Restart{Max: 3, Window: Duration(24 * time.Hour), Pause: RestartPause(defaultPause)},
		StallBudget: Duration(2 * time.Second),
		DiskBudget:  Duration(defaultDisk),
		Shutdown:    Duration(60 * time.Second),
		SplitBrain:  SplitKeep,
		Fence:       FenceIfNeeded,
		Proof:       ProofPass(week),
		ProofRepair: RepairAsk,
		On:          On{Crash: React, Panic: React, Shutdown: defaultGuest, Admin: defaultGuest},
	}
}

// defaultDisk is the disk budget of a policy that has none, as those of older versions.
const defaultDisk = 10 * time.Second

// Disk is the DiskBudget in force, never 0, which would be no budget.
func (p Policy) Disk() time.Duration { return cmp.Or(time.Duration(p.DiskBudget), defaultDisk) }

// Validate lists every fault of p in a module on nodes, in the same order each time.
func (p Policy) Validate(nodes []string) []Fault {
	var f faults
	for _, r := range rules(nodes) {
		if r.fault == nil {
			continue
		}
		if text := r.fault(p); text != "" {
			f.add(r.path, "%s", text)
		}
	}
	return f
}

// maxRestarts is more than anybody has patience for. Each restart is kept with its time until the window has passed.
const maxRestarts = 1000

// restartRange is the range of policy.restart.max, in words.
func restartRange() string { return fmt.Sprintf("from 0 to %d", maxRestarts) }

// Mistakes are what may be stored and is not what an admin means who writes it: it has no effect, or no end. Nodes take
// it from each other, as older releases have stored it.
func (p Policy) Mistakes() []Fault {
	var f faults
	if p.Failback == "auto" && (p.Primary == "last" || p.Primary == "any") {
		f.add("policy.failback", "auto has no effect while policy.primary is %s: give policy.primary the node to come back "+
			"to first, or leave policy.failback at manual", p.Primary)
	}
	if p.Restart.Max > maxRestarts {
		f.add("policy.restart.max", "must be %s", restartRange())
	}
	return f
}

// Duration is a time.Duration written as text: 500ms, 2s, 24h.
type Duration time.Duration

// MarshalText writes the form UnmarshalText reads.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// UnmarshalText reads "2s"; a bare number is refused, for its unit is unknown.
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	if err != nil {
		return fmt.Errorf("%q is not a duration such as 500ms, 2s or 24h", b)
	}
	*d = Duration(v)
	return nil
}
