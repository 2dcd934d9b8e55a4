package sim

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"time"

	"duet/appmodules"
	"duet/appmodules/engine"
	"duet/appmodules/workload"
	"duet/blockrepl"
	"duet/cluster"
	"duet/vmmanager"
)

// Cluster is two nodes, a witness and one module, on a clock of their own.
type Cluster struct {
	w       *world
	net     network
	nodes   [2]*Node
	witness witness
	module  appmodules.Module
	proves  bool // volumes are proven in the background
	fence   bool
	check   checker
	broken  broken
	avoided int // block that the guest does not write any more; 0: none
	busy    int // the only one that it writes; 0: all
	cover   *coverage
	stirred int64            // when something last happened besides the guest's work
	out     *strings.Builder // the transcript; nil: none is kept
}

// Node is one computer: what survives its daemon, and what survives its power.
type Node struct {
	c    *Cluster
	id   int
	name string

	on     bool     // under power
	host   *process // its life since power came, in which the guest runs
	proc   *process // the daemon's life; nil: it does not run
	engine *engine.Engine
	vm     *workload.VM

	store     store
	disk      disk
	log       dirtyLog
	guest     guest
	second    *secondary            // of the model
	real      *real                 // the byte path of the present daemon; nil: it is the model's
	prim      engine.Primary        // the newest that was opened here
	verified  *blockrepl.VerifyDone // what its last verify found
	pipes     []*end
	boots     int
	lostPower bool             // since the daemon last started
	cold      bool             // it lost power, and its copy was not completed since
	ending    bool             // the daemon is being stopped in order
	leaving   bool             // it has told so
	kept      [][blocks]uint64 // versions that were set aside
	ping      bool
	vmTakes   time.Duration // what starting it takes at least
	noStart   bool          // the hypervisor starts nothing
	skew      time.Duration // of the clock
	heard     int64         // when the other node was last within reach
	reach     bool
	forbidden bool             // the VM must not start here
	answer    error            // to the last command that was refused
	phase     appmodules.Phase // as the transitions say, for coverage
	told      [2]string        // last two transitions of the transcript
	again     int              // how often they came again
	shown     string           // role and status
	seen      cluster.View     // last answer of view
	seenAt    sight            // and what it was made of
}

// sight is what a view depends on.
type sight struct {
	quiet   bool
	silent  bool
	heard   int64
	leaving bool
	skew    time.Duration
}

// names of the places.
var names = [...]string{"alpha", "beta", "witness"}

// witnessName is its place.
const witnessName = 2

// newCluster makes a cluster that is switched off. keep says whether a transcript is wanted.
func newCluster(seed uint64, keep bool, live *live) *Cluster {
	c := &Cluster{w: &world{rng: rand.New(rand.NewPCG(seed, 0)), live: live}}
	c.check.c = c
	if keep {
		c.out = &strings.Builder{}
	}
	m := appmodules.Default()
	m.Name, m.Nodes = "vm", []string{names[0], names[1]}
	size := int64(blocks)
	if live != nil {
		size = volumeSize
	}
	m.Spec = appmodules.VM{Domain: "vm", Disks: []appmodules.Volume{{Target: "vda", ID: "vol", Size: size, Paths: map[string]string{}}}}
	c.module = m
	for i := range c.nodes {
		n := &Node{c: c, id: i, name: names[i], ping: true, vmTakes: 100 * time.Millisecond, store: store{values: map[string][]byte{}, owner: cluster.NodeID(names[i])}}
		n.guest, n.shown = guest{n: n, state: vmmanager.Off}, off
		n.store.grant = func() { c.check.granted(n) }
		n.log.entries = map[uint32]blockrepl.Entry{}
		n.log.lineage = blockrepl.Lineage{Volume: "vol"}
		if i == 0 {
			n.log.lineage = n.log.lineage.With(blockrepl.Generation{Epoch: 1, Holder: names[0]})
		}
		if err := engine.Create(&n.store, cluster.NodeID(n.name), cluster.NodeID(names[0]), engine.Definition{Version: 1, Text: []byte("vm")}); err != nil {
			panic(err) // a store in memory that is not full
		}
		n.disk.ill.changed.L = &n.disk.mu
		c.nodes[i] = n
	}
	return c
}

