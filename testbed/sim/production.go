package sim

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"time"

	"duet/appmodules"
	"duet/appmodules/engine"
	"duet/blockrepl"
	frames "duet/blockrepl/wire"
)

// The real byte path as an engine.Storage: engine.NewStorage on simulated disks, with
// the engine's own goroutine, which is a task here, kept apart from the live goroutines:
// whatever may wait is done by one of these while the task waits in virtual time.

// hotExtents is a bound that two busy extents of the four reach.
const hotExtents = 2

// real is what one process of a node has of the real byte path. Its methods are called by tasks, but for bury
// and the posted functions, which are the world's.
type real struct {
	n       *Node
	life    *process
	disks   *disks
	storage engine.Storage // on disks
	volumes []io.Closer    // opened and perhaps closed since; to be closed when the process dies
	logs    []*journal
	streams []*stream // of this life, closed ones too
}

// await lets the running task wait for fn, which a goroutine does. A method of the byte path that may block on
// disk or network must go through it: called by a task directly it would stop the world, and with it the time it
// waits for. Fence, Release, GoAlone, PeerComplete, Verify and what only looks are called directly. If the
// process dies meanwhile the goroutine goes on, and what it returns is not looked at.
func (r *real) await(fn func()) {
	done := false
	live := r.n.c.w.live
	go func() {
		fn()
		live.post(func() {
			done = true
			r.n.c.w.in(r.life, r.life.wake)
		})
	}()
	_ = r.life.waitFor(context.Background(), func() bool { return done }) // it has no other end
}

func newReal(n *Node, life *process) *real {
	d := &disks{n: n, life: life}
	return &real{n: n, life: life, disks: d, storage: engine.NewStorage(engine.StorageConfig{
		Module: n.c.module, Node: n.name, Logger: slog.New(slog.DiscardHandler), HotExtents: hotExtents, Disks: d,
	})}
}

// load makes image and log anew for a volume that is opened, so that it finds them as they are then. The engine opens
// one at a time.
func (r *real) load(following bool) {
	r.disks.log, r.disks.image = r.n.journal(r.life), r.n.open(r.life.gate, following)
	r.logs = append(r.logs, r.disks.log)
}

// opened notes a volume, so that nothing of it outlives the process. A process may die while it opens one: then
// it is buried at once.
func (r *real) opened(volume io.Closer) {
	r.n.c.w.live.post(func() {
		r.volumes = append(r.volumes, volume)
		if r.life.dead {
			r.bury()
		}
	})
}

// bury ends what is left of a process that is dead: nothing of it reaches the world any more. Its streams end,
// its commits fail, and Close runs aside, as it may wait for a disk that hangs until wakeDead.
func (r *real) bury() {
	volumes := r.volumes
	r.volumes = nil
	for _, s := range r.streams {
		s.fail(net.ErrClosed)
	}
	for _, j := range r.logs {
		j.abandon()
	}
	for _, v := range volumes {
		r.n.c.w.live.graves.Go(func() { _ = v.Close() })
	}
}

// Primary opens the volume and serves it to the guest. An event is reported in order, as an event of the
// process, so a frozen daemon hears of it when it is thawed.
func (r *real) Primary(v appmodules.Volume, report func(blockrepl.Event)) (engine.Primary, error) {
	var inner engine.Primary
	var err error
	live := r.n.c.w.live
	r.load(false)
	r.await(func() {
		inner, err = r.storage.Primary(v, func(ev blockrepl.Event) {
			live.post(func() {
				if done, ok := ev.(blockrepl.VerifyDone); ok {
					r.n.verified = &done
				}
				r.n.c.w.at(0, r.life, func() { report(ev) })
			})
		})
		if err == nil {
			r.opened(inner)
		}
	})
	if err != nil {
		return nil, err
	}
	p := &realPrimary{Primary: inner, r: r}
	r.n.prim = p
	if r.n.c.proves {
		return provingPrimary{p}, nil
	}
	return p, nil
}

// provingPrimary is one that is proven in the background. It is another type because the engine asks a Primary
// by its type whether it can be proven; without `set proof` it must not.
type provingPrimary struct{ *realPrimary }

var errNoProver = errors.New("it cannot be proven")

func (p provingPrimary) Prove(off int64, repair bool) (f blockrepl.Proof, err error) {
	by, ok := p.Primary.(engine.Prover)
	if !ok {
		return f, errNoProver
	}
	p.r.await(func() { f, err = by.Prove(off, repair) })
	return f, err
}

