package cluster

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

func key(i byte) []byte { return bytes.Repeat([]byte{i}, gossipKey) }

func town(self NodeID) Config {
	return Config{Self: self, GossipKeys: [][]byte{key(0)},
		Members: []Member{{Node: "alpha", Key: "a"}, {Node: "beta", Key: "b", Since: 1}}}
}

func TestMembershipChanges(t *testing.T) {
	c := town("alpha")
	if !c.Trusts("beta", "b") || c.Trusts("beta", "x") || c.Trusts("gamma", "") {
		t.Error("beta is not trusted by its key")
	}
	c.Remove("beta", time.Now())
	if c.Trusts("beta", "b") || len(c.Removed) != 1 {
		t.Errorf("after the removal: %+v", c)
	}
	late := Fact{Member: Member{Node: "beta", Key: "b", Since: 1}}
	if c.Learn(late) || c.Trusts("beta", "b") {
		t.Error("late news made it a member again")
	}
	c.Admit(Member{Node: "beta", Key: "new"})
	if !c.Trusts("beta", "new") || c.Trusts("beta", "b") || len(c.Removed) != 0 {
		t.Errorf("after it joined anew: %+v", c)
	}
	before := c
	c.Admit(Member{Node: "beta", Key: "new"}) // its answer was lost
	if !reflect.DeepEqual(c, before) {
		t.Errorf("repeated: %+v", c)
	}
	if c.Learn(Fact{Member: Member{Node: "alpha", Since: 99}, Gone: true}) {
		t.Error("a node removed itself")
	}
	old := town("alpha")
	if !old.Learn(Fact{Member: Member{Node: "beta"}, Gone: true}) || old.Trusts("beta", "b") { // of version 1
		t.Errorf("a removal without a number: %+v", old)
	}
	if !old.Learn(Fact{Member: Member{Node: "gamma"}}) || !old.Trusts("gamma", "any") {
		t.Errorf("an admission without a number: %+v", old)
	}
}

// TestMissed: who was removed is missed, with the time of it, until another node joins, under whatever name.
func TestMissed(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, name := range []NodeID{"beta", "gamma"} {
		c, peer := town("alpha"), town("delta")
		if got := c.Missed(); len(got) != 0 {
			t.Errorf("nobody was removed: %+v", got)
		}
		c.Remove("beta", at)
		peer.Take(c.Exchange())
		for _, c := range []Config{c, peer} {
			if got := c.Missed(); len(got) != 1 || got[0].Node != "beta" || !got[0].At.Equal(at) {
				t.Errorf("beta was removed: %+v", got)
			}
		}
		c.Admit(Member{Node: name, Key: "new"})
		if got := c.Missed(); len(got) != 0 {
			t.Errorf("%s has joined: %+v", name, got)
		}
	}
}

// TestFenceDevicesGoWithTheComputer: whoever has the name next would be taken for off when the old devices say so.
func TestFenceDevicesGoWithTheComputer(t *testing.T) {
	with := func(change func(c *Config)) (devices string) {
		c := town("alpha")
		before := map[NodeID]json.RawMessage{"beta": json.RawMessage(`"old"`), "alpha": json.RawMessage(`"mine"`)}
		c.Fence = before
		change(&c)
		if len(before) != 2 || string(c.Fence["alpha"]) != `"mine"` {
			t.Errorf("others have %s, who reads the configuration before %s", c.Fence, before)
		}
		return string(c.Fence["beta"])
	}
	other := Fact{Member: Member{Node: "beta", Key: "new", Since: 3}}
	for what, change := range map[string]func(c *Config){
		"removed":               func(c *Config) { c.Remove("beta", time.Now()) },
		"removed elsewhere":     func(c *Config) { c.Learn(Fact{Member: Member{Node: "beta", Since: 2}, Gone: true}) },
		"the removal is missed": func(c *Config) { c.Learn(other) },
		"a release before this one kept them": func(c *Config) {
			kept := c.Fence
			c.Remove("beta", time.Now())
			c.Fence = kept
			c.Learn(other)
		},
	} {
		if got := with(change); got != "" {
			t.Errorf("%s: there are still %s", what, got)
		}
	}
	moved := Fact{Member: Member{Node: "beta", Key: "b", Since: 3, Addrs: map[string]string{"hb1": "10.0.0.9"}}}
	if with(func(c *Config) { c.Learn(moved) }) == "" {
		t.Error("they are forgotten although the computer is the same")
	}
}

// TestEverybodyComesToTheSame: whatever order nodes meet in, all that meet know the same.
func TestEverybodyComesToTheSame(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 1))
		all := []Config{town("alpha"), town("beta")}
		names := []NodeID{"gamma", "delta"}
		for i := range 20 {
			c := &all[r.IntN(2)]
			switch name := names[r.IntN(2)]; r.IntN(4) {
			case 3:
				c.SetPing([]string{fmt.Sprint("10.0.0.", i)}[:r.IntN(2)])
			case 0:
				c.Admit(Member{Node: name, Key: fmt.Sprint(i)})
			case 1:
				c.Remove(name, time.Now())
			case 2:
				all[0].Take(all[1].Exchange())
			}
		}
		all[0].Take(all[1].Exchange())
		all[1].Take(all[0].Exchange())
		same := func(c Config) string {
			facts := c.Facts()
			slices.SortFunc(facts, func(a, b Fact) int { return bytes.Compare([]byte(a.Node), []byte(b.Node)) })
			var out string
			for _, f := range facts {
				out += fmt.Sprintf("%s %d %v; ", f.Node, f.Since, f.Gone)
			}
			return out + strings.Join(c.Ping, " ")
		}
		if a, b := same(all[0]), same(all[1]); a != b {
			t.Fatalf("seed %d: %s\n%s", seed, a, b)
		}
		if all[0].Take(all[1].Exchange()) || all[1].Take(all[0].Exchange()) {
			t.Fatalf("seed %d: there is news for ever", seed)
		}
	}
}

// TestKeysAreExchanged: at every moment each node can read what every other one writes, and in
// the end nobody reads what the removed node could write.
func TestKeysAreExchanged(t *testing.T) {
	nodes := []Config{town("alpha"), town("gamma")}
	if _, ok := nodes[0].NextKeys(nil); ok {
		t.Fatal("the key is exchanged for nothing")
	}
	nodes[0].Remove("beta", time.Now())
	nodes[1].Take(nodes[0].Exchange())
	for steps := 0; ; steps++ {
		next, ok := nodes[0].NextKeys(func() []byte { return key(7) })
		if !ok {
			if steps != 3 {
				t.Errorf("%d steps", steps)
			}
			break
		}
		for _, pair := range [][2]Config{{next, nodes[1]}, {nodes[1], next}} {
			if !slices.ContainsFunc(pair[1].GossipKeys, func(k []byte) bool { return bytes.Equal(k, pair[0].GossipKeys[0]) }) {
				t.Fatalf("step %d: %x is written and not read", steps, pair[0].GossipKeys[0][:1])
			}
		}
		nodes[0] = next
		nodes[1].Take(next.Exchange())
	}
	for _, c := range nodes {
		if len(c.GossipKeys) != 1 || !bytes.Equal(c.GossipKeys[0], key(7)) {
			t.Errorf("%s has keys %x", c.Self, c.GossipKeys)
		}
	}
}
