package sim

import (
	"context"
	"fmt"
	"io"
	"net"

	"duet/blockrepl"
)

// Attach greets the peer over the connection and begins to replicate. The end is closed if it fails, and dropped
// by the closer if not. The error is VerdictError, RefusedError, ErrPeerIncomplete, ErrState, or the loss of the
// connection, as the engine reacts to each in another way.
func (p *primary) Attach(ctx context.Context, nc net.Conn, epoch uint64) (io.Closer, error) {
	e := nc.(*end)
	err := p.attach(ctx, e, epoch)
	if err != nil {
		_ = e.Close()
	}
	return e, err
}

// attach greets, and looks anew after the wait: the volume may have been fenced, promoted or attached meanwhile.
func (p *primary) attach(ctx context.Context, e *end, epoch uint64) error {
	fits := func() bool { return p.state != blockrepl.Closed && (p.state == blockrepl.Detached || epoch == p.epoch) }
	if p.link != nil || !fits() {
		return fmt.Errorf("attach at epoch %d while %v at %d: %w", epoch, p.state, p.epoch, blockrepl.ErrState)
	}
	hello := blockrepl.Hello{Node: p.n.name, Epoch: epoch, Size: blocks, Lineage: p.log.lineage,
		Link: p.n.c.w.rng.Uint64()}
	in := &incoming{end: e.other(), hello: hello}
	var lost error
	e.lost = func(err error) { lost = err }
	e.send(func() { in.end.node.incoming(in) })
	if err := p.p.waitFor(ctx, func() bool { return in.answered || lost != nil }); err != nil {
		return err
	}
	switch {
	case in.refused != nil:
		return &blockrepl.RefusedError{Refusal: *in.refused}
	case !in.answered:
		return lost
	case !fits() || p.link != nil || e.closed:
		return fmt.Errorf("attach at epoch %d: %w", epoch, blockrepl.ErrState)
	}
	return p.join(e, hello, in)
}

// join judges the welcome and installs the link. What both logs suspect is brought in step (or everything, as
// Decide says), and what is in flight is sent again: the peer may not have it. A peer that is not complete is
// accepted only by a volume that is alone; any other has no right yet that does not need the peer.
func (p *primary) join(e *end, hello blockrepl.Hello, in *incoming) error {
	suspects, any := p.log.suspects, false
	for b := range blocks {
		suspects[b] = suspects[b] || in.suspects[b]
		any = any || suspects[b]
	}
	hello.Lineage = p.log.lineage
	verdict := blockrepl.Decide(hello, in.welcome, any)
	switch {
	case verdict.Refused():
		return &blockrepl.VerdictError{Verdict: verdict, Local: p.log.lineage, Remote: in.welcome.Lineage}
	case p.state != blockrepl.Alone && !in.welcome.Complete:
		return blockrepl.ErrPeerIncomplete
	}
	p.opens()
	l := &link{end: e, id: hello.Link, intact: in.welcome.Intact}
	p.link, p.epoch, p.state = l, hello.Epoch, blockrepl.Syncing
	if in.welcome.Complete {
		p.state = blockrepl.Required
	}
	e.lost = func(err error) { p.drop(l, err) }
	p.catchup = catchup{}
	for b := range blocks {
		if verdict != blockrepl.InStep && (suspects[b] || verdict == blockrepl.ResyncAll) {
			p.catchup.add(b)
		}
	}
	p.judge()
	for _, f := range p.flights { // the new peer may not have it
		if f.req != nil {
			f.peer, f.log = true, false
			p.sendWrite(f)
		}
	}
	p.n.c.w.at(0, p.p, func() { p.resync(l, in.welcome.Complete) })
	p.pump()
	if p.failed != nil {
		p.report(blockrepl.DeviceFailed{Err: p.failed})
	}
	return nil
}
