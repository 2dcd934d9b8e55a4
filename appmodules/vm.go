package appmodules

import (
	"errors"
	"slices"
)

// KindVM is a virtual machine and its disks.
const KindVM Kind = "vm"

// VM is the Spec of a module of KindVM.
type VM struct {
	Domain string   // name of the VM in its hypervisor
	Disks  []Volume // written by `duet vm protect`, not by hand
}

// Volumes are the disks of the VM.
func (v VM) Volumes() []Volume { return v.Disks }

// On is the same VM on other disks.
func (v VM) On(volumes []Volume) Spec { return VM{Domain: v.Domain, Disks: volumes} }

// Subject is the name of the VM.
func (v VM) Subject() string { return v.Domain }

// Validate lists every fault.
func (v VM) Validate(nodes []string) []Fault {
	var f faults
	if len(nodes) != 2 || nodes[0] == nodes[1] || slices.Contains(nodes, "") {
		f.add("nodes", "a %s module needs two different nodes", KindVM)
	}
	if v.Domain == "" {
		f.add("vm.domain", "is missing: the name of the VM")
	}
	return append(f, validateVolumes(v.Disks, nodes)...)
}

// Keeps refuses edits of what only protect and release may change.
func (v VM) Keeps(next Spec) error {
	n, ok := next.(VM)
	if !ok || v.Domain != n.Domain || !slices.EqualFunc(v.Disks, n.Disks, Volume.Equal) {
		return errors.New("kind, nodes, vm and volumes of a module cannot be edited; release the VM and protect it anew")
	}
	return nil
}

// vmDocument is a module of KindVM in YAML and JSON.
type vmDocument struct {
	Name  string   `yaml:"name" json:"name"`
	ID    string   `yaml:"id,omitempty" json:"id,omitempty"`
	Kind  Kind     `yaml:"kind" json:"kind"`
	Nodes []string `yaml:"nodes" json:"nodes"`
	VM    struct {
		Domain string `yaml:"domain" json:"domain"`
	} `yaml:"vm" json:"vm"`
	Policy  Policy   `yaml:"policy" json:"policy"`
	Volumes []Volume `yaml:"volumes,omitempty" json:"volumes,omitempty"`
}

// Module is what the document says.
func (d *vmDocument) Module() Module {
	return Module{Name: d.Name, ID: d.ID, Kind: d.Kind, Nodes: d.Nodes, Policy: d.Policy,
		Spec: VM{Domain: d.VM.Domain, Disks: d.Volumes}}
}

func aboutVM() About {
	return About{
		Text:    "a virtual machine and its disks, mirrored to the other node",
		Defined: true,
		Words:   Words{Noun: "VM", One: "a VM", Inside: "guest"},
		Document: func(m Module) Document {
			d := &vmDocument{Name: m.Name, ID: m.ID, Kind: m.Kind, Nodes: m.Nodes, Policy: m.Policy}
			if v, ok := m.Spec.(VM); ok {
				d.VM.Domain, d.Volumes = v.Domain, v.Disks
			}
			return d
		},
		Keys: append([]Key{{"vm.domain", "name of the VM in its hypervisor; it cannot be edited"}}, volumeKeys...),
	}
}