// Secondary opens the volume for the peer.
func (r *real) Secondary(v appmodules.Volume) (engine.Secondary, error) {
	var inner engine.Secondary
	var err error
	r.load(true)
	r.await(func() {
		if inner, err = r.storage.Secondary(v); err == nil {
			r.opened(inner)
		}
	})
	if err != nil {
		return nil, err
	}
	return &realSecondary{Secondary: inner, r: r}, nil
}

// Written is not known: nobody looks at it here.
func (r *real) Written(v appmodules.Volume) time.Time { return time.Time{} }

// Known is what the log says. It may be asked while a volume is being opened, so it has a storage of its own.
func (r *real) Known(v appmodules.Volume) (blockrepl.Lineage, int64, error) {
	beside := newReal(r.n, r.life)
	beside.load(false)
	return beside.storage.Known(v)
}

// realPrimary is a real volume as a task sees it.
type realPrimary struct {
	engine.Primary
	r     *real
	opens bool // this copy counts
}

// counts: from here on this copy is the one that counts. It is told once: before GoAlone, as that needs nobody,
// and after Attach, which may refuse.
func (p *realPrimary) counts() {
	if !p.opens {
		p.opens = true
		p.r.n.c.check.promoted(p.r.n)
	}
}

func (p *realPrimary) Attach(ctx context.Context, conn net.Conn, epoch uint64) (drop io.Closer, err error) {
	p.r.await(func() { drop, err = p.Primary.Attach(ctx, conn, epoch) })
	if err == nil {
		p.counts()
	}
	return drop, err
}

func (p *realPrimary) GoAlone(epoch uint64) error {
	p.counts()
	return p.Primary.GoAlone(epoch)
}

func (p *realPrimary) Hold(ctx context.Context) (err error) {
	p.r.await(func() { err = p.Primary.Hold(ctx) })
	return err
}

func (p *realPrimary) Close() (err error) {
	p.r.await(func() { err = p.Primary.Close() })
	return err
}

// realSecondary is a real volume as a task sees it.
type realSecondary struct {
	engine.Secondary
	r       *real
	serving engine.Incoming
	turns   int // sessions that were wanted
	served  int // those that have ended
}

// Serve begins when the session before has ended, which it ends: two that wait for it
// would wait for each other's lock, and no virtual time passes while somebody waits for
// a lock.
func (s *realSecondary) Serve(ctx context.Context, in engine.Incoming, complete bool) (err error) {
	turn := s.turns
	s.turns++
	if s.serving != nil {
		_ = s.serving.Close() // as the real one does first
	}
	s.serving = in
	defer func() { s.served++; s.r.life.wake() }()
	_ = s.r.life.waitFor(context.Background(), func() bool { return s.served == turn }) // the one before ends
	s.r.await(func() { err = s.Secondary.Serve(ctx, in, complete) })
	return err
}

func (s *realSecondary) Complete(ctx context.Context, t blockrepl.Ticket) (err error) {
	s.r.await(func() { err = s.Secondary.Complete(ctx, t) })
	if err == nil {
		s.r.n.cold = false
	}
	return err
}

func (s *realSecondary) Yield(ctx context.Context, d engine.Divergence) (err error) {
	s.r.await(func() { err = s.Secondary.Yield(ctx, d) })
	return err
}

// Heard is by the clock of the process.
func (s *realSecondary) Heard() time.Time {
	heard := s.Secondary.Heard()
	if heard.IsZero() {
		return heard
	}
	return s.r.life.Now().Add(-time.Since(heard))
}

func (s *realSecondary) Close() (err error) {
	s.r.await(func() { err = s.Secondary.Close() })
	return err
}

// greeting is how long a connection may take to say who it is.
const greeting = 5 * time.Second

// listen takes in a replication connection, as the node's listener does. It is cmd/node's listener without TLS
// and without a look at who is a member.
func (r *real) listen(e *end) {
	s := r.stream(e)
	live := r.n.c.w.live
	go func() {
		conn := frames.NewConn(s)
		ctx, cancel := context.WithTimeout(context.Background(), greeting)
		hello, err := blockrepl.ReadHello(ctx, conn)
		cancel()
		if err != nil {
			_ = conn.Close() // nothing was agreed
			return
		}
		live.post(func() {
			r.n.c.w.in(r.life, func() {
				r.life.start(func() {
					_ = r.n.engine.OnAttach(context.Background(), &engine.Connection{Conn: conn, Greeting: hello})
				})
			})
		})
	}()
}

func (r *real) stream(e *end) *stream {
	s := newStream(e)
	r.streams = append(r.streams, s)
	return s
}
