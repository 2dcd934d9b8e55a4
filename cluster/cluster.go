package cluster

import (
	"cmp"
	"encoding/json"
	"slices"
	"time"
)

// NodeID names a node: its name in the cluster, as admins type it.
type NodeID string

// Epoch numbers the right to write of one module. Zero is "never granted".
type Epoch uint64

// Config is what every node knows of its cluster. It is stored as JSON.
type Config struct {
	Name     string    `json:"name"`
	Self     NodeID    `json:"self"` // this node; the only field that differs between nodes
	Port     int       `json:"port"` // TCP port of mux; heartbeats use Port+1 (UDP and TCP)
	Networks []Network `json:"networks"`
	Members  []Member  `json:"members"`
	// Detection is how long all heartbeat paths are silent before a peer is suspected.
	Detection time.Duration `json:"detection"`
	// Ping are the targets of `arbitration: available`; empty means the default gateway.
	Ping []string `json:"ping,omitempty"`
	// PingStep numbers the changes of Ping since the cluster was made; the higher one is the newer.
	PingStep uint64 `json:"ping_step,omitempty"`
	// Voters are the witnesses (cluster/DESIGN.md, rule 3b).
	Voters Voters `json:"voters,omitzero"`
	// Fence has the fence devices of nodes, as package fence encodes them, with their passwords.
	Fence map[NodeID]json.RawMessage `json:"fence,omitempty"`
	// Removed are the nodes that were taken off, by which a node that was away learns of it.
	Removed []Fact `json:"removed,omitempty"`
	// GossipKeys encrypt heartbeats, newest first, 32 bytes each.
	GossipKeys [][]byte `json:"gossip_keys"`
	// GossipStep counts the steps of the exchange of that key, and GossipFor is the change of
	// the membership that the last exchange was for; see NextKeys.
	GossipStep uint64 `json:"gossip_step,omitempty"`
	GossipFor  uint64 `json:"gossip_for,omitempty"`
}

// Network is one heartbeat network. The first one also carries replication unless another has Replication set.
type Network struct {
	Name        string `json:"name"`
	Replication bool   `json:"replication,omitempty"`
}

// Member is one node and its address (IP without port) on each network.
type Member struct {
	Node  NodeID            `json:"node"`
	Addrs map[string]string `json:"addrs"` // by Network.Name
	// Key is the fingerprint of the node's public key, hexadecimal, by which a computer that was
	// removed is told from the one that has its name now; empty for members of older releases.
	Key string `json:"key,omitempty"`
	// Since numbers the change of the membership that made it a member; see Fact.
	Since uint64 `json:"since,omitempty"`
}

// Defaults of a cluster.
const (
	DefaultPort = 7420 // mux; the next one is of heartbeats, then the API
	// DefaultWitnessPort is where a witness serves clusters.
	DefaultWitnessPort = 7425
	DefaultDetection   = 2 * time.Second
)

// Member returns the member of that name.
func (c Config) Member(n NodeID) (Member, bool) {
	i := slices.IndexFunc(c.Members, func(m Member) bool { return m.Node == n })
	if i < 0 {
		return Member{}, false
	}
	return c.Members[i], true
}

// Paths lists the addresses of n, the replication network first if replication is true, else last.
func (c Config) Paths(n NodeID, replication bool) []string {
	m, ok := c.Member(n)
	if !ok {
		return nil
	}
	repl := c.replicationNetwork()
	nets := slices.Clone(c.Networks)
	slices.SortStableFunc(nets, func(a, b Network) int {
		rank := func(n Network) int {
			if (n.Name == repl) == replication {
				return 0
			}
			return 1
		}
		return cmp.Compare(rank(a), rank(b))
	})
	var out []string
	for _, n := range nets {
		if a := m.Addrs[n.Name]; a != "" {
			out = append(out, a)
		}
	}
	return out
}

func (c Config) replicationNetwork() string {
	for _, n := range c.Networks {
		if n.Replication {
			return n.Name
		}
	}
	if len(c.Networks) == 0 {
		return ""
	}
	return c.Networks[0].Name
}

// View is one node's view of the cluster at an instant: a value. Equal views
// give equal decisions on every node.
type View struct {
	Self  NodeID
	Peers map[NodeID]PeerView
}

// PeerView is what one node sees of another. Its zero value is that of a peer that is not known yet: neither alive
// nor silent.
type PeerView struct {
	// Paths tells per heartbeat network whether the peer answers there.
	Paths map[string]bool
	// Leaving: the peer said that it stops on purpose; its silence is no failure.
	Leaving bool
	// Quiet: no path has answered for a third of the detection time: too short to take it
	// for dead, long enough not to wait for it where a witness can decide at once.
	Quiet bool
	// Silent is since when no path has answered; zero while one does.
	Silent time.Time
}

// Alive reports whether any heartbeat path to n answers.
func (v View) Alive(n NodeID) bool {
	for _, ok := range v.Peers[n].Paths {
		if ok {
			return true
		}
	}
	return false
}
