package gossip

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"net"
	"os"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/memberlist"
	"go.uber.org/goleak"

	"duet/cluster"
	"duet/cluster/clustertest"
)

func TestMain(m *testing.M) {
	if child() {
		return
	}
	// memberlist does not wait for a probe that is under way; on a busy computer that takes up to eight intervals.
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("github.com/hashicorp/memberlist.(*Memberlist).probeNode"))
}

// memory adapts a clustertest.Host to memberlist.
type memory struct {
	h       *clustertest.Host
	packets chan *memberlist.Packet
	stop    chan struct{}
	done    chan struct{}
}

func inMemory(n *clustertest.Network) func(string, int) (memberlist.NodeAwareTransport, error) {
	return func(ip string, port int) (memberlist.NodeAwareTransport, error) {
		h, err := n.Listen(ip, port)
		if err != nil {
			return nil, err
		}
		m := &memory{h: h, packets: make(chan *memberlist.Packet), stop: make(chan struct{}), done: make(chan struct{})}
		go m.pump()
		return m, nil
	}
}

func (m *memory) pump() {
	defer close(m.done)
	for {
		select {
		case p := <-m.h.Packets():
			select {
			case m.packets <- &memberlist.Packet{Buf: p.Data, From: p.From, Timestamp: p.At}:
			case <-m.stop:
				return
			}
		case <-m.stop:
			return
		}
	}
}

func (m *memory) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	return m.h.Addr().IP, m.h.Addr().Port, nil
}
func (m *memory) WriteTo(b []byte, addr string) (time.Time, error) {
	return time.Now(), m.h.Send(b, addr)
}
func (m *memory) WriteToAddress(b []byte, a memberlist.Address) (time.Time, error) {
	return m.WriteTo(b, a.Addr)
}
func (m *memory) PacketCh() <-chan *memberlist.Packet { return m.packets }
func (m *memory) StreamCh() <-chan net.Conn           { return m.h.Streams() }
func (m *memory) DialTimeout(addr string, d time.Duration) (net.Conn, error) {
	return m.h.Dial(addr, d)
}
func (m *memory) DialAddressTimeout(a memberlist.Address, d time.Duration) (net.Conn, error) {
	return m.h.Dial(a.Addr, d)
}
func (m *memory) Shutdown() error {
	m.h.Close()
	close(m.stop)
	<-m.done
	return nil
}

// team is a cluster of Gossips.
type team struct {
	t   *testing.T
	net *clustertest.Network // nil: real sockets

	mu  sync.Mutex
	cfg cluster.Config
}

// newTeam has nodes a, b, … with an address on each of two networks.
func newTeam(t *testing.T, net *clustertest.Network, port int, detection time.Duration, nodes ...cluster.NodeID) *team {
	tm := &team{t: t, net: net, cfg: cluster.Config{Name: "c", Port: port, Detection: detection,
		Networks: []cluster.Network{{Name: "n1"}, {Name: "n2"}}, GossipKeys: [][]byte{bytes.Repeat([]byte{7}, 32)}}}
	for _, n := range nodes {
		tm.cfg.Members = append(tm.cfg.Members, member(n))
	}
	return tm
}

func member(n cluster.NodeID) cluster.Member {
	return cluster.Member{Node: n, Addrs: map[string]string{"n1": ip(1, n), "n2": ip(2, n)}}
}

func ip(network int, n cluster.NodeID) string {
	return fmt.Sprintf("127.0.%d.%d", 50+network, n[0]-'a'+1)
}

func (tm *team) config(self cluster.NodeID) cluster.Config {
	tm.mu.Lock()
	defer tm.mu.Unlock()
	c := tm.cfg
	c.Self = self
	c.Members = slices.Clone(c.Members)
	return c
}

func (tm *team) edit(f func(*cluster.Config)) {
	tm.mu.Lock()
	defer tm.mu.Unlock()
	f(&tm.cfg)
}

