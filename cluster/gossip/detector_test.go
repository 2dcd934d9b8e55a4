package gossip

import (
	"math/rand/v2"
	"testing"
	"time"

	"duet/cluster"
)

// world runs detectors on a virtual clock that advances by milliseconds.
type world struct {
	now    time.Time
	rand   *rand.Rand
	nodes  map[cluster.NodeID]*detector
	due    map[cluster.NodeID]time.Time
	frozen map[cluster.NodeID]bool
	dead   map[cluster.NodeID]bool
	cut    func(from, to cluster.NodeID, net string) bool
	tap    func(to cluster.NodeID, net string, h heartbeat) // sees what is delivered
	lag    func() time.Duration                             // lateness of a tick
}

func testConfig() cluster.Config {
	c := cluster.Config{Name: "c", Detection: 2 * time.Second, Networks: []cluster.Network{{Name: "n1"}, {Name: "n2"}}}
	for _, n := range []cluster.NodeID{"a", "b"} {
		c.Members = append(c.Members, cluster.Member{Node: n, Addrs: map[string]string{"n1": "x", "n2": "y"}})
	}
	return c
}

func newWorld(seed uint64) *world {
	w := &world{now: time.Unix(1e9, 0), rand: rand.New(rand.NewPCG(seed, 0)), nodes: map[cluster.NodeID]*detector{},
		due: map[cluster.NodeID]time.Time{}, frozen: map[cluster.NodeID]bool{}, dead: map[cluster.NodeID]bool{},
		cut: func(_, _ cluster.NodeID, _ string) bool { return false },
		tap: func(cluster.NodeID, string, heartbeat) {}, lag: func() time.Duration { return 0 }}
	w.boot("a")
	w.boot("b")
	return w
}

// boot starts a node, or starts it anew with nothing remembered.
func (w *world) boot(n cluster.NodeID) *detector {
	d := newDetector(n, w.rand.Uint64()|1)
	d.setup(testConfig(), w.now)
	w.nodes[n], w.dead[n] = d, false
	w.due[n] = w.now.Add(time.Duration(w.rand.Int64N(int64(d.beat))))
	return d
}

// run advances the clock by d, or until stop says so, and returns how far.
func (w *world) run(d time.Duration, stop func() bool) time.Duration {
	start := w.now
	for w.now.Sub(start) < d {
		w.now = w.now.Add(time.Millisecond)
		for n, det := range w.nodes {
			if w.dead[n] || w.frozen[n] || w.now.Before(w.due[n]) {
				continue
			}
			w.due[n] = w.now.Add(det.beat + w.lag())
			det.tick(w.now, w.rand.Uint64()|1)
			w.send(det)
		}
		if stop != nil && stop() {
			break
		}
	}
	return w.now.Sub(start)
}

func (w *world) send(det *detector) {
	for to, peer := range w.nodes {
		for _, net := range []string{"n1", "n2"} {
			h, ok := det.message(to, net)
			if !ok || w.cut(det.self, to, net) || w.dead[to] || w.frozen[to] {
				continue
			}
			back, err := decodeHeartbeat(h.encode())
			if err != nil {
				panic(err)
			}
			w.tap(to, net, back)
			peer.receive(net, back, w.now)
		}
	}
}

func (w *world) silent(at, of cluster.NodeID) bool {
	return !w.nodes[at].view().Peers[of].Silent.IsZero()
}
func (w *world) alive(at, of cluster.NodeID) bool { return w.nodes[at].view().Alive(of) }

func (w *world) mustBeQuiet(t *testing.T, d time.Duration) {
	t.Helper()
	w.run(d, func() bool { return w.silent("a", "b") || w.silent("b", "a") })
	if w.silent("a", "b") || w.silent("b", "a") {
		t.Fatal("a living peer is called silent")
	}
}