// note adds a line to the transcript.
func (c *Cluster) note(format string, args ...any) {
	if c.out != nil {
		fmt.Fprintf(c.out, "%9.3fs  %s\n", time.Duration(c.w.now).Seconds(), fmt.Sprintf(format, args...))
	}
}

// detection is the time after which a silent peer is suspected.
const detection = 2 * time.Second

// quiet is when a peer that is silent on all paths is not waited for any more.
const quiet = detection / 3

// boot starts the daemon, and the computer if it is off.
func (n *Node) boot() {
	if !n.on {
		n.on = true
		n.host = &process{w: n.c.w, skew: n.skew}
	}
	if n.proc != nil {
		return
	}
	p := &process{w: n.c.w, skew: n.skew, frozen: n.host.frozen}
	p.spins = func() { n.c.check.fail("the daemon on %s spins", n.name) }
	n.proc, n.ending, n.leaving, n.lostPower, n.phase = p, false, false, false, appmodules.Stopped
	if n.c.w.live != nil {
		p.gate = newGate(p.frozen)
		n.real = &real{n: n, life: p}
	}
	other := cluster.NodeID(names[1-n.id])
	vm := workload.NewVM(workload.VMConfig{Module: n.c.module, Node: n.name, Hypervisor: hypervisor{vmmanager.Unavailable{Err: vmmanager.ErrUnavailable}, n}, Logger: slog.New(slog.DiscardHandler)})
	e, err := engine.New(engine.Config{
		Module: n.c.module, Self: cluster.NodeID(n.name), Peer: peer{n}, Store: &n.store, Storage: n.storage(),
		Workload: vm, Gate: engine.NewGate(p), Runtime: p,
		View: func() cluster.View { return n.view(other) }, Witnesses: n.witnesses, Fence: n.fencer(),
		Ping: func(context.Context) bool { return n.ping }, Boot: fmt.Sprint(n.boots),
		Log: func(t engine.Transition) { n.c.transition(n, t) }, Logger: slog.New(slog.DiscardHandler),
		Times: engine.DefaultTimes(detection),
	})
	if err != nil {
		n.c.note("%s: the daemon does not start: %v", n.name, err)
		n.proc, n.real = nil, nil
		return
	}
	n.engine, n.vm, n.lostPower = e, vm, false
	n.show(e.State().Status)
	p.w.at(0, p, e.Start)
	n.c.touch()
}

// storage is the byte path.
func (n *Node) storage() engine.Storage {
	if n.real != nil {
		return n.real
	}
	return storage{n}
}

func (c *Cluster) transition(n *Node, t engine.Transition) {
	if t.On == engine.OnProof && !c.harmed() {
		c.check.fail("%s raises a false alarm: %s", n.name, t.Why)
	}
	n.shown, c.stirred = t.To, c.w.now
	c.check.transition(n)
	if c.cover != nil {
		if err := c.cover.transition(n, t); err != nil {
			c.check.fail("%v", err)
		}
	}
	if c.out != nil {
		n.tell(fmt.Sprintf("%s → %s: %s", t.From, t.To, t.Why))
	}
}

// tell adds a transition to the transcript. Two that alternate are told once.
func (n *Node) tell(text string) {
	if text == n.told[0] {
		n.told[0], n.told[1] = n.told[1], text
		n.again++
		return
	}
	n.tellAgain()
	n.told[0], n.told[1] = n.told[1], text
	n.c.note("%s: %s", n.name, text)
}

func (n *Node) tellAgain() {
	if n.again > 0 {
		n.c.note("(%s: %d times more one of the last two)", n.name, n.again)
		n.told, n.again = [2]string{}, 0
	}
}

// kill ends the daemon between two instructions; the VM goes on and waits for its disk.
func (n *Node) kill() {
	if n.proc == nil {
		return
	}
	n.end()
	n.sever()
	n.c.touch()
}