func (tm *team) start(n cluster.NodeID) *Gossip {
	tm.t.Helper()
	g := New(Config{Cluster: func() cluster.Config { return tm.config(n) }})
	if tm.net != nil {
		g.transport = inMemory(tm.net)
	}
	if err := g.Start(); err != nil {
		tm.t.Fatal(err)
	}
	tm.t.Cleanup(g.Stop)
	return g
}

// await watches g until ok and returns how long it took.
func await(t *testing.T, g *Gossip, what string, ok func(cluster.View) bool) time.Duration {
	t.Helper()
	start := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for v := range g.Watch(ctx) {
		if ok(v) {
			return time.Since(start)
		}
	}
	t.Fatalf("no %s: %+v", what, g.View())
	return 0
}

func bothPaths(n cluster.NodeID) func(cluster.View) bool {
	return func(v cluster.View) bool { return v.Peers[n].Paths["n1"] && v.Peers[n].Paths["n2"] }
}

func silent(n cluster.NodeID) func(cluster.View) bool {
	return func(v cluster.View) bool { return !v.Peers[n].Silent.IsZero() }
}

// inBubble runs f in a synctest bubble with a network in memory.
func inBubble(t *testing.T, f func(t *testing.T, n *clustertest.Network)) {
	synctest.Test(t, func(t *testing.T) {
		n := clustertest.NewNetwork(1)
		f(t, n)
		time.Sleep(time.Minute) // a probe of memberlist outlives its Shutdown by the probe interval
	})
}

func TestPartitionAndReturn(t *testing.T) {
	inBubble(t, func(t *testing.T, n *clustertest.Network) {
		tm := newTeam(t, n, 7000, 0, "a", "b")
		a := tm.start("a")
		b := tm.start("b")
		await(t, a, "meeting", bothPaths("b"))
		await(t, b, "meeting", bothPaths("a"))
		for range 3 {
			n.Partition(ip(1, "a"), ip(1, "b"))
			await(t, a, "loss of one path", func(v cluster.View) bool { return !v.Peers["b"].Paths["n1"] && v.Alive("b") })
			n.Partition(ip(2, "a"), ip(2, "b"))
			if d := await(t, a, "silence", silent("b")); d < 1200*time.Millisecond || d > 2*time.Second {
				t.Errorf("silence after %v", d)
			}
			await(t, b, "silence", silent("a"))
			time.Sleep(time.Minute) // memberlist has given up by now; free in a bubble
			n.Connect(ip(1, "a"), ip(1, "b"))
			n.Connect(ip(2, "a"), ip(2, "b"))
			if d := await(t, a, "return", bothPaths("b")); d > time.Second {
				t.Errorf("return after %v", d)
			}
		}
		a.Stop()
		b.Stop()
		n.Wait()
	})
}

