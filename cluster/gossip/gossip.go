package gossip

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"

	"duet/cluster"
)

// ErrStopped is returned by what is called after Stop.
var ErrStopped = errors.New("gossip stopped")

// Config says what a Gossip works with.
type Config struct {
	// Cluster is the configuration as it is now; call Update when it has changed.
	// Heartbeats use Port+1, UDP and TCP, on this node's address in each network.
	Cluster func() cluster.Config
	Logger  *slog.Logger // nil discards
}

// Gossip watches the peers. All methods may be called by several goroutines.
type Gossip struct {
	cfg       Config
	log       *slog.Logger
	transport func(ip string, port int) (memberlist.NodeAwareTransport, error) // nil: real sockets

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	change sync.Mutex // one change of the segments at a time; taken before mu

	mu       sync.Mutex
	started  bool // Start was called, with whatever end
	d        *detector
	segments map[string]*segment        // by network
	last     cluster.View               // as published; never given out
	watchers map[chan cluster.View]bool // each with room for one view
}

// New returns a Gossip that does nothing yet. All peers are unknown in its view: neither alive nor silent.
func New(cfg Config) *Gossip {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	g := &Gossip{cfg: cfg, log: cfg.Logger,
		d: newDetector(cfg.Cluster().Self, random()), segments: make(map[string]*segment),
		watchers: make(map[chan cluster.View]bool)}
	g.ctx, g.cancel = context.WithCancel(context.Background())
	g.d.setup(cfg.Cluster(), time.Now())
	g.last = g.d.view()
	return g
}

// Start binds the heartbeat addresses and begins. It fails if a port is in use or a key is bad; a network whose
// address does not exist is tried again every second. It is called once. After an error the Gossip is stopped. The
// time from New to Start counts for nothing.
func (g *Gossip) Start() error {
	g.mu.Lock()
	if g.started || g.ctx.Err() != nil {
		g.mu.Unlock()
		return ErrStopped
	}
	g.started = true
	g.d = newDetector(g.d.self, g.d.boot)
	g.d.setup(g.cfg.Cluster(), time.Now())
	g.mu.Unlock()
	if err := g.resegment(true); err != nil {
		g.Stop()
		return fmt.Errorf("start gossip: %w", err)
	}
	return nil
}

// Update follows a changed configuration: members, networks, keys, detection time. The name of this node and of the
// cluster do not change. Call it after the configuration that Config.Cluster returns has changed. It waits for the
// segments of networks that are gone to close. An error leaves what could be followed followed, and may be tried
// again.
func (g *Gossip) Update() error {
	g.mu.Lock()
	if !g.started || g.ctx.Err() != nil {
		g.mu.Unlock()
		return ErrStopped
	}
	g.d.setup(g.cfg.Cluster(), time.Now())
	g.publish()
	g.mu.Unlock()
	if err := g.resegment(false); err != nil {
		return fmt.Errorf("update gossip: %w", err)
	}
	return nil
}

