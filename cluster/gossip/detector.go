package gossip

import (
	"time"

	"duet/cluster"
)

// rounds is how many nonces are remembered: more than one detection time of them.
const rounds = 64

// detector decides which paths answer. It is a value without lock, clock or I/O:
// the caller gives it the time and carries its messages.
type detector struct {
	self    cluster.NodeID
	beat    time.Duration // between ticks
	window  time.Duration // a path without proof for so long is down
	leaving bool          // said in each message from now on; it is never taken back
	boot    uint64        // random: tells this run of the node from the others

	// listened is how long this node has run and listened; silence is measured on
	// it, so that a freeze of this node is no silence of the others.
	listened time.Duration
	lastTick time.Time
	pardoned time.Duration // when suspicion was last restarted, on listened
	nonces   [rounds]nonce // a ring
	next     int           // rounds so far: the newest nonce is the one before

	peers map[cluster.NodeID]*peer // of the configuration: others are not listened to
}

// nonce is a number this node has sent out, and when, on listened.
type nonce struct {
	value uint64
	at    time.Duration
}

// peer is what is known of another node.
type peer struct {
	paths map[string]*path // by network
	boot  uint64           // the run of it that was heard last
	left  uint64           // the run of it that said it leaves; this is final for that run
	added time.Duration    // on listened
	heard time.Time        // the last proof, or when it was added
	met   bool             // it answered this run of this node once
	await bool             // it answered when this node began to leave
}

// path is one network to one peer.
type path struct {
	up    bool
	proof time.Duration // when the newest nonce that came back was made, on listened; below zero: none did
	spare time.Duration // silence counts from here, if that is later; no proof of anything
	echo  uint64        // the nonce to send back
}

// since is from when the silence of the path counts.
func (t *path) since() time.Duration { return max(t.proof, t.spare) }

func newDetector(self cluster.NodeID, boot uint64) *detector {
	return &detector{self: self, boot: boot, peers: make(map[cluster.NodeID]*peer)}
}

// setup follows a configuration: its detection time, its peers and their networks. Peers and paths that stay keep
// what is known of them. A new peer has a whole window before it counts as silent.
func (d *detector) setup(c cluster.Config, now time.Time) {
	detection := c.Detection
	if detection <= 0 {
		detection = cluster.DefaultDetection
	}
	d.beat = max(detection/20, 5*time.Millisecond)
	d.window = detection * 85 / 100
	if d.lastTick.IsZero() {
		d.lastTick = now
		d.pardoned = -4 * d.window
	}
	want := make(map[cluster.NodeID]bool)
	for _, m := range c.Members {
		if m.Node == d.self {
			continue
		}
		want[m.Node] = true
		p := d.peers[m.Node]
		if p == nil {
			p = &peer{paths: make(map[string]*path), added: d.listened, heard: now}
			d.peers[m.Node] = p
		}
		p.setup(c, m)
	}
	for n := range d.peers {
		if !want[n] {
			delete(d.peers, n)
		}
	}
}

// setup follows the networks of a member. A new path is down until it is proven.
func (p *peer) setup(c cluster.Config, m cluster.Member) {
	for _, n := range c.Networks {
		if m.Addrs[n.Name] != "" && p.paths[n.Name] == nil {
			p.paths[n.Name] = &path{proof: -1}
		}
	}
	for name := range p.paths {
		if m.Addrs[name] == "" || !hasNetwork(c, name) {
			delete(p.paths, name)
		}
	}
}

func hasNetwork(c cluster.Config, name string) bool {
	for _, n := range c.Networks {
		if n.Name == name {
			return true
		}
	}
	return false
}

// tick advances the time, takes note of the nonce of this round and of paths that have gone down. Time counts at
// most two beats for each tick: for the rest this node did not listen.
func (d *detector) tick(now time.Time, value uint64) {
	gap := now.Sub(d.lastTick)
	d.lastTick = now
	d.listened += min(gap, 2*d.beat)
	// After a long stall suspicion begins anew. Not each time: a node that stalls
	// all the time must find out in the end too.
	if gap > d.window/2 && d.listened-d.pardoned > 3*d.window {
		d.pardoned = d.listened
		d.pardon()
	}
	d.nonces[d.next%rounds] = nonce{value, d.listened}
	d.next++
	for _, p := range d.peers {
		for _, t := range p.paths {
			if t.up && d.listened-t.since() > d.window {
				t.up = false
			}
		}
	}
}

