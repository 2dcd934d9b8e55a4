// Package mirror runs a module that is on one node at a time and whose volumes are mirrored to the other: an engine,
// with what that needs of this node and of its peer.
//
// It decides nothing: it opens files and sockets, carries an engine's calls to the engine of the same module on the
// other node, and turns its words into those of the API. It has no goroutines but those of its engines.
//
//	mirror.go   the Runner of such a module
//	peer.go     its engine on the other node
//	volumes.go  images, dirty logs and sockets of volumes on this node
//	status.go   the engine's words in the API's
//	verify.go   a comparison of both copies, in words
package mirror

import (
	"context"
	"log/slog"
	"net"
	"os"
	"strings"
	"time"

	"duet/appmodules"
	"duet/appmodules/engine"
	"duet/blockrepl/proof"
	"duet/cluster"
	"duet/cluster/ping"
	"duet/console/api"
	"duet/vmmanager"
)

// staleAfter is the age from which another node's state counts as old.
const staleAfter = 3 * time.Second

// overdueAfter is the age from which it proves nothing good any more: three exchanges, as for the engine.
var overdueAfter = 3 * engine.DefaultTimes(0).Tell

// Notices are what the hosts say of a module beside its state: they travel with it.
type Notices interface {
	// Of are those of this host.
	Of(module string) []api.Notice
	// Hear takes those of the peer.
	Hear(module string, notices []api.Notice)
}

// Config says what mirrors work with; all fields are needed.
type Config struct {
	Cluster func() cluster.Config
	View    func() cluster.View
	// Call asks another node for something of one of its modules; every call may be repeated.
	Call func(ctx context.Context, node cluster.NodeID, path string, in, out any) error
	// Dial opens a replication connection.
	Dial func(ctx context.Context, node cluster.NodeID) (net.Conn, error)
	// Unknown is told that a peer does not know a module, with each exchange, twice a second. It never waits, as
	// the engine's Stop waits for it.
	Unknown func(peer cluster.NodeID, module string)
	Notices Notices
	// Joins: the work that protects a module goes on on this node.
	Joins func(module string) bool
	// Fence switches a node off, where CanFence says so. It may take a minute; nil only if the node is confirmed to be
	// off.
	Fence     func(ctx context.Context, node cluster.NodeID) error
	CanFence  func(node cluster.NodeID) bool
	Witnesses func() []engine.Witness
	Store     func(module string) engine.Store
	Volumes   *Volumes
	Boot      string // identifies this run of the kernel; empty: not known
	Logger    *slog.Logger
}

// Workshop builds the mirrors of a node: they share what there is once on a node.
type Workshop struct {
	cfg     Config
	gate    *engine.Gate  // the order of starts, over all modules of a node
	budget  *proof.Budget // of the disks' time, for all modules' proofs
	joining *joining
}

// New returns a Workshop.
func New(cfg Config) *Workshop {
	return &Workshop{cfg: cfg, gate: engine.NewGate(engine.Real{}), budget: proof.NewBudget(proof.Share),
		joining: &joining{told: map[string]time.Time{}}}
}

// Mirror is the Runner of a module that runs on one node and is mirrored to the other. Any goroutine may use it.
type Mirror struct {
	*engine.Engine
	workload appmodules.Workload
	name     string
	self     string
	peer     string
	shop     *Workshop
	built    time.Time
}

// Build builds the Runner of a mirror that runs w; it does not start. The detection time of the cluster and the paths
// of the images are as they are now; of an edit only the policy reaches it later. It reads the engine's store.
func (s *Workshop) Build(m appmodules.Module, w appmodules.Workload, log func(engine.Transition)) (*Mirror, error) {
	c := s.cfg.Cluster()
	peer := cluster.NodeID(m.Peer(string(c.Self)))
	s.joining.hear(m.Name, false) // that was another module of its name
	e, err := engine.New(engine.Config{
		Module: m, Self: c.Self,
		Peer:     caller{cfg: s.cfg, node: peer, module: m, joining: s.joining},
		Fence:    func(ctx context.Context) error { return s.cfg.Fence(ctx, peer) },
		CanFence: func() bool { return s.cfg.CanFence(peer) },
		Store:    s.cfg.Store(m.Name),
		Storage: engine.NewStorage(engine.StorageConfig{Module: m, Node: string(c.Self),
			Disks: s.cfg.Volumes.Of(m), Logger: s.cfg.Logger}),
		Workload:  w,
		Runtime:   engine.Real{},
		Witnesses: s.cfg.Witnesses,
		Gate:      s.gate,
		Budget:    s.budget,
		Withdraw:  func() { s.cfg.Volumes.Withdraw(m) },
		View:      s.cfg.View,
		Ping:      func(ctx context.Context) bool { return ping.Any(ctx, s.cfg.Cluster().Ping) },
		Boot:      s.cfg.Boot,
		Log:       log,
		Logger:    s.cfg.Logger,
		Times:     engine.DefaultTimes(c.Detection),
	})
	if err != nil {
		return nil, err
	}
	return &Mirror{Engine: e, workload: w, name: m.Name, self: string(c.Self), peer: string(peer), shop: s,
		built: time.Now()}, nil
}

// Core is its engine.
func (m *Mirror) Core() *engine.Engine { return m.Engine }

// VMEvent passes on what the hypervisor tells of the VM, where a VM is what it runs.
func (m *Mirror) VMEvent(ev vmmanager.Event) {
	if vm, ok := m.workload.(interface{ Event(vmmanager.Event) }); ok {
		vm.Event(ev)
	}
}

// Holds: the workload runs here, or this node has the right to run it. As far as the engine knew after its last step;
// the watchdog goes by it, which must not wait.
func (m *Mirror) Holds() bool {
	s := m.State().Status
	return s.Role.Acts() || s.Up
}

// Status is how the mirror stands here, and what its peer last said.
func (m *Mirror) Status() []api.NodeState {
	own := m.State()
	mine := nodeState(m.self, m.name, own.Status)
	mine.Quiet, mine.Joins = m.Dazed(), m.shop.cfg.Joins(m.name)
	st, heard := m.PeerState()
	joins := m.shop.joining.of(m.name) || heard.IsZero() && m.begins(own) // on the peer
	if joins {
		protected(&mine, m.peer)
	} else if mine.Joins {
		protected(&mine, m.self)
	}
	if heard.IsZero() {
		mine.Joins = mine.Joins || joins
		return []api.NodeState{mine, {Node: m.peer, Role: Unknown, Status: appmodules.NotReady.String(),
			Why: "it has not answered yet", Stale: true}}
	}
	theirs := nodeState(m.peer, m.name, st.Status)
	theirs.Stale, theirs.Quiet = time.Since(heard) > staleAfter, time.Since(heard) > overdueAfter
	theirs.Joins = joins
	if joins {
		protected(&theirs, m.peer)
	} else if mine.Joins {
		protected(&theirs, m.self)
	}
	awaits(&mine, m.name, theirs)
	awaits(&theirs, m.name, mine)
	return []api.NodeState{mine, theirs}
}

// BootID identifies this run of the kernel; empty where that is not known. A copy whose node has another one since
// was without power and is cold (cluster/DESIGN.md): it may have lost what was never flushed. A daemon that was
// killed finds the same one.
func BootID() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}
