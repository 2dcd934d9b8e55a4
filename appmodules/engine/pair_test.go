package engine

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"duet/appmodules"
	"duet/appmodules/workload"
	"duet/blockrepl"
	"duet/blockrepl/backing"
	"duet/blockrepl/memlog"
	"duet/blockrepl/proof"
	"duet/cluster"
	"duet/vmmanager"
	"duet/vmmanager/fake"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	volumeSize = 8 << 20
	slotSize   = 4096
	slots      = 64
)

// pair is two nodes in one process: real engines, primaries and secondaries, memory
// disks, fake hypervisors, and a network that can be cut in each direction.
type pair struct {
	t     *testing.T
	nodes map[cluster.NodeID]*simNode
	kept  string      // directory of what is replaced
	cut   atomic.Bool // nothing passes
	data  atomic.Bool // replication does not pass, control does
	acked [slots]atomic.Uint64
	next  atomic.Uint64
	apart atomic.Bool  // two writers are what the test is about: guests do not check
	lost  atomic.Value // string: what the guest's own check found
}

// simNode is what survives a crash of its engine: disk, log, store.
type simNode struct {
	p     *pair
	name  cluster.NodeID
	image *backing.Memory
	disk  *backing.Faulty // what the node sees of the image
	logs  *memlog.Log
	store *memStore
	hv    *fake.Hypervisor
	slow  chan struct{} // if not nil, the hypervisor says nothing before it is closed
	ping  atomic.Bool
	boots atomic.Int64 // power cycles
	front *front
	none  workload.None // what runs where the module has no volumes
	// withdrawn counts how often waiting for its volume was ended.
	withdrawn atomic.Int64

	// crashed: the daemon was killed, so what it would do in order for its disk is not done.
	crashed atomic.Bool

	mu     sync.Mutex
	engine *Engine // nil: the daemon is down
	stop   context.CancelFunc
	conns  []net.Conn
	log    []Transition
	aside  []Divergence // versions that were kept
}

// guest writes numbered slots and remembers what was acknowledged. Before it writes
// it checks, as the numbered records of the real guest do, that nothing is missing.
func (p *pair) guest(n *simNode) func(context.Context, vmmanager.Definition) {
	return func(ctx context.Context, _ vmmanager.Definition) {
		if !p.apart.Load() && !p.check(ctx, n) {
			return
		}
		for ctx.Err() == nil {
			v := p.next.Add(1)
			slot := int(v % slots)
			block := make([]byte, slotSize)
			binary.LittleEndian.PutUint64(block, v)
			if n.front.do(ctx, blockrepl.OpWrite, block, int64(slot)*slotSize) != nil {
				return
			}
			p.acked[slot].Store(v)
			if v%16 == 0 && n.front.do(ctx, blockrepl.OpFlush, nil, 0) != nil {
				return
			}
		}
	}
}

// check reads every slot; it must hold the last acknowledged number or a newer one.
func (p *pair) check(ctx context.Context, n *simNode) bool {
	for slot := range slots {
		want := p.acked[slot].Load()
		r := &blockrepl.Request{Op: blockrepl.OpRead, Off: int64(slot) * slotSize, Len: slotSize,
			Data: make([]byte, slotSize)}
		for {
			q := n.front.queue(ctx)
			if q == nil {
				return false
			}
			done := make(waiter, 1)
			r = &blockrepl.Request{Op: blockrepl.OpRead, Off: r.Off, Len: slotSize, Data: make([]byte, slotSize), By: done}
			q.Submit(r)
			q.Kick()
			var err error
			select {
			case err = <-done:
			case <-ctx.Done():
				return false
			}
			if err == nil {
				break
			}
			if !errors.Is(err, blockrepl.ErrClosed) {
				p.lost.Store(fmt.Sprintf("%s: read of slot %d: %v", n.name, slot, err))
				return false
			}
		}
		if got := binary.LittleEndian.Uint64(r.Data); got < want {
			p.lost.Store(fmt.Sprintf("%s: slot %d holds %d, but %d was acknowledged", n.name, slot, got, want))
			return false
		}
	}
	return true
}

func newPair(t *testing.T) *pair { return newPairOf(t, "vol") }

