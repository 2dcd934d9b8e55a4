package appmodules

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Kind is what a module protects.
type Kind string

// KindVM is a virtual machine and its disks.
const KindVM Kind = "vm"

// Module is the configuration of one module, the same on all its nodes.
type Module struct {
	Name string `yaml:"name" json:"name"`
	// ID is random and made when the module is: votes and requests belong to it, because the
	// name may be used again. Modules of releases before it have none. See Identity.
	ID      string   `yaml:"id,omitempty" json:"id,omitempty"`
	Kind    Kind     `yaml:"kind" json:"kind"`
	Nodes   []string `yaml:"nodes" json:"nodes"` // first = preferred primary, unless policy.primary says otherwise
	VM      VM       `yaml:"vm" json:"vm"`
	Policy  Policy   `yaml:"policy" json:"policy"`
	Volumes []Volume `yaml:"volumes,omitempty" json:"volumes,omitempty"`
}

// Identity tells the module from all others, also from earlier and later ones of its name. A
// module that was made before there were IDs keeps its name as its identity.
func (m Module) Identity() string { return cmp.Or(m.ID, m.Name) }

// maxName is the length of a module's name in bytes: it is part of file names and sockets.
const maxName = 39

// NameFor makes the name of a module of that of a VM: small letters, digits and dashes, and a number at the end where
// the plain one is taken.
func NameFor(vm string, taken func(string) bool) string {
	plain := strings.Trim(strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9':
			return r
		}
		return '-'
	}, strings.ToLower(vm)), "-")
	if plain == "" {
		plain = "vm"
	}
	for i := 1; ; i++ {
		end := ""
		if i > 1 {
			end = fmt.Sprintf("-%d", i)
		}
		name := strings.TrimRight(plain[:min(len(plain), maxName-len(end))], "-") + end
		if !taken(name) {
			return name
		}
	}
}

// VM names the virtual machine of a module of KindVM.
type VM struct {
	Domain string `yaml:"domain" json:"domain"`
}

// Volume is one replicated disk of a module. It is written by `duet vm protect`, not by hand.
type Volume struct {
	Target string            `yaml:"target" json:"target"` // disk name inside the VM
	ID     string            `yaml:"id" json:"id"`         // identity of the data, for blockrepl.Lineage
	Size   int64             `yaml:"size" json:"size"`     // bytes
	Paths  map[string]string `yaml:"paths" json:"paths"`   // image on each node
}

// Policy says how a module behaves when something fails.
type Policy struct {
	// Arbitration: safe waits rather than risk two writers; available goes on if a ping target answers.
	Arbitration string `yaml:"arbitration" json:"arbitration"`
	// Primary: a node name, last (where it ran last) or any.
	Primary  string  `yaml:"primary" json:"primary"`
	Failback string  `yaml:"failback" json:"failback"` // manual | auto
	Restart  Restart `yaml:"restart" json:"restart"`
	Start    Start   `yaml:"start" json:"start"`
	// StallBudget is how long a write waits for a peer that does not answer before the pair separates.
	StallBudget Duration `yaml:"stall_budget" json:"stall_budget"`
	// Shutdown is how long a guest may take to shut down before it is ended.
	Shutdown Duration `yaml:"shutdown" json:"shutdown"`
	On       On       `yaml:"on" json:"on"`
	// ColdStart: never, or after how long a node that has not met its peer since its own
	// start goes on as if it had (DESIGN §5 rule 6).
	ColdStart ColdStart `yaml:"cold_start" json:"cold_start"`
	// SplitBrain: keep sets the loser's version aside and resyncs, hold waits for a human first.
	SplitBrain string `yaml:"split_brain" json:"split_brain"`
	// Fence: if-needed uses a fence agent where nothing else can decide, before-start
	// besides whatever grants the right, before the VM starts on the other node.
	Fence string `yaml:"fence" json:"fence"`
}

// The values of Policy.SplitBrain and Policy.Fence.
const (
	SplitKeep        = "keep"
	SplitHold        = "hold"
	FenceIfNeeded    = "if-needed"
	FenceBeforeStart = "before-start"
)

// ColdStart is written "never" (0) or "after 5m".
type ColdStart time.Duration

// MarshalText writes the form UnmarshalText reads.
func (c ColdStart) MarshalText() ([]byte, error) {
	if c == 0 {
		return []byte("never"), nil
	}
	return []byte("after " + time.Duration(c).String()), nil
}

// UnmarshalText reads "never" or "after DURATION".
func (c *ColdStart) UnmarshalText(b []byte) error {
	if string(b) == "never" {
		*c = 0
		return nil
	}
	text, ok := strings.CutPrefix(string(b), "after ")
	d, err := time.ParseDuration(strings.TrimSpace(text))
	if !ok || err != nil || d <= 0 {
		return fmt.Errorf("%q is neither \"never\" nor such as \"after 5m\"", b)
	}
	*c = ColdStart(d)
	return nil
}

// Restart bounds the restarts on the same node before the module moves to its peer.
type Restart struct {
	Max    int      `yaml:"max" json:"max"`
	Window Duration `yaml:"window" json:"window"`
}

// Start is the place of a module among those that start on a node: lower order
// first, then delay before the next order.
type Start struct {
	Order int      `yaml:"order" json:"order"`
	Delay Duration `yaml:"delay" json:"delay"`
}

