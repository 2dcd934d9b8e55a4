package mirror

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"duet/appmodules"
	"duet/appmodules/engine"
	"duet/blockrepl"
	"duet/blockrepl/backing"
	"duet/blockrepl/divergence"
	"duet/blockrepl/memlog"
	"duet/blockrepl/nbd"
	"duet/cluster"
	"duet/console/api"
	"duet/vmmanager"
)

// values are an engine.Store in memory.
type values map[string][]byte

func (v values) Load(key string, to any) (bool, error) {
	b, ok := v[key]
	if !ok {
		return false, nil
	}
	return true, json.Unmarshal(b, to)
}

func (v values) Save(key string, from any) (err error) {
	v[key], err = json.Marshal(from)
	return err
}

// still is a workload that is off.
type still struct {
	appmodules.Workload
	events []vmmanager.Event
}

func (*still) State(context.Context) (appmodules.Condition, error) {
	return appmodules.Condition{Text: "off"}, nil
}
func (*still) Watch(context.Context, func(appmodules.Report)) {}
func (s *still) Event(ev vmmanager.Event)                     { s.events = append(s.events, ev) }

// notices are what hosts say of web01.
type notices map[string][]api.Notice

func (n notices) Of(string) []api.Notice             { return n["mine"] }
func (n notices) Hear(_ string, theirs []api.Notice) { n["theirs"] = theirs }

// call is one request to another node.
type call struct {
	node     cluster.NodeID
	path     string
	in       any
	answer   any
	answered error
}

// shop is a workshop of alpha that writes down what it asks beta.
type shop struct {
	*Workshop
	last    call
	notices notices
	unknown string
	joins   bool
	dir     string
}

