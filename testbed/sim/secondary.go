package sim

import (
	"context"
	"errors"
	"fmt"
	"time"

	"duet/appmodules"
	"duet/appmodules/engine"
	"duet/blockrepl"
)

// secondary is the volume on the node that follows. At most one session serves. Answers of an earlier one are
// dropped, which is what keeps an acknowledgement from reaching a primary that this copy has left. Kinder than
// blockrepl.Secondary: what is in the disk when a session ends does not land.
type secondary struct {
	tenant
	serving *incoming // nil: no session
	closed  bool      // by Fence, for good
	intact  bool      // nothing was lost in this life since it was complete
	heard   time.Time // by the clock of this node
}

// incoming is a connection from a primary: an engine.Incoming. It is read by both nodes: hello is from the
// primary; answered to suspects are set when the answer has reached it; the rest is the secondary's own.
type incoming struct {
	end      *end
	hello    blockrepl.Hello
	answered bool // the primary has the answer
	refused  *blockrepl.Refusal
	welcome  blockrepl.Welcome
	suspects [blocks]bool

	complete, finished bool  // when the session began; and by now
	over               error // why it ended
}

func (i *incoming) Hello() blockrepl.Hello { return i.hello }

// Refuse answers that this node does not take part.
func (i *incoming) Refuse(r blockrepl.Refusal) error {
	there := i.end.other()
	i.end.send(func() {
		i.refused, i.answered = &r, true
		there.proc.wake()
	})
	return i.end.Close()
}

func (i *incoming) Close() error { return i.end.Close() }

// incoming hands a connection to the engine, as the node's listener does. The answer to the primary is the
// engine's, by Refuse or by Serve; one that gives none leaves the primary waiting until its own limit.
func (n *Node) incoming(in *incoming) {
	p, e := n.proc, n.engine
	p.start(func() {
		if e == nil {
			_ = in.Close()
			return
		}
		_ = e.OnAttach(context.Background(), in)
	})
}

// SetLocalBudget is not followed, as that of the model's primary is not.
func (s *secondary) SetLocalBudget(time.Duration) {}

func (s storage) Secondary(appmodules.Volume) (engine.Secondary, error) {
	if err := s.n.disk.failed(); err != nil {
		return nil, err
	}
	s.n.second = &secondary{tenant: tenant{n: s.n, p: s.n.proc}, intact: s.n.intact}
	s.n.intact = false
	return s.n.second, nil
}

// Written is not known: nobody looks at it here.
func (s storage) Written(appmodules.Volume) time.Time { return time.Time{} }

// Known: it counts blocks, where production counts bytes.
func (s storage) Known(appmodules.Volume) (blockrepl.Lineage, int64, error) {
	var dirty int64
	for _, suspect := range s.n.log.suspects {
		if suspect {
			dirty++
		}
	}
	return s.n.log.lineage, dirty, nil
}

// Serve welcomes the primary and applies what it sends until the connection ends. A new session ends the one
// before. It returns only when the session is over, and always with a reason; ErrLocalCopy is in it if this copy
// failed.
func (s *secondary) Serve(ctx context.Context, ein engine.Incoming, complete bool) error {
	in := ein.(*incoming)
	s.stop()
	if s.closed {
		_ = in.Close()
		return blockrepl.ErrClosed
	}
	if !complete {
		s.intact = false
	}
	s.serving, s.heard = in, s.p.Now()
	in.complete, in.finished = complete, complete
	in.end.lost = func(err error) { in.end1(err) }
	w := blockrepl.Welcome{Node: s.n.name, Size: blocks, Lineage: s.n.log.lineage,
		Complete: complete, Intact: complete && s.intact}
	suspects := s.n.log.suspects
	there := in.end.other()
	in.end.send(func() {
		in.welcome, in.suspects, in.answered = w, suspects, true
		there.proc.wake()
	})
	err := s.p.waitFor(ctx, func() bool { return in.over != nil || in.end.closed })
	if s.serving == in {
		s.serving = nil
	}
	_ = in.Close()
	if err == nil {
		err = in.over
	}
	return fmt.Errorf("session ended: %w", err)
}

// end1 keeps the first reason why it ended.
func (i *incoming) end1(err error) {
	if i.over == nil {
		i.over = err
		i.end.proc.wake()
	}
}

// stop fences: nothing more is applied or acknowledged until the next Serve.
func (s *secondary) stop() {
	if in := s.serving; in != nil {
		s.serving = nil
		in.end1(errors.New("stopped"))
		_ = in.Close()
	}
}

