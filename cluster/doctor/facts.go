package doctor

import "time"

// Facts are what one node found out about itself. They travel between nodes as JSON.
type Facts struct {
	Node     string `json:"node"`
	Version  string `json:"version"`  // of the program that gathered them, for people
	Protocol int    `json:"protocol"` // of replication
	// Daemon: duetd gathered them. Without it a command did, which sees less.
	Daemon     bool       `json:"daemon"`
	Host       Host       `json:"host"`
	Hypervisor Hypervisor `json:"hypervisor"`      // empty: nobody asked it
	Routes     []Route    `json:"routes"`          // to the other nodes, one per network
	Ports      []Port     `json:"ports,omitempty"` // of this node, before its daemon runs
	API        string     `json:"api,omitempty"`   // IP:port where the API is served, if it is
	Modules    []Module   `json:"modules"`         // that have a copy here
	Witnesses  []Witness  `json:"witnesses"`       // the voter first
	Fenced     []string   `json:"fenced"`          // nodes that can be switched off
	// Devices are the fence devices that this node would use, and that were tried.
	Devices []Device `json:"devices,omitempty"`
	// Targets are what modules go by that have nothing better; nil: none does, or it was not looked.
	Targets  []Target `json:"targets"`
	Watchdog string   `json:"watchdog"` // device the daemon was given
	// Guard: a guard answers the daemon; nil: that was told of none, or is older than guards.
	Guard *bool `json:"guard,omitempty"`
	// Unlooked: what could not be looked at, and why, one sentence each.
	Unlooked []string `json:"unlooked,omitempty"`
}

// Host is the computer of a node.
type Host struct {
	Memory   int64   `json:"memory"`     // bytes in all; 0: not known
	Huge     int64   `json:"huge_pages"` // bytes of it that are set aside as huge pages
	KVM      bool    `json:"kvm"`        // there is /dev/kvm
	Spaces   []Space `json:"spaces"`
	AppArmor bool    `json:"apparmor"` // the kernel uses it
	// Abstraction: QEMU's AppArmor profile lets guests reach Duet's volumes.
	Abstraction bool     `json:"abstraction"`
	SELinux     string   `json:"selinux"`   // enforcing, permissive or empty
	Firewall    string   `json:"firewall"`  // which one is in use: firewalld, ufw, nft or empty
	Watchdogs   []string `json:"watchdogs"` // devices that there are
	// Of the process that looked.
	Files  uint64 `json:"files"`  // how many it may open; 0: not known
	Locked bool   `json:"locked"` // its memory cannot be swapped out
}

// What a Space is for.
const (
	ForMetadata = "metadata"
	ForImages   = "images"
)

// Space is the free space of one file system.
type Space struct {
	Dir  string `json:"dir"`  // one directory of it; findings name it
	For  string `json:"for"`  // ForMetadata or ForImages: one file system may have both
	Free int64  `json:"free"` // bytes
	Grow int64  `json:"grow"` // bytes that the sparse images there may still take
}

// Hypervisor is what a node's hypervisor says. With a Problem the rest is empty. Without a Version, only that
// something listens is known.
type Hypervisor struct {
	Problem  string     `json:"problem,omitempty"` // why it says nothing
	Name     string     `json:"name"`
	Version  string     `json:"version"`
	Emulator string     `json:"emulator"`
	User     string     `json:"user"` // whom the guests' processes run as
	Security []Security `json:"security"`
	VMs      []VM       `json:"vms"`
}

// Security is a model that confines guests.
type Security struct {
	Model string `json:"model"` // as libvirt names it: dac, apparmor, selinux, none
	Label string `json:"label"` // of the model; of dac it is user and group, see host.Who
}

// VM is one VM that is defined on a node.
type VM struct {
	Name      string `json:"name"`
	Running   bool   `json:"running"`
	Memory    int64  `json:"memory"` // bytes
	HugePages bool   `json:"huge_pages"`
}