func TestStartKnowsNothingAtFirst(t *testing.T) {
	w := newWorld(1)
	w.dead["b"] = true
	if v := w.nodes["a"].view(); v.Alive("b") || !v.Peers["b"].Silent.IsZero() || len(v.Peers["b"].Paths) != 2 {
		t.Errorf("at start: %+v", v)
	}
	d := w.run(5*time.Second, func() bool { return w.silent("a", "b") })
	if d < 1500*time.Millisecond || d > 2*time.Second || w.alive("a", "b") {
		t.Errorf("a peer that never was is silent after %v", d)
	}
	w.boot("b")
	if d := w.run(5*time.Second, func() bool { return w.alive("a", "b") && w.alive("b", "a") }); d > 400*time.Millisecond {
		t.Errorf("met after %v", d)
	}
	w.mustBeQuiet(t, 10*time.Second)
}

// TestDeath kills b at any phase and cuts cables in both or in one direction:
// silence is noticed by those who cannot know better, after 1.4 to 2.0 s.
func TestDeath(t *testing.T) {
	for seed := range uint64(200) {
		w := newWorld(seed)
		w.lag = func() time.Duration { return time.Duration(w.rand.Int64N(20)) * time.Millisecond }
		w.run(time.Second+time.Duration(seed)*time.Millisecond, nil)
		both := true
		switch seed % 4 {
		case 0:
			w.dead["b"], both = true, false
		case 1:
			w.cut = func(_, _ cluster.NodeID, _ string) bool { return true }
		case 2:
			w.cut = func(from, _ cluster.NodeID, _ string) bool { return from == "a" }
		case 3:
			w.cut = func(from, _ cluster.NodeID, _ string) bool { return from == "b" }
		}
		start := w.now
		seen := map[cluster.NodeID]time.Duration{}
		w.run(5*time.Second, func() bool {
			for _, n := range []cluster.NodeID{"a", "b"} {
				other := cluster.NodeID("ab"[1-int(n[0]-'a')])
				if _, ok := seen[n]; !ok && w.silent(n, other) {
					seen[n] = w.now.Sub(start)
				}
			}
			return len(seen) == 2
		})
		for n, d := range seen {
			if d < 1400*time.Millisecond || d > 1950*time.Millisecond {
				t.Errorf("seed %d: %s noticed after %v", seed, n, d)
			}
		}
		if _, ok := seen["a"]; !ok || both && len(seen) != 2 {
			t.Errorf("seed %d: noticed by %v", seed, seen)
		}
	}
}

func TestOneNetworkOfTwo(t *testing.T) {
	w := newWorld(3)
	w.run(time.Second, nil)
	w.cut = func(_, _ cluster.NodeID, net string) bool { return net == "n1" }
	w.mustBeQuiet(t, 5*time.Second)
	if v := w.nodes["a"].view().Peers["b"]; v.Paths["n1"] || !v.Paths["n2"] {
		t.Errorf("paths: %v", v.Paths)
	}
	w.cut = func(_, _ cluster.NodeID, _ string) bool { return false }
	d := w.run(3*time.Second, func() bool { return w.nodes["a"].view().Peers["b"].Paths["n1"] })
	if d > 400*time.Millisecond {
		t.Errorf("path is back after %v", d)
	}
}

func TestLoss(t *testing.T) {
	for seed := range uint64(20) {
		w := newWorld(seed)
		w.run(time.Second, nil)
		w.cut = func(_, _ cluster.NodeID, _ string) bool { return w.rand.Float64() < 0.2 }
		w.mustBeQuiet(t, 60*time.Second)
	}
}

func TestQuickRestartIsNoFailure(t *testing.T) {
	for seed := range uint64(50) {
		w := newWorld(seed)
		w.run(time.Second, nil)
		w.dead["b"] = true
		w.run(900*time.Millisecond, nil)
		w.boot("b")
		w.mustBeQuiet(t, 5*time.Second)
	}
}

