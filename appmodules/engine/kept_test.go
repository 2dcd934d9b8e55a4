package engine

import (
	"errors"
	"strings"
	"testing"
	"time"

	"duet/appmodules"
	"duet/cluster"
)

// errDisk is what the metadata disk of these tests says.
var errDisk = errors.New("input/output error")

// TestCreateAndNew: what cannot be kept or read makes no engine, and the error says of which module and what; a record
// that cannot be true is not acted on.
func TestCreateAndNew(t *testing.T) {
	p := newPair(t)
	a := p.nodes["alpha"]
	a.boot()
	cfg := a.running().cfg
	a.halt()
	for key, want := range map[string]string{recordKey: "load record of web01: ", keptKey: "load state of web01: "} {
		good := a.store.vals[key]
		a.store.vals[key] = []byte("{")
		if _, err := New(cfg); !strings.Contains(errorText(err), want) {
			t.Errorf("without its %s: %v", key, err)
		}
		a.store.vals[key] = good
	}
	for _, c := range []struct {
		rec  cluster.Record
		want string
	}{
		{cluster.Record{Epoch: 4, Holder: "alpha", Promised: 3}, "promised epoch 3 is older than granted epoch 4"},
		{cluster.Record{Epoch: 4, Promised: 4, Complete: 5}, "complete at epoch 5, newer than granted epoch 4"},
		{cluster.Record{Epoch: 4, Holder: "beta", Promised: 4, Alone: true}, `alone, but epoch 4 is held by "beta"`},
	} {
		must(t, a.store.Save(recordKey, c.rec))
		if _, err := New(cfg); !strings.HasPrefix(errorText(err), "module web01: record: ") ||
			!strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want %q", c.rec, err, c.want)
		}
	}
	full := &memStore{fail: errDisk}
	if err := Create(full, "alpha", "alpha", Definition{}, ""); !errors.Is(err, errDisk) ||
		!strings.Contains(err.Error(), "save record") {
		t.Errorf("create on a full disk: %v", err)
	}
}

// TestMetadataDiskAtStart: a node that cannot save when it starts, or when its volumes are to be opened, opens nothing
// and says so; the peer goes on without it, and it is back by itself when the disk is mended.
func TestMetadataDiskAtStart(t *testing.T) {
	mended := func(p *pair, a, b *simNode) {
		p.t.Helper()
		p.until("beta says why it waits", func() bool {
			return strings.Contains(b.why(), "its metadata disk is full or broken")
		})
		p.is(b, "WAIT", "NotReady")
		if st := b.running().State(); st.Active || st.Status.Volumes[0].State != "closed" {
			p.t.Errorf("it takes part: %+v", st)
		}
		p.is(a, "ALONE", "Ready")
		b.store.breaks(nil)
		p.inStep(a, b)
		p.writes(20)
	}
	t.Run("at boot", func(t *testing.T) {
		t.Parallel() // it waits most of the time
		p := newPair(t)
		a, b := p.formed()
		b.die()
		b.store.breaks(errDisk)
		followed := strings.Count(journal(b), "follow it")
		b.boot()
		mended(p, a, b)
		if n := strings.Count(journal(b), "follow it") - followed; n != 1 {
			t.Errorf("beta followed %d times, want once, when all was mended:\n%s", n, journal(b))
		}
	})
	t.Run("at the opening", func(t *testing.T) {
		t.Parallel()
		p := newPair(t)
		a, b := p.formed()
		must(t, b.running().Command(t.Context(), appmodules.CmdStop, false))
		p.is(b, "STOP", "NotReady")
		p.is(a, "ALONE", "Ready")
		epoch := a.running().State().Record.Epoch
		p.until("all is closed, and nothing is left to note", func() (yes bool) {
			b.inside(func(e *Engine) { yes = e.keep.Boot == "" && e.rec.Epoch == epoch })
			return yes
		})
		b.store.breaks(errDisk)
		must(t, b.running().Command(t.Context(), appmodules.CmdStart, false))
		mended(p, a, b)
		if log := journal(b); !strings.Contains(log, "it takes no part until it can: metadata cannot be saved") ||
			strings.Contains(log, "the storage here failed") {
			t.Errorf("beta says\n%s", journal(b))
		}
	})
}

