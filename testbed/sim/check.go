package sim

import (
	"fmt"
	"time"

	"duet/blockrepl"
	"duet/cluster"
)

// checker watches what must never happen. It sees both nodes at the same instant and stops a run at its first
// finding. Everything it knows comes from what guests were told, what disks hold and what records say.
type checker struct {
	c       *Cluster
	value   uint64            // of the last write
	count   uint64            // acknowledged writes
	apart   bool              // two writers are what the script is about: versions are kept, not compared
	acked   [blocks]uint64    // the newest value the guest was promised and may rely on
	flushed [blocks]uint64    // of these, promised to survive power loss of everything
	epoch   uint64            // newest in which a write was acknowledged
	writer  string            // who acknowledged in it
	began   [2][blocks]uint64 // what each node's copy had when it began to count
	past    [2]int            // newest life of each node's guest that was followed by one on the other
	problem string            // the first violation; empty: none

	health  health
	disks   bool // only disks go wrong: no VM ends for what its guest did not meet
	calm    int  // transitions of a node in one second that are too many; 0: none are
	second  [2]int64
	changes [2]int

	last    int64 // when the guest last got an answer, or ended a thought
	pause   int64 // the longest time it waited for its disk, or was down, since mark
	resting bool  // it thinks: that is no pause
}

func (k *checker) fail(format string, args ...any) {
	if k.problem == "" {
		k.problem = fmt.Sprintf(format, args...)
		k.c.note("VIOLATION: %s", k.problem)
	}
}

// acknowledged: one writer per instant. A write that the new holder has too may be acknowledged late by the old
// one: it takes nothing back. It is called before the guest learns of it. A write counts for the newest epoch
// that anybody was granted; one of an older epoch is right only if the newer holder's copy has it, or had it
// when it began to count (rule 2).
func (k *checker) acknowledged(n *Node, epoch uint64, r *request) {
	k.answered()
	k.count++
	if k.apart {
		return
	}
	o := k.c.nodes[1-n.id]
	switch {
	case epoch < max(k.epoch, uint64(o.store.epoch)):
		held := o.disk.now()[r.block]
		if max(held, k.began[o.id][r.block]) < r.value && !k.harmed(r.block) {
			k.fail("%s acknowledges in epoch %d what %s, who has epoch %d, never had", n.name, epoch, o.name, o.store.epoch)
		}
		if held < r.value || k.harmed(r.block) {
			return // it had it, and has lost it with its power before the acknowledgement
		}
	case epoch > k.epoch:
		k.epoch, k.writer = epoch, n.name
		k.lives(n)
	case n.name != k.writer:
		k.fail("%s and %s both acknowledge in epoch %d", k.writer, n.name, epoch)
	default:
		k.lives(n)
	}
	k.acked[r.block] = max(k.acked[r.block], r.value)
}

// lives: a guest that another one has followed never gets on. What it remembers of the disk is not what is
// there. A guest that was paused, overtaken and let go on would write by what it remembers.
func (k *checker) lives(n *Node) {
	life := n.guest.life
	if life <= k.past[n.id] {
		k.fail("the guest on %s goes on with what it remembers, although the one on %s has written since", n.name,
			k.c.nodes[1-n.id].name)
	}
	o := k.c.nodes[1-n.id]
	k.past[o.id] = o.guest.life
}

// transition counts how often a node changes its mind.
func (k *checker) transition(n *Node) {
	if k.health.look(k.c); k.health.since != 0 && !k.c.settled() {
		k.separated()
	}
	if k.calm == 0 {
		return
	}
	if second := k.c.w.now / int64(time.Second); second != k.second[n.id] {
		k.second[n.id], k.changes[n.id] = second, 0
	}
	if k.changes[n.id]++; k.changes[n.id] > k.calm {
		k.fail("%s changes its state more than %d times in a second", n.name, k.calm)
	}
}

// answered ends a wait of the guest, begins ends a thought.
func (k *checker) answered() {
	if !k.resting {
		k.waited(k.last)
	}
	k.pause, k.last, k.resting = int64(k.longest()), k.c.w.now, true
}

func (k *checker) begins() {
	if k.resting {
		k.last, k.resting = k.c.w.now, false
	}
}

