package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"duet/appmodules/engine"
	"duet/appmodules/mirror"
	"duet/appmodules/workload"
	"duet/blockrepl"
	"duet/blockrepl/backing"
	"duet/blockrepl/badgerlog"
	"duet/blockrepl/divergence"
	"duet/blockrepl/host/cpuidle"
	"duet/blockrepl/versions"
	"duet/blockrepl/wire"
	"duet/cluster"
	"duet/cluster/control"
	"duet/cluster/fence"
	"duet/cluster/fencing"
	"duet/cluster/gossip"
	"duet/cluster/guard"
	"duet/cluster/membership"
	"duet/cluster/mux"
	"duet/cluster/pki"
	"duet/cluster/registrar"
	"duet/cluster/survey"
	"duet/cluster/voting"
	"duet/console"
	"duet/console/api"
	"duet/console/metrics"
	"duet/console/tasks"
)

// The services of the mux.
const (
	// The first byte of a connection; mux.Join is a third one. They are on the wire and stay.
	serviceControl     byte = 'C' // HTTP/2 between nodes
	serviceReplication byte = 'R' // one volume each
)

// Config says what a node is made of. Dir, Socket, RunDir, Hypervisor and Logger are needed; Dir has to be a
// member's. It is not changed after New.
type Config struct {
	Dir        string              // certificates, cluster.json, store, journals, new images
	Socket     string              // unix socket of the API
	RunDir     string              // unix sockets of the volumes
	Listen     string              // address of the API over TLS; empty: all addresses of the computer, port+2
	Version    string              // of this program, for people: nodes tell each other cluster.Version
	Hypervisor workload.Hypervisor // of this host; the caller closes it after Stop
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
	// Apps is the directory of duetd apps, which runs applications on this host, and Disk its command behind a block
	// device of a volume.
	Apps string
	Disk []string
	// Watchdog is the device that resets this computer when the daemon hangs while it
	// holds guests, such as /dev/watchdog; empty: none.
	Watchdog string
	// Guard is the unix socket of the guard, which pauses guests here when the daemon dies; empty: none.
	Guard string
	// SpareAfter is how long the witness is silent before a spare takes its place; 0: 15 s.
	SpareAfter time.Duration
}

// Sockets keeps listening sockets beyond a run of the daemon: who connects meanwhile waits instead of being
// refused. QEMU, once refused, sleeps for up to 16 s before it tries again, and its guest with it.
type Sockets = mirror.Sockets

// Node is one running daemon. The API's methods are those of its rooms, where one has them: they are promoted, so a
// name that two rooms have would be none of Node's. Any number of goroutines may call them from Start to Stop. The
// fields are set by New and not changed after.
type Node struct {
	cfg Config // as New got it
	log *slog.Logger
	life

	members  *membership.Book // the configuration of the cluster
	identity *pki.Identity
	store    *badgerlog.Store // all that has to survive this process, but for the configuration and images
	tasks    *tasks.Board     // works of this run of the daemon

	mux    *mux.Mux       // the port between nodes, and what goes over it
	plane  *control.Plane // requests of nodes to each other
	gossip *gossip.Gossip // who is heard
	voting *voting.Panel  // the witnesses
	sentry *guard.Sentry  // nil without Config.Guard

	parts                // of modules
	*registrar.Registrar // of the cluster's nodes
	*fencing.Desk        // of fence devices
	*versions.Archive    // of volumes that lost a split brain
	*survey.Lookout      // for the doctor and for support

	figures *metrics.Exporter // for Prometheus
	served  atomic.Value      // string: where the API is served over TLS; nil: not yet
}

// New opens what the node keeps and builds its parts; nothing runs yet, no port is bound, and no VM is touched.
// After a failed New the store is closed, so that another try may open it. It fails with membership.ErrNoMember in
// a directory of no member, where another try ends the same way; while another process has the store; and if one of
// the stored modules cannot be built.
func New(cfg Config) (*Node, error) {
	n := &Node{cfg: cfg, log: cfg.Logger, tasks: tasks.NewBoard()}
	n.begin()
	if err := n.build(); err != nil {
		n.teardown(context.Background())
		return nil, err
	}
	return n, nil
}