// pardon gives every peer a whole window from now on, over each path that is up.
func (d *detector) pardon() {
	for _, p := range d.peers {
		p.added = d.listened
		for _, t := range p.paths {
			if t.up {
				t.spare = d.listened
			}
		}
	}
}

// message is what to send to a peer on a network in this round; false if there is
// no such path.
func (d *detector) message(to cluster.NodeID, network string) (heartbeat, bool) {
	p := d.peers[to]
	if p == nil || p.paths[network] == nil || d.next == 0 {
		return heartbeat{}, false
	}
	return heartbeat{from: d.self, boot: d.boot, nonce: d.nonces[(d.next-1)%rounds].value,
		echo: p.paths[network].echo, leaving: d.leaving}, true
}

// receive takes a message that came in on a network. Only an echo that is newer than the last proof tells of the
// peer's run: a repeated message may be of an earlier one. A proof older than the window does not bring a path up.
func (d *detector) receive(network string, m heartbeat, now time.Time) {
	p := d.peers[m.from]
	if p == nil || p.paths[network] == nil {
		return
	}
	t := p.paths[network]
	at, mine := d.made(m.echo)
	if !mine || at < t.proof {
		// No proof. On a path that is down its nonce may begin the exchange; on one
		// that is up it may be a repetition, and echoing it would stop the exchange.
		if !t.up {
			t.echo = m.nonce
		}
		return
	}
	newer := at > t.proof
	t.proof, t.echo = at, m.nonce
	if !newer {
		return
	}
	if d.listened-at <= d.window {
		t.up, p.met = true, true
		p.heard = now
	}
	p.boot = m.boot
	if m.leaving {
		p.left = m.boot
	}
}

// made tells when this node made a nonce, on listened. Nonces are 63 random bits and fresh: who sends one back has
// got it.
func (d *detector) made(value uint64) (time.Duration, bool) {
	for i := range min(d.next, rounds) {
		if d.nonces[i].value == value {
			return d.nonces[i].at, true
		}
	}
	return 0, false
}

// leave has each message from now on say that this node leaves; see farewell.
func (d *detector) leave() (mark time.Duration) {
	d.leaving = true
	for _, p := range d.peers {
		p.await = p.up()
	}
	return d.listened
}

// up reports whether a path to the peer answers.
func (p *peer) up() bool {
	for _, t := range p.paths {
		if t.up {
			return true
		}
	}
	return false
}

// farewell reports whether every peer that answered at leave, or answers now, has got a message made after mark. One
// that does not answer is not waited for; one that fell silent meanwhile has not heard. A nonce made after mark went
// out with the word that this node leaves, so its echo proves that the word arrived.
func (d *detector) farewell(mark time.Duration) bool {
	for _, p := range d.peers {
		told := false
		for _, t := range p.paths {
			told = told || t.proof > mark
		}
		if !told && (p.await || p.up()) {
			return false
		}
	}
	return true
}

// view is the state as of the last tick or message. The maps are new: the caller may keep them.
func (d *detector) view() cluster.View {
	v := cluster.View{Self: d.self, Peers: make(map[cluster.NodeID]cluster.PeerView, len(d.peers))}
	for n, p := range d.peers {
		pv := cluster.PeerView{Paths: make(map[string]bool, len(p.paths)), Leaving: p.boot != 0 && p.left == p.boot}
		up := false
		pv.Quiet = p.met
		for name, t := range p.paths {
			pv.Paths[name] = t.up
			up = up || t.up
			pv.Quiet = pv.Quiet && d.listened-t.since() > d.window*2/5
		}
		// A peer not met yet has the same time to answer as one that falls silent.
		if !up && (p.met || d.listened-p.added > d.window) {
			pv.Silent = p.heard
		}
		v.Peers[n] = pv
	}
	return v
}