// flush: acknowledged and then flushed is what must survive the loss of both powers; acknowledged alone survives
// one.
func (k *checker) flush(promised [blocks]uint64) {
	for b := range blocks {
		k.flushed[b] = max(k.flushed[b], min(promised[b], k.acked[b]))
	}
}

// read is the guest looking at a block after it has started. A node that was frozen and
// does not know yet that another one took over may show what it has (cluster/DESIGN.md,
// "Not covered"): nothing that it writes is acknowledged.
func (k *checker) read(n *Node, r *request) {
	if r.value < k.acked[r.block] && !k.apart && !k.harmed(r.block) && r.epoch >= k.epoch {
		k.fail("the guest on %s reads %d in block %d, but %d was acknowledged", n.name, r.value, r.block, k.acked[r.block])
	}
}

// record is what a node keeps.
func (n *Node) record() (r cluster.Record) {
	_, _ = n.store.Load("record", &r) // a record that cannot be read is an empty one
	return r
}

// granted: a copy that lost power gets the right to write. Where the policy prefers that to waiting for a peer
// that does not answer, it may lack what was not flushed. cold_start trades that away, and says so in its
// policy; what was flushed must be there all the same.
func (k *checker) granted(n *Node) {
	if n.cold && !n.ear.reach && k.c.module.Policy.ColdStart > 0 {
		k.acked = k.flushed
	}
}

// same: the copies of a pair that is in step hold the same, but for what the guest is writing, and for what a
// disk wrote wrong without saying so. It is asked when scripts settle, not at each step: a write is on one copy
// first.
func (k *checker) same() {
	a, b := k.c.nodes[0], k.c.nodes[1]
	if !k.c.settled() {
		return
	}
	for _, block := range differing(&a.disk, &b.disk) {
		if !a.guest.writes(block) && !b.guest.writes(block) && !k.harmed(block) {
			k.fail("the copies are said to be in step, but block %d holds %d on alpha and %d on beta",
				block, a.disk.now()[block], b.disk.now()[block])
		}
	}
}

// writes: the guest is writing this block.
func (g *guest) writes(block int) bool {
	return g.op != nil && g.op.op == blockrepl.OpWrite && g.op.block == block
}

// promoted: a copy that begins to count has every acknowledged write. This is the check that no stale or cold
// copy was promoted, where the other node was not granted a newer epoch meanwhile.
func (k *checker) promoted(n *Node) {
	if k.c.nodes[1-n.id].store.epoch > n.store.epoch {
		return // it was frozen while it opened: its peer holds a newer epoch and acknowledges nothing of it
	}
	held := n.disk.now()
	for b, v := range held {
		k.began[n.id][b] = max(k.began[n.id][b], v)
	}
	if k.apart {
		return
	}
	for b, v := range held {
		if v < k.acked[b] && !k.harmed(b) {
			k.fail("%s opens its volume with %d in block %d, but %d was acknowledged", n.name, v, b, k.acked[b])
		}
	}
}

// good: this node's copy has everything acknowledged and was under power since. It is by what is durable and by
// what really happened to its power, as the record may not know that yet.
func (n *Node) good() bool {
	r := n.record()
	newest := max(r.Epoch, n.c.nodes[1-n.id].record().Epoch)
	if n.engine != nil {
		r.Cold = n.engine.State().Record.Cold // it may know what it could not save
	}
	return r.Complete == newest && r.Epoch == newest && !r.Cold && !n.lostPower && n.disk.failed() == nil
}

// powerCut is told before n loses what is not flushed. If no other copy has it, the guest could not rely on it:
// it did not ask for a flush. Two failures at a time are covered only for what was flushed.
func (k *checker) powerCut(n *Node) {
	if !k.c.nodes[1-n.id].good() {
		k.acked = k.flushed
	}
}

// overridden: an operator chose a copy that may lack acknowledged writes. From then on only what is acknowledged
// anew is promised (rule 10).
func (k *checker) overridden(n *Node) {
	if !n.good() {
		k.acked, k.flushed = [blocks]uint64{}, [blocks]uint64{}
	}
}

// mark begins to measure the longest pause anew.
func (k *checker) mark() { k.pause, k.last = 0, k.c.w.now }

// longest is the longest time since mark for which the guest did not get on.
func (k *checker) longest() time.Duration {
	if k.resting {
		return time.Duration(k.pause)
	}
	return time.Duration(max(k.pause, k.c.w.now-k.last))
}