func (n *Node) end() {
	if n.proc == nil {
		return
	}
	if n.engine != nil && n.engine.State().Record.Cold && !n.record().Cold {
		n.lostPower = true // it could not save that it did
	}
	n.proc.kill()
	n.disk.wakeDead()
	if n.real != nil {
		n.real.bury()
	}
	n.log.crash(n.c.w.rng)
	if n.c.broken == cleanLog {
		n.log.suspects = [blocks]bool{}
	}
	n.proc, n.engine, n.second, n.real, n.prim, n.shown = nil, nil, nil, nil, nil, off
	n.guest.front, n.guest.sent = nil, nil
}

// stopping: the daemon ends in order.
func (n *Node) stopping() bool { return n.ending && n.proc != nil }

// stop ends the daemon in order; down: because the whole computer goes down, and does so
// at once afterwards, before anything else reaches its disks.
func (n *Node) stop(down bool) {
	p, e := n.proc, n.engine
	if p == nil || p.frozen {
		return
	}
	n.ending = true
	p.start(func() {
		if down {
			evacuation, cancel := p.WithTimeout(context.Background(), 100*time.Second)
			e.Evacuate(evacuation)
			cancel()
		}
		n.leaving = true
		ctx, cancel := p.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		e.Stop(ctx)
		n.c.w.at(0, nil, func() {
			switch {
			case n.proc != p:
			case down:
				n.powerCut()
			default:
				n.kill()
			}
		})
	})
}

// powerCut ends everything on the computer.
func (n *Node) powerCut() {
	if !n.on {
		return
	}
	n.c.check.powerCut(n)
	n.end()
	n.host.kill()
	for _, e := range n.pipes { // nobody is told
		e.closed, e.lost, e.queue = true, nil, nil
		o := e.other()
		n.c.w.at(patience, nil, func() { o.reset(errTimeout) })
	}
	n.pipes = nil
	n.guest.end(vmmanager.Off)
	n.disk.powerCut(n.c.w.rng)
	n.forget()
	n.on, n.lostPower, n.cold = false, true, true
	n.boots++
	n.c.touch()
}

// forget is power loss of hardware that lies.
func (n *Node) forget() {
	switch n.c.broken {
	case forgetfulDisk:
		n.disk.cached[0], n.disk.durable[0] = 0, 0
	case forgetfulStore:
		if n.store.before != nil {
			n.store.values["record"] = n.store.before
		}
	}
}

// freeze stops the daemon, or with it the VM; thaw lets both go on.
func (n *Node) freeze(all bool) {
	if n.proc != nil {
		n.proc.freeze()
	}
	if all && n.host != nil {
		n.host.freeze()
	}
	n.c.touch()
}

func (n *Node) thaw() {
	if n.host != nil && n.host.frozen {
		n.host.thaw()
	}
	if n.proc != nil && n.proc.frozen {
		n.proc.thaw()
	}
	n.c.touch()
}

// diskDelay is what a write takes on a disk that is well.
func (n *Node) diskDelay() time.Duration {
	if n.c.broken == sleepyDisk && n.c.w.rng.IntN(50) == 0 {
		return 1500 * time.Millisecond
	}
	return n.c.w.jitter(200 * time.Microsecond)
}

// answers reports whether heartbeats are answered.
func (n *Node) answers() bool { return n.proc != nil && !n.proc.frozen }

// touch notes who is within reach of whom, after something changed.
func (c *Cluster) touch() {
	for i, n := range c.nodes {
		o := c.nodes[1-i]
		was := n.reach
		n.reach = n.answers() && o.answers() && c.passes(control, i, 1-i) && c.passes(control, 1-i, i)
		if was || n.reach {
			n.heard = c.w.now
		}
		if n.engine == nil || was == n.reach {
			continue
		}
		e, wait := n.engine, 50*time.Millisecond
		if was {
			c.w.at(wait+quiet, n.proc, e.ViewChanged)
			wait += detection
		}
		c.w.at(wait, n.proc, e.ViewChanged)
	}
}

