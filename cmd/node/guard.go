package node

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"duet/appmodules"
	"duet/appmodules/engine"
	"duet/cluster"
	"duet/cluster/guard"
	"duet/console/api"
	"duet/vmmanager"
)

// noGuardFor is how long no guard answers until people are told: systemd starts it again sooner.
const noGuardFor = 3 * time.Second

// sentry tells the guard of this node's guests, as long as this process works.
type sentry struct {
	n    *Node
	link *guard.Link
	soon chan struct{} // has a token when a module has changed

	// Owned by the goroutine of run.
	last  time.Duration // when the last word was said
	oaths map[string]*oath
	found map[string]guest // processes of VMs, by module
	sworn map[string]bool  // modules vouched for in a word that a guard has heard
	said  chan confirmation

	mu     sync.Mutex
	leaves map[cluster.NodeID]bool // peers that were told that this node leaves
	absent time.Time               // since when no guard answers; zero: one does
	why    error
	paused []string // modules whose guests the guard keeps paused
}

type guest struct {
	pid   int
	start uint64
}

// oath is what this run knows about its right to a module.
type oath struct {
	since     time.Time // what was found out before counts for nothing: this process did not run
	asking    bool
	confirmed bool
}

// confirmation is what a peer said.
type confirmation struct {
	module string
	begun  time.Time // when it was asked
	guard.Standing
	err error
}

func newSentry(n *Node) *sentry {
	return &sentry{n: n, link: guard.NewLink(n.cfg.Guard, max(2*guard.Beat(n.cluster().Detection), 200*time.Millisecond)),
		soon: make(chan struct{}, 1), oaths: map[string]*oath{}, found: map[string]guest{}, sworn: map[string]bool{},
		said: make(chan confirmation), absent: time.Now(), why: errors.New("it was not asked yet")}
}

// guardGuests keeps the guard told until this node has left: it is the last to end of all that peers hear. n.sentry is
// nil where there is none.
func (n *Node) guardGuests() {
	if n.cfg.Guard == "" {
		return
	}
	n.sentry = newSentry(n)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		n.sentry.run(ctx)
	}()
	n.push("guard", func(context.Context) error {
		cancel()
		<-ended
		return nil
	})
}

// changed has the guard told at once. It never waits.
func (s *sentry) changed() {
	if s == nil {
		return
	}
	select {
	case s.soon <- struct{}{}:
	default:
	}
}