// resegment makes the segments those of the configuration. The first time it also starts the goroutines and fails if
// a port is in use; later, binding is left to the segments. Old segments are closed before new ones are begun: both
// may want one port.
func (g *Gossip) resegment(first bool) error {
	g.change.Lock()
	defer g.change.Unlock()
	if g.ctx.Err() != nil {
		return ErrStopped
	}
	c := g.cfg.Cluster()
	self, _ := c.Member(c.Self)
	g.mu.Lock()
	var gone []*segment
	var fresh []*segment
	for name, s := range g.segments {
		if !hasNetwork(c, name) || self.Addrs[name] != s.ip || c.Port+1 != s.port {
			gone = append(gone, s)
			delete(g.segments, name)
		}
	}
	for _, n := range c.Networks {
		if g.segments[n.Name] == nil && self.Addrs[n.Name] != "" {
			s := newSegment(g, n.Name, self.Addrs[n.Name], c.Port+1)
			g.segments[n.Name] = s
			fresh = append(fresh, s)
		}
	}
	all := maps.Clone(g.segments)
	g.mu.Unlock()

	for _, s := range gone {
		s.cancel()
		<-s.done
	}
	var errs []error
	for _, s := range all {
		errs = append(errs, s.configure(c))
	}
	if first {
		g.wg.Go(func() { g.beat(g.ctx) })
	}
	for _, s := range fresh {
		if err := s.run(c, first); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// run starts the goroutine of a segment. It starts also after an error: keep tries again until the segment is
// closed.
func (s *segment) run(c cluster.Config, bind bool) error {
	var err error
	if bind {
		// memberlist gives no error value to tell a used port by.
		if err = s.open(c); err != nil && !strings.Contains(err.Error(), "address already in use") {
			s.g.log.Warn("heartbeat network is not there yet", "network", s.name, "err", err)
			err = nil
		}
	}
	ctx, cancel := context.WithCancel(s.g.ctx)
	s.cancel = cancel
	s.g.wg.Go(func() { s.keep(ctx) })
	return err
}

// Stop ends all goroutines without a word to the peers, as a crash would: they
// take a restart within the detection time for a hiccup. It may be called more
// than once. A last probe of memberlist may need another quarter of the detection
// time to end; it does nothing any more.
func (g *Gossip) Stop() {
	g.cancel()
	g.change.Lock() // no segment begins after this
	g.change.Unlock()
	g.wg.Wait()
	g.mu.Lock()
	defer g.mu.Unlock()
	for ch := range g.watchers {
		delete(g.watchers, ch)
		close(ch)
	}
}

// Leave tells the peers that this node stops on purpose, and returns when every peer that answers knows it, or with
// an error when ctx or the detection time has ended: also if one that answered fell silent meanwhile. Stop comes next;
// only a new Gossip returns. Peers that do not answer are not told.
func (g *Gossip) Leave(ctx context.Context) error {
	g.mu.Lock()
	mark, wait := g.d.leave(), g.d.window
	segments := maps.Clone(g.segments)
	g.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	tick := time.NewTicker(wait / 50)
	defer tick.Stop()
	for {
		g.mu.Lock()
		told := g.d.farewell(mark)
		g.mu.Unlock()
		if told {
			break
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("leave: not every peer has heard of it: %w", ctx.Err())
		case <-g.ctx.Done():
			return ErrStopped
		case <-tick.C:
		}
	}
	for _, s := range segments {
		_ = s.leave(wait / 10) // only quiets memberlist; the peers know already
	}
	return nil
}

// View is the present one. It is the caller's to keep.
func (g *Gossip) View() cluster.View {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.d.view()
}

// Watch gives the present view and after each change until ctx ends or Stop, then the channel is closed. A slow
// reader misses pictures but never the latest. The channel is for one reader. The time of Silent alone is no change.
func (g *Gossip) Watch(ctx context.Context) <-chan cluster.View {
	ch := make(chan cluster.View, 1)
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.ctx.Err() != nil {
		close(ch)
		return ch
	}
	ch <- g.d.view()
	g.watchers[ch] = true
	context.AfterFunc(ctx, func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		if g.watchers[ch] {
			delete(g.watchers, ch)
			close(ch)
		}
	})
	return ch
}

// publish gives a changed view to the watchers; g.mu is held. Nobody waits: a view that was not read gives way to
// the new one, and mu keeps two publishers from filling the channel.
func (g *Gossip) publish() {
	v := g.d.view()
	if sameView(v, g.last) {
		return
	}
	g.last = v
	for ch := range g.watchers {
		select {
		case <-ch:
		default:
		}
		ch <- g.d.view() // each its own maps
	}
}

// sameView compares what matters: that a peer is silent, not since when.
func sameView(a, b cluster.View) bool {
	return maps.EqualFunc(a.Peers, b.Peers, func(x, y cluster.PeerView) bool {
		return maps.Equal(x.Paths, y.Paths) && x.Leaving == y.Leaving && x.Quiet == y.Quiet &&
			x.Silent.IsZero() == y.Silent.IsZero()
	})
}

// beat is the goroutine that sends heartbeats and notices silence. Its ticker drops beats that come too late;
// detector.tick sees the gap.
func (g *Gossip) beat(ctx context.Context) {
	g.mu.Lock()
	every := g.d.beat
	g.mu.Unlock()
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		g.round()
		g.mu.Lock()
		if g.d.beat != every {
			every = g.d.beat
			tick.Reset(every)
		}
		g.mu.Unlock()
	}
}

// round is one tick: time, view, one heartbeat per path.
func (g *Gossip) round() {
	type parcel struct {
		s  *segment
		to cluster.NodeID
		b  []byte
	}
	var out []parcel
	g.mu.Lock()
	g.d.tick(time.Now(), random())
	g.publish()
	for name, s := range g.segments {
		for n := range g.d.peers {
			if m, ok := g.d.message(n, name); ok {
				out = append(out, parcel{s, n, m.encode()})
			}
		}
	}
	g.mu.Unlock()
	for _, p := range out {
		p.s.send(p.to, p.b)
	}
}

// random is never 0, which stands for no nonce.
func random() uint64 {
	var b [8]byte
	rand.Read(b[:])
	return binary.BigEndian.Uint64(b[:]) | 1
}

// receive takes a message of a peer; it runs on memberlist's goroutines. The sender is whoever the message names:
// only nodes of the cluster have the key that it was encrypted with.
func (g *Gossip) receive(network string, b []byte) {
	m, err := decodeHeartbeat(b)
	if err != nil {
		g.log.Debug("gossip message dropped", "network", network, "err", err)
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.d.receive(network, m, time.Now())
	g.publish()
}