// build makes the parts, each before those that need it. What needs one of a later line gets a function that asks
// for it, and may not call it before build is done. Steps of Stop are pushed for what is open from here on; Start
// pushes the others.
func (n *Node) build() error {
	var err error
	if n.members, err = membership.Open(n.cfg.Dir); err != nil {
		return err
	}
	if n.identity, err = pki.Load(filepath.Join(n.cfg.Dir, pki.Folder)); err != nil {
		// An init, join or leave that was cut off leaves cluster.json alone: another start ends the same way.
		if _, gone := os.Stat(filepath.Join(n.cfg.Dir, pki.Folder)); errors.Is(gone, fs.ErrNotExist) {
			return fmt.Errorf("%s is not the directory of a member: %w", n.cfg.Dir, membership.ErrNoMember)
		}
		return err
	}
	n.store, err = badgerlog.Open(badgerlog.Config{Dir: filepath.Join(n.cfg.Dir, "db"), Logger: n.log,
		MinFree: n.cfg.MinFree})
	if err != nil {
		return fmt.Errorf("open store: %w", err)
	}
	n.push("store", func(context.Context) error { return n.store.Close() })
	n.mux = mux.New(mux.Config{Identity: n.checked(), Cluster: n.cluster, WrapConn: wire.Buffered, Logger: n.log})
	n.gossip = gossip.New(gossip.Config{Cluster: n.cluster, Logger: n.log})
	n.plane = newPlane(n.cluster, n.mux, n.cfg.Version, n.log)
	n.Registrar = n.newRegistrar()
	n.Desk = fencing.New(fencing.Config{Book: n.members,
		Agents: fence.New(fence.Config{Path: n.cfg.FencePath, Logger: n.log}),
		Call: func(ctx context.Context, node cluster.NodeID, s fencing.Set) error {
			return n.rpcTo(ctx, node, "fence", s, nil)
		},
		Spawn: n.spawn, Logger: n.log})
	if n.voting, err = n.newPanel(); err != nil {
		return err
	}
	n.push("witnesses", func(context.Context) error { return n.voting.Close() })
	n.figures = metrics.New(metrics.Config{Cluster: n.cluster, View: n.gossip.View,
		Witnesses: n.reached, Guard: func() *bool { return n.sentry.Answers() },
		Versions: func() ([]api.Version, error) { return n.Archive.Here() }, Modules: n.states})
	// The folder has the name it had when it was first made.
	keeper, err := divergence.NewKeeper(filepath.Join(n.cfg.Dir, "aside"), n.log)
	if err != nil {
		return err
	}
	n.newParts(keeper)
	// Before the modules: a release that was cut short decides whether its module is loaded (Held).
	if n.Works, err = n.newWorks(); err != nil {
		return err
	}
	n.Archive = versions.New(versions.Config{Self: n.self(), Cluster: n.cluster, Keeper: keeper,
		Call: n.ask, Run: n.run, Logger: n.log})
	n.Lookout = n.newLookout()
	n.sentry = n.newSentry()
	n.push("journals", func(context.Context) error { return n.CloseJournals() })
	return n.Load(n.Works.Held)
}

// listenAddr is where the API is served over TLS.
func (n *Node) listenAddr() string {
	if n.cfg.Listen != "" {
		return n.cfg.Listen
	}
	return net.JoinHostPort("", fmt.Sprint(n.cluster().Port+2))
}

// Start runs the node. If it fails, what was started is stopped again. It is called once. When it returns nil the
// API's unix socket answers; the modules may still be finding out how they stand.
func (n *Node) Start() error {
	if err := n.start(); err != nil {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		n.teardown(ctx)
		return err
	}
	return nil
}

// The times of the end. Each part has one of its own: a peer that does not hear the farewell takes this node for dead
// after the detection time, and a planned end becomes a failover. Together they are less than the 20 s that duetd gives
// to Stop.
const (
	callsTime    = 2 * time.Second  // for calls of the API in flight, which are then cancelled
	modulesTime  = 10 * time.Second // for modules to end in good order; one that hangs ends after the farewell
	farewellTime = time.Second      // for all peers to hear that this node leaves
)