// leaving notes which peers have heard that this node leaves: they give it time.
func (s *sentry) leaving(view cluster.View, told bool) {
	if s == nil || !told {
		return
	}
	heard := make(map[cluster.NodeID]bool)
	for peer := range view.Peers {
		heard[peer] = view.Alive(peer)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.leaves = heard
}

func (s *sentry) run(ctx context.Context) {
	tick := time.NewTicker(guard.Beat(s.n.cluster().Detection))
	defer tick.Stop()
	defer s.link.Close()
	for {
		s.tell(ctx)
		for waiting := true; waiting; {
			select {
			case <-tick.C:
				waiting = false
			case <-s.soon:
				waiting = false
			case c := <-s.said:
				s.hear(c)
				waiting = false
			case <-ctx.Done():
				s.tell(ctx) // the last word
				return
			}
		}
	}
}

// tell says how things stand now.
func (s *sentry) tell(ctx context.Context) {
	c := s.n.cluster()
	now, limit := guard.Now(), guard.PauseAfter(c.Detection)
	if s.last != 0 && now-s.last > limit { // this process stood still: much may have happened meanwhile
		clear(s.oaths)
	}
	s.last = now
	w := guard.Word{At: now, Guests: []guard.Guest{}}
	modules := s.n.all()
	for _, m := range modules {
		w.Guests = append(w.Guests, s.guest(ctx, m, limit))
	}
	s.forget(modules)
	r, err := s.link.Say(w)
	s.note(r, err)
	for _, g := range w.Guests {
		if g.Right && err != nil && !s.sworn[g.Module] && g.PID != 0 {
			// A guard that is gone may have paused it.
			if err := guard.Continue(g.PID, g.Start); err != nil {
				s.n.log.Error("the guest cannot go on", "module", g.Module, "err", err)
			}
		}
		s.sworn[g.Module] = g.Right
	}
}

// guest describes the guest of a module.
func (s *sentry) guest(ctx context.Context, m *module, limit time.Duration) guard.Guest {
	name, st := m.cfg.Name, m.engine.Published()
	self := s.n.self()
	peer := cluster.NodeID(m.cfg.Peer(string(self)))
	g := guard.Guest{Module: name, VM: m.cfg.Subject(), Peer: peer, Epoch: st.Record.Epoch, Limit: limit}
	p := s.find(m)
	g.PID, g.Start = p.pid, p.start
	o := s.oaths[name]
	if o == nil {
		o = &oath{since: time.Now()}
		s.oaths[name] = o
	}
	alone := st.Record.Alone && st.Record.Holds(self)
	switch {
	case !st.Record.Holds(self):
		*o = oath{since: time.Now()} // if it gets the right again, it has to prove it again
	case alone:
		o.confirmed = true // nobody can be granted a newer epoch without the data here
	case !o.confirmed:
		s.ask(ctx, m, o, peer)
	}
	g.Right = o.confirmed
	s.mu.Lock()
	told := s.leaves[peer]
	s.mu.Unlock()
	switch {
	case alone && st.Role != appmodules.Prim: // in which the peer is connected, and may be complete soon
		g.Limit = 0
	case told:
		g.Limit = engine.DefaultTimes(s.n.cluster().Detection).LeaveGrace * 9 / 10
	}
	return g
}

// find returns the process of a module's VM. Where the last one lives on, nothing else is looked at: what tells more
// of a process may wait for its memory.
func (s *sentry) find(m *module) guest {
	p := s.found[m.cfg.Name]
	if p.pid != 0 {
		if start, err := guard.StartOf(p.pid); err == nil && start == p.start {
			return p
		}
	}
	delete(s.found, m.cfg.Name)
	hv, ok := s.n.cfg.Hypervisor.(vmmanager.Locator)
	if !ok {
		return guest{}
	}
	pid, err := hv.Process(m.cfg.Subject())
	if err == nil && pid != 0 {
		var start uint64
		if start, err = guard.StartOf(pid); err == nil {
			p = guest{pid, start}
			s.found[m.cfg.Name] = p
			return p
		}
	}
	if err != nil {
		s.n.log.Debug("the VM's process is not found", "module", m.cfg.Name, "err", err)
	}
	return guest{}
}

// forget drops what is kept of modules that are gone.
func (s *sentry) forget(modules []*module) {
	there := make(map[string]bool, len(modules))
	for _, m := range modules {
		there[m.cfg.Name] = true
	}
	gone := func(name string) bool { return !there[name] }
	maps.DeleteFunc(s.oaths, func(name string, _ *oath) bool { return gone(name) })
	maps.DeleteFunc(s.found, func(name string, _ guest) bool { return gone(name) })
	maps.DeleteFunc(s.sworn, func(name string, _ bool) bool { return gone(name) })
}

// ask has the peer confirm the right to a module. It is asked after two heartbeats of this run, over which it answers:
// so it has heard this node, and will not take over as long as it goes on to.
func (s *sentry) ask(ctx context.Context, m *module, o *oath, peer cluster.NodeID) {
	young := time.Since(o.since) < 2*guard.Beat(s.n.cluster().Detection)
	if o.asking || ctx.Err() != nil || young || !s.n.gossip.View().Alive(peer) {
		return
	}
	o.asking = true
	c := confirmation{module: m.cfg.Name, begun: time.Now()}
	s.n.wg.Go(func() {
		short, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		c.Standing, c.err = askStanding(short, s.n.plane, peer, m.cfg.Name)
		if _, heard := m.engine.PeerState(); errors.Is(c.err, cluster.ErrOlder) && heard.After(c.begun) {
			c.Standing, c.err = guard.Standing{Alive: true}, nil // of an older release: that it exchanges states has to do
		}
		if errors.Is(c.err, api.ErrNotFound) {
			c.Standing, c.err = guard.Standing{Alive: true}, nil // who does not know the module takes nothing over
		}
		select {
		case s.said <- c:
		case <-ctx.Done():
		}
	})
}

func (s *sentry) hear(c confirmation) {
	o := s.oaths[c.module]
	m, err := s.n.module(c.module)
	if o == nil || err != nil {
		return
	}
	o.asking = false
	if c.err != nil {
		s.n.log.Debug("the right is not confirmed", "module", c.module, "err", c.err)
		return
	}
	rec := m.engine.Published().Record
	peer := cluster.NodeID(m.cfg.Peer(string(s.n.self())))
	if !c.begun.Before(o.since) && rec.Holds(s.n.self()) && c.Confirms(peer, rec.Epoch) {
		o.confirmed = true
	}
}

// note remembers what the guard said, and says what changes.
func (s *sentry) note(r guard.Report, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	was := s.absent
	switch {
	case err == nil:
		s.absent, s.why = time.Time{}, nil
		if !was.IsZero() {
			s.n.log.Info("a guard watches over the guests here")
		}
		for _, module := range r.Paused {
			if !slices.Contains(s.paused, module) {
				s.n.log.Warn("the guard keeps the guest paused until the right to write is proven", "module", module)
			}
		}
		s.paused = r.Paused
	case was.IsZero():
		s.absent, s.why = time.Now(), err
		s.n.log.Error("no guard watches over the guests here: systemctl status duet-guard", "err", err)
	default:
		s.why = err
	}
}

// answers reports whether a guard heard the last word.
func (s *sentry) answers() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.absent.IsZero()
}

// missing says why no guard watches; empty if one does, or was gone for a moment only.
func (s *sentry) missing() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.absent.IsZero() || time.Since(s.absent) < noGuardFor {
		return ""
	}
	return s.why.Error()
}

// notices are what people should know of the guard and a module whose VM has a process here.
func (s *sentry) notices(module string) (out []api.Notice) {
	if s == nil {
		return nil
	}
	if why := s.missing(); why != "" {
		out = append(out, api.Notice{Level: "warning", Code: "no-guard",
			Text: "no guard runs on this node: if duetd dies here and does not come back, " +
				"the VM runs on beside the one that the peer starts (" + why + ")",
			Remedy: "systemctl start duet-guard"})
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if slices.Contains(s.paused, module) {
		out = append(out, api.Notice{Level: "warning", Code: "guard-paused",
			Text:   "the guard keeps the VM paused: duetd was away, so the peer may have gone on",
			Remedy: "it goes on, or is ended, as soon as this node knows; if the peer is gone for good: duet prim " + module})
	}
	return out
}