func TestMemberJoinsLive(t *testing.T) {
	inBubble(t, func(t *testing.T, n *clustertest.Network) {
		tm := newTeam(t, n, 7000, 0, "a", "b")
		a, b := tm.start("a"), tm.start("b")
		await(t, a, "meeting", bothPaths("b"))
		tm.edit(func(c *cluster.Config) {
			c.Members = append(c.Members, member("c"))
			c.GossipKeys = append([][]byte{bytes.Repeat([]byte{9}, 32)}, c.GossipKeys...) // rotation begins
		})
		c := tm.start("c")
		for _, g := range []*Gossip{a, b} {
			if err := g.Update(); err != nil {
				t.Fatal(err)
			}
			await(t, g, "meeting c", bothPaths("c"))
		}
		await(t, c, "meeting", bothPaths("a"))
		tm.edit(func(c *cluster.Config) { c.GossipKeys = c.GossipKeys[:1]; c.Networks = c.Networks[:1] })
		for _, g := range []*Gossip{a, b, c} {
			if err := g.Update(); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(10 * time.Second) // far more than a probe or a suspicion takes; free in a bubble
		for _, g := range []*Gossip{a, b, c} {
			for id, pv := range g.View().Peers {
				if len(pv.Paths) != 1 || !pv.Paths["n1"] {
					t.Errorf("%s sees %s over %v", g.View().Self, id, pv.Paths)
				}
			}
			g.Stop()
		}
		n.Wait()
	})
}

// TestWrongKey: a node without the key is not met, and does not hurt.
func TestWrongKey(t *testing.T) {
	inBubble(t, func(t *testing.T, n *clustertest.Network) {
		tm := newTeam(t, n, 7000, 0, "a", "b")
		a := tm.start("a")
		tm.edit(func(c *cluster.Config) { c.GossipKeys = [][]byte{bytes.Repeat([]byte{1}, 32)} })
		b := tm.start("b")
		await(t, a, "silence", silent("b"))
		if a.View().Alive("b") || b.View().Alive("a") {
			t.Error("met without the key")
		}
		tm.edit(func(c *cluster.Config) { c.GossipKeys = nil })
		if err := New(Config{Cluster: func() cluster.Config { return tm.config("a") }}).Start(); err == nil {
			t.Error("started without a key")
		}
		a.Stop()
		b.Stop()
		n.Wait()
	})
}

// ports: real sockets of different tests must not meet.
func freePort(t *testing.T) int {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.51.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().(*net.TCPAddr).Port - 1
}

func TestSocketsLeaveAndReturn(t *testing.T) {
	tm := newTeam(t, nil, freePort(t), time.Second, "a", "b")
	a := tm.start("a")
	b := tm.start("b")
	if d := await(t, a, "meeting", bothPaths("b")); d > 2*time.Second {
		t.Errorf("met after %v", d)
	}
	if err := New(Config{Cluster: func() cluster.Config { return tm.config("a") }}).Start(); err == nil {
		t.Error("two on one port")
	}
	if err := b.Leave(t.Context()); err != nil {
		t.Error(err)
	}
	if pv := a.View().Peers["b"]; !pv.Leaving {
		t.Errorf("leaving: %+v", pv)
	}
	b.Stop()
	b.Stop()
	await(t, a, "silence", silent("b"))
	if pv := a.View().Peers["b"]; !pv.Leaving {
		t.Errorf("left: %+v", pv)
	}
	b = tm.start("b")
	await(t, a, "return", func(v cluster.View) bool { return bothPaths("b")(v) && !v.Peers["b"].Leaving })
	if err := b.Start(); err == nil {
		t.Error("started twice")
	}
	b.Stop()
	if err := b.Start(); err == nil {
		t.Error("started after Stop")
	}
	if _, open := <-b.Watch(t.Context()); open {
		t.Error("watch after Stop")
	}
}

const childPort, childDetection = "GOSSIP_TEST_PORT", "GOSSIP_TEST_DETECTION"

// child runs node b of a test in a process of its own and prints what it sees.
func child() bool {
	var port int
	if _, err := fmt.Sscan(os.Getenv(childPort), &port); err != nil {
		return false
	}
	d, _ := time.ParseDuration(os.Getenv(childDetection))
	tm := newTeam(nil, nil, port, d, "a", "b")
	g := New(Config{Cluster: func() cluster.Config { return tm.config("b") }})
	if err := g.Start(); err != nil {
		fmt.Println("error", err)
		return true
	}
	for v := range g.Watch(context.Background()) {
		fmt.Println(v.Alive("a"), !v.Peers["a"].Silent.IsZero())
	}
	return true
}

func TestViewIsTheCallersOwn(t *testing.T) {
	tm := newTeam(t, nil, 7000, time.Second, "a", "b")
	g := New(Config{Cluster: func() cluster.Config { return tm.config("a") }})
	maps.DeleteFunc(g.View().Peers, func(cluster.NodeID, cluster.PeerView) bool { return true })
	if len(g.View().Peers) != 1 {
		t.Error("a caller changed the view")
	}
	g.Stop()
}
