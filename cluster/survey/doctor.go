package survey

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"duet/cluster"
	"duet/cluster/control"
	"duet/cluster/doctor"
	"duet/cluster/membership"
	"duet/console/api"
)

// How long another node may take for its facts, and one whose heartbeats are not heard:
// it may be there all the same.
const (
	askTime      = lookTime + 5*time.Second // its look, and the way
	askDeadAfter = 3 * time.Second
)

// Reply is what a node answers that was asked for its facts, with its clock at both ends. Its JSON travels between
// releases, as that of doctor.Facts.
type Reply struct {
	Facts doctor.Facts `json:"facts"`
	Began time.Time    `json:"began"`
	Ended time.Time    `json:"ended"`
}

// Doctor asks all nodes for their facts and judges them. It takes as long as the slowest node, at most askTime and
// what this node's own look takes.
func (l *Lookout) Doctor(ctx context.Context) (api.Doctor, error) {
	out := api.Doctor{Node: string(l.cfg.Cluster().Self), Findings: []api.Finding{}}
	for _, f := range doctor.Judge(l.look(ctx)) {
		out.Findings = append(out.Findings, api.Finding(f))
	}
	return out, ctx.Err()
}

// look gathers the facts of all nodes, this one first. The first is what the clocks of the others are compared with.
func (l *Lookout) look(ctx context.Context) doctor.Look {
	self := doctor.Node{Name: string(l.cfg.Cluster().Self)}
	var wg sync.WaitGroup
	wg.Go(func() { self.Facts = new(l.Facts(ctx).Facts) })
	others := l.lookAtOthers(ctx)
	wg.Wait()
	return doctor.Look{Nodes: append([]doctor.Node{self}, others...)}
}

// lookAtOthers gathers the facts of all nodes but this one. Each goroutine has its own place in nodes.
func (l *Lookout) lookAtOthers(ctx context.Context) []doctor.Node {
	c := l.cfg.Cluster()
	var nodes []doctor.Node
	for _, m := range c.Members {
		if m.Node != c.Self {
			nodes = append(nodes, doctor.Node{Name: string(m.Node)})
		}
	}
	var wg sync.WaitGroup
	for i := range nodes {
		wg.Go(func() { l.askFacts(ctx, &nodes[i]) })
	}
	wg.Wait()
	return nodes
}

// askFacts asks another node, and compares the clocks on the way. The clock is read right around the call:
// connecting anew lengthens the way, and only makes the comparison vaguer.
func (l *Lookout) askFacts(ctx context.Context, of *doctor.Node) {
	limit := askTime
	if !l.cfg.View().Alive(cluster.NodeID(of.Name)) {
		limit = askDeadAfter
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var t Reply
	sent := time.Now()
	if err := l.cfg.Call(ctx, cluster.NodeID(of.Name), "doctor", &t); err != nil {
		of.Why, of.How = err.Error(), how(err)
		return
	}
	of.Facts = &t.Facts
	of.Ahead, of.Within = doctor.Ahead(sent, t.Began, t.Ended, time.Now())
}

// how is what doctor.Node knows of a call that failed.
func how(err error) string {
	switch {
	case errors.Is(err, control.ErrRemoved):
		return doctor.Refuses
	case errors.Is(err, membership.ErrRemoved):
		return doctor.Replaced
	case errors.Is(err, control.ErrSilent):
		return doctor.Mute
	}
	return ""
}

// VMs asks all nodes for their virtual machines. Missing says whose are not listed. A VM that is defined on both
// nodes is there twice.
func (l *Lookout) VMs(ctx context.Context) (api.VMs, error) {
	out := listed(l.look(ctx).Nodes)
	return out, ctx.Err()
}

// Elsewhere asks the other nodes which of them have a VM of that name; missing says, in sentences, of whose VMs that is
// not known. It takes askTime at most.
func (l *Lookout) Elsewhere(ctx context.Context, vm string) (on, missing []string) {
	all := listed(l.lookAtOthers(ctx))
	for _, v := range all.VMs {
		if v.Name == vm {
			on = append(on, v.Node)
		}
	}
	return on, all.Missing
}

// listed are the VMs of those nodes.
func listed(nodes []doctor.Node) api.VMs {
	out := api.VMs{VMs: []api.VM{}}
	for _, n := range nodes {
		switch {
		case n.Facts == nil:
			out.Missing = append(out.Missing, n.Name+" does not answer: its VMs are not listed")
			continue
		case n.Facts.Hypervisor.Problem != "":
			out.Missing = append(out.Missing, n.Name+": its VMs are not listed: "+n.Facts.Hypervisor.Problem)
		}
		for _, vm := range n.Facts.Hypervisor.VMs {
			v := api.VM{Name: vm.Name, Node: n.Name, Running: vm.Running, Memory: vm.Memory}
			for _, m := range n.Facts.Modules {
				if m.VM == vm.Name {
					v.Module = m.Name
				}
			}
			out.VMs = append(out.VMs, v)
		}
	}
	slices.SortStableFunc(out.VMs, func(a, b api.VM) int { return cmp.Compare(a.Name, b.Name) })
	return out
}
