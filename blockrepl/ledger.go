package blockrepl

import "time"

// ledger is the history of this copy: as the log has it, and as it has to become.
//
// Invariant: own follows from lineage, node and epoch, which is why only writesAt and adopt
// change these; the epoch never falls once the volume has left Detached. At most one commit is in flight.
// What has to be stored is not noted anywhere: next derives it, so that no decision
// taken while a commit is in flight can be forgotten. Primary.mu guards it.
type ledger struct {
	node    string     // this node, the Holder of generations made here
	epoch   uint64     // that this node writes at
	lineage Lineage    // as it is durable
	own     bool       // its newest generation is that of node at epoch, and the copy is whole
	common  Generation // what Lineage.InStep has to become

	running bool     // a commit is in flight
	coming  *Lineage // of the commit in flight; nil: it has none
	visit   visit    // its place in the log
}

// open starts from what the log has; a copy that has none belongs to the volume identity.
func (g *ledger) open(node, identity string, stored *Lineage) {
	g.node, g.lineage = node, Lineage{Volume: identity}
	if stored != nil {
		g.lineage = *stored
	}
	g.common = g.lineage.InStep
	g.visit.what = "commit of the dirty log"
}

// writesAt takes the epoch this node writes at from now on.
func (g *ledger) writesAt(epoch uint64) {
	g.epoch = epoch
	g.judge()
}

// adopt takes a lineage that is durable.
func (g *ledger) adopt(l Lineage) {
	g.lineage = l
	g.judge()
}

func (g *ledger) judge() {
	newest, ok := g.lineage.Newest()
	g.own = ok && !g.lineage.Partial && newest.Is(Generation{Epoch: g.epoch, Holder: g.node})
}

// bare says that the copy was never written, or belongs to no point of the history.
func (g *ledger) bare() bool { return len(g.lineage.Line) == 0 || g.lineage.Partial }

// met notes that the peer's copy is complete at the present generation.
func (g *ledger) met() { g.common, _ = g.lineage.Newest() }

// next is the lineage to store with the next commit, nil if it is unchanged; begins says
// that a generation of this node has to become durable. The generation makes a copy whole that was Partial: who
// goes on alone with it has decided that it is the data.
func (g *ledger) next(begins bool) *Lineage {
	if !begins && g.common == g.lineage.InStep {
		return nil // the usual case, at every Kick
	}
	next := g.lineage
	if begins {
		next = next.With(Generation{Epoch: g.epoch, Holder: g.node, Began: time.Now().UnixMilli()})
		next.Partial = false
	}
	next.InStep = g.common
	return &next
}

// begin notes that a commit is on its way to the log; l is its lineage.
func (g *ledger) begin(l *Lineage) {
	g.running, g.coming = true, l
	g.visit.enter()
}

// end notes that the log has answered, and returns the lineage of that commit.
func (g *ledger) end() *Lineage {
	g.visit.leave()
	l := g.coming
	g.running, g.coming = false, nil
	return l
}
