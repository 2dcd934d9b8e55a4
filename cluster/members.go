package cluster

import (
	"fmt"
	"maps"
	"slices"
	"time"
)

// Fact is what nodes and witnesses tell each other of one node: that it is a member, or that
// it was removed. Of two facts about one node the one with the higher Since is newer; one
// without a number is of a release that did not count.
type Fact struct {
	Member
	Gone bool `json:"gone,omitempty"`
	// At is when it was removed, for people: numbers decide, no clock. Zero: not known.
	At time.Time `json:"at,omitzero"`
}

// Facts are the numbered ones, members first.
func (c Config) Facts() []Fact {
	var out []Fact
	for _, m := range c.Members {
		if m.Since > 0 {
			out = append(out, Fact{Member: m})
		}
	}
	return append(out, c.Removed...)
}

// fact is what is known of a node.
func (c Config) fact(n NodeID) (Fact, bool) {
	if m, ok := c.Member(n); ok {
		return Fact{Member: m}, true
	}
	for _, f := range c.Removed {
		if f.Node == n {
			return f, true
		}
	}
	return Fact{}, false
}

// Newer reports whether f replaces o. Two nodes that change the membership without each
// other may give one number to two changes: a removal wins then, and of two computers with
// one name the same one everywhere.
func (f Fact) Newer(o Fact) bool {
	switch {
	case f.Since != o.Since:
		return f.Since > o.Since
	case f.Gone != o.Gone:
		return f.Gone
	case f.Key != o.Key:
		return f.Key > o.Key
	}
	return fmt.Sprint(f.Addrs) > fmt.Sprint(o.Addrs)
}

// newest is the highest number of any change.
func (c Config) newest() (out uint64) {
	for _, f := range c.Facts() {
		out = max(out, f.Since)
	}
	return out
}

// Admit makes m a member by a new change; one that is a member with that key stays as it is.
func (c *Config) Admit(m Member) {
	if have, ok := c.Member(m.Node); ok && have.Key == m.Key && maps.Equal(have.Addrs, m.Addrs) {
		return
	}
	m.Since = c.newest() + 1
	c.put(Fact{Member: m})
}

// Remove takes a member off by a new change, which is made now.
func (c *Config) Remove(n NodeID, now time.Time) {
	if m, ok := c.Member(n); ok {
		c.put(Fact{Member: Member{Node: n, Key: m.Key, Since: c.newest() + 1}, Gone: true, At: now})
	}
}

// Missed are the nodes that were removed since the last one joined.
func (c Config) Missed() []Fact {
	var joined uint64
	for _, m := range c.Members {
		joined = max(joined, m.Since)
	}
	return slices.DeleteFunc(slices.Clone(c.Removed), func(f Fact) bool { return f.Since < joined })
}

// Learn takes over a fact that is newer than what is known, and reports whether it was. A
// node does not learn that it was removed itself: the others do not let it in any more.
func (c *Config) Learn(f Fact) bool {
	have, known := c.fact(f.Node)
	switch {
	case f.Gone && f.Node == c.Self:
		return false
	case f.Since == 0 && f.Gone: // of an older release, as the next one
		if known && have.Gone {
			return false
		}
	case f.Since == 0:
		if known && !have.Gone && maps.Equal(have.Addrs, f.Addrs) {
			return false
		}
	case known && !f.Newer(have):
		return false
	}
	c.put(f)
	return true
}

// put replaces what is known of a node; what c refers to is not changed. So a copy of a Config may be changed while
// others read the one before. The fence devices of a computer go with it: they would switch off the wrong one once
// another has its name, and confirm that.
func (c *Config) put(f Fact) {
	if have, ok := c.Member(f.Node); f.Gone || !ok || have.Key != f.Key {
		c.Fence = maps.Clone(c.Fence)
		delete(c.Fence, f.Node)
	}
	c.Members = slices.DeleteFunc(slices.Clone(c.Members), func(m Member) bool { return m.Node == f.Node })
	c.Removed = slices.DeleteFunc(slices.Clone(c.Removed), func(o Fact) bool { return o.Node == f.Node })
	switch {
	case !f.Gone:
		c.Members = append(c.Members, f.Member)
	case f.Since > 0:
		c.Removed = append(c.Removed, f)
	}
}

