package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"duet/appmodules/engine"
	"duet/appmodules/protect"
	"duet/appmodules/workload"
	"duet/blockrepl"
	"duet/blockrepl/badgerlog"
	"duet/blockrepl/divergence"
	"duet/blockrepl/host/cpuidle"
	"duet/blockrepl/nbd"
	"duet/blockrepl/proof"
	"duet/blockrepl/wire"
	"duet/cluster"
	"duet/cluster/control"
	"duet/cluster/fence"
	"duet/cluster/gossip"
	"duet/cluster/membership"
	"duet/cluster/mux"
	"duet/cluster/pki"
	"duet/cluster/voting"
	"duet/console"
	"duet/console/api"
	"duet/console/tasks"
)

// The services of the mux.
const (
	serviceControl     byte = 'C' // HTTP/2 between nodes
	serviceReplication byte = 'R' // one volume each
)

// Config says what a node is made of.
type Config struct {
	Dir        string // certificates, cluster.json, store, journals, new images
	Socket     string // unix socket of the API
	RunDir     string // unix sockets of the volumes
	Listen     string // address of the API over TLS; empty: the node's first address, port+2
	Version    string
	Hypervisor workload.Hypervisor
	Logger     *slog.Logger
	// Sockets keeps the volumes' sockets when this process ends, however it does; nil: they end with it.
	Sockets Sockets
	// MinFree is the free space in bytes under which nothing is written to the store; 0 takes its default.
	MinFree int64
	// ImageDirs are the directories in which the admin of another node may name the place of
	// an image on this one; nil: where images lie by custom.
	ImageDirs []string
	// AdmitRoot lets programs of root open a volume beside the process that runs its VM.
	AdmitRoot bool
	// Sleepy leaves CPUs in their idle states while replicated writes wait for them: it
	// saves power and costs latency.
	Sleepy bool
	// FencePath is where fence agents are looked for; nil: $PATH and /usr/sbin.
	FencePath []string
	// Watchdog is the device that resets this computer when the daemon hangs while it
	// holds guests, such as /dev/watchdog; empty: none.
	Watchdog string
	// Guard is the unix socket of the guard, which pauses guests here when the daemon dies; empty: none.
	Guard string
	// SpareAfter is how long the witness is silent before a spare takes its place; 0: 15 s.
	SpareAfter time.Duration
	// Metrics gets the node's collectors; nil makes a registry of its own.
	Metrics *prometheus.Registry
}

// Sockets keeps listening sockets beyond a run of the daemon.
type Sockets interface {
	nbd.Keeper
	// Drop lets the socket of a path go: who waits for it is cut off, and who comes is refused.
	Drop(path string)
	// Paths lists what is kept.
	Paths() []string
}

// Node is one running daemon.
type Node struct {
	cfg      Config
	log      *slog.Logger
	members  *membership.Book // the configuration of the cluster
	identity *pki.Identity
	store    *badgerlog.Store
	mux      *mux.Mux
	gossip   *gossip.Gossip
	door     *pki.Admission
	voting   *voting.Panel // the witnesses
	fencing  *fencing
	rpc      *http.Server
	plane    *control.Plane
	gate     *engine.Gate
	budget   *proof.Budget      // of the disks' time, for all modules' proofs
	keeper   *divergence.Keeper // versions that lost a split brain
	tasks    *tasks.Board
	fitness  *fitness
	works    *protect.Works
	lookout  lookout
	sentry   *sentry // nil without Config.Guard
	served   string  // where the API is served over TLS; guarded by mu

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
	undo   []step // what Stop does, last first

	hosting sync.Mutex // held while images for another node are made or undone

	turns turns // of whoever makes, changes or removes a module

	exchange sync.RWMutex // held while an engine is exchanged for one with a new configuration

	mu      sync.Mutex
	modules map[string]*module
}

// step is one named teardown.
type step struct {
	name string
	do   func(context.Context) error
}

// New opens what the node keeps and builds its parts; nothing runs yet. A failed
// New leaves nothing open.
func New(cfg Config) (*Node, error) {
	n := &Node{cfg: cfg, log: cfg.Logger, gate: engine.NewGate(engine.Real{}), budget: proof.NewBudget(proof.Share),
		tasks: tasks.NewBoard(), fitness: newFitness(), modules: make(map[string]*module)}
	n.ctx, n.cancel = context.WithCancel(context.Background())
	if err := n.build(); err != nil {
		n.teardown(context.Background())
		return nil, err
	}
	return n, nil
}

