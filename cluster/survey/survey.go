// Package survey looks at a node for the doctor and for support, and asks the other nodes what they found of theirs.
// What is wrong with what was found is judged by package doctor; what may leave the node is up to package support.
//
// A node that does not answer is a line in the result, never an error; an error means that the caller has given up.
// What one node tells another is a Reply or a support.Part, and both have to be understood by the release before.
//
// Goroutines run only while a call waits for them, but one: that which measures disks stays until they answer. Locks:
// Lookout.mu is held while this node is looked at, so a look waits for the one before; other nodes are asked without
// it.
//
// Files: survey.go looks at this node, doctor.go asks the others and has the facts judged, support.go gathers the
// zip.
package survey

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"duet/appmodules"
	"duet/cluster"
	"duet/cluster/doctor"
	"duet/cluster/doctor/host"
	"duet/cluster/fencing"
	"duet/cluster/ping"
	"duet/cluster/support"
	"duet/console/api"
	"duet/vmmanager"
)

// Config says what a Lookout looks at; all fields are needed. None of its functions but Call may wait for another
// node.
type Config struct {
	Cluster  func() cluster.Config
	View     func() cluster.View
	Dir      string // of the node
	Version  string // of this program
	Protocol int    // of replication
	Watchdog string // device that the daemon was given; empty: none
	// Hypervisor is looked at if it is a vmmanager.Inspector.
	Hypervisor vmmanager.Hypervisor
	Modules    func() []appmodules.Module
	// Standing is how a module stands on this node; of one that has gone it is the zero value.
	Standing  func(module string) api.NodeState
	Witnesses func() []doctor.Witness
	// Devices asks the fence devices of the other nodes.
	Devices func(ctx context.Context) []fencing.Found
	Guard   func() *bool  // whether the guard answers; nil: there is none
	API     func() string // where it is served over TLS; empty: it is not
	// More adds what only the program itself knows to what goes to support.
	More func(ctx context.Context, p *support.Part)
	// Call asks another node for its Facts ("doctor") or its Part ("support").
	Call   func(ctx context.Context, node cluster.NodeID, path string, out any) error
	Logger *slog.Logger
}

// Lookout looks at its node, and remembers the last look. Any number of goroutines may use it.
type Lookout struct {
	cfg Config

	mu    sync.Mutex // held while this node is looked at: many who ask at once cost one look
	at    time.Time  // when facts and vms were complete; zero: never
	facts doctor.Facts
	vms   []vmmanager.VMReport // with their definitions, which do not travel as facts
	disks chan []doctor.Space  // of the measurement that was begun last; nil: it was taken

	measure func(dir string, images []string) []doctor.Space                // host.Spaces, but in tests
	ping    func(ctx context.Context, targets []string) (out []ping.Target) // ping.Each, but in tests
}

// New returns a Lookout that has seen nothing yet.
func New(cfg Config) *Lookout { return &Lookout{cfg: cfg, measure: host.Spaces, ping: ping.Each} }

// How long a look at this node takes at most, how long its disks and its fence devices may take of that, and how long
// what was found is told again: many who ask at once cost one look.
const (
	lookTime   = 25 * time.Second
	diskTime   = 5 * time.Second
	deviceTime = 15 * time.Second
	looksLast  = 500 * time.Millisecond
)

// Facts looks at this node, for the one that asks. Began and Ended bound what the clocks of two nodes are compared
// by: what they wait in between falls out.
func (l *Lookout) Facts(ctx context.Context) Reply {
	t := Reply{Began: time.Now()}
	t.Facts, _ = l.lookAtSelf(ctx)
	t.Ended = time.Now()
	return t
}

// lookAtSelf is what this node finds out about itself, or has just found. It waits for a look under way whatever ctx
// says. What is returned is shared with others: it is not to be changed. A look that is cut short is returned to
// whom it was for, and not kept.
func (l *Lookout) lookAtSelf(ctx context.Context) (doctor.Facts, []vmmanager.VMReport) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.at.IsZero() || time.Since(l.at) > looksLast {
		ctx, cancel := context.WithTimeout(ctx, lookTime)
		defer cancel()
		l.facts, l.vms = l.gather(ctx)
		// Who asks next looks anew after a look that nobody waited for.
		if ctx.Err() == nil { // else it was cut short
			l.at = time.Now()
		}
	}
	return l.facts, l.vms
}

