package node

import (
	"context"
	"encoding/json"
	"io"
	"slices"
	"sync"
	"time"

	"duet/cluster"
	"duet/cluster/doctor"
	"duet/cluster/support"
	"duet/vmmanager"
)

// supportTime is how long a node may take to gather what helps; the answer has to be sent after it.
const supportTime = 45 * time.Second

// Support gathers what helps, of all nodes that answer.
func (n *Node) Support(ctx context.Context) (func(io.Writer) error, error) {
	ctx, cancel := context.WithTimeout(ctx, supportTime)
	defer cancel()
	members := n.cluster().Members
	parts := make([]support.Part, len(members))
	var findings []byte
	var wg sync.WaitGroup
	wg.Go(func() {
		said, err := n.Doctor(ctx)
		findings, _ = json.MarshalIndent(said, "", "  ") // strings only
		if err != nil {
			n.log.Info("not all findings are in what goes to support", "err", err)
		}
	})
	for i, m := range members {
		wg.Go(func() {
			if m.Node == n.self() {
				parts[i] = n.part(ctx)
				return
			}
			parts[i] = n.askPart(ctx, m.Node)
		})
	}
	wg.Wait()
	for i := range parts {
		if parts[i].Node == string(n.self()) {
			parts[i].Add("doctor.json", findings)
		}
	}
	return func(w io.Writer) error { return support.Write(w, time.Now(), parts) }, nil
}

func (n *Node) askPart(ctx context.Context, of cluster.NodeID) (p support.Part) {
	if !n.gossip.View().Alive(of) {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, askDeadAfter)
		defer cancel()
	}
	if err := n.rpcTo(ctx, of, "support", nil, &p); err != nil {
		p = support.Part{}
		p.Leave("everything: %v: run `duet support` there", err)
	}
	p.Node = string(of) // and no other folder
	return p
}

// part is what this node tells.
func (n *Node) part(ctx context.Context) support.Part {
	p, secrets := support.Collect(ctx, n.cfg.Dir)
	p.Node = string(n.self())
	facts, vms := n.lookAtSelf(ctx)
	add := func(name string, v any) {
		text, err := json.MarshalIndent(v, "", "  ")
		if err != nil {
			p.Leave("%s: %v", name, err)
			return
		}
		p.Add(name, text)
	}
	add("facts.json", facts)
	if st, err := n.Status(ctx); err == nil {
		add("status.json", st)
	}
	p.Add("metrics.txt", n.figures.Text(ctx))
	for _, m := range n.all() {
		if c, err := apiConfig(stored{m.version, m.cfg}); err == nil {
			p.Add("modules/"+m.cfg.Name+".yaml", []byte(c.YAML))
		}
	}
	addVMs(&p, facts, vms)
	p.Seal(secrets)
	return p
}

// addVMs adds the definitions of the protected VMs; others are nobody's business.
func addVMs(p *support.Part, f doctor.Facts, vms []vmmanager.VMReport) {
	if f.Hypervisor.Problem != "" {
		p.Leave("definitions of VMs: %s", f.Hypervisor.Problem)
	}
	for _, vm := range vms {
		if slices.ContainsFunc(f.Modules, func(m doctor.Module) bool { return m.VM == vm.Name }) {
			p.Add("vms/"+vm.Name+".xml", vm.Text)
		}
	}
}