// view is what heartbeats say. A node that was itself frozen begins to listen anew.
func (n *Node) view(other cluster.NodeID) cluster.View {
	at := sight{quiet: !n.reach && n.c.w.now-n.heard >= int64(quiet), silent: !n.reach && n.c.w.now-n.heard >= int64(detection), leaving: n.c.nodes[1-n.id].leaving, skew: n.proc.skew}
	if at.silent {
		at.heard = n.heard
	}
	if n.seen.Self != "" && n.seenAt == at {
		return n.seen
	}
	v := cluster.PeerView{Paths: map[string]bool{"hb1": !at.silent}, Leaving: at.leaving, Quiet: at.quiet}
	if at.silent {
		v.Silent = n.proc.Now().Add(-time.Duration(n.c.w.now - n.heard))
	}
	n.seen = cluster.View{Self: cluster.NodeID(n.name), Peers: map[cluster.NodeID]cluster.PeerView{other: v}}
	n.seenAt = at
	return n.seen
}

// witness is the third voter: its record is durable before it answers.
type witness struct {
	used, on bool
	record   cluster.Record
}

// voter is the witness as one node reaches it. It is an engine.Witness.
type voter struct{ n *Node }

// Name is the witness's.
func (v voter) Name() string { return names[witnessName] }

// Ask asks for its vote.
func (v voter) Ask(ctx context.Context, a cluster.Ask) (ans cluster.Answer, err error) {
	c, n, life := v.n.c, v.n, v.n.proc
	answered := make(chan struct{})
	vote := func() {
		if !c.witness.on {
			return
		}
		var said cluster.Answer
		if c.broken == generousWitness {
			c.witness.record = cluster.Record{}
		}
		c.witness.record, said = c.witness.record.Vote(cluster.NodeID(names[witnessName]), a)
		c.send(control, witnessName, n.id, func() {
			c.w.in(life, func() {
				if !closed(answered) {
					ans = said
					close(answered)
					life.wake()
				}
			})
		})
	}
	c.send(control, n.id, witnessName, vote)
	if c.w.rng.Float64() < c.net.again {
		c.w.at(c.w.jitter(3*time.Second), nil, func() { c.send(control, n.id, witnessName, vote) })
	}
	return ans, life.Wait(ctx, answered, nil)
}

func (n *Node) witnesses() []engine.Witness {
	if !n.c.witness.used {
		return nil
	}
	return []engine.Witness{voter{n}}
}

// fencer switches the other computer off by a path of its own.
func (n *Node) fencer() func(context.Context) error {
	if !n.c.fence {
		return nil
	}
	return func(ctx context.Context) error {
		if err := n.proc.sleep(ctx, time.Second); err != nil {
			return err
		}
		over := false
		life := n.proc
		if n.c.broken == deafFence {
			return nil
		}
		n.c.w.at(0, nil, func() {
			n.c.note("%s: the fence agent switches %s off", n.name, names[1-n.id])
			n.c.nodes[1-n.id].powerCut()
			n.c.w.at(0, life, func() { over = true })
		})
		return life.waitFor(ctx, func() bool { return over })
	}
}

// command gives the module on n an operator's command.
func (n *Node) command(ev appmodules.Event, yes bool) {
	e, p := n.engine, n.proc
	if e == nil || p.frozen {
		return
	}
	n.answer = nil
	p.start(func() {
		if ev == appmodules.CmdPrim {
			n.c.check.overridden(n)
		}
		err := e.Command(context.Background(), ev, yes)
		if err != nil && !errors.Is(err, context.Canceled) {
			n.answer = err
			n.c.note("%s: %v", n.name, err)
		}
	})
	p.poll()
}

// off is what a node without a daemon shows.
const off = "off"

func (n *Node) show(s engine.Status) { n.shown = s.Role.String() + "/" + s.Status.String() }

// helps: what n cannot read the other node can give it: its disk is well, it is awake, and what is asked and answered arrives.
func (c *Cluster) helps(n *Node) bool {
	peer := c.nodes[1-n.id]
	awake := peer.answers() && peer.host != nil && !peer.host.frozen
	return awake && !peer.disk.ails() && c.passes(data, n.id, peer.id) && c.passes(data, peer.id, n.id)
}

// settled: one node is primary, the other in step.
func (c *Cluster) settled() bool {
	a, b := c.nodes[0].shown, c.nodes[1].shown
	return (a == "PRIM/Ready" && b == "SECOND/Ready") || (b == "PRIM/Ready" && a == "SECOND/Ready")
}