// On says what follows each way a guest can end. A guest that shut itself down on
// purpose is not a crash.
type On struct {
	Crash    Reaction `yaml:"crash" json:"crash"`
	Panic    Reaction `yaml:"panic" json:"panic"`
	Shutdown Reaction `yaml:"shutdown" json:"shutdown"` // by the guest itself
	Admin    Reaction `yaml:"admin" json:"admin"`       // virsh destroy, virsh shutdown
}

// Reaction is what follows the end of a guest.
type Reaction string

// The reactions.
const (
	React        Reaction = "restart"  // on this node, then on the peer, within policy.restart
	ReactMove    Reaction = "failover" // on the peer at once
	ReactStop    Reaction = "stop"     // the module stops on both nodes
	defaultGuest          = ReactStop
)

// Default is the configuration of a module before its YAML is read.
func Default() Module {
	return Module{Kind: KindVM, Policy: Policy{
		Arbitration: "safe", Primary: "last", Failback: "manual",
		Restart:     Restart{Max: 3, Window: Duration(24 * time.Hour)},
		StallBudget: Duration(2 * time.Second),
		Shutdown:    Duration(60 * time.Second),
		SplitBrain:  SplitKeep,
		Fence:       FenceIfNeeded,
		On:          On{Crash: React, Panic: React, Shutdown: defaultGuest, Admin: defaultGuest},
	}}
}

// Fault is one thing wrong in a configuration: where and what.
type Fault struct {
	Path string // policy.restart.max
	Text string // must be ≥ 0
}

// Error is "path: text".
func (f Fault) Error() string { return f.Path + ": " + f.Text }

var moduleID = regexp.MustCompile(`^[a-z0-9]{20,40}$`)

var moduleName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,38}$`)

// Validate lists every fault of m; none means it can be used.
func (m Module) Validate() []Fault {
	var out []Fault
	bad := func(path, format string, args ...any) {
		out = append(out, Fault{path, fmt.Sprintf(format, args...)})
	}
	oneOf := func(path, v string, allowed ...string) {
		if !slices.Contains(allowed, v) {
			bad(path, "%q is not one of %q", v, allowed)
		}
	}
	if !moduleName.MatchString(m.Name) {
		bad("name", "%q must be 1 to 39 of a-z, 0-9 and -, not beginning with -", m.Name)
	}
	if m.ID != "" && !moduleID.MatchString(m.ID) {
		bad("id", "%q must be 20 to 40 of a-z and 0-9: it is made with the module and stays", m.ID)
	}
	oneOf("kind", string(m.Kind), string(KindVM))
	if len(m.Nodes) != 2 || m.Nodes[0] == m.Nodes[len(m.Nodes)-1] || slices.Contains(m.Nodes, "") {
		bad("nodes", "a %s module needs two different nodes", m.Kind)
	}
	if m.VM.Domain == "" {
		bad("vm.domain", "is missing: the name of the VM")
	}
	m.validatePolicy(bad, oneOf)
	m.validateVolumes(bad)
	return out
}

func (m Module) validatePolicy(bad func(string, string, ...any), oneOf func(string, string, ...string)) {
	p := m.Policy
	oneOf("policy.arbitration", p.Arbitration, "safe", "available")
	oneOf("policy.primary", p.Primary, append([]string{"last", "any"}, m.Nodes...)...)
	oneOf("policy.split_brain", p.SplitBrain, SplitKeep, SplitHold)
	oneOf("policy.fence", p.Fence, FenceIfNeeded, FenceBeforeStart)
	oneOf("policy.failback", p.Failback, "manual", "auto")
	if p.Restart.Max < 0 {
		bad("policy.restart.max", "must be ≥ 0")
	}
	for path, d := range map[string]Duration{"policy.restart.window": p.Restart.Window, "policy.start.delay": p.Start.Delay} {
		if d < 0 {
			bad(path, "must be ≥ 0")
		}
	}
	if d := time.Duration(p.StallBudget); d < 200*time.Millisecond || d > time.Minute {
		bad("policy.stall_budget", "%s must be between 200ms and 1m", d)
	}
	if time.Duration(p.Shutdown) < time.Second {
		bad("policy.shutdown", "must be ≥ 1s")
	}
	for path, r := range map[string]Reaction{"policy.on.crash": p.On.Crash, "policy.on.panic": p.On.Panic, "policy.on.shutdown": p.On.Shutdown, "policy.on.admin": p.On.Admin} {
		oneOf(path, string(r), string(React), string(ReactMove), string(ReactStop))
	}
}

func (m Module) validateVolumes(bad func(string, string, ...any)) {
	seen := map[string]bool{}
	for i, v := range m.Volumes {
		at := fmt.Sprintf("volumes[%d]", i)
		if v.Target == "" || seen[v.Target] {
			bad(at+".target", "%q is missing or there twice", v.Target)
		}
		seen[v.Target] = true
		if v.Size <= 0 || v.Size%512 != 0 {
			bad(at+".size", "%d must be a positive multiple of 512", v.Size)
		}
		for _, n := range m.Nodes {
			if v.Paths[n] == "" {
				bad(at+".paths", "node %q has no image", n)
			}
		}
	}
}

// Peer returns the other node of a mirror.
func (m Module) Peer(self string) string {
	for _, n := range m.Nodes {
		if n != self {
			return n
		}
	}
	return ""
}

// Preferred is the node the module should run on; empty if it does not matter.
func (m Module) Preferred() string {
	switch m.Policy.Primary {
	case "last", "any":
		return ""
	}
	return m.Policy.Primary
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
