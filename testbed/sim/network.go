package sim

import (
	"context"
	"errors"
	"io"
	"net"
	"time"

	"duet/appmodules/engine"
	"duet/cluster"
)

// wire is what carries a message: the heartbeat networks, on which calls travel, or
// the replication network.
type wire uint8

const (
	control wire = iota
	data
	wires
)

// network says what passes. Places are the nodes 0 and 1 and the witness, 2. A cut takes effect at once, also
// for what is under way. Directions are cut apart, as one-way links are what deceives failure detection. Nothing
// is damaged or forged: TLS would find it.
type network struct {
	cut   [wires][3][3]bool    // from, to
	delay [wires]time.Duration // more for each message, both ways
	drop  float64              // part of the calls that is lost
	again float64              // part of the calls that arrives a second time, later
}

const latency = 200 * time.Microsecond

var errNoAnswer = errors.New("connection refused")

// passes reports whether a message would arrive. It holds for this instant; a computer that is off is not looked
// at.
func (c *Cluster) passes(k wire, from, to int) bool {
	return !c.net.cut[k][from][to]
}

func (c *Cluster) travel(k wire) time.Duration {
	return latency + c.net.delay[k] + c.w.jitter(latency)
}

// send delivers fn at the other side, in no order, unless it is lost. fn happens to the world, not in a process:
// whoever wants a process uses in.
func (c *Cluster) send(k wire, from, to int, fn func()) {
	if !c.passes(k, from, to) || (k == control && c.w.rng.Float64() < c.net.drop) {
		return
	}
	c.w.at(c.travel(k), nil, func() {
		if c.passes(k, from, to) {
			fn()
		}
	})
}

// errand is what a call has done by the engine of another node.
type errand func(ctx context.Context, e *engine.Engine) (any, error)

// call runs fn on the node to, as a task of its daemon, and returns what it says. An answer that does not come
// is an error after ctx; a computer without the daemon refuses at once. All control calls are idempotent
// (cluster/DESIGN.md, "Paths"), which is what repetition tries: the errand is done again up to three seconds
// later, perhaps by the next life of that daemon, and nobody is told. A daemon that is frozen does it when it is
// thawed. The errand has ten seconds there, whatever ctx says here.
func (n *Node) call(ctx context.Context, to int, fn errand) (any, error) {
	c, from, life := n.c, n.id, n.proc
	answered := make(chan struct{})
	var out any
	err := errors.New("no answer")
	request := func(first bool) {
		there := c.nodes[to]
		reply := func(o any, e error) {
			if !first {
				return
			}
			c.send(control, to, from, func() {
				c.w.in(life, func() {
					if err != nil && !closed(answered) {
						out, err = o, e
						close(answered)
						life.wake()
					}
				})
			})
		}
		switch {
		case !there.on:
		case there.proc == nil || there.engine == nil:
			reply(nil, errNoAnswer)
		default:
			p, e := there.proc, there.engine
			c.w.in(p, func() {
				p.start(func() {
					ctx, cancel := p.WithTimeout(context.Background(), 10*time.Second)
					defer cancel()
					reply(fn(ctx, e))
				})
			})
		}
	}
	c.send(control, from, to, func() { request(true) })
	if c.w.rng.Float64() < c.net.again {
		c.w.at(c.w.jitter(3*time.Second), nil, func() { c.send(control, from, to, func() { request(false) }) })
	}
	if werr := life.Wait(ctx, answered, nil); werr != nil {
		return nil, werr
	}
	return out, err
}

func closed(ch <-chan struct{}) bool {
	select {
	case <-ch:
		return true
	default:
		return false
	}
}

// peer is an engine.Peer: the engine of the other node.
type peer struct{ n *Node }

var _ engine.Peer = peer{}

func (p peer) Ask(ctx context.Context, a cluster.Ask) (cluster.Answer, error) {
	out, err := p.n.call(ctx, 1-p.n.id, func(ctx context.Context, e *engine.Engine) (any, error) {
		return e.OnAsk(ctx, a)
	})
	ans, _ := out.(cluster.Answer)
	return ans, err
}

func (p peer) Handover(ctx context.Context, h engine.Handover) error {
	_, err := p.n.call(ctx, 1-p.n.id, func(ctx context.Context, e *engine.Engine) (any, error) {
		return nil, e.OnHandover(ctx, h)
	})
	return err
}

func (p peer) Complete(ctx context.Context, m engine.Complete) error {
	_, err := p.n.call(ctx, 1-p.n.id, func(ctx context.Context, e *engine.Engine) (any, error) {
		return nil, e.OnComplete(ctx, m)
	})
	return err
}

func (p peer) Tell(ctx context.Context, mine engine.State) (engine.State, error) {
	out, err := p.n.call(ctx, 1-p.n.id, func(_ context.Context, e *engine.Engine) (any, error) {
		return e.OnTell(mine), nil
	})
	theirs, _ := out.(engine.State)
	return theirs, err
}

func (p peer) Define(ctx context.Context, d engine.Definition) error {
	_, err := p.n.call(ctx, 1-p.n.id, func(ctx context.Context, e *engine.Engine) (any, error) {
		return nil, e.OnDefine(ctx, d)
	})
	return err
}

