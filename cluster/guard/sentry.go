package guard

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"duet/cluster"
)

// noGuardFor is how long no guard answers until people are told: systemd starts it again sooner.
const noGuardFor = 3 * time.Second

// Charge is one module whose guest may run here, as the daemon knows it now.
type Charge struct {
	Module string
	ID     string // its identity
	VM     string
	Peer   cluster.NodeID
	Record cluster.Record
	// Connected: the peer has a link to the data here, and may be complete soon. Of one that has not, and whose copy is
	// outdated (Record.Alone), nobody can take over.
	Connected bool
}

// SentryConfig says what a Sentry works with; all fields are needed but Process.
type SentryConfig struct {
	Socket  string // of the guard
	Cluster func() cluster.Config
	View    func() cluster.View
	// Charges are all modules of this node. It never waits.
	Charges func() []Charge
	// Process is the number of the process of a VM, 0 if it has none; nil: this hypervisor has no processes.
	Process func(vm string) (int, error)
	// Ask asks the peer how it stands with a module. An answer that is made of other knowledge than the peer's word has
	// to be of after the call.
	Ask func(ctx context.Context, peer cluster.NodeID, module string) (Standing, error)
	// LeaveGrace is how long a peer that heard that this node leaves gives it to come back.
	LeaveGrace time.Duration
	Logger     *slog.Logger
}

// Sentry is the daemon's side of the guard: it tells it of this node's guests, as long as this process works. Run is
// called once; any goroutine may call the other methods, on a nil Sentry too: there is no guard then.
type Sentry struct {
	cfg  SentryConfig
	log  *slog.Logger
	link *Link
	soon chan struct{} // has a token when a module has changed
	asks sync.WaitGroup

	// Owned by the goroutine of Run.
	last  time.Duration // when the last word was said
	oaths map[string]*oath
	found map[string]life // processes of VMs, by module
	sworn map[string]bool // modules vouched for in the last word, or let go on without a guard
	said  chan confirmation

	mu     sync.Mutex
	leaves map[cluster.NodeID]bool // peers that were told that this node leaves
	absent time.Time               // since when no guard answers; zero: one does
	why    error
	paused []string // modules whose guests the guard keeps paused
}

// life is one of a VM's process; its start tells it from a later one of the same number.
type life struct {
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
	Standing
	err error
}

// NewSentry returns a Sentry that has told nobody yet. Until Run it holds no connection, and Answers says that no
// guard is there.
func NewSentry(cfg SentryConfig) *Sentry {
	return &Sentry{cfg: cfg, log: cfg.Logger,
		link: NewLink(cfg.Socket, max(2*Beat(cfg.Cluster().Detection), 200*time.Millisecond)),
		soon: make(chan struct{}, 1), oaths: map[string]*oath{}, found: map[string]life{}, sworn: map[string]bool{},
		said: make(chan confirmation), absent: time.Now(), why: errors.New("it was not asked yet")}
}

// Changed has the guard told at once. It never waits.
func (s *Sentry) Changed() {
	if s == nil {
		return
	}
	select {
	case s.soon <- struct{}{}:
	default:
	}
}

