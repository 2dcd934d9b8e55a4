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
}

// Secondary applies what the primary of a volume sends, one session at a time. It
// knows nothing of votes: the engine accepts a Hello, calls Stop before the node
// promises another epoch, and Complete when the primary has sent all.
type Secondary struct {
	cfg SecondaryConfig
	log *slog.Logger
	dev Device

	serving sync.Mutex // held for the length of a session
	storing sync.Mutex // held while the lineage is changed, so that Complete and Partial have an order
	mu      sync.Mutex
	lineage Lineage
	entries []Entry  // this copy's own suspects, from a time when it was written alone
	intact  uint64   // epoch in which this process acknowledged everything since it was complete
	session *session // nil: none
	closed  bool     // no session begins any more

	applied atomic.Uint64 // writes since NewSecondary
	heard   atomic.Int64  // when the primary last sent something, Unix ns; 0: never
}

// NewSecondary loads the log of the volume.
func NewSecondary(cfg SecondaryConfig) (*Secondary, error) {
	entries, lineage, err := cfg.Log.Load()
	if err != nil {
		return nil, fmt.Errorf("load dirty log of %s: %w", cfg.Volume, err)
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Secondary{
		cfg: cfg, log: cfg.Logger.With("volume", cfg.Volume), dev: cfg.Device,
		entries: entries, lineage: Lineage{Volume: cfg.Identity},
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
// until the connection ends, ctx ends or Stop is called; it always returns a reason.
// A session that still runs is ended first. Complete says whether this copy holds
// every write acknowledged in hello's epoch; the engine knows from its records.
func (s *Secondary) Serve(ctx context.Context, conn *wire.Conn, hello Hello, complete bool) error {
	s.Stop(nil)
	s.serving.Lock()
	defer s.serving.Unlock()
	n := newSession(s, conn, hello, complete)
	welcome, entries, ok := s.open(n)
	if !ok {
		_ = conn.Close() // nothing was agreed
		return ErrClosed
	}
	defer s.closeSession(n)
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()

	s.log.Info("primary attached", "peer", hello.Node, "epoch", hello.Epoch, "complete", complete)
	err := sendWelcome(conn, hello.Epoch, welcome, entries)
	if err == nil {
		err = n.run()
	}
	_ = conn.Close() // the reason of the end is err
	n.join()
	s.mu.Lock()
	if n.broken != nil {
		err = n.broken // the connection ended because of it
	}
	s.mu.Unlock()
	return fmt.Errorf("session with %s ended: %w", hello.Node, err)
}

// open makes n the session and returns what it is welcomed with; false after Close.
func (s *Secondary) open(n *session) (Welcome, []Entry, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return Welcome{}, nil, false
	}
	s.session = n
	if !n.complete {
		s.intact = 0
	}
	return Welcome{
		Node: s.cfg.Node, Size: s.dev.Size(), Lineage: s.lineage,
		Complete: n.complete, Intact: n.complete && s.intact == n.epoch,
	}, s.entries, true
}

func (s *Secondary) closeSession(n *session) {
	s.mu.Lock()
	s.session = nil
	s.mu.Unlock()
	close(n.ended)
}

// Stop fences: when it returns, nothing more is applied or acknowledged until the
// next Serve. The primary is told why, best effort, if r is not nil.
func (s *Secondary) Stop(r *Refusal) {
	s.mu.Lock()
	n := s.session
	s.mu.Unlock()
	if n == nil {
		return
	}
	n.stopped.Store(true)
	if r != nil {
		_ = Refuse(n.conn, *r) // best effort: it may be closed already
	} else {
		_ = n.conn.Close()
	}
	<-n.ended
}

// Close is Stop for ever: a Serve that was about to begin fails with ErrClosed. A node
// that promises an epoch relies on it.
func (s *Secondary) Close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.Stop(nil)
}

// Complete makes this copy complete at the epoch of the running session, if that is
// the one the ticket was made for: everything applied is made durable, then the
// primary's lineage is adopted and this copy's own suspects are forgotten, in one
// durable step. The primary calls for it after Drained.
func (s *Secondary) Complete(ctx context.Context, t Ticket) error {
	s.mu.Lock()
	n := s.session
	var forget []Entry
	for _, e := range s.entries {
		forget = append(forget, Entry{Extent: e.Extent})
	}
	s.mu.Unlock()
	if n == nil || n.epoch != t.Epoch || n.link != t.Link {
		return fmt.Errorf("complete at epoch %d without its session: %w", t.Epoch, ErrState)
	}
	epoch, lineage := t.Epoch, t.Lineage
	s.storing.Lock()
	defer s.storing.Unlock()
	if err := s.dev.Flush(); err != nil {
		return fmt.Errorf("flush before complete: %w", err)
	}
	lineage.Partial = false
	if newest, ok := lineage.Newest(); ok {
		lineage.InStep = newest
	}
	if err := s.store(ctx, forget, lineage); err != nil {
		return fmt.Errorf("store complete: %w", err)
	}
	n.finished = true
	s.mu.Lock()
	defer s.mu.Unlock()
	s.entries = nil
	if s.session == n {
		s.intact = epoch
	}
	s.log.Info("copy is complete", "epoch", epoch, "lineage", lineage.String())
	return nil
}

// Rejoin makes a copy that has diverged one that the primary with the lineage winner
// may overwrite: durably, its own generations since their common one are forgotten, and
// what was written in them stays suspect. Whoever calls it has set its content aside, or
// gives it up.
func (s *Secondary) Rejoin(ctx context.Context, winner Lineage) error {
	s.storing.Lock()
	defer s.storing.Unlock()
	lineage := s.Lineage()
	if lineage.Compare(winner) != Diverged {
		return nil
	}
	if err := s.store(ctx, nil, lineage.Common(winner)); err != nil {
		return fmt.Errorf("rejoin %s: %w", s.cfg.Volume, err)
	}
	s.log.Warn("copy rejoins after it went apart", "was", lineage.String(), "winner", winner.String())
	return nil
}

// markPartial notes durably that this copy is being overwritten, unless the session
// is complete by now.
func (s *Secondary) markPartial(n *session) error {
	s.storing.Lock()
	defer s.storing.Unlock()
	lineage := s.Lineage()
	if n.finished || lineage.Partial {
		return nil
	}
	lineage.Partial = true
	if err := s.store(n.ctx, nil, lineage); err != nil {
		return fmt.Errorf("mark copy partial: %w", err)
	}
	return nil
}

// store commits and waits.
func (s *Secondary) store(ctx context.Context, entries []Entry, lineage Lineage) error {
	done := make(chan error, 1)
	s.cfg.Log.Commit(entries, &lineage, func(err error) { done <- err })
	select {
	case err := <-done:
		if err != nil {
			return err
		}
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	s.mu.Lock()
	s.lineage = lineage
	s.mu.Unlock()
	return nil
}

// errStopped is the reason of a session that Stop ended.
var errStopped = errors.New("stopped")