// newPairOf makes a pair whose logs are those of a volume.
func newPairOf(t *testing.T, volume string) *pair {
	t.Helper()
	p := &pair{t: t, nodes: map[cluster.NodeID]*simNode{}, kept: t.TempDir()}
	def := Definition{Module: "web01", Version: 1, Text: []byte("<domain/>")}
	for _, name := range []cluster.NodeID{"alpha", "beta"} {
		image := backing.NewMemory(volumeSize)
		n := &simNode{p: p, name: name, image: image, disk: backing.NewFaulty(image), logs: memlog.New(), front: newFront(),
			store: &memStore{vals: map[string][]byte{}}}
		n.ping.Store(true)
		n.hv = fake.New(fake.Config{OnRun: p.guest(n)})
		must(t, n.hv.Define(t.Context(), vmmanager.Definition{Name: "web01", Text: def.Text}))
		must(t, Create(n.store, name, "alpha", def, ""))
		l := blockrepl.Lineage{Volume: volume}
		if name == "alpha" {
			l = l.With(blockrepl.Generation{Epoch: 1, Holder: "alpha"})
		}
		done := make(chan error, 1)
		n.logs.Commit(nil, &l, func(err error) { done <- err })
		must(t, <-done)
		p.nodes[name] = n
	}
	t.Cleanup(func() {
		for _, n := range p.nodes {
			n.halt()
			if err := n.hv.Kill(context.Background(), "web01"); err != nil {
				t.Error(err)
			}
			n.logs.Close()
		}
	})
	return p
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Open, Log and Frontend make simNode its own Disks.
func (n *simNode) Open(appmodules.Volume) (Image, error) { return keepOpen{n.disk, n}, nil }

type keepOpen struct {
	*backing.Faulty
	n *simNode
}

func (k keepOpen) Flush() error {
	if k.n.crashed.Load() {
		return errors.New("nobody flushes after a crash")
	}
	return k.Faulty.Flush()
}

func (keepOpen) Close() error { return nil }

func (n *simNode) Log(appmodules.Volume) blockrepl.DirtyLog { return n.logs }

func (n *simNode) Written(appmodules.Volume) time.Time { return written }

// written is when the images of these tests were last written.
var written = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func (n *simNode) SetAside(_ appmodules.Volume, _ Image, d Divergence) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.aside = append(n.aside, d)
	return nil
}

func (n *simNode) kept() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.aside)
}

func (n *simNode) Frontend(string, appmodules.Volume) (blockrepl.Frontend, error) {
	return &session{f: n.front, done: make(chan struct{})}, nil
}

// module is the configuration of all tests.
func module() appmodules.Module {
	m := appmodules.Default()
	m.Name, m.Nodes = "web01", []string{"alpha", "beta"}
	m.Policy.Arbitration = "available"
	m.Policy.StallBudget = appmodules.Duration(400 * time.Millisecond)
	m.Policy.DiskBudget = appmodules.Duration(time.Second)
	m.Policy.Frozen = appmodules.Standstill(3 * time.Second)
	m.Policy.Shutdown = appmodules.Duration(2 * time.Second)
	m.Spec = appmodules.VM{Domain: "web01", Disks: []appmodules.Volume{
		{Target: "vda", ID: "vol", Size: volumeSize, Paths: map[string]string{"alpha": "a", "beta": "b"}}}}
	return m
}

// boot starts the daemon of the node.
func (n *simNode) boot(change ...func(*appmodules.Module)) {
	n.p.t.Helper()
	m := module()
	for _, fn := range change {
		fn(&m)
	}
	level := slog.LevelError
	if os.Getenv("PAIR_LOG") != "" {
		level = slog.LevelDebug
	}
	logger := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level})).With("node", string(n.name))
	vm := workload.NewVM(workload.VMConfig{Module: m, Node: string(n.name), Hypervisor: slowHypervisor{n.hv, n.slow},
		Retained: filepath.Join(n.p.kept, string(n.name)), Logger: logger})
	var w appmodules.Workload = vm
	if len(m.Volumes()) == 0 {
		w = &n.none
	}
	e, err := New(Config{Module: m, Self: n.name, Peer: wireTo{n, n.p.other(n)}, Store: n.store, Workload: w,
		Gate: NewGate(Real{}), Runtime: Real{},
		Storage:   NewStorage(StorageConfig{Module: m, Node: string(n.name), Disks: n, Logger: logger}),
		Witnesses: func() []Witness { return nil },
		Withdraw:  func() { n.withdrawn.Add(1) },
		Budget:    proof.NewBudget(0.5), // so that no test waits long
		View:      n.view, Ping: func(context.Context) bool { return n.ping.Load() && n.running() != nil },
		Boot:   fmt.Sprint(n.boots.Load()),
		Log:    func(t Transition) { n.mu.Lock(); n.log = append(n.log, t); n.mu.Unlock() },
		Logger: logger,
		Times: Times{Detection: 150 * time.Millisecond, LeaveGrace: time.Second, Open: 500 * time.Millisecond,
			Tell: 20 * time.Millisecond, Rest: 500 * time.Millisecond}})
	must(n.p.t, err)
	ctx, cancel := context.WithCancel(context.Background())
	events, err := n.hv.Watch(ctx)
	must(n.p.t, err)
	n.crashed.Store(false)
	n.mu.Lock()
	n.engine, n.stop = e, cancel
	n.mu.Unlock()
	e.Start()
	go func() {
		for ev := range events {
			vm.Event(ev)
		}
	}()
}

