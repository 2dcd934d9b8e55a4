package appmodules

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Kind is what a module protects.
type Kind string

// Spec is what a kind of module needs beside name, nodes and policy: a value, whose methods are pure.
type Spec interface {
	// Volumes are the replicated disks; none is fine.
	Volumes() []Volume
	// On is the same on other volumes.
	On(volumes []Volume) Spec
	// Subject is the name of what is protected, as its own tools know it.
	Subject() string
	// Validate lists every fault, for a module on nodes.
	Validate(nodes []string) []Fault
	// Keeps returns nil if a module may be given next in place of this by an edit; else what may
	// not be edited, and what to do instead.
	Keeps(next Spec) error
}

// Document is a module as one struct with the keys of its kind, in the order in which admins
// read them. It is a pointer that YAML and JSON are read into.
type Document interface{ Module() Module }

// Key says what one key of a kind's document means. A path ends in [] for each element of a list.
type Key struct{ Path, Text string }

// About is all that is known of a kind. Kinds stand in one table: what else differs between
// kinds is asked of their Spec.
type About struct {
	Text  string // what it protects, in half a sentence
	Words Words
	// Document makes the document of a module of the kind. Its Spec is nil in one that is to be read.
	Document func(Module) Document
	Keys     []Key // of the kind; those of every module are CommonKeys
	// Defined: what it protects has a definition of its own, which goes with the module, and by whose name, the Subject,
	// a hypervisor knows it.
	Defined bool
}

// kinds is the table. Register adds to it.
var kinds = map[Kind]About{KindVM: aboutVM(), KindMirror: aboutApplication()}

// Register adds a kind. It is for the start of a program, before any module is read; a kind twice is a mistake.
func Register(k Kind, a About) {
	if _, have := kinds[k]; have {
		panic(fmt.Sprintf("kind %s is there already", k))
	}
	kinds[k] = a
}

// Defined tells whether modules of the kind have a definition of their own.
func (k Kind) Defined() bool { return kinds[k].Defined }

// Kinds lists the kinds by name.
func Kinds() []string {
	var out []string
	for _, k := range slices.Sorted(maps.Keys(kinds)) {
		out = append(out, string(k))
	}
	return out
}

// About is what is known of the kind.
func (k Kind) About() (About, error) {
	if k == "" {
		k = KindVM // the only one there was when modules did not say
	}
	a, ok := kinds[k]
	if !ok {
		return About{}, fmt.Errorf("kind %s: it may be of a newer version of Duet", notOneOf(string(k), Kinds()))
	}
	return a, nil
}

// Words are the kind's nouns; those of an unknown one are neutral.
func (k Kind) Words() Words {
	if a, err := k.About(); err == nil {
		return a.Words
	}
	return Words{Noun: "workload", One: "a workload", Inside: "workload"}
}

// DocumentOf is the document of m.
func DocumentOf(m Module) (Document, error) {
	a, err := m.Kind.About()
	if err != nil {
		return nil, err
	}
	return a.Document(m), nil
}

// Words are the nouns of a kind in the sentences of the table.
type Words struct {
	Noun   string // {workload}: what runs: VM
	One    string // a {workload}: the noun with its article: a VM
	Inside string // {guest}: what ends by itself or is asked to: guest
}

// Fill makes a sentence of a reason of the table.
func (w Words) Fill(why string) string {
	if !strings.Contains(why, "{") {
		return why
	}
	return strings.NewReplacer("a {workload}", w.One, "{workload}", w.Noun, "{guest}", w.Inside).Replace(why)
}
