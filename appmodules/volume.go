package appmodules

import (
	"fmt"
	"maps"
	"regexp"
)

// Volume is one replicated disk of a module.
type Volume struct {
	Target string            `yaml:"target" json:"target"` // disk name inside the VM, and part of the socket's name
	ID     string            `yaml:"id" json:"id"`         // identity of the data and of its log, see blockrepl.Lineage
	Size   int64             `yaml:"size" json:"size"`     // bytes, a multiple of 512; it cannot change
	Paths  map[string]string `yaml:"paths" json:"paths"`   // image on each node, by its name
}

// SocketName is the file name of the socket on which a volume of a module is served, the same on every node.
func SocketName(module, target string) string { return module + "-" + target + ".sock" }

// IsLink: the volume holds nothing, see Module.Replicated.
func (v Volume) IsLink() bool { return v.Size == 0 }

// Equal: nothing differs.
func (v Volume) Equal(o Volume) bool {
	return v.Target == o.Target && v.ID == o.ID && v.Size == o.Size && maps.Equal(v.Paths, o.Paths)
}

// plainName is what may be part of a file's name: targets and identities are.
var plainName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

func validateVolumes(volumes []Volume, nodes []string) []Fault {
	var f faults
	seen := map[string]bool{}
	for i, v := range volumes {
		at := fmt.Sprintf("volumes[%d]", i)
		switch {
		case v.Target == "" || seen[v.Target]:
			f.add(at+".target", "%q is missing or there twice", v.Target)
		case !plainName.MatchString(v.Target):
			f.add(at+".target", "%q is no plain name such as vda: letters, digits, and . _ - after the first", v.Target)
		}
		seen[v.Target] = true
		if v.ID != "" && !plainName.MatchString(v.ID) {
			f.add(at+".id", "%q is no plain name: letters, digits, and . _ - after the first", v.ID)
		}
		if v.Size <= 0 || v.Size%512 != 0 {
			f.add(at+".size", "%d must be a positive multiple of 512", v.Size)
		}
		for _, n := range nodes {
			if v.Paths[n] == "" {
				f.add(at+".paths", "node %q has no image", n)
			}
		}
	}
	return f
}

var volumeKeys = []Key{
	{"volumes[].target", "name of the disk inside the VM; written by `duet vm protect`, like all of volumes, and not to " +
		"be edited"},
	{"volumes[].id", "identity of the data on it"},
	{"volumes[].size", "bytes"},
	{"volumes[].paths", "image on each node"},
}