func (n *Node) build() error {
	var err error
	if n.members, err = membership.Open(n.cfg.Dir); err != nil {
		return err
	}
	if n.identity, err = pki.Load(filepath.Join(n.cfg.Dir, pki.Folder)); err != nil {
		return err
	}
	n.store, err = badgerlog.Open(badgerlog.Config{Dir: filepath.Join(n.cfg.Dir, "db"), Logger: n.log, MinFree: n.cfg.MinFree})
	if err != nil {
		return fmt.Errorf("open store: %w", err)
	}
	n.push("store", func(context.Context) error { return n.store.Close() })
	n.mux = mux.New(mux.Config{Identity: n.checked(), Cluster: n.cluster, WrapConn: wire.Buffered, Logger: n.log})
	n.gossip = gossip.New(gossip.Config{Cluster: n.cluster, Logger: n.log})
	n.plane = newPlane(n.cluster, n.mux, n.log)
	n.rpc = mux.NewHTTPServer(n.rpcHandler())
	n.door = pki.NewAdmission(pki.AdmissionConfig{Identity: n.identity, Tokens: tokens{n.store}, Cluster: n.cluster, Admit: n.admit})
	n.fencing = &fencing{agents: fence.New(fence.Config{Path: n.cfg.FencePath, Logger: n.log}), calls: make(map[cluster.NodeID]*fenceCall)}
	if n.voting, err = n.newPanel(); err != nil {
		return err
	}
	n.push("witnesses", func(context.Context) error { return n.voting.Close() })
	if n.cfg.Metrics == nil {
		n.cfg.Metrics = prometheus.NewRegistry()
	}
	// The folder has the name it had when it was first made.
	if n.keeper, err = divergence.NewKeeper(filepath.Join(n.cfg.Dir, "aside"), n.log); err != nil {
		return err
	}
	if n.works, err = n.newWorks(); err != nil {
		return err
	}
	return n.loadModules()
}

// listenAddr is where the API is served over TLS.
func (n *Node) listenAddr() string {
	if n.cfg.Listen != "" {
		return n.cfg.Listen
	}
	c := n.cluster()
	paths := c.Paths(c.Self, false)
	if len(paths) == 0 {
		return ""
	}
	return net.JoinHostPort(paths[0], fmt.Sprint(c.Port+2))
}

// Start runs the node. If it fails, what was started is stopped again.
func (n *Node) Start() error {
	if err := n.start(); err != nil {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		n.teardown(ctx)
		return err
	}
	return nil
}

func (n *Node) start() error {
	if err := n.mux.Start(); err != nil {
		return err
	}
	n.push("mux", func(context.Context) error { n.mux.Stop(); return nil })
	if err := n.serveMux(); err != nil {
		return err
	}
	n.guardGuests()
	if err := n.gossip.Start(); err != nil {
		return fmt.Errorf("start gossip: %w", err)
	}
	n.push("gossip", func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		view, err := n.gossip.View(), n.gossip.Leave(ctx)
		if err != nil {
			n.log.Info("not every peer heard that this node leaves", "err", err)
		}
		n.sentry.leaving(view, err == nil)
		n.gossip.Stop()
		return nil
	})
	n.feedWatchdog()
	n.spawn(n.watchView)
	n.spawn(n.watchVMs)
	n.spawn(n.watchFitness)
	n.spawn(n.renew)
	n.spawn(n.voting.Run)
	n.spawn(n.meetMembers)
	n.spawn(n.tidyVersions)
	n.spawn(n.keepAwake)
	n.push("watchers", func(context.Context) error { n.cancel(); return nil })
	n.withdrawOthers(n.works.Left())
	n.startModules()
	n.works.Resume()
	n.push("modules", func(ctx context.Context) error { n.stopModules(ctx); return nil })
	for _, dir := range []string{n.cfg.RunDir, filepath.Dir(n.cfg.Socket)} {
		if err := passage(dir); err != nil {
			return fmt.Errorf("make directory of sockets: %w", err)
		}
	}
	return n.startConsole()
}

// startConsole serves the API. The unix socket must work; without TLS, whose address
// may not be there yet, the node does its duty all the same.
func (n *Node) startConsole() error {
	c := console.Config{
		Handler: api.Handler(n, n.cfg.Version, n.metricsHandler()),
		Socket:  n.cfg.Socket, Listen: n.listenAddr(), Identity: n.checked(),
		TokenFile: filepath.Join(n.cfg.Dir, "console.token"), Log: n.log,
	}
	err := n.serveConsole(c)
	if err != nil && c.Listen != "" {
		n.log.Error("the API is served on its unix socket only", "err", err)
		c.Listen = ""
		err = n.serveConsole(c)
	}
	return err
}

func (n *Node) serveConsole(c console.Config) error {
	s, err := console.New(c)
	if err != nil {
		return fmt.Errorf("build console: %w", err)
	}
	if err := s.Start(); err != nil {
		return err
	}
	n.push("console", s.Stop)
	n.mu.Lock()
	n.served = c.Listen
	n.mu.Unlock()
	return nil
}

// Stop ends the node in reverse order and leaves the VMs as they are. It may be
// called more than once and is bounded by ctx plus local I/O.
func (n *Node) Stop(ctx context.Context) error { return n.teardown(ctx) }

func (n *Node) push(name string, do func(context.Context) error) {
	n.undo = append(n.undo, step{name, do})
}