// halt ends the daemon; the VM stays and waits for its disk.
func (n *simNode) halt() {
	n.mu.Lock()
	e, stop, conns := n.engine, n.stop, n.conns
	n.engine, n.conns = nil, nil
	n.mu.Unlock()
	if e == nil {
		return
	}
	for _, c := range conns {
		c.Close()
	}
	stop()
	n.crashed.Store(true)
	e.cancel() // no farewell: a crash
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	e.Stop(ctx)
}

// die is a host that loses power: VM, daemon and what was not flushed are gone.
func (n *simNode) die() {
	n.halt()
	_ = n.hv.Kill(context.Background(), "web01")
	_ = n.none.Kill(context.Background())
	n.image.PowerCut(nil)
	n.boots.Add(1)
}

func (n *simNode) running() *Engine {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.engine
}

func (p *pair) other(n *simNode) cluster.NodeID {
	if n.name == "alpha" {
		return "beta"
	}
	return "alpha"
}

// view is what heartbeats would say: alive if the other's daemon runs and can be reached.
func (n *simNode) view() cluster.View {
	peer := n.p.other(n)
	up := n.p.nodes[peer].running() != nil && !n.p.cut.Load()
	return cluster.View{Self: n.name, Peers: map[cluster.NodeID]cluster.PeerView{
		peer: {Paths: map[string]bool{"hb1": up}}}}
}

// sever cuts every connection that exists.
func (p *pair) sever() {
	for _, n := range p.nodes {
		n.mu.Lock()
		conns := n.conns
		n.conns = nil
		n.mu.Unlock()
		for _, c := range conns {
			c.Close()
		}
	}
}

// until waits for a condition and shows both nodes' logs when it does not come.
func (p *pair) until(what string, cond func() bool) {
	p.t.Helper()
	deadline := time.NewTimer(15 * time.Second)
	defer deadline.Stop()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-tick.C:
		case <-deadline.C:
			p.dump()
			p.t.Fatalf("waited in vain: %s", what)
		}
	}
	if bad := p.lost.Load(); bad != nil {
		p.dump()
		p.t.Fatalf("data lost: %s", bad)
	}
}

func (p *pair) dump() {
	for name, n := range p.nodes {
		n.mu.Lock()
		for _, t := range n.log {
			p.t.Logf("%s %s %s → %s on %s: %s", name, t.Time.Format("05.000"), t.From, t.To, t.On, t.Why)
		}
		n.mu.Unlock()
		if e := n.running(); e != nil {
			p.t.Logf("%s now: %+v record %+v", name, e.State().Status, e.State().Record)
		}
	}
}

// is waits for a role on a node.
func (p *pair) is(n *simNode, role, status string) {
	p.t.Helper()
	p.until(fmt.Sprintf("%s is %s (%s)", n.name, role, status), func() bool {
		e := n.running()
		if e == nil {
			return false
		}
		s := e.State().Status
		return s.Role.String() == role && s.Status.String() == status
	})
}

// writes waits until the guest has got n more acknowledgements.
func (p *pair) writes(n uint64) {
	p.t.Helper()
	sum := func() (s uint64) {
		for i := range p.acked {
			s = max(s, p.acked[i].Load())
		}
		return s
	}
	first := sum()
	p.until(fmt.Sprintf("the guest writes %d more", n), func() bool { return sum() >= first+n })
}

// formed boots both, starts the module and waits for both copies to be in step.
func (p *pair) formed() (a, b *simNode) {
	p.t.Helper()
	a, b = p.nodes["alpha"], p.nodes["beta"]
	a.boot()
	b.boot()
	for _, n := range []*simNode{a, b} {
		must(p.t, n.running().Command(p.t.Context(), appmodules.CmdStart, false))
	}
	p.is(a, "PRIM", "Ready")
	p.is(b, "SECOND", "Ready")
	p.writes(50)
	return a, b
}
