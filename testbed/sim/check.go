package sim

import (
	"fmt"
	"time"

	"duet/cluster"
)

// checker watches what must never happen.
type checker struct {
	c       *Cluster
	value   uint64         // of the last write
	acked   [blocks]uint64 // the newest value the guest was promised and may rely on
	flushed [blocks]uint64 // of these, promised to survive power loss of everything
	epoch   uint64         // newest in which a write was acknowledged
	writer  string         // who acknowledged in it
	problem string         // the first violation; empty: none

	last  int64 // when the guest last got an acknowledgement
	pause int64 // the longest time without one since mark
}

func (k *checker) fail(format string, args ...any) {
	if k.problem == "" {
		k.problem = fmt.Sprintf(format, args...)
		k.c.note("VIOLATION: %s", k.problem)
	}
}

// acknowledged: one writer per instant. A write that the new holder has too may be
// acknowledged late by the old one: it takes nothing back.
func (k *checker) acknowledged(p *primary, r *request) {
	now := k.c.w.now
	k.pause, k.last = max(k.pause, now-k.last), now
	switch {
	case p.epoch > k.epoch:
		k.epoch, k.writer = p.epoch, p.n.name
	case p.epoch == k.epoch && p.n.name != k.writer:
		k.fail("%s and %s both acknowledge in epoch %d", k.writer, p.n.name, p.epoch)
	case p.epoch < k.epoch && k.c.nodes[1-p.n.id].disk.cached[r.block] < r.value:
		k.fail("%s acknowledges in epoch %d after %s did in epoch %d", p.n.name, p.epoch, k.writer, k.epoch)
	}
	k.acked[r.block] = max(k.acked[r.block], r.value)
}

func (k *checker) flush(promised [blocks]uint64) {
	for b := range blocks {
		k.flushed[b] = max(k.flushed[b], min(promised[b], k.acked[b]))
	}
}

// read is the guest looking at a block after it has started.
func (k *checker) read(n *Node, block int, value uint64) {
	if value < k.acked[block] {
		k.fail("the guest on %s reads %d in block %d, but %d was acknowledged", n.name, value, block, k.acked[block])
	}
}

// record is what a node keeps.
func (n *Node) record() (r cluster.Record) {
	_, _ = n.store.Load("record", &r) // a record that cannot be read is an empty one
	return r
}

// good: this node's copy has everything acknowledged and was under power since.
func (n *Node) good() bool {
	r := n.record()
	newest := max(r.Epoch, n.c.nodes[1-n.id].record().Epoch)
	return r.Complete == newest && r.Epoch == newest && !r.Cold && !n.lostPower && n.disk.fail == nil
}

// powerCut is told before n loses what is not flushed. If no other copy has it, the
// guest could not rely on it: it did not ask for a flush.
func (k *checker) powerCut(n *Node) {
	if !k.c.nodes[1-n.id].good() {
		k.acked = k.flushed
	}
}

// overridden: an operator chose a copy that may lack acknowledged writes.
func (k *checker) overridden(n *Node) {
	if !n.good() {
		k.acked, k.flushed = [blocks]uint64{}, [blocks]uint64{}
	}
}

// mark begins to measure the longest pause anew.
func (k *checker) mark() { k.pause, k.last = 0, k.c.w.now }

// longest is the longest time without an acknowledgement since mark.
func (k *checker) longest() time.Duration {
	return time.Duration(max(k.pause, k.c.w.now-k.last))
}
