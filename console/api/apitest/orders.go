package apitest

import (
	"slices"
	"time"

	"duet/console/api"
)

// carryOut changes the status as an order would, at once. The module has two nodes, of which one leads unless the
// order is a start or stop. What was handed out before is not changed: callers may hold it.
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
	switch {
	case a == api.Stop && node == "":
		for i := range m.Nodes {
			become(&m.Nodes[i], "STOP", "NotReady", "stopped by an operator")
		}
	case a == api.Stop && at == lead:
		become(&m.Nodes[at], "STOP", "NotReady", "stopped by an operator")
		become(&m.Nodes[1-at], "ALONE", "Ready", "the VM runs")
	case a == api.Stop:
		become(&m.Nodes[at], "STOP", "NotReady", "stopped by an operator")
	case a == api.Restart:
		become(&m.Nodes[at], "PRIM", "Ready", "the VM runs")
	case a == api.Swap, a == api.Prim && at != lead, a == api.Second && at == lead:
		become(&m.Nodes[lead], "SECOND", "Ready", "may take over")
		become(&m.Nodes[1-lead], "PRIM", "Ready", "the VM runs")
	default: // start, or as it is already
		for i := range m.Nodes {
			if i == max(lead, 0) {
				become(&m.Nodes[i], "PRIM", "Ready", "the VM runs")
			} else {
				become(&m.Nodes[i], "SECOND", "Ready", "may take over")
			}
		}
	}
}

// become is a new state, which shows by its time: package outcome looks at that.
func become(n *api.NodeState, role, status, why string) {
	n.Role, n.Status, n.Why, n.Since = role, status, why, n.Since.Add(time.Second)
}
