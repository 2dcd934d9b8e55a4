package fence

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// ErrConfig is wrapped by every error about a device that is described wrongly.
var ErrConfig = errors.New("faulty fence device")

// DefaultTimeout bounds one command of a device. Agents wait up to 20 s for the power to go, by default.
const DefaultTimeout = 30 * time.Second

// Bounds of a device, far above anything sensible.
const (
	maxTimeout = 10 * time.Minute
	maxOptions = 64
	maxValue   = 1024 // bytes
	maxLevels  = 8
	maxDevices = 8 // of one level
)

// mask stands for a value that is not shown.
const mask = "***"

// Device is one thing that can switch one node off.
type Device struct {
	// Name is what admins call it.
	Name string `json:"name"`
	// Agent is the program: fence_ipmilan.
	Agent string `json:"agent"`
	// Options are the agent's, by the names that its metadata lists.
	Options Options `json:"options,omitempty"`
	// Timeout bounds each of the two commands, off and status; 0 is DefaultTimeout.
	Timeout time.Duration `json:"timeout,omitempty"`
}

// Options are the options of an agent. Formatting and marshalling hide all values but those
// known to be harmless; Encode writes them as they are.
type Options map[string]string

// Levels are the ways to switch one node off: the first level counts, then the second and so on
// if it fails. The devices of one level must all be off, such as the two power supplies of a node.
type Levels [][]Device

var (
	deviceName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)
	agentName  = regexp.MustCompile(`^fence_[a-z0-9_]{1,56}$`)
	optionName = regexp.MustCompile(`^[a-z][a-z0-9_]{0,62}$`)
)

// String names the device and its agent.
func (d Device) String() string { return fmt.Sprintf("%s (%s)", d.Name, d.Agent) }

// Bound is what bounds one command: its Timeout, or the default.
func (d Device) Bound() time.Duration { return cmp.Or(d.Timeout, DefaultTimeout) }

// Validate reports all faults of d that show without its agent, each with its remedy. The
// error wraps ErrConfig.
func (d Device) Validate() error {
	var faults []string
	fault := func(format string, args ...any) { faults = append(faults, fmt.Sprintf(format, args...)) }
	if !deviceName.MatchString(d.Name) {
		fault("name %q: use letters, digits, dot, dash and underscore, at most 63", d.Name)
	}
	if !agentName.MatchString(d.Agent) {
		fault("agent %q: give the name of a fence agent without its folder, such as fence_ipmilan", d.Agent)
	}
	if d.Timeout < 0 || d.Timeout > maxTimeout || (d.Timeout > 0 && d.Timeout < time.Second) {
		fault("timeout %s: must be from 1s to %s, or left out for %s", d.Timeout, maxTimeout, DefaultTimeout)
	}
	if len(d.Options) > maxOptions {
		fault("%d options: at most %d are passed on", len(d.Options), maxOptions)
	}
	for _, name := range slices.Sorted(maps.Keys(d.Options)) {
		if why := faultyOption(name, d.Options[name]); why != "" {
			fault("option %q: %s", name, why)
		}
	}
	if len(faults) > 0 {
		return fmt.Errorf("%w %q: %s", ErrConfig, d.Name, strings.Join(faults, "; "))
	}
	return nil
}

// faultyOption says what is wrong with an option, without showing its value.
func faultyOption(name, value string) string {
	switch name {
	case "action", "option", "nodename":
		return "leave it out, Duet gives it with each command"
	case "verbose", "verbose_level", "debug", "debug_file":
		return "leave it out, it makes the agent print passwords; for more output run the agent by hand"
	case "quiet", "help", "version":
		return "leave it out, it hides the agent's reasons"
	}
	switch {
	case !optionName.MatchString(name):
		return "write it as the agent's metadata does, in lower case with underscores"
	case strings.TrimSpace(printable(value)) == "":
		return "it has no value: give one, or leave the option out"
	case value == mask:
		return "its value is only what is shown instead of it: give the value itself"
	case len(value) > maxValue:
		return fmt.Sprintf("its value has more than %d bytes", maxValue)
	case !utf8.ValidString(value) || strings.ContainsAny(value, "\x00\r\n"):
		return "its value must be one line of text"
	}
	return ""
}

