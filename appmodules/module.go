package appmodules

import (
	"cmp"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
)

// Module is the configuration of one module, the same on all its nodes. In YAML and JSON the
// keys of its kind stand beside the others, as the kind's Document says.
type Module struct {
	Name string
	// ID is random and made when the module is: votes and requests belong to it, because the
	// name may be used again. Modules of releases before it have none. See Identity.
	ID     string
	Kind   Kind
	Nodes  []string // first = preferred primary, unless policy.primary says otherwise
	Policy Policy
	Spec   Spec // of the kind; nil in the zero Module only
}

// Identity tells the module from all others, also from earlier and later ones of its name. A
// module that was made before there were IDs keeps its name as its identity. Votes go by it: an identity that changed
// would let a witness that remembers nothing of it agree to a stale copy.
func (m Module) Identity() string { return cmp.Or(m.ID, m.Name) }

// maxName is the length of a module's name in bytes: it is part of file names and sockets.
const maxName = 39

// NameFor makes the name of a module of that of what it protects: small letters, digits and
// dashes, and a number at the end where the plain one is taken.
func NameFor(subject string, taken func(string) bool) string {
	plain := strings.Trim(strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9':
			return r
		}
		return '-'
	}, strings.ToLower(subject)), "-")
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

// Default is the configuration of a VM's module before its YAML is read.
func Default() Module {
	return Module{Kind: KindVM, Policy: DefaultPolicy(), Spec: VM{}}
}

// Fault is one thing wrong in a configuration: where and what.
type Fault struct {
	Path string // policy.restart.max
	Text string // must be from 0 to 1000
}

// Error is "path: text".
func (f Fault) Error() string { return f.Path + ": " + f.Text }

var moduleID = regexp.MustCompile(`^[a-z0-9]{20,40}$`)

// faults gathers what is wrong.
type faults []Fault

func (f *faults) add(path, format string, args ...any) {
	*f = append(*f, Fault{path, fmt.Sprintf(format, args...)})
}

var moduleName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,38}$`)

// Validate lists every fault of m; none means it can be used. It asks nothing of the cluster: that the nodes are
// members is for the caller.
func (m Module) Validate() []Fault {
	var f faults
	if !moduleName.MatchString(m.Name) {
		f.add("name", "%q must be 1 to 39 of a-z, 0-9 and -, not beginning with -", m.Name)
	}
	if m.ID != "" && !moduleID.MatchString(m.ID) {
		f.add("id", "%q must be 20 to 40 of a-z and 0-9: it is made with the module and stays", m.ID)
	}
	if _, known := kinds[m.Kind]; !known || m.Spec == nil {
		if text := notOneOf(string(m.Kind), Kinds()); text != "" {
			f.add("kind", "%s", text)
		}
		return append(f, m.Policy.Validate(m.Nodes)...)
	}
	f = append(f, m.Spec.Validate(m.Nodes)...)
	return append(f, m.Policy.Validate(m.Nodes)...)
}

// Volumes are the replicated disks of the module; none is fine.
func (m Module) Volumes() []Volume {
	if m.Spec == nil {
		return nil
	}
	return m.Spec.Volumes()
}

// Replicated are the volumes that link the nodes of a mirror: those of the module or, where it
// has none, one of no bytes. What is attached, taken over and given up is then the same for both. It is never empty.
// What has bytes, as figures and proofs, goes by Volumes.
func (m Module) Replicated() []Volume {
	if v := m.Volumes(); len(v) > 0 {
		return v
	}
	return []Volume{{Target: "link", ID: "link-" + m.Identity()}}
}

// Subject is the name of what the module protects, as its own tools know it: a VM's.
func (m Module) Subject() string {
	if m.Spec == nil {
		return ""
	}
	return m.Spec.Subject()
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

// MarshalJSON writes the document of the module's kind.
func (m Module) MarshalJSON() ([]byte, error) {
	doc, err := DocumentOf(m)
	if err != nil {
		return nil, err
	}
	return json.Marshal(doc)
}

// UnmarshalJSON reads what MarshalJSON writes, in this build or an earlier one.
func (m *Module) UnmarshalJSON(b []byte) error {
	var head struct {
		Kind Kind `json:"kind"`
	}
	if err := json.Unmarshal(b, &head); err != nil {
		return err
	}
	doc, err := DocumentOf(Module{Kind: head.Kind})
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, doc); err != nil {
		return err
	}
	*m = doc.Module()
	return nil
}