// TestMetadataDiskOfTheHolder: a holder that cannot note that it goes on without its peer does not; no write is
// acknowledged meanwhile, and its peer takes over.
func TestMetadataDiskOfTheHolder(t *testing.T) {
	t.Parallel() // it waits most of the time
	p := newPair(t)
	a, b := p.formed()
	a.store.breaks(errDisk)
	p.data.Store(true)
	p.sever()
	p.is(b, "ALONE", "Ready")
	p.writes(20)
	var on cluster.Record
	_, err := a.store.Load(recordKey, &on)
	must(t, err)
	if on.Epoch != 1 || a.running().State().Record.Alone {
		t.Errorf("alpha went on: %+v", on)
	}
	a.store.breaks(nil)
	p.data.Store(false)
	p.inStep(b, a)
	p.writes(20)
}

// TestMissing: a module that waits says for what, and what an admin can do.
func TestMissing(t *testing.T) {
	p := newPair(t)
	e := stopped(p, func(m *appmodules.Module) { m.Policy.ColdStart = appmodules.ColdStart(time.Hour) })
	e.began = e.rt.Now()
	e.vigil.begin(e.began, time.Minute)
	e.m.Phase = appmodules.Waiting
	holds := cluster.Record{Epoch: 3, Holder: "alpha", Promised: 3, Complete: 3}
	cold := holds
	cold.Cold = true
	stale := cluster.Record{Epoch: 3, Holder: "beta", Promised: 3, Complete: 2}
	for _, c := range []struct {
		rec    cluster.Record
		heard  bool
		active bool
		balked bool // on both
		want   string
	}{
		{cluster.Record{}, false, false, false, "nothing is known of this module yet; it waits for beta"},
		{holds, false, false, false, "this node holds epoch 3, but beta does not answer and may have gone on; its return " +
			"or `duet prim web01` ends this, or cold_start in 1h0m0s"},
		{cold, false, false, false, "this node holds epoch 3, but beta does not answer and may have gone on, or may have " +
			"writes that were not on disk when this node lost power; its return or `duet prim web01` ends this, or " +
			"cold_start in 1h0m0s"},
		{stale, false, false, false, "beta holds epoch 3 and does not answer; its return or `duet prim web01` ends this"},
		{stale, true, false, true, "it did not start here, nor on beta: `duet log web01` says why, `duet start web01` " +
			"tries again"},
		{stale, true, false, false, "the module is stopped on beta, which has the newest data: start it there"},
		{stale, true, true, false, "waits for beta"},
	} {
		e.rec, e.link, e.work.balked = c.rec, peerLink{}, c.balked
		if c.heard {
			e.link = peerLink{state: State{Active: c.active, Balked: c.balked}, heard: e.rt.Now().Add(time.Minute),
				met: e.rt.Now()}
		}
		if got := e.missing(); got != c.want {
			t.Errorf("%+v says\n%s\nwant\n%s", c, got, c.want)
		}
	}
	if e.m.Phase = appmodules.Running; e.missing() != "" {
		t.Errorf("one that runs waits: %s", e.missing())
	}
}