// TestLeavingUnheard: a node that stalls while it leaves has told nobody by that.
func TestLeavingUnheard(t *testing.T) {
	w := newWorld(5)
	w.run(time.Second, nil)
	b := w.nodes["b"]
	mark := b.leave()
	w.cut = func(from, _ cluster.NodeID, _ string) bool { return from == "b" }
	w.frozen["b"] = true
	w.run(b.window*3/4, nil)
	w.frozen["b"] = false
	w.run(b.window/4, func() bool { return b.farewell(mark) })
	if b.farewell(mark) || !w.alive("b", "a") {
		t.Errorf("b takes its word for heard, %v; a answers: %v", w.nodes["a"].view().Peers["b"], w.alive("b", "a"))
	}
	w.run(2*b.window, nil)
	if b.farewell(mark) || w.alive("b", "a") {
		t.Errorf("a answers no more, %v, and b takes its word for heard", !w.alive("b", "a"))
	}
}

func TestLeaving(t *testing.T) {
	w := newWorld(5)
	w.run(time.Second, nil)
	b := w.nodes["b"]
	mark := b.leave()
	if b.farewell(mark) {
		t.Error("told before anything was sent")
	}
	if d := w.run(2*time.Second, func() bool { return b.farewell(mark) }); d > 500*time.Millisecond {
		t.Errorf("peers told after %v", d)
	}
	if !w.nodes["a"].view().Peers["b"].Leaving {
		t.Fatal("a has not heard of it")
	}
	w.dead["b"] = true
	w.run(4*time.Second, nil)
	if v := w.nodes["a"].view().Peers["b"]; !v.Leaving || v.Silent.IsZero() {
		t.Errorf("after it stopped: %+v", v)
	}
	w.boot("b")
	w.run(time.Second, nil)
	if v := w.nodes["a"].view().Peers["b"]; v.Leaving || !w.alive("a", "b") {
		t.Errorf("after its return: %+v", v)
	}
	// A crash is told apart.
	w.dead["b"] = true
	w.run(3*time.Second, nil)
	if v := w.nodes["a"].view().Peers["b"]; v.Leaving || v.Silent.IsZero() {
		t.Errorf("after a crash: %+v", v)
	}
}

// TestRepetitions plays back everything ever sent by a node that is gone: nobody
// must take it for alive, nor for leaving, nor must a living pair be disturbed.
func TestRepetitions(t *testing.T) {
	w := newWorld(6)
	type rec struct {
		to  cluster.NodeID
		net string
		h   heartbeat
	}
	var tape []rec
	w.tap = func(to cluster.NodeID, net string, h heartbeat) { tape = append(tape, rec{to, net, h}) }
	w.run(5*time.Second, nil)
	w.nodes["b"].leaving = true
	w.run(time.Second, nil)
	w.boot("b")
	w.run(3*time.Second, nil)
	w.tap = func(cluster.NodeID, string, heartbeat) {}

	replay := func() bool {
		for range 20 {
			r := tape[w.rand.IntN(len(tape))]
			w.nodes[r.to].receive(r.net, r.h, w.now)
			other := map[string]string{"n1": "n2", "n2": "n1"}[r.net]
			w.nodes[r.to].receive(other, r.h, w.now)
		}
		return w.silent("a", "b") || w.nodes["a"].view().Peers["b"].Leaving
	}
	if d := w.run(10*time.Second, replay); d < 10*time.Second {
		t.Errorf("a living pair is disturbed after %v", d)
	}
	w.dead["b"] = true
	if d := w.run(10*time.Second, replay); d > 2*time.Second {
		t.Errorf("death noticed after %v", d)
	}
	w.run(10*time.Second, func() bool {
		replay()
		if w.alive("a", "b") {
			t.Error("a dead peer came back")
		}
		return t.Failed()
	})
}

