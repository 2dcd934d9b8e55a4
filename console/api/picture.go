package api

import (
	"fmt"
	"strings"
	"time"
)

// Volume is one volume on one node, as a row of its own.
type Volume struct {
	Module string `json:"module"`
	Node   string `json:"node"`
	Role   string `json:"role" doc:"of the module on that node"`
	Stale  bool   `json:"stale,omitempty" doc:"the node does not answer; this is the last that was heard"`
	VolumeStatus
}

// Module returns the module of that name, or an ErrNotFound that lists those there are.
func (s Status) Module(name string) (ModuleStatus, error) {
	known := make([]string, 0, len(s.Modules))
	for _, m := range s.Modules {
		if m.Name == name {
			return m, nil
		}
		known = append(known, m.Name)
	}
	if len(known) == 0 {
		return ModuleStatus{}, fmt.Errorf("module %s: %w: no VM is protected yet: `duet vm protect NAME`", name, ErrNotFound)
	}
	return ModuleStatus{}, fmt.Errorf("module %s: %w%s", name, ErrNotFound, Known(name, known))
}

// Volumes lists every volume on every node, in the order of modules and nodes. A volume has one row for each of its
// nodes.
func (s Status) Volumes() []Volume {
	var out []Volume
	for _, m := range s.Modules {
		for _, n := range m.Nodes {
			for _, v := range n.Volumes {
				out = append(out, Volume{Module: m.Name, Node: n.Node, Role: n.Role, Stale: n.Stale, VolumeStatus: v})
			}
		}
	}
	return out
}

// On returns the module's state on that node, or an ErrNotFound that lists its nodes.
func (m ModuleStatus) On(node string) (NodeState, error) {
	var known []string
	for _, n := range m.Nodes {
		if n.Node == node {
			return n, nil
		}
		known = append(known, n.Node)
	}
	if len(known) == 0 {
		return NodeState{}, fmt.Errorf("module %s on node %s: %w: it is still being made", m.Name, node, ErrNotFound)
	}
	return NodeState{},
		fmt.Errorf("module %s on node %s: %w: its nodes are %s", m.Name, node, ErrNotFound, strings.Join(known, ", "))
}

// parseLife reads how long a token is good. A week is the longest: it opens the cluster.
func parseLife(s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if err != nil || d <= 0 || d > 7*24*time.Hour {
		return 0, fmt.Errorf("life %q: %w: say a duration up to 168h, as 1h", s, ErrInvalid)
	}
	return d, nil
}