// write applies one write. Before the first change of a copy that is not complete it is durably partial. A frame
// of another epoch is refused, as its sender may be deposed (rule 2). The answer means that the write is in the
// page cache, not that it is durable: that is what a flush is for.
func (s *secondary) write(epoch uint64, block int, value uint64, answer func(error)) {
	in := s.serving
	if epoch != in.hello.Epoch {
		answer(errors.New("frame of another epoch"))
		return
	}
	done := func(err error) {
		if s.serving != in {
			return
		}
		if err != nil {
			s.broken(in, err, answer)
			return
		}
		if s.n.c.broken != lyingSecondary {
			s.n.disk.put(block, value)
		}
		answer(nil)
	}
	if in.finished || s.n.log.lineage.Partial {
		s.io(access{blockrepl.OpWrite, block, false}, s.n.diskDelay(), done)
		return
	}
	s.commit(func(l *dirtyLog) { l.lineage.Partial = l.lineage.Partial || !in.finished },
		func() { s.io(access{blockrepl.OpWrite, block, false}, 0, done) },
		func(err error) { s.broken(in, err, answer) })
}

// found is what a read of the peer was answered; err: it was answered without data.
type found struct {
	value uint64
	err   error
}

// read looks at a block for the primary. One that cannot be read is no failure of this copy: the session goes on.
func (s *secondary) read(block int, into *found, answer func(error)) {
	s.io(access{blockrepl.OpRead, block, false}, 0, func(err error) {
		into.err = err
		if err == nil {
			into.value = s.n.disk.now()[block]
		}
		answer(nil)
	})
}

// broken: it tells the primary first, so that this is known as the loss of a copy and not of a connection.
func (s *secondary) broken(in *incoming, err error, answer func(error)) {
	s.intact = false
	answer(err)
	in.end1(fmt.Errorf("%w: %w", blockrepl.ErrLocalCopy, err))
}

// flush: what is written while it lasts is not covered.
func (s *secondary) flush(answer func(error)) {
	seen := s.n.disk.now()
	in := s.serving
	s.io(access{blockrepl.OpFlush, 0, false}, diskTime, func(err error) {
		if err != nil {
			if s.serving == in {
				s.broken(in, err, answer)
			}
			return
		}
		if s.n.c.broken != lazySecondary {
			s.n.disk.flushed(seen)
		}
		answer(nil)
	})
}

// Complete makes this copy complete, if the ticket is of the running attachment. The order is that of blockrepl:
// everything applied is durable before one commit says so and forgets this copy's own suspects. A session that
// has ended since does not take it back: what it applied is here. After Fence no commit is begun.
func (s *secondary) Complete(ctx context.Context, t blockrepl.Ticket) error {
	in := s.serving
	if in == nil || in.hello.Epoch != t.Epoch || in.hello.Link != t.Link {
		return fmt.Errorf("complete at epoch %d without its session: %w", t.Epoch, blockrepl.ErrState)
	}
	seen, over := s.n.disk.now(), false
	var bad error
	end := func(err error) { bad, over = err, true; s.p.wake() }
	s.io(access{blockrepl.OpFlush, 0, false}, diskTime, func(err error) {
		if s.closed {
			err = blockrepl.ErrClosed
		}
		if err != nil {
			end(err)
			return
		}
		s.n.disk.flushed(seen)
		lineage := t.Lineage
		lineage.Partial = false
		if newest, ok := lineage.Newest(); ok {
			lineage.InStep = newest
		}
		s.commit(func(l *dirtyLog) { l.lineage, l.suspects = lineage, [blocks]bool{} }, func() { end(nil) }, end)
	})
	if err := s.p.waitFor(ctx, func() bool { return over }); err != nil || bad != nil {
		return errors.Join(err, bad)
	}
	in.finished, s.n.cold = true, false
	if s.serving == in {
		s.intact = true
	}
	return nil
}

// Yield keeps what is here and forgets the generations the winner does not have. It keeps before it forgets: a
// copy that is overwritten first would be lost (rule 11).
func (s *secondary) Yield(ctx context.Context, d engine.Divergence) error {
	s.n.kept = append(s.n.kept, s.n.disk.now())
	s.n.c.note("%s: its version is set aside", s.n.name)
	var bad error
	over := false
	end := func(err error) { bad, over = err, true; s.p.wake() }
	common := s.n.log.lineage.Common(d.Winner)
	s.commit(func(l *dirtyLog) { l.lineage = common }, func() { end(nil) }, end)
	return errors.Join(s.p.waitFor(ctx, func() bool { return over }), bad)
}

func (s *secondary) Lineage() blockrepl.Lineage { return s.n.log.lineage }

// Heard is when the primary last sent something.
func (s *secondary) Heard() time.Time { return s.heard }

// Applied counts nothing.
func (s *secondary) Applied() uint64 { return 0 }

func (s *secondary) Close() error {
	s.Fence()
	return s.leaves(s.intact)
}

func (s *secondary) Fence() {
	s.closed = true
	s.stop()
}