// TestSilence: a peer is silent when no path has carried a sign of life for the detection time; one that left on
// purpose is given longer, and a node that has just started has not listened long enough to say so.
func TestSilence(t *testing.T) {
	p := newPair(t)
	e := stopped(p)
	e.cfg.Times = DefaultTimes(time.Second)
	now := e.rt.Now()
	gone := func(leaving bool, since time.Duration) cluster.PeerView {
		return cluster.PeerView{Paths: map[string]bool{"hb1": false}, Leaving: leaving, Silent: now.Add(-since)}
	}
	for name, c := range map[string]struct {
		view  cluster.PeerView
		began time.Duration // ago
		heard time.Duration // ago
		want  bool
	}{
		"all heartbeats fail":  {gone(false, time.Minute), time.Hour, time.Hour, true},
		"one is heard":         {cluster.PeerView{Paths: map[string]bool{"hb1": true}}, time.Hour, time.Hour, false},
		"its daemon answers":   {gone(false, time.Minute), time.Hour, time.Second, false},
		"just started":         {gone(false, time.Minute), time.Second / 2, time.Hour, false},
		"it left just now":     {gone(true, 20*time.Second), time.Hour, time.Hour, false},
		"it left long ago":     {gone(true, 31*time.Second), time.Hour, time.Hour, true},
		"it left and is there": {cluster.PeerView{Paths: map[string]bool{"hb1": true}, Leaving: true}, time.Hour, 0, false},
	} {
		e.cfg.View = func() cluster.View {
			return cluster.View{Self: "alpha", Peers: map[cluster.NodeID]cluster.PeerView{"beta": c.view}}
		}
		e.began, e.link.heard = now.Add(-c.began), now.Add(-c.heard)
		if got := e.silent(); got != c.want {
			t.Errorf("%s: silent is %v", name, got)
		}
	}
}

// TestStoppedNodeShowsWhatItKnows: a node whose module is stopped hears that its peer has a newer epoch, or votes for
// it. Its status, and what it tells the peer, says so: its copy does not count as complete any more.
func TestStoppedNodeShowsWhatItKnows(t *testing.T) {
	p := newPair(t)
	a, b := p.formed()
	must(t, a.running().Command(t.Context(), appmodules.CmdStopAll, false))
	p.is(a, "STOP", "NotReady")
	p.is(b, "STOP", "NotReady")
	must(t, b.running().Command(t.Context(), appmodules.CmdPrim, true))
	p.is(b, "ALONE", "Ready")
	p.until("alpha knows of beta's right", func() (yes bool) {
		a.inside(func(e *Engine) { yes = e.rec.Holder == "beta" })
		return yes
	})
	p.until("alpha's status says so", func() bool {
		s := a.running().State()
		return s.Record.Holder == "beta" && s.Status.Holder == "beta" && !s.Status.Complete
	})
}

// TestStopThatCannotBeSaved: an operator's stop that could not be made durable at once is, as soon as the metadata disk
// takes it, and the next run keeps to it.
func TestStopThatCannotBeSaved(t *testing.T) {
	p := newPair(t)
	a, b := p.formedAs(func(*simNode, *Config) {}, safe)
	b.halt()
	a.die()
	b.boot(safe)
	p.is(b, "WAIT", "NotReady")
	b.store.breaks(errors.New("no space left"))
	must(t, b.running().Command(t.Context(), appmodules.CmdStop, false))
	p.is(b, "STOP", "NotReady") // no volume was open: nothing else is to be noted
	b.store.breaks(nil)
	p.until("it is saved", func() bool {
		var k kept
		_, err := b.store.Load(keptKey, &k)
		return err == nil && !k.Wanted
	})
	b.halt()
	b.boot(safe)
	p.is(b, "STOP", "NotReady")
}

// TestOrderSaidAgain: an order whose answer a network has lost is sent again. It is taken once, and not refused.
func TestOrderSaidAgain(t *testing.T) {
	for ev, way := range map[appmodules.Event]string{appmodules.CmdSwap: "swapped by an operator",
		appmodules.CmdRestart: "restarted by an operator"} {
		p := newPair(t)
		a, _ := p.formed()
		must(t, a.hv.Deafen("web01"))
		for range 3 {
			must(t, a.running().Command(t.Context(), ev, false))
		}
		if n := strings.Count(journal(a), way); n != 1 {
			t.Errorf("%s %d times", way, n)
		}
	}
}