// start begins what serves others first and what acts last; Stop ends them in reverse: first nobody gives orders
// any more (console), then the modules end in good order while their peer is still heard and answered, then whoever
// watches, then the heartbeats say goodbye, then the guard has its last word, then modules that hang are waited for,
// and the port and the store close.
func (n *Node) start() error {
	// A port that another process has ends the start here, before anything was told to anybody.
	if err := n.mux.Start(); err != nil {
		return err
	}
	n.push("mux", func(context.Context) error { n.mux.Stop(); return nil })
	if err := n.serveMux(); err != nil {
		return err
	}
	// Before the modules' last end, so that it still resets the computer when they hang in it.
	n.feedWatchdog()
	ended := n.endModules()
	// Before the heartbeats, whose end peers hear: the guard has to know longer than they do.
	n.guardGuests()
	if err := n.gossip.Start(); err != nil {
		return fmt.Errorf("start gossip: %w", err)
	}
	// A peer that heard of it gives this node the time of a restart (LeaveGrace) before it takes over. The guard may
	// count on that only if all heard it.
	n.push("gossip", func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, farewellTime)
		defer cancel()
		view, err := n.gossip.View(), n.gossip.Leave(ctx)
		if err == nil {
			n.sentry.Leaving(view)
		} else {
			n.log.Info("not every peer heard that this node leaves", "err", err)
		}
		n.gossip.Stop()
		return nil
	})
	n.spawn(n.watchView)
	n.spawn(n.watchVMs)
	n.spawn(n.fitness.Watch)
	n.spawn(n.renew)
	n.spawn(n.voting.Run)
	n.spawn(n.Meet)
	n.spawn(n.Archive.Tidy)
	n.spawn(n.keepAwake)
	n.spawn(func(ctx context.Context) { n.beyond.Run(ctx, n.goesByPing) })
	n.spawn(n.Desk.Watch)
	// Pushed before the modules: the goroutines of the node serve them to their end.
	n.push("watchers", func(context.Context) error { n.cancel(); return nil })
	// The VMs of works that are taken up wait for their sockets.
	// Sockets that an earlier run has kept for volumes which are nobody's now would hold whoever connects.
	n.volumes.WithdrawOthers(slices.Concat(n.Modules(), n.Works.Left()))
	n.Registry.Start()
	n.Works.Resume()
	n.push("modules", ended)
	for _, dir := range []string{n.cfg.RunDir, filepath.Dir(n.cfg.Socket)} {
		if err := backing.Passage(dir); err != nil {
			return fmt.Errorf("make directory of sockets: %w", err)
		}
	}
	return n.startConsole()
}

// endModules returns the step that ends the modules and lasts modulesTime at most; the step that it pushes waits for
// those that go on after that. In between the peers hear the farewell.
func (n *Node) endModules() (step func(context.Context) error) {
	var ended chan struct{} // nil: they were not started
	n.push("hung modules", func(context.Context) error {
		if ended != nil {
			<-ended
		}
		return nil
	})
	return func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, modulesTime)
		ended = make(chan struct{})
		go func() {
			defer close(ended)
			defer cancel()
			n.Registry.Stop(ctx)
		}()
		select {
		case <-ended:
			return nil
		case <-time.After(modulesTime):
			return errors.New("they have not ended in time: they are waited for after this node has taken its leave")
		}
	}
}

// startConsole serves the API. The unix socket must work; without TLS, whose address may not be there yet, the node
// does its duty all the same, and it is not tried again before the next start.
func (n *Node) startConsole() error {
	c := console.Config{
		Handler: api.Handler(n, n.cfg.Version, n.figures.Handler()),
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

// serveConsole serves the API once, on what c says. A part of it that cannot be served fails it as a whole.
func (n *Node) serveConsole(c console.Config) error {
	s, err := console.New(c)
	if err != nil {
		return fmt.Errorf("build console: %w", err)
	}
	if err := s.Start(); err != nil {
		return err
	}
	n.push("console", func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, callsTime)
		defer cancel()
		return s.Stop(ctx)
	})
	n.served.Store(c.Listen)
	return nil
}