// TestOwnFreeze stops a for 5 s: on waking it does not accuse b, whatever the
// state of its suspicion was, and finds out if b is really gone.
func TestOwnFreeze(t *testing.T) {
	for seed := range uint64(50) {
		w := newWorld(seed)
		w.run(time.Second+time.Duration(seed*7)*time.Millisecond, nil)
		if seed%2 == 0 { // it had half a suspicion
			w.cut = func(_, _ cluster.NodeID, _ string) bool { return true }
			w.run(1450*time.Millisecond, nil)
			w.cut = func(_, _ cluster.NodeID, _ string) bool { return false }
		}
		w.frozen["a"] = true
		w.run(5*time.Second, nil)
		w.frozen["a"] = false
		w.run(10*time.Second, func() bool { return w.silent("a", "b") })
		if w.silent("a", "b") {
			t.Fatalf("seed %d: accused after own freeze", seed)
		}
		w.frozen["a"], w.dead["b"] = true, true
		w.run(5*time.Second, nil)
		w.frozen["a"] = false
		d := w.run(10*time.Second, func() bool { return w.silent("a", "b") })
		if d < time.Second || d > 2*time.Second {
			t.Fatalf("seed %d: real death noticed %v after own freeze", seed, d)
		}
	}
}

// TestFreezesInARow: the second one finds no pardon, but its time does not count either.
func TestFreezesInARow(t *testing.T) {
	for seed := range uint64(20) {
		w := newWorld(seed)
		w.run(time.Second, nil)
		for range 5 {
			w.frozen["a"] = true
			w.run(3*time.Second, nil)
			w.frozen["a"] = false
			w.run(time.Second, func() bool { return w.silent("a", "b") })
			if w.silent("a", "b") {
				t.Fatalf("seed %d: accused after own freeze", seed)
			}
		}
	}
}

// TestAlwaysStarved: a node whose ticks always come a second late is slow to
// find out, but does.
func TestAlwaysStarved(t *testing.T) {
	w := newWorld(9)
	w.run(time.Second, nil)
	w.lag = func() time.Duration { return time.Second }
	w.dead["b"] = true
	if d := w.run(time.Minute, func() bool { return w.silent("a", "b") }); d > 40*time.Second {
		t.Errorf("noticed after %v", d)
	}
}

func TestMembersChange(t *testing.T) {
	w := newWorld(10)
	w.run(time.Second, nil)
	a := w.nodes["a"]
	c := testConfig()
	c.Members = append(c.Members, cluster.Member{Node: "c", Addrs: map[string]string{"n2": "z"}})
	c.Networks = c.Networks[1:]
	a.setup(c, w.now)
	v := a.view()
	if len(v.Peers) != 2 || len(v.Peers["c"].Paths) != 1 || len(v.Peers["b"].Paths) != 1 || !v.Alive("b") {
		t.Errorf("%+v", v)
	}
	if _, ok := a.message("b", "n1"); ok {
		t.Error("a removed network is used")
	}
	c.Members = c.Members[:1]
	a.setup(c, w.now)
	if v := a.view(); len(v.Peers) != 0 {
		t.Errorf("%+v", v)
	}
	a.receive("n1", heartbeat{from: "b", nonce: 1}, w.now) // no longer a member
}

func FuzzDecodeHeartbeat(f *testing.F) {
	f.Add(heartbeat{from: "a", nonce: 1, echo: 2, leaving: true}.encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := decodeHeartbeat(b)
		if err != nil {
			return
		}
		b[1] &= flagLeaving // others are of a newer release
		if string(h.encode()) != string(b) {
			t.Errorf("%x decodes to %+v", b, h)
		}
	})
}

// TestHeartbeatOfVersions: a heartbeat is what the build of version 1 sends, and flags of a
// later one are ignored.
func TestHeartbeatOfVersions(t *testing.T) {
	h := heartbeat{from: "alpha", boot: 1, nonce: 2, echo: 3, leaving: true}
	was := "h\x01\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x02\x00\x00\x00\x00\x00\x00\x00\x03alpha"
	if string(h.encode()) != was {
		t.Errorf("%x", h.encode())
	}
	later := []byte(was)
	later[1] |= 0xf0
	if got, err := decodeHeartbeat(later); err != nil || got != h {
		t.Errorf("%+v, %v", got, err)
	}
}
