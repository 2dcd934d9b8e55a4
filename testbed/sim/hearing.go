package sim

import (
	"time"

	"duet/cluster"
)

// detection is the time after which a silent peer is suspected. It stands for the detection time of a cluster;
// the engine's own times follow from it by DefaultTimes.
const detection = 2 * time.Second

// quiet is when a peer that is silent on all paths is not waited for any more.
const quiet = detection / 3

// hearing is what a node knows of the other by heartbeats. A view is made anew only when what it is made of has
// changed, as engines compare views. It stands in gossip's place, without its messages: reach is computed from
// what is true, and only the delays are gossip's. Kinder: nothing is lost on the way and there is one path.
// Harsher: see view.
type hearing struct {
	reach  bool         // the other is within reach now
	heard  int64        // when it last was
	seen   cluster.View // last answer of view
	seenAt sight        // and what it was made of
}

// sight is what a view depends on.
type sight struct {
	quiet   bool
	silent  bool
	heard   int64
	leaving bool
	skew    time.Duration
}

// silentFor is for how long the other was out of reach; 0 if it is within.
func (h *hearing) silentFor(now int64) time.Duration {
	if h.reach {
		return 0
	}
	return time.Duration(now - h.heard)
}

// answers reports whether heartbeats are answered.
func (n *Node) answers() bool { return n.proc != nil && !n.proc.frozen }

// touch notes who is within reach of whom, after something changed. Whatever changes a process, a computer or a
// cut of the control network has to call it. Both directions count: gossip believes an answer only. Engines are
// told when their view may have changed, 50 ms late.
func (c *Cluster) touch() {
	for i, n := range c.nodes {
		o := c.nodes[1-i]
		was := n.ear.reach
		n.ear.reach = n.answers() && o.answers() && c.passes(control, i, 1-i) && c.passes(control, 1-i, i)
		if was || n.ear.reach {
			n.ear.heard = c.w.now
		}
		if n.engine == nil || was == n.ear.reach {
			continue
		}
		e, wait := n.engine, 50*time.Millisecond
		if was {
			c.w.at(wait+quiet, n.proc, e.ViewChanged)
			wait += detection
		}
		c.w.at(wait, n.proc, e.ViewChanged)
	}
}

// view is what heartbeats say. A node that was itself frozen begins to listen anew if its peer is within reach
// when it is thawed. If it is not, the time since the freeze counts as silence: harsher than gossip, which
// counts only what it has listened.
func (n *Node) view(other cluster.NodeID) cluster.View {
	silent := n.ear.silentFor(n.c.w.now)
	at := sight{
		quiet: silent >= quiet, silent: silent >= detection,
		leaving: n.c.nodes[1-n.id].exit.told, skew: n.proc.skew,
	}
	if at.silent {
		at.heard = n.ear.heard
	}
	if n.ear.seen.Self != "" && n.ear.seenAt == at {
		return n.ear.seen
	}
	v := cluster.PeerView{Paths: map[string]bool{"hb1": !at.silent}, Leaving: at.leaving, Quiet: at.quiet}
	if at.silent {
		v.Silent = n.proc.Now().Add(-silent)
	}
	n.ear.seen = cluster.View{
		Self: cluster.NodeID(n.name), Peers: map[cluster.NodeID]cluster.PeerView{other: v},
	}
	n.ear.seenAt = at
	return n.ear.seen
}