// Validate reports all faults of the levels. The error wraps ErrConfig.
func (l Levels) Validate() error {
	if len(l) == 0 || len(l) > maxLevels {
		return fmt.Errorf("%w: %d levels: give 1 to %d", ErrConfig, len(l), maxLevels)
	}
	var faults []error
	names := map[string]bool{}
	for i, level := range l {
		if len(level) == 0 || len(level) > maxDevices {
			faults = append(faults, fmt.Errorf("%w: level %d has %d devices: give 1 to %d", ErrConfig, i+1, len(level),
				maxDevices))
		}
		for _, d := range level {
			if err := d.Validate(); err != nil {
				faults = append(faults, err)
			}
			if names[d.Name] {
				faults = append(faults, fmt.Errorf("%w %q: two devices have this name: give each its own", ErrConfig, d.Name))
			}
			names[d.Name] = true
		}
	}
	return errors.Join(faults...)
}

// Longest is how long Off can take: what to bound its context with, so that the last level has its turn.
func (l Levels) Longest() time.Duration {
	var sum time.Duration
	for _, level := range l {
		for _, d := range level {
			sum += 2 * (d.Bound() + grace + leftover)
		}
	}
	return sum
}

// shown are the options whose values are no secret. All others are, also misspelled ones.
var shown = map[string]bool{
	"ip": true, "ipaddr": true, "ipport": true, "plug": true, "port": true, "username": true, "login": true,
	"identity_file": true, "method": true, "privlvl": true, "cipher": true, "lanplus": true, "target": true,
	"ssh": true, "ssl": true, "ssl_secure": true, "ssl_insecure": true, "systems_uri": true, "redfish_uri": true,
	"inet4_only": true, "inet6_only": true, "snmp_version": true, "delay": true, "power_timeout": true, "power_wait": true,
	"login_timeout": true, "shell_timeout": true, "retry_on": true, "missing_as_off": true, "type": true,
	"status_file": true,
}

// redacted is o as it may be shown.
func (o Options) redacted() map[string]string {
	out := make(map[string]string, len(o))
	for name, value := range o {
		if !shown[name] {
			value = mask
		}
		out[name] = value
	}
	return out
}

// Secrets lists the values that are not shown.
func (l Levels) Secrets() []string {
	var out []string
	for _, level := range l {
		for _, d := range level {
			for _, name := range slices.Sorted(maps.Keys(d.Options)) {
				if !shown[name] {
					out = append(out, d.Options[name])
				}
			}
		}
	}
	return out
}

// Format writes o for every verb without its secrets.
func (o Options) Format(s fmt.State, _ rune) { _, _ = fmt.Fprint(s, o.redacted()) }

// MarshalJSON writes o without its secrets.
func (o Options) MarshalJSON() ([]byte, error) { return json.Marshal(o.redacted()) }

// MarshalYAML writes o without its secrets.
func (o Options) MarshalYAML() (any, error) { return o.redacted(), nil }

// secret is a Device as it is stored.
type secret struct {
	Name    string            `json:"name"`
	Agent   string            `json:"agent"`
	Options map[string]string `json:"options,omitempty"`
	Timeout time.Duration     `json:"timeout,omitempty"` // nanoseconds
}

// Encode writes the levels as JSON with their secrets, for storage only.
func Encode(l Levels) ([]byte, error) {
	out := make([][]secret, len(l))
	for i, level := range l {
		for _, d := range level {
			out[i] = append(out[i], secret{d.Name, d.Agent, d.Options, d.Timeout})
		}
	}
	text, err := json.Marshal(out)
	if err != nil {
		return nil, fmt.Errorf("encode fence devices: %w", err)
	}
	return text, nil
}

// Decode reads what Encode wrote, or what an admin wrote in its place: it refuses unknown
// keys and everything that Validate does.
func Decode(text []byte) (Levels, error) {
	dec := json.NewDecoder(strings.NewReader(string(text)))
	dec.DisallowUnknownFields()
	var l Levels
	if err := dec.Decode(&l); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrConfig, err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%w: something follows the last level", ErrConfig)
	}
	if err := l.Validate(); err != nil {
		return nil, err
	}
	return l, nil
}