// Module is a module as its configuration has it. All modules count, whether or not their VM runs here: each may
// have to.
type Module struct {
	Name        string `json:"name"`
	VM          string `json:"vm"`
	Peer        string `json:"peer"`
	Arbitration string `json:"arbitration"`
	// How it stands on this node, in the words of the API. Empty: not known, as of a release that does not tell it.
	Role    string `json:"role,omitempty"`
	Status  string `json:"status,omitempty"`
	Why     string `json:"why,omitempty"`     // one sentence
	Stopped bool   `json:"stopped,omitempty"` // by an operator
	// Condition is that of its VM, in the API's words; empty: not known.
	Condition string `json:"condition,omitempty"`
	// Notices are what is to be mended of it on this node, but for what the other facts say.
	Notices []Notice `json:"notices,omitempty"`
}

// Notice is one of the API's.
type Notice struct {
	Alarm  bool   `json:"alarm,omitempty"` // data are not on both nodes
	Text   string `json:"text"`
	Remedy string `json:"remedy,omitempty"`
}

// Witness is a third voter, or a spare.
type Witness struct {
	Addr  string `json:"addr"`
	Spare bool   `json:"spare"`
	Alive bool   `json:"alive"`
	// Refuses: it answers, and these are its words why it does nothing for the node. Removed: the node is no member
	// of its cluster any more, as it knows.
	Refuses string `json:"refuses,omitempty"`
	Removed bool   `json:"removed,omitempty"`
}

// Device is one that can switch a node off.
type Device struct {
	Node    string `json:"node"` // that it switches off
	Name    string `json:"name"`
	Problem string `json:"problem,omitempty"` // why it could not do so now
}

// Target is an address that answers pings, or does not.
type Target struct {
	Addr    string `json:"addr"` // IP
	Answers bool   `json:"answers"`
}

// Route is the way from one node to another over one network. One without an address on either side is left out.
type Route struct {
	To      string  `json:"to"`
	Network string  `json:"network"` // of the cluster's heartbeat networks
	From    string  `json:"from"`    // IP
	Addr    string  `json:"addr"`    // IP
	Probes  []Probe `json:"probes"`
}

// The protocols of a Probe.
const (
	TCP = "TCP"
	UDP = "UDP"
)

// Probe is one port of another node, tried from here.
type Probe struct {
	Proto string `json:"proto"`
	Port  int    `json:"port"`
	API   bool   `json:"api"`   // only people and tools need it
	State string `json:"state"` // empty: it was not tried
}

// The states of a Probe. One that was not tried is empty.
const (
	Open    = "open"
	Refused = "refused" // the computer answers that nothing listens there
	Silent  = "silent"  // nothing answers
)

// Port is a port that a daemon that does not run yet will want.
type Port struct {
	Proto   string `json:"proto"`
	Addr    string `json:"addr"` // IP:port
	Problem string `json:"problem,omitempty"`
}

// The problems of a Port, if it is no other one.
const (
	Busy   = "busy"   // another program has it
	NoAddr = "noaddr" // this computer does not have the address
)

// Look is one look at a cluster, from its first node. The clocks of the others are compared with the first node's.
type Look struct {
	Nodes []Node
}

// Node is one node in a Look.
type Node struct {
	Name  string
	Facts *Facts // nil: it was not told
	Why   string // why not, one sentence
	How   string // what is known of that: Refuses, Replaced or Mute; empty: no more than Why
	// Ahead is by how much its clock is ahead of the first node's, give or take Within.
	Ahead, Within time.Duration
}

// How a node tells nothing. What its ports do says the rest.
const (
	Refuses  = "refuses"  // it takes the first node for no member
	Replaced = "replaced" // it is not the computer that the first node knows as a member by that name
	Mute     = "mute"     // it did not answer in time
)

// Ahead compares the clocks of two nodes by one exchange, as NTP does: sent and received are by the clock of the one
// who asked, began and ended by that of the one who answered. It is exact if both ways take the same time; within is
// by how much that can be wrong. The time that the other one worked falls out.
func Ahead(sent, began, ended, received time.Time) (ahead, within time.Duration) {
	trip := received.Sub(sent) - ended.Sub(began)
	return (began.Sub(sent) + ended.Sub(received)) / 2, max(0, trip) / 2
}
