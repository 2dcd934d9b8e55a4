package blockrepl

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"duet/blockrepl/wire"
)

// SecondaryConfig is what a Secondary needs. Device, Log and Node are required.
type SecondaryConfig struct {
	Volume string // name, for logs
	Node   string
	Device Device
	Log    DirtyLog
	// Identity is the Lineage.Volume of a copy whose log has none yet.
	Identity string
	Logger   *slog.Logger // nil: discard
	// LocalBudget is how long a call of Device or Log can last before the copy counts as
	// failed (ErrHung); 0: for ever.
	LocalBudget time.Duration
	// Intact: this process has lost nothing of the copy since that had everything. What it had open before was a Secondary
	// that was Intact, or a Primary that was held, which has both copies in step; it was closed, everything was made
	// durable then, and nobody has written to the device since. False is always safe.
	Intact bool
}

// Secondary applies what the primary of a volume sends, one session at a time. It
// knows nothing of votes: the engine accepts a Hello, calls Fence before the node
// promises another epoch, and Complete when the primary has sent all. Its methods may be called by several goroutines;
// storing is taken before mu.
//
// It keeps no dirty log of what it applies: what its copy may lose, and what is under way, the primary remembers.
// Its log has the lineage and what this node wrote when it last led.
type Secondary struct {
	cfg SecondaryConfig
	log *slog.Logger
	dev Device

	storing chan struct{} // a token, held while the lineage changes, until the log has ended that
	down    chan struct{} // closed by Fence, with mu held: nothing begins or is acknowledged any more
	start   time.Time

	mu      sync.Mutex
	lineage Lineage  // as it is durable
	entries []Entry  // this copy's own suspects, from a time when it was written alone
	intact  bool     // this process has lost nothing of the copy since that was complete
	session *session // the newest, until nothing of it runs any more; nil: none
	failed  error    // a call of the device or log failed, or hangs: no session begins any more
	local   localWatch

	applied atomic.Uint64 // writes since NewSecondary
	heard   atomic.Int64  // when the primary last sent something, Unix ns; 0: never
}

// NewSecondary loads the log of the volume. It owns neither Device nor Log, which nobody else may use until Close has
// returned. It has no goroutines until Serve.
func NewSecondary(cfg SecondaryConfig) (*Secondary, error) {
	entries, lineage, err := cfg.Log.Load()
	if err != nil {
		return nil, fmt.Errorf("load dirty log of %s: %w", cfg.Volume, err)
	}
	s := &Secondary{
		cfg: cfg, log: unhurried(cfg.Logger).With("volume", cfg.Volume), dev: cfg.Device, start: time.Now(),
		storing: make(chan struct{}, 1), down: make(chan struct{}),
		entries: entries, lineage: Lineage{Volume: cfg.Identity}, local: localWatch{budget: cfg.LocalBudget},
		intact: cfg.Intact,
	}
	if lineage != nil {
		s.lineage = *lineage
	}
	return s, nil
}

// Lineage is the history of this copy.
func (s *Secondary) Lineage() Lineage {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lineage
}

// Intact says whether the next Secondary of the volume may be, see SecondaryConfig.
func (s *Secondary) Intact() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.intact && s.failed == nil
}

// Applied counts the writes this Secondary has applied. It only grows.
func (s *Secondary) Applied() uint64 { return s.applied.Load() }

// Heard is when the primary last sent something, by the clock of time.Now; zero if it
// never did. An idle primary pings several times within its stall budget.
func (s *Secondary) Heard() time.Time {
	if ns := s.heard.Load(); ns != 0 {
		return time.Unix(0, ns)
	}
	return time.Time{}
}

// Serve answers hello on conn, which it owns from now on, and applies what comes
// until the connection ends, ctx ends, or Fence is called; it always returns a
// reason. A session that still runs is ended first. Complete says whether this copy holds
// every write acknowledged in hello's epoch; the engine knows from its records.
//
// If a call of the device or log lasts longer than the local budget the error wraps
// ErrLocalCopy and ErrHung, and no other session begins. That call, and others of this
// session that are under way, may still end, and change the device, after Serve has
// returned; nothing is acknowledged for them. Close waits for them: until it returns nobody
// else may use the device.
func (s *Secondary) Serve(ctx context.Context, conn *wire.Conn, hello Hello, complete bool) error {
	n := newSession(s, conn, hello, complete)
	err := errAnother
	for err == errAnother {
		s.end()
		err = s.begin(ctx, n)
	}
	if err != nil {
		_ = conn.Close() // nothing was agreed
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	return fmt.Errorf("session with %s ended: %w", hello.Node, n.watch())
}

// SetLocalBudget changes how long a call of the device or log may last, also in a session that is watched already. Any
// goroutine may call it.
func (s *Secondary) SetLocalBudget(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.local.budget = d
}

func (s *Secondary) localBudget() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.local.budget
}