// Stop ends the node in reverse order and leaves the VMs as they are: their writes wait for the next Start. It may
// be called more than once and is bounded by ctx plus local I/O; modules that hang are waited for longer. A ctx that is
// over leaves no time for a farewell: the peers take this node for dead. When it returns nothing of the node runs any
// more, but for requests that outlived their callers.
func (n *Node) Stop(ctx context.Context) error { return n.teardown(ctx) }

// serveMux serves the three services of the port. From here on peers are answered, although no engine runs yet:
// their questions wait for the engines.
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
	rpc := mux.NewHTTPServer(n.rpcHandler())
	n.spawn(func(context.Context) {
		if err := rpc.Serve(control); err != nil && !errors.Is(err, http.ErrServerClosed) && n.ctx.Err() == nil {
			n.log.Error("control service ended", "err", err)
		}
	})
	n.spawn(func(ctx context.Context) { n.serveReplication(ctx, replication) })
	n.spawn(func(ctx context.Context) {
		if err := n.Registrar.Serve(ctx, join); err != nil && ctx.Err() == nil {
			n.log.Error("join service ended", "err", err)
		}
	})
	n.push("services", func(context.Context) error {
		return errors.Join(rpc.Close(), replication.Close(), join.Close())
	})
	return nil
}

// serveReplication hands each connection to the module of the volume it names. The connections end with ctx.
func (n *Node) serveReplication(ctx context.Context, ln net.Listener) {
	for {
		nc, err := ln.Accept()
		if err != nil {
			return // closed by Stop
		}
		n.wg.Go(func() { n.serveVolume(ctx, nc) })
	}
}

// serveVolume finds out whose volume a connection is for, within five seconds. The engine decides whether it wants
// it and closes it; the call lasts as long as the connection does. A peer may speak for itself only: the name in
// the hello is that of the certificate.
func (n *Node) serveVolume(ctx context.Context, nc net.Conn) {
	conn := wire.NewConn(nc)
	// Who is admitted by the mux and says nothing must not keep a goroutine.
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
	m := n.OfVolume(hello.Lineage.Volume)
	if m == nil {
		_ = blockrepl.Refuse(conn, blockrepl.Refusal{Reason: "this node has no such volume"}) // best effort
		return
	}
	if err := m.Engine.OnAttach(ctx, &engine.Connection{Conn: conn, Greeting: hello}); err != nil && ctx.Err() == nil {
		n.log.Info("replication connection ended", "module", m.Module.Name, "peer", hello.Node, "err", err)
	}
}

// watchView tells the modules when the view of the cluster changes. Views may be skipped, never the latest.
func (n *Node) watchView(ctx context.Context) {
	for range n.gossip.Watch(ctx) {
		for _, m := range n.All() {
			m.Run.ViewChanged()
		}
	}
}

// watchVMs hands the hypervisor's events to the modules that run those VMs; events of other VMs are nobody's. A
// hypervisor that cannot be watched is tried again: without events a VM that ends is not noticed here at once.
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
			for _, m := range n.All() {
				if r, ok := m.Run.(*mirror.Mirror); ok && m.Module.Subject() == ev.VM {
					r.VMEvent(ev)
				}
			}
		}
	}
}

// keepAwake keeps the CPUs awake while replicated writes are under way: a CPU that wakes up for each answer of the
// peer makes a single writer about half as fast. Where the kernel does not offer it nothing else is lost.
func (n *Node) keepAwake(ctx context.Context) {
	if n.cfg.Sleepy {
		return
	}
	mirrored := func() (sum uint64) {
		for _, m := range n.Mirrors() {
			sum += m.Engine.Mirrored()
		}
		return sum
	}
	if err := cpuidle.Keep(ctx, mirrored, cpuidle.Hold); err != nil {
		n.log.Info("idle CPUs sleep, which makes a single writer slower", "err", err)
	}
}

// renew keeps this node's certificate fresh; pki.Load does so at each start too. The guard finds the new one by the
// time of its folder.
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