// Dial opens a replication connection. The error is errNoAnswer where no daemon listens, and that of ctx where
// nothing comes back. The other side may have accepted a connection that this one never gets.
func (p peer) Dial(ctx context.Context) (net.Conn, error) {
	c, from, to := p.n.c, p.n.id, 1-p.n.id
	life, answered := p.n.proc, make(chan struct{})
	var conn *pipe
	c.send(data, from, to, func() {
		there := c.nodes[to]
		if there.on && there.proc != nil && !life.dead {
			conn = c.newPipe(p.n, there)
			if r := there.real; r != nil {
				r.listen(&conn.ends[1])
			}
		}
		if there.on {
			c.send(data, to, from, func() { c.w.at(0, life, func() { close(answered) }) })
		}
	})
	if err := life.Wait(ctx, answered, nil); err != nil {
		return nil, err
	}
	if conn == nil {
		return nil, errNoAnswer
	}
	if r := p.n.real; r != nil {
		return r.stream(&conn.ends[0]), nil
	}
	return &conn.ends[0], nil
}

// pipe is one replication connection: messages arrive in order, late while it is cut, or not at all. It is TCP
// as far as replication can tell: order is kept, nothing is lost from the middle, and a cut is a delay until
// patience is over. Harsher: one message travels at a time in each direction, so a delay adds up.
type pipe struct {
	c    *Cluster
	ends [2]end // 0: who dialled
}

// end is one side of a pipe. As a net.Conn it can be closed, which is all an engine does with it.
type end struct {
	net.Conn
	pipe   *pipe
	side   int // index in pipe.ends
	node   *Node
	proc   *process // that opened it or accepted it; its end is the end of this side
	closed bool     // by this side or for it: nothing is sent or delivered here any more
	queue  []func() // on the way to the other side
	moving bool
	step   func()       // arrive
	stuck  int64        // since when nothing passes; 0: it does
	lost   func(error)  // told once when the other side or the network ended it
	got    func([]byte) // of a stream: what has arrived
	accept func(*incoming)
}

func (c *Cluster) newPipe(from, to *Node) *pipe {
	p := &pipe{c: c}
	for side, n := range []*Node{from, to} {
		p.ends[side] = end{pipe: p, side: side, node: n, proc: n.proc}
		p.ends[side].step = p.ends[side].arrive
		n.pipes = append(n.pipes, &p.ends[side])
	}
	return p
}

func (e *end) other() *end { return &e.pipe.ends[1-e.side] }

// send queues a message that does fn in the process of the other side. After Close it does nothing, without an
// error: the sender hears of the end by lost.
func (e *end) send(fn func()) {
	if e.closed {
		return
	}
	e.queue = append(e.queue, fn)
	e.move()
}

func (e *end) move() {
	if e.moving || len(e.queue) == 0 {
		return
	}
	e.moving = true
	c := e.pipe.c
	c.w.at(c.travel(data), nil, e.step)
}

// arrive delivers the first message, or waits until the network lets it pass. A message that was sent before a
// Close of this side still arrives, as data before a FIN does. A side that has closed takes nothing more.
func (e *end) arrive() {
	c, o := e.pipe.c, e.other()
	e.moving = false
	switch {
	case len(e.queue) == 0:
		return
	case !c.passes(data, e.node.id, o.node.id) || !o.node.on:
		if e.stuck == 0 {
			e.stuck = c.w.now
		}
		if c.w.now-e.stuck > int64(patience) {
			e.queue = nil
			e.reset(errTimeout)
			o.reset(errTimeout)
			return
		}
		e.moving = true
		c.w.at(20*time.Millisecond, nil, e.step)
		return
	case o.proc.dead && !e.closed: // the other computer answers that it knows nothing of this connection
		e.queue = nil
		e.reset(errors.New("connection reset by peer"))
		return
	}
	e.stuck = 0
	fn := e.queue[0]
	if e.queue = e.queue[1:]; len(e.queue) == 0 {
		e.queue = nil
	}
	if !o.closed {
		c.w.in(o.proc, func() {
			if !o.closed {
				fn()
			}
		})
	}
	e.move()
}

// patience is how long TCP waits for a computer that does not answer. It is for both sides and for silence only;
// a daemon that has ended answers by a reset at the next message.
const patience = 4 * time.Second

var errTimeout = errors.New("connection timed out")

// reset ends this side from outside. It is an event of its process, so a frozen one hears of it when it is
// thawed.
func (e *end) reset(cause error) {
	e.pipe.c.w.at(0, e.proc, func() {
		if e.closed {
			return
		}
		e.close(cause)
	})
}

// Close ends the connection; the other side hears of it when the network lets it.
func (e *end) Close() error {
	if !e.closed {
		e.finish()
	}
	return nil
}

// finish ends this side in order: what is queued, then the end of the stream.
func (e *end) finish() {

	o := e.other()
	e.queue = append(e.queue, func() { o.reset(io.EOF) })
	e.move()
	e.close(net.ErrClosed)
}

func (e *end) close(cause error) {
	e.closed = true
	e.proc.wake()
	if e.lost != nil {
		e.lost(cause)
	}
}

// sever breaks the connections of a node whose daemon died while the computer lives. Its own callbacks are not
// called: there is nobody left to call. The kernel still sends what was written.
func (n *Node) sever() {
	for _, e := range n.pipes {
		if !e.closed {
			e.lost = nil
			e.finish()
		}
	}
	n.pipes = nil
}