func newShop(t *testing.T) *shop {
	t.Helper()
	dir, err := os.MkdirTemp("", "dm") // short: unix sockets lie in it
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	log := slog.New(slog.DiscardHandler)
	keeper, err := divergence.NewKeeper(filepath.Join(dir, "aside"), log)
	must(t, err)
	logs := map[string]blockrepl.DirtyLog{}
	s := &shop{notices: notices{}, dir: dir}
	s.Workshop = New(Config{Logger: log, Notices: s.notices, Joins: func(string) bool { return s.joins },
		Cluster: func() cluster.Config { return cluster.Config{Self: "alpha", Detection: time.Second} },
		View:    func() cluster.View { return cluster.View{} },
		Call: func(_ context.Context, node cluster.NodeID, path string, in, out any) error {
			s.last.node, s.last.path, s.last.in = node, path, in
			if s.last.answer != nil {
				b, err := json.Marshal(s.last.answer)
				must(t, errors.Join(err, json.Unmarshal(b, out)))
			}
			return s.last.answered
		},
		Dial:      func(context.Context, cluster.NodeID) (net.Conn, error) { return nil, s.last.answered },
		Unknown:   func(peer cluster.NodeID, module string) { s.unknown = string(peer) + " " + module },
		CanFence:  func(cluster.NodeID) bool { return false },
		Witnesses: func() []engine.Witness { return nil },
		Store:     func(string) engine.Store { return values{} },
		Volumes: NewVolumes(VolumesConfig{Self: "alpha", Dir: filepath.Join(dir, "r"), Keeper: keeper, Logger: log,
			Runs: func(vm string, pid int) error { return errors.New(vm + " is another process") },
			Log: func(id string) blockrepl.DirtyLog {
				if logs[id] == nil {
					logs[id] = memlog.New()
				}
				return logs[id]
			}})})
	return s
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// web is a module with one volume, whose image is made.
func (s *shop) web(t *testing.T) appmodules.Module {
	t.Helper()
	m := appmodules.Default()
	m.Name, m.ID, m.Nodes = "web01", "the id", []string{"alpha", "beta"}
	path := filepath.Join(s.dir, "vda.raw")
	f, err := backing.CreateFile(path, 1<<20)
	must(t, err)
	must(t, f.Close())
	m.Spec = appmodules.VM{Domain: "vm01", Disks: []appmodules.Volume{{Target: "vda", ID: "0123", Size: 1 << 20,
		Paths: map[string]string{"alpha": path, "beta": "/b"}}}}
	return m
}

// TestStatus: a mirror shows how it stands here, and that its peer has said nothing yet.
func TestStatus(t *testing.T) {
	s := newShop(t)
	w := &still{}
	web := s.web(t)
	m, err := s.Build(web, w, func(engine.Transition) {})
	must(t, err)
	if m.Core() != m.Engine || m.Holds() {
		t.Error("it holds something that was never started")
	}
	st := m.Status()
	if len(st) != 2 || st[0].Node != "alpha" || st[1].Node != "beta" || st[1].Role != Unknown || !st[1].Stale {
		t.Errorf("status is %+v", st)
	}
	m.VMEvent(vmmanager.Event{VM: "vm01"})
	other, err := s.Build(web, struct{ appmodules.Workload }{w}, func(engine.Transition) {})
	must(t, err)
	other.VMEvent(vmmanager.Event{VM: "vm01"}) // of what is no VM nobody is told
	if len(w.events) != 1 {
		t.Errorf("the workload heard %v", w.events)
	}
}

// TestQuietOfItself: what a process that does not run, or stood still, says of itself is marked as old; of one that
// runs it is not.
func TestQuietOfItself(t *testing.T) {
	s := newShop(t)
	m, err := s.Build(s.web(t), &still{}, func(engine.Transition) {})
	must(t, err)
	if !m.Status()[0].Quiet {
		t.Error("what an engine that does not run says of itself is taken for new")
	}
	m.Start()
	defer m.Stop(t.Context())
	if m.Status()[0].Quiet {
		t.Error("what an engine that runs says of itself is taken for old")
	}
}

// TestWords: the engine's words in the API's.
func TestWords(t *testing.T) {
	s := engine.Status{Role: appmodules.Prim, Status: appmodules.Ready, Why: "it runs", Workload: "running",
		Notices: []appmodules.Notice{{Alarm: true, Code: "a"}, {Code: "b"}},
		Volumes: []engine.VolumeStatus{
			{Target: "vda", Size: 100, Problem: "it is slow",
				Resync: engine.Resync{ToCompare: 60, Compared: 40, Moved: 10, Rate: 5, ETA: 12 * time.Second}},
			{Target: "vdb", Size: 100, Verifying: true, Verified: 30, Proven: time.Unix(1000, 0)},
			{Target: "vdc", Resync: engine.Resync{ToCompare: 1}}}}
	got := nodeState("alpha", "web01", s)
	if got.Role != "PRIM" || got.Status != "Ready" || got.Why != "it runs; it is slow" || got.VM != "running" ||
		got.Notices[0].Level != "alarm" || got.Notices[1].Level != "warning" {
		t.Errorf("the node is %+v", got)
	}
	a, b, c := got.Volumes[0], got.Volumes[1], got.Volumes[2]
	if a.Name != "web01/vda" || a.Sync.Kind != "resync" || a.Sync.Total != 100 || a.Sync.ETA != 12 || a.Proven != nil {
		t.Errorf("a resync is %+v, %+v", a, a.Sync)
	}
	if b.Sync.Kind != "verify" || b.Sync.Compared != 30 || b.Sync.ETA != -1 || b.Proven == nil {
		t.Errorf("a verify is %+v, %+v", b, b.Sync)
	}
	if c.Sync.ETA != -1 {
		t.Errorf("a resync that stands still ends in %v", c.Sync.ETA)
	}
}

// TestEnded: a module that stopped because of what was done past Duet was not stopped by an operator; that its guest
// shut itself down is what the policy is about.
func TestEnded(t *testing.T) {
	for _, c := range []struct {
		how   vmmanager.Cause
		ended bool
	}{{vmmanager.ByAdmin, true}, {vmmanager.BySave, true}, {vmmanager.ByCrash, true}, {vmmanager.ByGuest, false}} {
		for _, stopped := range []bool{true, false} {
			got := nodeState("alpha", "web01", engine.Status{Ended: c.how.String(), Stopped: stopped}).Ended
			if (got == c.how.String()) != (c.ended && stopped) || got != "" && !stopped {
				t.Errorf("%v, stopped %v: it ended by %q", c.how, stopped, got)
			}
		}
	}
}

// TestAwaits: a copy that follows a node on which the module has stopped says what it waits for.
func TestAwaits(t *testing.T) {
	const want = "gone; web01 is STOP on alpha, and this copy follows again when it is started there: `duet start web01`"
	for _, c := range []struct {
		n, peer api.NodeState
		why     string
	}{
		{api.NodeState{Role: "SECOND", Status: "Transient"}, api.NodeState{Role: "STOP", Status: "NotReady"}, want},
		{api.NodeState{Role: "SECOND", Status: "Transient"}, api.NodeState{Role: "STOP", Status: "NotReady", Quiet: true},
			"gone"},
		{api.NodeState{Role: "SECOND", Status: "Transient"}, api.NodeState{Role: "PRIM", Status: "Ready"}, "gone"},
		{api.NodeState{Role: "STOP", Status: "NotReady"}, api.NodeState{Role: "STOP", Status: "NotReady"}, "gone"},
	} {
		c.n.Why, c.peer.Node = "gone", "alpha"
		awaits(&c.n, "web01", c.peer)
		if c.n.Why != c.why {
			t.Errorf("%s beside %s says %q", c.n.Role, c.peer.Role, c.n.Why)
		}
	}
}

// TestAwaited: only one that left on purpose is waited for beyond its silence, as long as an engine does.
func TestAwaited(t *testing.T) {
	silent := time.Unix(1000, 0)
	if at := Awaited(cluster.PeerView{Silent: silent}); at != nil {
		t.Errorf("one that died is waited for until %v", at)
	}
	want := silent.Add(engine.DefaultTimes(time.Second).LeaveGrace)
	if at := Awaited(cluster.PeerView{Silent: silent, Leaving: true}); at == nil || !at.Equal(want) {
		t.Errorf("one that left is waited for until %v, want %v", at, want)
	}
}

// TestPeer: what an engine asks its peer goes to the module of its identity there, with what this host says of it.
func TestPeer(t *testing.T) {
	s := newShop(t)
	c := caller{cfg: s.cfg, node: "beta", module: s.web(t), joining: s.joining}
	ctx := t.Context()
	s.last.answer = cluster.Answer{Yes: true}
	if ans, err := c.Ask(ctx, cluster.Ask{Node: "alpha", Epoch: 3}); err != nil || !ans.Yes || s.last.node != "beta" ||
		s.last.path != "modules/web01/ask?id=the+id" {
		t.Errorf("%+v, %v of %s", ans, err, s.last.path)
	}
	s.last.answer = nil
	for what, err := range map[string]error{"handover": c.Handover(ctx, engine.Handover{}),
		"complete": c.Complete(ctx, engine.Complete{}), "define": c.Define(ctx, engine.Definition{})} {
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	s.notices["mine"] = []api.Notice{{Code: "mine"}}
	s.last.answer = Told{State: engine.State{Module: "web01", Seq: 7}, Notices: []api.Notice{{Code: "theirs"}}}
	theirs, err := c.Tell(ctx, engine.State{Seq: 3})
	told, _ := s.last.in.(Told)
	if err != nil || theirs.Seq != 7 || told.Seq != 3 || told.Notices[0].Code != "mine" ||
		s.notices["theirs"][0].Code != "theirs" {
		t.Errorf("told %+v, heard %+v and %+v, %v", told, theirs, s.notices, err)
	}
	s.last.answered = api.ErrUnreach
	if _, err := c.Tell(ctx, engine.State{}); !errors.Is(err, api.ErrUnreach) || s.unknown != "" {
		t.Errorf("a peer that is away: %v, %q", err, s.unknown)
	}
	s.last.answered = api.ErrNotFound
	if _, err := c.Tell(ctx, engine.State{}); err == nil || s.unknown != "beta web01" {
		t.Errorf("a peer that does not know it: %v, %q", err, s.unknown)
	}
	if _, err := c.Dial(ctx); !errors.Is(err, api.ErrNotFound) {
		t.Errorf("dial: %v", err)
	}
}

// TestOnTell: the peer's word is heard, and answered with what this host says.
func TestOnTell(t *testing.T) {
	s := newShop(t)
	m, err := s.Build(s.web(t), &still{}, func(engine.Transition) {})
	must(t, err)
	s.notices["mine"] = []api.Notice{{Code: "mine"}}
	got := s.OnTell(m.Engine, Told{Notices: []api.Notice{{Code: "theirs"}}})
	if got.Notices[0].Code != "mine" || s.notices["theirs"][0].Code != "theirs" {
		t.Errorf("it answers %+v and heard %+v", got, s.notices)
	}
}

// TestImage: an image is opened with its versions, and one of another size says what to do.
func TestImage(t *testing.T) {
	s := newShop(t)
	m := s.web(t)
	d, v := s.cfg.Volumes.Of(m), m.Volumes()[0]
	img, err := d.Open(v)
	must(t, err)
	lost := blockrepl.Lineage{Volume: "0123"}.With(blockrepl.Generation{Epoch: 3, Holder: "alpha"})
	won := blockrepl.Lineage{Volume: "0123"}.With(blockrepl.Generation{Epoch: 3, Holder: "beta"})
	div := engine.Divergence{Module: "web01", Epoch: 4, Loser: lost, Winner: won}
	must(t, errors.Join(d.SetAside(v, img, div), d.SetAside(v, img, div))) // once
	kept, err := s.cfg.Volumes.cfg.Keeper.List()
	if err != nil || len(kept) != 1 || kept[0].About.Winner.Node != "beta" || kept[0].About.Loser.Node != "alpha" {
		t.Errorf("it keeps %+v, %v", kept, err)
	}
	if err := d.SetAside(v, struct{ engine.Image }{img}, div); err == nil {
		t.Error("an image of somebody else is kept")
	}
	must(t, img.Close())
	if d.Written(v).IsZero() || d.Log(v) == nil {
		t.Error("an image without a time, or a log")
	}
	for size, want := range map[int64]string{2 << 20: "`duet vm release web01`", 512 << 10: "the end of "} {
		must(t, os.Truncate(v.Paths["alpha"], size))
		if _, err := d.Open(v); !errors.Is(err, backing.ErrSize) || !strings.Contains(err.Error(), want) {
			t.Errorf("%d bytes: %v", size, err)
		}
	}
}

// TestSocket: a volume is served before its VM is told of it, to nobody else, and nothing is left of it.
func TestSocket(t *testing.T) {
	s := newShop(t)
	m := s.web(t)
	d := s.cfg.Volumes.Of(m).(disks)
	f, err := d.Frontend("web01", m.Volumes()[0])
	must(t, err)
	path := s.cfg.Volumes.Endpoints(m)[0].Socket
	if _, err := os.Stat(path); err != nil {
		t.Error(err)
	}
	for what, c := range map[string]struct {
		peer nbd.Peer
		root bool
		want bool
	}{
		"this daemon":     {nbd.Peer{PID: os.Getpid()}, false, true},
		"a stranger":      {nbd.Peer{PID: 1, UID: 1000}, true, false},
		"root":            {nbd.Peer{PID: 1}, false, false},
		"root, which may": {nbd.Peer{PID: 1}, true, true},
	} {
		d.Volumes.cfg.Root = c.root
		if err := d.admit(c.peer); (err == nil) != c.want {
			t.Errorf("%s: %v", what, err)
		}
	}
	must(t, f.Close())
	must(t, errors.Join(s.cfg.Volumes.Remove(m), s.cfg.Volumes.Remove(m)))
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is left: %v", err)
	}
}

// TestJoins: that a module is being protected travels with the states both ways, and is over when it is not said again.
func TestJoins(t *testing.T) {
	s := newShop(t)
	c := caller{cfg: s.cfg, node: "beta", module: s.web(t), joining: s.joining}
	s.joins, s.last.answer = true, Told{Joins: true}
	_, err := c.Tell(t.Context(), engine.State{})
	must(t, err)
	if told, _ := s.last.in.(Told); !told.Joins || !s.joining.of("web01") || s.joining.of("web02") {
		t.Errorf("told %+v, heard %v", told, s.joining.told)
	}
	m, err := s.Build(c.module, &still{}, func(engine.Transition) {})
	must(t, err)
	if s.joining.of("web01") {
		t.Error("what was said of another module of its name counts for this one")
	}
	if got := s.OnTell(m.Engine, Told{Joins: true}); !got.Joins || !s.joining.of("web01") {
		t.Errorf("it answers %+v and heard %v", got, s.joining.told)
	}
	s.joining.told["web01"] = time.Now().Add(-overdueAfter)
	if s.joining.of("web01") {
		t.Error("what the peer said long ago counts")
	}
	s.joins = false
	if got := s.OnTell(m.Engine, Told{}); got.Joins || len(s.joining.told) > 0 {
		t.Errorf("it answers %+v and heard %v", got, s.joining.told)
	}
}

// TestJustMade: a module that its peer has just made here, and has told nothing of, is being protected; later it is
// one that nobody has started.
func TestJustMade(t *testing.T) {
	s := newShop(t)
	kept := values{}
	s.cfg.Store = func(string) engine.Store { return kept }
	must(t, engine.Create(kept, "alpha", "beta", engine.Definition{}, ""))
	m, err := s.Build(s.web(t), &still{}, func(engine.Transition) {})
	must(t, err)
	s.last.answered = api.ErrUnreach
	m.Start()
	booted := func() bool { return strings.HasPrefix(m.State().Status.Why, unstarted) }
	for end := time.Now().Add(10 * time.Second); !booted() && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	m.Stop(t.Context()) // how it stands is known, and no exchange changes it
	is := func(joins bool, why string) {
		t.Helper()
		st := m.Status()[0]
		if st.Joins != joins || !strings.Contains(st.Why, why) || st.Role != "STOP" {
			t.Errorf("%+v", st)
		}
	}
	m.built = time.Now()
	is(true, "it is being protected on beta; its second copy comes here after that")
	m.built = m.built.Add(-staleAfter)
	is(false, "it was put under protection on beta")
	s.OnTell(m.Engine, Told{Joins: true})
	is(true, "it is being protected on beta")
	s.OnTell(m.Engine, Told{})
	s.joins = true
	is(true, "it is being protected here")
}
