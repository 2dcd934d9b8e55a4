package gossip

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"

	"duet/cluster"
)

// joinEvery is how often a missing member, or a missing network, is tried again.
const joinEvery = time.Second

// segment is the memberlist instance of one network. Its address and port never
// change; for others a new segment is made.
type segment struct {
	name string
	ip   string
	port int
	g    *Gossip

	cancel context.CancelFunc
	done   chan struct{} // closed when keep has ended

	life sync.Mutex // Leave must not meet Shutdown

	mu    sync.Mutex
	ml    *memberlist.Memberlist // nil while the address does not exist
	ring  *memberlist.Keyring
	addrs map[cluster.NodeID]string // of the peers, "ip:port"
}

func newSegment(g *Gossip, name, ip string, port int) *segment {
	return &segment{name: name, ip: ip, port: port, g: g, done: make(chan struct{})}
}

// configure follows the peers and the keys of a configuration. Heartbeats go to the new addresses from the next
// round on.
func (s *segment) configure(c cluster.Config) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.addrs = make(map[cluster.NodeID]string)
	for _, m := range c.Members {
		if a := m.Addrs[s.name]; a != "" && m.Node != c.Self {
			s.addrs[m.Node] = net.JoinHostPort(a, strconv.Itoa(s.port))
		}
	}
	return s.setKeys(c.GossipKeys)
}

// setKeys makes keys[0] the one to encrypt with and all of them good to decrypt. All are there before the first is
// used and the rest is removed: the ring refuses to lose the key that it writes with.
func (s *segment) setKeys(keys [][]byte) error {
	if len(keys) == 0 {
		return errors.New("no gossip key: heartbeats must be encrypted")
	}
	if s.ring == nil {
		ring, err := memberlist.NewKeyring(keys, keys[0])
		s.ring = ring
		return err
	}
	for _, k := range keys {
		if err := s.ring.AddKey(k); err != nil {
			return err
		}
	}
	if err := s.ring.UseKey(keys[0]); err != nil {
		return err
	}
	for _, old := range slices.Clone(s.ring.GetKeys()) {
		if slices.ContainsFunc(keys, func(k []byte) bool { return bytes.Equal(k, old) }) {
			continue
		}
		if err := s.ring.RemoveKey(old); err != nil {
			return err
		}
	}
	return nil
}

// open binds the address.
func (s *segment) open(c cluster.Config) error {
	conf := s.settings(c)
	if s.g.transport != nil { // a network in memory
		t, err := s.g.transport(s.ip, s.port)
		if err != nil {
			return err
		}
		conf.Transport = t
	}
	ml, err := memberlist.Create(conf)
	if err != nil {
		return fmt.Errorf("heartbeat network %s (%s): %w", s.name, s.ip, err)
	}
	s.mu.Lock()
	s.ml = ml
	s.mu.Unlock()
	return nil
}

// settings are memberlist's. Its own idea of who is dead is not asked for anything but whom to join, so it is kept
// quick and quiet: no indirect probes, no retries by TCP. The label keeps clusters and networks apart that reach
// each other.
func (s *segment) settings(c cluster.Config) *memberlist.Config {
	detection := c.Detection
	if detection <= 0 {
		detection = cluster.DefaultDetection
	}
	conf := memberlist.DefaultLANConfig()
	conf.Name, conf.Label = string(c.Self), c.Name+"/"+s.name
	conf.BindAddr, conf.AdvertiseAddr, conf.BindPort, conf.AdvertisePort = s.ip, s.ip, s.port, s.port
	conf.ProbeInterval, conf.ProbeTimeout = detection/4, detection/8
	conf.SuspicionMult, conf.SuspicionMaxTimeoutMult = 2, 1
	conf.IndirectChecks, conf.DisableTcpPings, conf.AwarenessMaxMultiplier = 0, true, 1
	conf.GossipInterval, conf.RetransmitMult, conf.PushPullInterval = detection/20, 2, 5*time.Second
	conf.TCPTimeout, conf.GossipToTheDeadTime, conf.DeadNodeReclaimTime = detection/4, 10*time.Second, time.Second
	conf.EnableCompression, conf.Keyring = false, s.ring
	conf.Delegate = delegate{s}
	conf.Logger = log.New(logWriter{s.g.log, s.name}, "", 0)
	return conf
}

// keep opens the network when its address appears, joins members that are
// missing, because memberlist never does by itself, and ends with ctx.
func (s *segment) keep(ctx context.Context) {
	defer close(s.done)
	tick := time.NewTicker(joinEvery)
	defer tick.Stop()
	for {
		if s.list() == nil {
			if err := s.open(s.g.cfg.Cluster()); err != nil {
				s.g.log.Debug("heartbeat network is not there", "network", s.name, "err", err)
			}
		}
		if ml := s.list(); ml != nil {
			s.join(ctx, ml)
		}
		select {
		case <-ctx.Done():
			s.close()
			return
		case <-tick.C:
		}
	}
}

func (s *segment) list() *memberlist.Memberlist {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ml
}

// peers returns the addresses by node; the map is not changed later.
func (s *segment) peers() map[cluster.NodeID]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.addrs
}

// join blocks for TCPTimeout per member that does not answer, on the goroutine of keep: heartbeats do not wait for
// it.
func (s *segment) join(ctx context.Context, ml *memberlist.Memberlist) {
	have := make(map[string]bool)
	for _, m := range ml.Members() {
		have[m.Name] = true
	}
	for n, addr := range s.peers() {
		if !have[string(n)] && ctx.Err() == nil {
			_, _ = ml.Join([]string{string(n) + "/" + addr}) // tried again in a second
		}
	}
}

// send gives a packet to a peer; a lost one is what heartbeats are there to find. It needs no membership: heartbeats
// go to the address of the configuration, also before memberlist has joined.
func (s *segment) send(to cluster.NodeID, b []byte) {
	if ml, addr := s.list(), s.peers()[to]; ml != nil && addr != "" {
		_ = ml.SendToAddress(memberlist.Address{Addr: addr, Name: string(to)}, b)
	}
}

// leave says goodbye to memberlist, so that it does not suspect us afterwards.
func (s *segment) leave(timeout time.Duration) error {
	s.life.Lock()
	defer s.life.Unlock()
	if ml := s.list(); ml != nil {
		return ml.Leave(timeout)
	}
	return nil
}

func (s *segment) close() {
	s.life.Lock()
	defer s.life.Unlock()
	s.mu.Lock()
	ml := s.ml
	s.ml = nil
	s.mu.Unlock()
	if ml != nil {
		_ = ml.Shutdown() // never fails
	}
}

// delegate is the face towards memberlist. Its methods run on memberlist's
// goroutines and do not call back into it.
type delegate struct{ s *segment }

func (d delegate) NodeMeta(int) []byte             { return nil }
func (d delegate) NotifyMsg(b []byte)              { d.s.g.receive(d.s.name, b) }
func (d delegate) GetBroadcasts(_, _ int) [][]byte { return nil }
func (d delegate) LocalState(bool) []byte          { return nil }
func (d delegate) MergeRemoteState([]byte, bool)   {}

// logWriter turns memberlist's lines into debug records: what matters of them
// shows in the View.
type logWriter struct {
	log     *slog.Logger
	network string
}

var _ io.Writer = logWriter{}

func (w logWriter) Write(p []byte) (int, error) {
	w.log.Debug(string(bytes.TrimSpace(p)), "network", w.network)
	return len(p), nil
}
