package node

import (
	"context"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"duet/blockrepl/wire"
	"duet/cluster"
	"duet/cluster/doctor"
	"duet/cluster/doctor/host"
	"duet/vmmanager"
)

// How long a look at this node takes at most, and how long what it found is told again:
// many who ask at once cost one look.
const (
	lookTime  = 25 * time.Second
	looksLast = 500 * time.Millisecond
)

// lookout remembers the last look at this node.
type lookout struct {
	mu    sync.Mutex
	at    time.Time
	facts doctor.Facts
	vms   []vmmanager.VMReport
}

// facts looks at this node.
func (n *Node) facts(ctx context.Context) reply {
	t := reply{Began: time.Now()}
	t.Facts, _ = n.lookAtSelf(ctx)
	t.Ended = time.Now()
	return t
}

func (n *Node) lookAtSelf(ctx context.Context) (doctor.Facts, []vmmanager.VMReport) {
	l := &n.lookout
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.at.IsZero() || time.Since(l.at) > looksLast {
		ctx, cancel := context.WithTimeout(ctx, lookTime)
		defer cancel()
		l.facts, l.vms = n.gather(ctx)
		if ctx.Err() == nil { // else it was cut short
			l.at = time.Now()
		}
	}
	return l.facts, l.vms
}

func (n *Node) gather(ctx context.Context) (doctor.Facts, []vmmanager.VMReport) {
	c := n.cluster()
	f := doctor.Facts{Node: string(c.Self), Version: n.cfg.Version, Protocol: wire.Version, Daemon: true,
		Watchdog: n.cfg.Watchdog, API: n.servedAt(), Routes: host.Routes(c),
		Modules: []doctor.Module{}, Witnesses: []doctor.Witness{}, Fenced: []string{}}
	var images []string
	for _, m := range n.all() {
		f.Modules = append(f.Modules, doctor.Module{Name: m.cfg.Name, VM: m.cfg.Subject(),
			Peer: m.cfg.Peer(f.Node), Arbitration: m.cfg.Policy.Arbitration})
		for _, v := range m.cfg.Volumes() {
			images = append(images, v.Paths[f.Node])
		}
	}
	for _, t := range n.voting.All() {
		w := n.witnessStatus(t)
		f.Witnesses = append(f.Witnesses, doctor.Witness{Addr: w.Addr, Spare: w.Spare, Alive: w.Alive})
	}
	for _, node := range slices.Sorted(maps.Keys(c.Fence)) {
		f.Fenced = append(f.Fenced, string(node))
	}
	var vms []vmmanager.VMReport
	var wg sync.WaitGroup
	wg.Go(func() { host.Reach(ctx, f.Routes) })
	wg.Go(func() { f.Host = host.Look(host.Config{Dir: n.cfg.Dir, Images: images}) })
	wg.Go(func() { f.Hypervisor, vms = n.inspect(ctx) })
	wg.Wait()
	if f.Hypervisor.Name+f.Hypervisor.Problem == "" {
		f.Unlooked = []string{"the hypervisor and its VMs: Duet knows no way to ask this one"}
	}
	n.heartbeats(f.Routes)
	f.Guard = n.sentry.Answers()
	return f, vms
}

// heartbeats fills in whether UDP gets through: a heartbeat that came back has gone both ways.
func (n *Node) heartbeats(routes []doctor.Route) {
	view := n.gossip.View()
	for _, r := range routes {
		state := doctor.Silent
		if view.Peers[cluster.NodeID(r.To)].Paths[r.Network] {
			state = doctor.Open
		}
		for i := range r.Probes {
			if r.Probes[i].Proto == doctor.UDP {
				r.Probes[i].State = state
			}
		}
	}
}

// inspect asks the hypervisor of this node.
func (n *Node) inspect(ctx context.Context) (doctor.Hypervisor, []vmmanager.VMReport) {
	asked, ok := n.cfg.Hypervisor.(vmmanager.Inspector)
	if !ok {
		return doctor.Hypervisor{}, nil
	}
	r, err := asked.Inspect(ctx)
	if err != nil {
		return doctor.Hypervisor{Problem: err.Error()}, nil
	}
	h := doctor.Hypervisor{Name: r.Name, Version: r.Version, Emulator: r.Emulator}
	for _, m := range r.Security {
		h.Security = append(h.Security, doctor.Security{Model: m.Model, Label: m.Label})
		if m.Model == "dac" {
			h.User = host.Who(m.Label)
		}
	}
	for _, vm := range r.VMs {
		h.VMs = append(h.VMs, doctor.VM{Name: vm.Name,
			Running: vm.State == vmmanager.Running || vm.State == vmmanager.Paused || vm.State == vmmanager.IOError,
			Memory:  vm.Memory, HugePages: vm.HugePages})
	}
	return h, r.VMs
}

// servedAt is where the API is served over TLS; every address counts as the first one.
func (n *Node) servedAt() string {
	n.mu.Lock()
	at := n.served
	n.mu.Unlock()
	if a, err := netip.ParseAddrPort(at); err == nil && a.Addr().IsUnspecified() {
		if paths := n.cluster().Paths(n.self(), false); len(paths) > 0 {
			return net.JoinHostPort(paths[0], fmt.Sprint(a.Port()))
		}
	}
	return at
}
