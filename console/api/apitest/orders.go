package apitest

import (
	"slices"
	"time"

	"duet/console/api"
)

// carryOut changes the status as an order would, at once. The module has two nodes. An order about the node that leads
// leads to nothing where none does, and so does one about a node that is not there. What was handed out before is not
// changed: callers may hold it.
func (b *Backend) carryOut(module string, a api.Action, node string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.Deaf {
		return
	}
	i := slices.IndexFunc(b.st.Modules, func(m api.ModuleStatus) bool { return m.Name == module })
	b.st.Modules = slices.Clone(b.st.Modules)
	m := &b.st.Modules[i]
	m.Nodes = slices.Clone(m.Nodes)
	lead := slices.IndexFunc(m.Nodes, func(n api.NodeState) bool { return n.Role == "PRIM" || n.Role == "ALONE" })
	at := lead
	if node != "" {
		at = slices.IndexFunc(m.Nodes, func(n api.NodeState) bool { return n.Node == node })
	}
	first := max(lead, 0) // who leads afterwards: as before, or after a start
	switch {
	case a == api.Stop && node == "":
		for i := range m.Nodes {
			become(&m.Nodes[i], "STOP", "NotReady", "stopped by an operator")
		}
		return
	case a != api.Start && at < 0, a == api.Swap && lead < 0:
		return
	case a == api.Stop:
		become(&m.Nodes[at], "STOP", "NotReady", "stopped by an operator")
		if at == lead {
			become(&m.Nodes[1-at], "ALONE", "Ready", "the VM runs")
		}
		return
	case a == api.Restart:
		become(&m.Nodes[at], "PRIM", "Ready", "the VM runs")
		return
	case a == api.Swap:
		first = 1 - lead
	case a == api.Prim:
		first = at
	case a == api.Second && (at == lead || lead < 0):
		first = 1 - at
	}
	for i := range m.Nodes {
		if i == first {
			become(&m.Nodes[i], "PRIM", "Ready", "the VM runs")
		} else {
			become(&m.Nodes[i], "SECOND", "Ready", "may take over")
		}
	}
}

// become is a new state, which shows by its time: package outcome looks at that.
func become(n *api.NodeState, role, status, why string) {
	n.Role, n.Status, n.Why, n.Since = role, status, why, n.Since.Add(time.Second)
}
