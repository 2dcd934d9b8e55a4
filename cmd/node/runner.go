package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	"duet/appmodules"
	"duet/appmodules/engine"
	"duet/appmodules/workload"
	"duet/cluster"
	"duet/cluster/ping"
	"duet/console/api"
	"duet/vmmanager"
)

// Runner is one module on this node, whatever its kind. Any goroutine may call its methods.
type Runner interface {
	// Start runs it until Stop; it is called once.
	Start()
	// Stop ends it and leaves what it protects as it is; bounded by ctx plus local I/O.
	Stop(ctx context.Context)
	// Evacuate gives away what runs here, because this computer goes down. It returns when
	// nothing is left to do or ctx ends.
	Evacuate(ctx context.Context)
	// Command gives it an operator's command; what follows shows in its status. yes confirms
	// what may give up data.
	Command(ctx context.Context, ev appmodules.Event, yes bool) error
	// Configure gives it the configuration of an edit, which changes nothing of what it is
	// made of on this node.
	Configure(ctx context.Context, m appmodules.Module) error
	// Status is how it stands on the nodes, as far as this one knows; it asks nobody.
	Status() []api.NodeState
	// ViewChanged tells it to look at the cluster again.
	ViewChanged()
	// Alive returns nil when it has answered; Holds: something of it runs here, or may.
	Alive(ctx context.Context) error
	Holds() bool
}

// running is what a node does for a kind of module.
type running struct {
	// build makes the Runner of a module, while the one that it replaces still runs: it changes
	// nothing before its Start.
	build func(n *Node, m appmodules.Module, log func(engine.Transition)) (Runner, error)
	// define stores the definition that a new module has on this node, and undefine forgets it
	// when the module leaves to the other one; nil: the kind has none.
	define   func(ctx context.Context, n *Node, m appmodules.Module, text []byte) error
	undefine func(ctx context.Context, n *Node, m appmodules.Module) error
}

// runners has every kind of appmodules.Kinds.
var runners = map[appmodules.Kind]running{
	appmodules.KindVM: {build: vmRunner, define: defineVM, undefine: undefineVM},
}

// runner builds the Runner of a module.
func (n *Node) runner(m appmodules.Module, log func(engine.Transition)) (Runner, error) {
	kind, ok := runners[m.Kind]
	if !ok {
		return nil, fmt.Errorf("%w: this node cannot run modules of kind %q", api.ErrInvalid, m.Kind)
	}
	return kind.build(n, m, log)
}

func defineVM(ctx context.Context, n *Node, m appmodules.Module, text []byte) error {
	return n.cfg.Hypervisor.Define(ctx, vmmanager.Definition{Name: m.Subject(), Text: text})
}

func undefineVM(ctx context.Context, n *Node, m appmodules.Module) error {
	if err := n.cfg.Hypervisor.Undefine(ctx, m.Subject()); err != nil && !errors.Is(err, vmmanager.ErrNotFound) {
		return err
	}
	return nil
}

// mirror is the Runner of a module that runs on one node and is mirrored to the other.
type mirror struct {
	*engine.Engine
	workload appmodules.Workload
	name     string
	self     string
	peer     string
}

func vmRunner(n *Node, m appmodules.Module, log func(engine.Transition)) (Runner, error) {
	return n.mirrorOf(m, workload.NewVM(workload.VMConfig{Module: m, Node: string(n.self()), Endpoints: n.endpoints(m),
		Hypervisor: n.cfg.Hypervisor, Logger: n.log}), log)
}

// mirrorOf builds the engine of a mirror that runs w.
func (n *Node) mirrorOf(m appmodules.Module, w appmodules.Workload, log func(engine.Transition)) (Runner, error) {
	c := n.cluster()
	peer := cluster.NodeID(m.Peer(string(c.Self)))
	e, err := engine.New(engine.Config{
		Module: m, Self: c.Self,
		Peer:      caller{n: n, node: peer, module: m},
		Fence:     func(ctx context.Context) error { return n.fenceOff(ctx, peer) },
		CanFence:  func() bool { return n.canFence(peer) },
		Store:     n.engineStore(m.Name),
		Storage:   engine.NewStorage(engine.StorageConfig{Module: m, Node: string(c.Self), Disks: disks{n, m.Subject()}, Logger: n.log}),
		Workload:  w,
		Runtime:   engine.Real{},
		Witnesses: n.witnesses,
		Gate:      n.gate,
		Budget:    n.budget,
		Withdraw:  func() { n.withdraw(m) },
		View:      n.gossip.View,
		Ping:      func(ctx context.Context) bool { return ping.Any(ctx, n.cluster().Ping) },
		Boot:      bootID(),
		Log:       log,
		Logger:    n.log,
		Times:     engine.DefaultTimes(c.Detection),
	})
	if err != nil {
		return nil, err
	}
	return &mirror{Engine: e, workload: w, name: m.Name, self: string(c.Self), peer: string(peer)}, nil
}

// VMEvent passes on what the hypervisor tells of the VM.
func (m *mirror) VMEvent(ev vmmanager.Event) {
	if vm, ok := m.workload.(*workload.VM); ok {
		vm.Event(ev)
	}
}

// Holds: the workload runs here, or this node has the right to run it.
func (m *mirror) Holds() bool {
	s := m.State().Status
	return s.Role.Acts() || s.Up
}

// Status is how the mirror stands here, and what its peer last said.
func (m *mirror) Status() []api.NodeState {
	mine := nodeState(m.self, m.name, m.State().Status)
	st, heard := m.PeerState()
	if heard.IsZero() {
		return []api.NodeState{mine, {Node: m.peer, Role: unknown, Status: appmodules.NotReady.String(), Why: "it has not answered yet", Stale: true}}
	}
	theirs := nodeState(m.peer, m.name, st.Status)
	theirs.Stale = time.Since(heard) > staleAfter
	return []api.NodeState{mine, theirs}
}
