package survey

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

// Support gathers what helps, of all nodes that answer. The function that it returns writes the zip without asking
// anybody any more. Secrets were hidden by the node that has them.
func (l *Lookout) Support(ctx context.Context) (func(io.Writer) error, error) {
	ctx, cancel := context.WithTimeout(ctx, supportTime)
	defer cancel()
	members := l.cfg.Cluster().Members
	parts := make([]support.Part, len(members))
	var findings []byte
	var secrets []string // of this node
	var wg sync.WaitGroup
	// Gathered beside the doctor's look, not after it: both wait for the same slow things.
	wg.Go(func() {
		said, err := l.Doctor(ctx)
		findings, _ = json.MarshalIndent(said, "", "  ") // strings only
		if err != nil {
			l.cfg.Logger.Info("not all findings are in what goes to support", "err", err)
		}
	})
	for i, m := range members {
		wg.Go(func() {
			if m.Node == l.cfg.Cluster().Self {
				parts[i], secrets = l.unsealed(ctx)
				return
			}
			parts[i] = l.askPart(ctx, m.Node)
		})
	}
	wg.Wait()
	for i := range parts {
		if parts[i].Node == string(l.cfg.Cluster().Self) {
			first := support.File{Name: "doctor.json", Data: findings} // what does not fit is left out from the end
			parts[i].Files = append([]support.File{first}, parts[i].Files...)
			parts[i].Seal(secrets)
		}
	}
	return func(w io.Writer) error { return support.Write(w, time.Now(), parts) }, nil
}

// askPart asks another node for its part. One that does not answer has a part too, which says so. The name of the
// folder is the one by which the node was asked: what comes from there does not choose it.
func (l *Lookout) askPart(ctx context.Context, of cluster.NodeID) (p support.Part) {
	if !l.cfg.View().Alive(of) {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, askDeadAfter)
		defer cancel()
	}
	if err := l.cfg.Call(ctx, of, "support", &p); err != nil {
		p = support.Part{}
		p.Leave("everything: %v: run `duet support` there", err)
	}
	p.Node = string(of) // and no other folder
	return p
}

// Part is what this node tells. Sealing comes last: what is added later goes out as it is. It does not fail, but
// says what is missing.
func (l *Lookout) Part(ctx context.Context) support.Part {
	p, secrets := l.unsealed(ctx)
	p.Seal(secrets)
	return p
}

// unsealed is Part before it is sealed, and what is to be hidden in it.
func (l *Lookout) unsealed(ctx context.Context) (support.Part, []string) {
	p, secrets := support.Collect(ctx, l.cfg.Dir)
	p.Node = string(l.cfg.Cluster().Self)
	facts, vms := l.lookAtSelf(ctx)
	p.AddJSON("facts.json", facts)
	l.cfg.More(ctx, &p)
	addVMs(&p, facts, vms)
	return p, secrets
}

// addVMs adds the definitions of the protected VMs; others are nobody's business. vm.Text is without passwords
// already, see vmmanager.VMReport.
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
