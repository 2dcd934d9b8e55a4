package engine

import (
	"context"
	"sync"
	"sync/atomic"

	"duet/appmodules"
	"duet/appmodules/workload"
	"duet/blockrepl"
	"duet/cluster"
)

// What a test puts between an engine and its surroundings, where those of a pair are too well behaved.

// bootAs starts the daemon of a node whose module is stopped with a Config that change has edited: the engine of
// boot is replaced, as it is when a module is edited.
func (n *simNode) bootAs(change func(*Config), edit ...func(*appmodules.Module)) *Engine {
	n.p.t.Helper()
	n.boot(edit...)
	old := n.running()
	cfg := old.cfg
	old.Stop(n.p.t.Context())
	change(&cfg)
	e, err := New(cfg)
	must(n.p.t, err)
	n.mu.Lock()
	n.engine = e
	n.mu.Unlock()
	e.Start()
	return e
}

// formedAs is formed with a Config that change has edited for each node.
func (p *pair) formedAs(change func(*simNode, *Config), edit ...func(*appmodules.Module)) (a, b *simNode) {
	p.t.Helper()
	a, b = p.nodes["alpha"], p.nodes["beta"]
	for _, n := range []*simNode{a, b} {
		n.bootAs(func(c *Config) { change(n, c) }, edit...)
		must(p.t, n.running().Command(p.t.Context(), appmodules.CmdStart, false))
	}
	p.inStep(a, b)
	p.writes(20)
	return a, b
}

// safe is a policy under which nobody goes on alone because a ping target answers, and no VM is ended meanwhile.
func safe(m *appmodules.Module) { m.Policy.Arbitration, m.Policy.Frozen = "safe", 0 }

// stopped is an engine that was never started, for what is a question of its state alone.
func stopped(p *pair, edit ...func(*appmodules.Module)) *Engine {
	p.t.Helper()
	n := p.nodes["alpha"]
	n.boot(edit...)
	cfg := n.running().cfg
	n.halt()
	e, err := New(cfg)
	must(p.t, err)
	p.t.Cleanup(e.cancel)
	return e
}

// inside runs fn on the engine's goroutine.
func (n *simNode) inside(fn func(e *Engine)) {
	n.p.t.Helper()
	e := n.running()
	must(n.p.t, e.call(n.p.t.Context(), func() { fn(e) }))
}

// why is the reason that admins see.
func (n *simNode) why() string { return n.running().State().Status.Why }

// voter is a witness: it votes as the real one does, unless it is away.
type voter struct {
	name string
	away atomic.Bool
	mu   sync.Mutex
	rec  cluster.Record
}

func (v *voter) Name() string { return v.name }