// Leaving notes that the peers which are alive in view have heard that this node leaves: they give it time. Call it
// when they have heard it, and not before: the guests of these peers may run on for most of LeaveGrace.
func (s *Sentry) Leaving(view cluster.View) {
	if s == nil {
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

// Run keeps the guard told until ctx ends. It has to be among the last that end: its last word counts. It says a
// word each beat, one more after each change, and waits for the guard no longer than its link does.
func (s *Sentry) Run(ctx context.Context) {
	defer s.asks.Wait()
	tick := time.NewTicker(Beat(s.cfg.Cluster().Detection))
	defer tick.Stop()
	defer s.link.Close()
	for {
		s.tell(ctx)
		select {
		case <-tick.C:
		case <-s.soon:
		case c := <-s.said:
			s.hear(c)
		case <-ctx.Done():
			s.tell(ctx) // the last word
			return
		}
	}
}

// tell says how things stand now. It goes on to describe its guests while no guard answers. What was found out
// before a standstill counts for nothing: the guard has paused the guests then, by the same limit, and the peer may
// have gone on.
func (s *Sentry) tell(ctx context.Context) {
	c := s.cfg.Cluster()
	now, limit := Now(), PauseAfter(c.Detection)
	if s.last != 0 && now-s.last > limit { // this process stood still: much may have happened meanwhile
		clear(s.oaths)
	}
	s.last = now
	w := Word{At: now, Guests: []Guest{}}
	charges := s.cfg.Charges()
	for _, m := range charges {
		w.Guests = append(w.Guests, s.guest(ctx, c.Self, m, limit))
	}
	s.forget(charges)
	r, err := s.link.Say(w)
	s.note(r, err)
	for _, g := range w.Guests {
		if g.Right && err != nil && !s.sworn[g.Module] && g.PID != 0 {
			// A guard that is gone may have paused it.
			if err := Continue(g.PID, g.Start); err != nil {
				s.log.Error("the guest cannot go on", "module", g.Module, "err", err)
			}
		}
		s.sworn[g.Module] = g.Right
	}
}

// guest describes the guest of a module. An oath lasts as long as this node holds the module and this process does
// not stand still.
func (s *Sentry) guest(ctx context.Context, self cluster.NodeID, m Charge, limit time.Duration) Guest {
	g := Guest{Module: m.Module, ID: m.ID, VM: m.VM, Peer: m.Peer, Epoch: m.Record.Epoch, Limit: limit}
	p := s.find(m)
	g.PID, g.Start = p.pid, p.start
	o := s.oaths[m.Module]
	if o == nil {
		o = &oath{since: time.Now()}
		s.oaths[m.Module] = o
	}
	alone := m.Record.Alone && m.Record.Holds(self)
	switch {
	case !m.Record.Holds(self):
		*o = oath{since: time.Now()} // if it gets the right again, it has to prove it again
	case alone:
		o.confirmed = true // nobody can be granted a newer epoch without the data here
	case !o.confirmed:
		s.ask(ctx, m, o)
	}
	g.Right = o.confirmed
	s.mu.Lock()
	told := s.leaves[m.Peer]
	s.mu.Unlock()
	switch {
	case alone && !m.Connected:
		g.Limit = 0
	case told:
		g.Limit = s.cfg.LeaveGrace * 9 / 10
	}
	return g
}

// find returns the process of a module's VM. Where the last one lives on, nothing else is looked at: what tells more
// of a process may wait for its memory.
func (s *Sentry) find(m Charge) life {
	p := s.found[m.Module]
	if p.pid != 0 {
		if start, err := StartOf(p.pid); err == nil && start == p.start {
			return p
		}
	}
	delete(s.found, m.Module)
	if s.cfg.Process == nil {
		return life{}
	}
	pid, err := s.cfg.Process(m.VM)
	if err == nil && pid != 0 {
		var start uint64
		if start, err = StartOf(pid); err == nil {
			p = life{pid, start}
			s.found[m.Module] = p
			return p
		}
	}
	if err != nil {
		s.log.Debug("the VM's process is not found", "module", m.Module, "err", err)
	}
	return life{}
}

// forget drops what is kept of modules that are gone.
func (s *Sentry) forget(charges []Charge) {
	there := make(map[string]bool, len(charges))
	for _, m := range charges {
		there[m.Module] = true
	}
	gone := func(name string) bool { return !there[name] }
	maps.DeleteFunc(s.oaths, func(name string, _ *oath) bool { return gone(name) })
	maps.DeleteFunc(s.found, func(name string, _ life) bool { return gone(name) })
	maps.DeleteFunc(s.sworn, func(name string, _ bool) bool { return gone(name) })
}

// ask has the peer confirm the right to a module. It is asked after two heartbeats of this run, over which it answers:
// so it has heard this node, and will not take over as long as it goes on to.
func (s *Sentry) ask(ctx context.Context, m Charge, o *oath) {
	young := time.Since(o.since) < 2*Beat(s.cfg.Cluster().Detection)
	if o.asking || ctx.Err() != nil || young || !s.cfg.View().Alive(m.Peer) {
		return
	}
	o.asking = true
	c := confirmation{module: m.Module, begun: time.Now()}
	s.asks.Go(func() {
		short, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		c.Standing, c.err = s.cfg.Ask(short, m.Peer, m.Module)
		select {
		case s.said <- c:
		case <-ctx.Done():
		}
	})
}

// hear takes over what a peer said, as far as it is of the right that this node has now. An answer to a question of
// before the oath's since is dropped: between the two this process may have stood still.
func (s *Sentry) hear(c confirmation) {
	charges := s.cfg.Charges()
	i := slices.IndexFunc(charges, func(m Charge) bool { return m.Module == c.module })
	o := s.oaths[c.module]
	if o == nil || i < 0 {
		return
	}
	o.asking = false
	if c.err != nil {
		s.log.Debug("the right is not confirmed", "module", c.module, "err", c.err)
		return
	}
	m, self := charges[i], s.cfg.Cluster().Self
	if !c.of(m.ID) {
		c.Standing = Standing{Alive: c.Alive} // the peer has none of this identity and takes nothing over
	}
	if !c.begun.Before(o.since) && m.Record.Holds(self) && c.Confirms(m.Peer, m.Record.Epoch) {
		o.confirmed = true
	}
}

// note remembers what the guard said, and says what changes.
func (s *Sentry) note(r Report, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	was := s.absent
	switch {
	case err == nil:
		s.absent, s.why = time.Time{}, nil
		if !was.IsZero() {
			s.log.Info("a guard watches over the guests here")
		}
		for _, module := range r.Paused {
			if !slices.Contains(s.paused, module) {
				s.log.Warn("the guard keeps the guest paused until the right to write is proven", "module", module)
			}
		}
		s.paused = r.Paused
	case was.IsZero():
		s.absent, s.why = time.Now(), err
		s.log.Error("no guard watches over the guests here: systemctl status duet-guard", "err", err)
	default:
		s.why = err
	}
}

// Answers reports whether a guard heard the last word; nil: there is none to hear it.
func (s *Sentry) Answers() *bool {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return new(s.absent.IsZero())
}

// Notice is something about the guard that people should mend.
type Notice struct{ Code, Text, Remedy string }

// Notices are what people should know of the guard and a module whose VM has a process here.
func (s *Sentry) Notices(module string) (out []Notice) {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.absent.IsZero() && time.Since(s.absent) >= noGuardFor {
		out = append(out, Notice{Code: "no-guard",
			Text: "no guard runs on this node: if duetd dies here and does not come back, " +
				"the VM runs on beside the one that the peer starts (" + s.why.Error() + ")",
			Remedy: "systemctl start duet-guard"})
	}
	if slices.Contains(s.paused, module) {
		out = append(out, Notice{Code: "guard-paused",
			Text:   "the guard keeps the VM paused: duetd was away, so the peer may have gone on",
			Remedy: "it goes on, or is ended, as soon as this node knows; if the peer is gone for good: duet prim " + module})
	}
	return out
}