// begin makes n the session and lets it run, when the lineage is known: a change of it may
// still be on its way to the log.
func (s *Secondary) begin(ctx context.Context, n *session) error {
	claiming := ctx
	if budget := s.localBudget(); budget != 0 {
		hung := fmt.Errorf("%w: dirty log: %w within %v", ErrLocalCopy, ErrHung, budget)
		var cancel context.CancelFunc
		claiming, cancel = context.WithTimeoutCause(ctx, budget, hung)
		defer cancel()
	}
	if err := s.claim(claiming); err != nil {
		return fmt.Errorf("begin session: %w", err)
	}
	defer s.release()
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.fenced():
		return ErrClosed
	case s.failed != nil:
		return s.failed
	case s.session != nil:
		return errAnother
	}
	s.session = n
	if !n.complete {
		s.intact = false
	}
	welcome := Welcome{
		Node: s.cfg.Node, Size: s.dev.Size(), Lineage: s.lineage,
		Complete: n.complete, Intact: n.complete && s.intact,
	}
	n.places.watch(&s.local, s.dev)
	go n.live(welcome, s.entries)
	return nil
}

// claim takes the right to change the lineage, or waits for whoever has it.
func (s *Secondary) claim(ctx context.Context) error {
	select {
	case s.storing <- struct{}{}:
		return nil
	case <-s.down:
		return ErrClosed
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (s *Secondary) release() { <-s.storing }

// fenced says that Fence was called.
func (s *Secondary) fenced() bool {
	select {
	case <-s.down:
		return true
	default:
		return false
	}
}

// clock is the monotonic time since the Secondary was made, in nanoseconds.
func (s *Secondary) clock() int64 { return int64(time.Since(s.start)) }

// end ends the session that runs, if any, and waits for it; not for a call of the device
// that hangs, nor after Fence, as no other begins then.
func (s *Secondary) end() {
	s.mu.Lock()
	n := s.session
	s.mu.Unlock()
	if n == nil {
		return
	}
	n.stopped.Store(true)
	_ = n.conn.Close() // the session ends either way
	select {
	case <-n.ended:
	case <-n.hangs:
	case <-s.down:
	}
}

// Fence ends the copy's part for ever, at once: it waits for no device and no log. From its
// return on nothing more is acknowledged to the primary, no session begins, and nothing new
// is written to the device or the log; what is in them already may still end there. It may
// be called more than once. A node fences before it promises another epoch.
func (s *Secondary) Fence() {
	s.mu.Lock()
	if !s.fenced() {
		close(s.down)
	}
	n := s.session
	s.mu.Unlock()
	if n != nil {
		n.stopped.Store(true)
		_ = n.conn.Close() // what was acknowledged before is sent, or is not
	}
}

// Close is Fence and then waits: when it returns the device and the log are not used any
// more. That lasts as long as a call of theirs that is stuck.
func (s *Secondary) Close() {
	s.Fence()
	s.mu.Lock()
	n := s.session
	s.mu.Unlock()
	if n != nil {
		<-n.ended
	}
	s.storing <- struct{}{}
	s.release()
}

// Complete makes this copy complete at the epoch of the running session, if that is
// the one the ticket was made for: everything applied is made durable, then the
// primary's lineage is adopted and this copy's own suspects are forgotten, in one
// durable step. If that fails the copy has failed, as by a flush of a session: the error wraps ErrLocalCopy, the
// session ends with it, and no other begins. A copy that was complete before is intact from then on. The primary calls
// for it after Drained. If ctx ends first the error is its cause, and the copy may still become complete; no session
// begins before that is decided. ErrState: that session is over, so writes may be missing since. It may be called again
// after any error.
func (s *Secondary) Complete(ctx context.Context, t Ticket) error {
	if err := s.claim(ctx); err != nil {
		return fmt.Errorf("complete: %w", err)
	}
	s.mu.Lock()
	n, intact := s.session, s.intact
	var forget []Entry
	for _, e := range s.entries {
		forget = append(forget, Entry{Extent: e.Extent})
	}
	s.mu.Unlock()
	if n == nil || n.epoch != t.Epoch || n.link != t.Link {
		s.release()
		return fmt.Errorf("complete at epoch %d without its session: %w", t.Epoch, ErrState)
	}
	if n.finished && intact {
		s.release()
		return nil // it is, and has missed nothing since
	}
	lineage := t.Lineage
	lineage.Partial = false
	if newest, ok := lineage.Newest(); ok {
		lineage.InStep = newest
	}
	err := s.store(ctx, "complete", forget, lineage, s.dev.Flush, func() {
		s.entries = nil
		n.finished = true
		if s.session == n {
			s.intact = true
		}
		s.log.Info("copy is complete", "epoch", t.Epoch, "lineage", lineage.String())
	})
	if err != nil {
		return fmt.Errorf("complete %s: %w", s.cfg.Volume, err)
	}
	return nil
}

// Rejoin makes a copy that has diverged one that the primary with the lineage winner
// may overwrite: durably, its own generations since their common one are forgotten, and
// what was written in them stays suspect. Whoever calls it has set its content aside, or
// gives it up. After Fence the error is ErrClosed: the log may have another user.
func (s *Secondary) Rejoin(ctx context.Context, winner Lineage) error {
	if err := s.claim(ctx); err != nil {
		return fmt.Errorf("rejoin: %w", err)
	}
	lineage := s.Lineage()
	if lineage.Compare(winner) != Diverged {
		s.release()
		if s.fenced() {
			return ErrClosed
		}
		return nil
	}
	err := s.store(ctx, "rejoin", nil, lineage.Common(winner), nil, func() {
		s.log.Warn("copy rejoins after it went apart", "was", lineage.String(), "winner", winner.String())
	})
	if err != nil {
		return fmt.Errorf("rejoin %s: %w", s.cfg.Volume, err)
	}
	return nil
}

// markPartial notes durably that this copy is being overwritten, unless the session
// is complete by now.
func (s *Secondary) markPartial(n *session) error {
	if err := s.claim(n.ctx); err != nil {
		return err
	}
	lineage := s.Lineage()
	if n.finished || lineage.Partial {
		s.release()
		return nil
	}
	lineage.Partial = true
	if err := s.store(n.ctx, "mark partial", nil, lineage, nil, func() {}); err != nil {
		return fmt.Errorf("mark copy partial: %w", err)
	}
	return nil
}

// store does before, if it is not nil, and then commits; the caller has claimed that, and
// it is released when the log has answered, also if ctx ends first: what is durable and
// what is known here stay the same. Then is called with mu held once it is durable. Before is watched like the
// commit, as one call of the local storage. If either fails this copy has failed, whoever still waits for it.
func (s *Secondary) store(
	ctx context.Context, what string, entries []Entry, lineage Lineage, before func() error, then func(),
) error {
	done := make(chan error, 1)
	v := &visit{what: what}
	s.mu.Lock()
	s.local.add(v)
	s.mu.Unlock()
	v.enter()
	go func() {
		err := s.put(entries, lineage, before)
		var n *session
		s.mu.Lock()
		v.leave()
		s.local.remove(v)
		if err == nil {
			s.lineage = lineage
			then()
		}
		switch {
		case s.fenced():
			err = ErrClosed // whatever is durable, nobody is told so any more
		case err != nil:
			n = s.session
			err = s.fail(fmt.Errorf("%s: %w", what, err))
		}
		s.mu.Unlock()
		if n != nil {
			n.tell(0, err)
			_ = n.conn.Close() // ends the receiving goroutine
		}
		s.release()
		done <- err
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// put is the work of store; it waits for the log.
func (s *Secondary) put(entries []Entry, lineage Lineage, before func() error) error {
	if before != nil {
		if err := before(); err != nil {
			return err
		}
	}
	if s.fenced() {
		return ErrClosed
	}
	stored := make(chan error, 1)
	s.cfg.Log.Commit(entries, &lineage, func(err error) { stored <- err })
	return <-stored
}

// fail notes a failure of this copy, after which no session begins any more, and returns it. The first one stays the
// reason. What was acknowledged and not flushed may be lost, so the copy is not intact any more. Mu is held.
func (s *Secondary) fail(err error) error {
	if s.failed == nil {
		s.intact = false
		s.failed = fmt.Errorf("%w: %w", ErrLocalCopy, err)
		s.log.Error("local copy failed", "error", err)
	}
	return s.failed
}

// errAnother says that another session began meanwhile.
var errAnother = errors.New("another session")

// errStopped is the reason of a session that another one or Fence ended.
var errStopped = errors.New("stopped")
