package registry

import (
	"errors"
	"fmt"
	"regexp"
	"time"

	"duet/appmodules"
	"duet/appmodules/engine"
	"duet/cluster"
	"duet/vmmanager"
)

// Version says when a configuration was made; the higher number wins, and of two
// equal ones that of the node whose name sorts last.
type Version struct {
	Number  uint64    `json:"number"`
	Changed time.Time `json:"changed"`
	By      string    `json:"by"`
}

// newer reports whether v replaces o on every node.
func (v Version) newer(o Version) bool {
	return v.Number > o.Number || (v.Number == o.Number && v.By > o.By)
}

// Stored is a module's configuration, in the store and between nodes.
type Stored struct {
	Version Version           `json:"version"`
	Module  appmodules.Module `json:"module"`
}

// Fresh is what both nodes need to know of a module that begins. It is the same value on both, but for what each does
// with Source: the other copy is empty, and can only be overwritten.
type Fresh struct {
	Stored     Stored            `json:"stored"`
	Source     cluster.NodeID    `json:"source"` // has the data
	Definition engine.Definition `json:"definition"`
}

// Targets become names of sockets, and IDs parts of keys: no path fits these.
var (
	volumeTarget = regexp.MustCompile(`^[a-zA-Z0-9]{1,32}$`)
	volumeID     = regexp.MustCompile(`^[a-zA-Z0-9]{4,64}$`)
)

// Check refuses what no node would have stored: names become parts of paths and keys. It is for what comes from
// another node, before it is used for anything; it asks nobody.
func (s Stored) Check() error {
	if s.Version.Number > lastVersion {
		return fmt.Errorf("version %d cannot be followed by another", s.Version.Number)
	}
	if faults := s.Module.Validate(); len(faults) > 0 {
		return faults[0]
	}
	for _, v := range s.Module.Volumes() {
		if !volumeTarget.MatchString(v.Target) || !volumeID.MatchString(v.ID) {
			return fmt.Errorf("%q (%q) is no volume", v.Target, v.ID)
		}
	}
	var subject error
	if s.Module.Kind.Defined() {
		subject = vmmanager.CheckName(s.Module.Subject())
	}
	return errors.Join(subject, cluster.NodeID(s.Version.By).Check())
}

// HasIdentities is the version from which nodes tell modules of one name apart. Another node's is asked anew each time:
// its release may change between two calls.
const HasIdentities cluster.Version = 2

// lastVersion is more than there will ever be edits.
const lastVersion = 1 << 60

// Check refuses a module without the definition that its kind needs, and what Stored refuses.
func (n Fresh) Check() error {
	name, def := n.Stored.Module.Name, n.Definition
	if n.Stored.Module.Kind.Defined() && (def.Module != name || len(def.Text) == 0) {
		return fmt.Errorf("the definition is of module %q and has %d bytes, the module is %s", def.Module, len(def.Text),
			name)
	}
	return n.Stored.Check()
}