// gather looks at everything at once: each part waits for something else, and some things are slow when they are
// sick.
func (l *Lookout) gather(ctx context.Context) (doctor.Facts, []vmmanager.VMReport) {
	c := l.cfg.Cluster()
	f := doctor.Facts{Node: string(c.Self), Version: l.cfg.Version, Protocol: l.cfg.Protocol, Daemon: true,
		Watchdog: l.cfg.Watchdog, API: l.cfg.API(), Routes: host.Routes(c),
		Modules: []doctor.Module{}, Witnesses: []doctor.Witness{}, Fenced: []string{}}
	var images []string
	for _, m := range l.cfg.Modules() {
		at := l.cfg.Standing(m.Name)
		f.Modules = append(f.Modules, doctor.Module{Name: m.Name, VM: m.Subject(),
			Peer: m.Peer(f.Node), Arbitration: m.Policy.Arbitration,
			Role: at.Role, Status: at.Status, Why: at.Why, Stopped: at.Stopped, Condition: at.VM, Notices: toMend(at)})
		for _, v := range m.Volumes() {
			images = append(images, v.Paths[f.Node])
		}
	}
	f.Witnesses = append(f.Witnesses, l.cfg.Witnesses()...)
	for _, node := range slices.Sorted(maps.Keys(c.Fence)) {
		f.Fenced = append(f.Fenced, string(node))
	}
	pings := byTargets(f) // before others write to f
	var vms []vmmanager.VMReport
	var wg sync.WaitGroup
	wg.Go(func() { host.Reach(ctx, f.Routes) })
	wg.Go(func() { f.Host = host.Look(host.Config{}) })
	wg.Go(func() { f.Hypervisor, vms = l.inspect(ctx) })
	var found []fencing.Found
	wg.Go(func() {
		ctx, cancel := context.WithTimeout(ctx, deviceTime)
		defer cancel()
		found = l.cfg.Devices(ctx)
	})
	if pings {
		wg.Go(func() { f.Targets = l.targets(ctx, c.Ping) })
	}
	spaces, answered := l.spaces(ctx, images)
	wg.Wait()
	f.Host.Spaces = spaces
	if f.Hypervisor.Name+f.Hypervisor.Problem == "" {
		f.Unlooked = append(f.Unlooked, "the hypervisor and its VMs: Duet knows no way to ask this one")
	}
	if !answered {
		f.Unlooked = append(f.Unlooked, fmt.Sprintf("free space: the file system of %s or of an image does not answer: "+
			"`dmesg` and `df` there tell which hangs", l.cfg.Dir))
	}
	for _, d := range found {
		if d.Unknown {
			f.Unlooked = append(f.Unlooked, fmt.Sprintf("fence device %s of %s: it has not answered in %s, and its own time is "+
				"not over: `duet cluster fence test %s`", d.Device, d.Node, deviceTime, d.Node))
			continue
		}
		f.Devices = append(f.Devices, doctor.Device{Node: string(d.Node), Name: d.Device, Problem: d.Problem})
	}
	l.heartbeats(f.Routes)
	f.Guard = l.cfg.Guard()
	return f, vms
}

// saidElsewhere are codes of notices of what the doctor looks at itself: who decides, and the guard.
var saidElsewhere = []string{api.Undecided, "no-guard"}

// toMend are the notices of a module on this node that are more than good to know.
func toMend(at api.NodeState) (out []doctor.Notice) {
	for _, x := range at.Notices {
		if x.Level != "note" && !slices.Contains(saidElsewhere, x.Code) {
			out = append(out, doctor.Notice{Alarm: x.Level == "alarm", Text: x.Text, Remedy: x.Remedy})
		}
	}
	return out
}

// byTargets: a module goes by the ping targets. It has neither a witness nor a fence device.
func byTargets(f doctor.Facts) bool {
	votes := slices.ContainsFunc(f.Witnesses, func(w doctor.Witness) bool { return !w.Spare })
	goes := func(m doctor.Module) bool { return m.Arbitration == "available" && !slices.Contains(f.Fenced, m.Peer) }
	return !votes && slices.ContainsFunc(f.Modules, goes)
}

// targets asks them.
func (l *Lookout) targets(ctx context.Context, targets []string) []doctor.Target {
	out := []doctor.Target{} // not nil, which says that nobody looked
	for _, t := range l.ping(ctx, targets) {
		out = append(out, doctor.Target(t))
	}
	return out
}

// spaces measures the disks, and gives up after diskTime: a file system that hangs cannot be called off. Whoever looks
// next begins no second measurement while the first one hangs. The caller holds mu.
func (l *Lookout) spaces(ctx context.Context, images []string) (_ []doctor.Space, answered bool) {
	ctx, cancel := context.WithTimeout(ctx, diskTime)
	defer cancel()
	select {
	case <-l.disks: // of one that was given up: it is old
		l.disks = nil
	default:
	}
	if l.disks == nil {
		disks := make(chan []doctor.Space, 1)
		l.disks = disks
		go func() { disks <- l.measure(l.cfg.Dir, images) }()
	}
	select {
	case found := <-l.disks:
		l.disks = nil
		return found, true
	case <-ctx.Done():
		return nil, false
	}
}

// heartbeats fills in whether UDP gets through: a heartbeat that came back has gone both ways. It comes after the
// looking, for a view as fresh as the rest.
func (l *Lookout) heartbeats(routes []doctor.Route) {
	view := l.cfg.View()
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

// inspect asks the hypervisor of this node. A hypervisor that Duet cannot ask has neither name nor problem.
func (l *Lookout) inspect(ctx context.Context) (doctor.Hypervisor, []vmmanager.VMReport) {
	asked, ok := l.cfg.Hypervisor.(vmmanager.Inspector)
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