// Trusts reports whether a node that shows a certificate with that key is a member.
func (c Config) Trusts(n NodeID, key string) bool {
	m, ok := c.Member(n)
	return ok && (m.Key == "" || m.Key == key)
}

// gossipKey is the size of a key of heartbeats, in bytes.
const gossipKey = 32

// NextKeys is the configuration with the next step of the exchange of the key of heartbeats,
// which follows each removal: the new key can be read, then all write with it, then the old one
// is no longer read. A step is taken only when all members have stored the one before, so
// that none is cut off; one of them takes it. ok is false if nothing is to be done.
func (c Config) NextKeys(fresh func() []byte) (next Config, ok bool) {
	if len(c.GossipKeys) == 0 {
		return c, false
	}
	keys := c.GossipKeys
	switch c.GossipStep % 3 {
	case 0:
		removed := uint64(0)
		for _, f := range c.Removed {
			removed = max(removed, f.Since)
		}
		if removed <= c.GossipFor {
			return c, false
		}
		c.GossipKeys, c.GossipFor = [][]byte{keys[0], fresh()}, removed
	case 1:
		c.GossipKeys = [][]byte{keys[len(keys)-1], keys[0]}
	case 2:
		c.GossipKeys = [][]byte{keys[0]}
	}
	c.GossipStep++
	return c, true
}

// Exchange is what two nodes tell each other when they meet, so that both know of every
// change of the membership.
type Exchange struct {
	Facts      []Fact   `json:"facts"`
	GossipKeys [][]byte `json:"gossip_keys"`
	GossipStep uint64   `json:"gossip_step"`
	GossipFor  uint64   `json:"gossip_for"`
	// Of releases that can change them, once they were changed.
	Ping     []string `json:"ping,omitempty"`
	PingStep uint64   `json:"ping_step,omitempty"`
}

// Exchange is what this node has to tell.
func (c Config) Exchange() Exchange {
	x := Exchange{Facts: c.Facts(), GossipKeys: c.GossipKeys, GossipStep: c.GossipStep, GossipFor: c.GossipFor}
	if c.PingStep > 0 {
		x.Ping, x.PingStep = c.Ping, c.PingStep
	}
	return x
}

// SetPing exchanges the ping targets, which belong to the configuration from then on; none: the default gateway.
func (c *Config) SetPing(targets []string) { c.Ping, c.PingStep = targets, c.PingStep+1 }

// Take learns what is newer, and reports whether anything was.
func (c *Config) Take(x Exchange) (news bool) {
	for _, f := range x.Facts {
		news = c.Learn(f) || news
	}
	if x.GossipStep > c.GossipStep {
		c.GossipKeys, c.GossipStep, c.GossipFor, news = x.GossipKeys, x.GossipStep, x.GossipFor, true
	}
	// Of two changes that were made at once any will do, if it is the same for all.
	if x.PingStep > c.PingStep || x.PingStep == c.PingStep && x.PingStep > 0 && slices.Compare(x.Ping, c.Ping) > 0 {
		c.Ping, c.PingStep, news = x.Ping, x.PingStep, true
	}
	return news
}

// maxFacts bounds what a node is told at once: far more nodes than a cluster has ever had.
const maxFacts = 1000

// Check refuses what no configuration may hold.
func (x Exchange) Check() error {
	if len(x.Facts) > maxFacts || len(x.GossipKeys) < 1 || len(x.GossipKeys) > 2 {
		return fmt.Errorf("%d facts and %d keys", len(x.Facts), len(x.GossipKeys))
	}
	for _, f := range x.Facts {
		if err := f.Check(); err != nil {
			return err
		}
	}
	for _, k := range x.GossipKeys {
		if len(k) != gossipKey {
			return fmt.Errorf("a key of heartbeats has %d bytes", len(k))
		}
	}
	return CheckPing(x.Ping)
}