func (n *Node) teardown(ctx context.Context) error {
	var errs []error
	for len(n.undo) > 0 {
		last := n.undo[len(n.undo)-1]
		n.undo = n.undo[:len(n.undo)-1]
		if err := last.do(ctx); err != nil {
			errs = append(errs, fmt.Errorf("stop %s: %w", last.name, err))
		}
	}
	n.cancel()
	n.wg.Wait()
	return errors.Join(errs...)
}

func (n *Node) spawn(fn func(context.Context)) {
	n.wg.Go(func() { fn(n.ctx) })
}

// serveMux serves the three services of the port.
func (n *Node) serveMux() error {
	control, err := n.mux.Listen(serviceControl)
	if err != nil {
		return err
	}
	replication, err := n.mux.Listen(serviceReplication)
	if err != nil {
		return err
	}
	join, err := n.mux.Listen(mux.Join)
	if err != nil {
		return err
	}
	n.spawn(func(context.Context) {
		if err := n.rpc.Serve(control); err != nil && !errors.Is(err, http.ErrServerClosed) && n.ctx.Err() == nil {
			n.log.Error("control service ended", "err", err)
		}
	})
	n.spawn(func(ctx context.Context) { n.serveReplication(ctx, replication) })
	n.spawn(func(ctx context.Context) {
		if err := n.door.Serve(ctx, join); err != nil && ctx.Err() == nil {
			n.log.Error("join service ended", "err", err)
		}
	})
	n.push("services", func(context.Context) error {
		return errors.Join(n.rpc.Close(), replication.Close(), join.Close())
	})
	return nil
}

// serveReplication hands each connection to the module of the volume it names.
func (n *Node) serveReplication(ctx context.Context, ln net.Listener) {
	for {
		nc, err := ln.Accept()
		if err != nil {
			return // closed by Stop
		}
		n.wg.Go(func() { n.serveVolume(ctx, nc) })
	}
}

func (n *Node) serveVolume(ctx context.Context, nc net.Conn) {
	conn := wire.NewConn(nc)
	helloCtx, cancel := context.WithTimeout(ctx, 5*time.Second)
	hello, err := blockrepl.ReadHello(helloCtx, conn)
	cancel()
	if err == nil && cluster.NodeID(hello.Node) != mux.PeerOf(nc) {
		err = fmt.Errorf("node %s introduces itself as %s", mux.PeerOf(nc), hello.Node)
	}
	if err != nil {
		_ = conn.Close() // nothing was agreed
		if ctx.Err() == nil {
			n.log.Warn("replication connection refused", "peer", mux.PeerOf(nc), "err", err)
		}
		return
	}
	m := n.moduleOfVolume(hello.Lineage.Volume)
	if m == nil {
		_ = blockrepl.Refuse(conn, blockrepl.Refusal{Reason: "this node has no such volume"}) // best effort
		return
	}
	if err := m.engine.OnAttach(ctx, &engine.Connection{Conn: conn, Greeting: hello}); err != nil && ctx.Err() == nil {
		n.log.Info("replication connection ended", "module", m.cfg.Name, "peer", hello.Node, "err", err)
	}
}

// watchView tells the engines when the view of the cluster changes.
func (n *Node) watchView(ctx context.Context) {
	for range n.gossip.Watch(ctx) {
		for _, m := range n.all() {
			m.run.ViewChanged()
		}
	}
}

// watchVMs hands the hypervisor's events to the engines.
func (n *Node) watchVMs(ctx context.Context) {
	for ctx.Err() == nil {
		events, err := n.cfg.Hypervisor.Watch(ctx)
		if err != nil {
			n.log.Warn("hypervisor cannot be watched, trying again", "err", err)
			select {
			case <-time.After(2 * time.Second):
			case <-ctx.Done():
			}
			continue
		}
		for ev := range events {
			for _, m := range n.all() {
				if r, ok := m.run.(*mirror); ok && m.cfg.Subject() == ev.VM {
					r.VMEvent(ev)
				}
			}
		}
	}
}

// keepAwake keeps the CPUs awake while replicated writes are under way.
func (n *Node) keepAwake(ctx context.Context) {
	if n.cfg.Sleepy {
		return
	}
	mirrored := func() (sum uint64) {
		for _, m := range n.mirrors() {
			sum += m.engine.Mirrored()
		}
		return sum
	}
	if err := cpuidle.Keep(ctx, mirrored, cpuidle.Hold); err != nil {
		n.log.Info("idle CPUs sleep, which makes a single writer slower", "err", err)
	}
}

// renew keeps this node's certificate fresh.
func (n *Node) renew(ctx context.Context) {
	tick := time.NewTicker(24 * time.Hour)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if did, err := n.identity.Renew(time.Now()); err != nil {
				n.log.Error("certificate cannot be renewed", "expires", n.identity.Expires(), "err", err)
			} else if did {
				n.log.Info("certificate renewed", "expires", n.identity.Expires())
			}
		case <-ctx.Done():
			return
		}
	}
}