func (v *voter) Ask(_ context.Context, a cluster.Ask) (ans cluster.Answer, err error) {
	if v.away.Load() {
		return ans, errAway
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.rec, ans = v.rec.Vote(cluster.NodeID(v.name), a)
	return ans, nil
}

// knows is what it remembers.
func (v *voter) knows() cluster.Record {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.rec
}

// script is the VM of a node; where a test says so it does something else.
type script struct {
	*workload.VM
	mu     sync.Mutex
	start  error                              // if not nil, it does not start
	kill   error                              // if not nil, it cannot be ended
	define error                              // if not nil, its definition cannot be stored
	unfit  error                              // if not nil, why the peer must not get its definition
	judge  func(text string) (refusal string) // if not nil, what it says to a definition; set before it is used
	strays []appmodules.Stray
	starts int
	kills  int
}

// scripted has a node run a script.
func scripted(c *Config) *script {
	s := &script{VM: c.Workload.(*workload.VM)}
	c.Workload = s
	return s
}

// set changes what it does from now on.
func (s *script) set(fn func(*script)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fn(s)
}

func (s *script) Start(ctx context.Context, resume bool) (appmodules.Condition, error) {
	s.mu.Lock()
	err := s.start
	s.starts++
	s.mu.Unlock()
	if err != nil {
		return appmodules.Condition{}, err
	}
	return s.VM.Start(ctx, resume)
}

func (s *script) Kill(ctx context.Context) error {
	s.mu.Lock()
	err := s.kill
	s.kills++
	s.mu.Unlock()
	if err != nil {
		return err
	}
	return s.VM.Kill(ctx)
}

// tried is how often it was started and ended.
func (s *script) tried() (starts, kills int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.starts, s.kills
}

func (s *script) Define(ctx context.Context, text []byte) error {
	s.mu.Lock()
	err := s.define
	s.mu.Unlock()
	if err != nil {
		return err
	}
	return s.VM.Define(ctx, text)
}

func (s *script) Judge(ctx context.Context, text []byte) (string, error) {
	if s.judge != nil {
		return s.judge(string(text)), nil
	}
	return s.VM.Judge(ctx, text)
}

func (s *script) Compare(ctx context.Context, kept appmodules.Kept) (appmodules.Edit, error) {
	return s.judged(s.VM.Compare(ctx, kept))
}

func (s *script) Stored(ctx context.Context) (appmodules.Edit, error) {
	return s.judged(s.VM.Stored(ctx))
}

// judged is what was found, with why the peer must not get it.
func (s *script) judged(found appmodules.Edit, err error) (appmodules.Edit, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if found.Text != nil {
		found.Unfit = s.unfit
	}
	return found, err
}

func (s *script) Strays(context.Context) ([]appmodules.Stray, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.strays, nil
}

// lossy is a way to the peer on which answers get lost: the call arrives, and its caller does not hear of it.
type lossy struct {
	Peer
	ask, handover, complete, define atomic.Int32 // how many more answers are lost
	completed, defined              atomic.Int32 // calls
}

// across has a node speak to its peer over a lossy way.
func across(c *Config) *lossy {
	l := &lossy{Peer: c.Peer}
	c.Peer = l
	return l
}

// ever is more often than a test calls.
const ever = 1 << 30

func (l *lossy) Ask(ctx context.Context, a cluster.Ask) (cluster.Answer, error) {
	ans, err := l.Peer.Ask(ctx, a)
	if l.ask.Add(-1) >= 0 {
		return cluster.Answer{}, errAway
	}
	return ans, err
}

func (l *lossy) Handover(ctx context.Context, h Handover) error {
	err := l.Peer.Handover(ctx, h)
	if l.handover.Add(-1) >= 0 {
		return errAway
	}
	return err
}

func (l *lossy) Complete(ctx context.Context, c Complete) error {
	l.completed.Add(1)
	if l.complete.Add(-1) >= 0 { // this one does not arrive either
		return errAway
	}
	return l.Peer.Complete(ctx, c)
}

func (l *lossy) Define(ctx context.Context, d Definition) error {
	l.defined.Add(1)
	if l.define.Add(-1) >= 0 {
		return errAway
	}
	return l.Peer.Define(ctx, d)
}

// faulty is a Storage whose volumes cannot be opened, or set aside, where a test says so.
type faulty struct {
	Storage
	mu                      sync.Mutex
	primary, secondary, set error
}

// onFaulty gives a node faulty storage.
func onFaulty(c *Config) *faulty {
	f := &faulty{Storage: c.Storage}
	c.Storage = f
	return f
}

// fail has it fail from now on; nil: not any more.
func (f *faulty) fail(primary, secondary, set error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.primary, f.secondary, f.set = primary, secondary, set
}

// now is what fails.
func (f *faulty) now() (primary, secondary, set error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.primary, f.secondary, f.set
}

func (f *faulty) Primary(v appmodules.Volume, report func(blockrepl.Event)) (Primary, error) {
	if err, _, _ := f.now(); err != nil {
		return nil, err
	}
	return f.Storage.Primary(v, report)
}

func (f *faulty) Secondary(v appmodules.Volume) (Secondary, error) {
	if _, err, _ := f.now(); err != nil {
		return nil, err
	}
	sec, err := f.Storage.Secondary(v)
	if err != nil {
		return nil, err
	}
	return yielding{sec, f}, nil
}

// yielding is a Secondary whose version cannot be kept where faulty says so.
type yielding struct {
	Secondary
	f *faulty
}

func (y yielding) Yield(ctx context.Context, d Divergence) error {
	if _, _, err := y.f.now(); err != nil {
		return err
	}
	return y.Secondary.Yield(ctx, d)
}
