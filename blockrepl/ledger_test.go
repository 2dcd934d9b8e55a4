package blockrepl

import "testing"

// own follows from lineage, node and epoch, whichever came last.
func TestLedgerOwn(t *testing.T) {
	mine := Lineage{Volume: "v"}.With(Generation{Epoch: 2, Holder: "alpha"})
	partial := mine
	partial.Partial = true
	for name, c := range map[string]struct {
		lineage Lineage
		epoch   uint64
		own     bool
	}{
		"never written":   {Lineage{Volume: "v"}, 2, false},
		"of this epoch":   {mine, 2, true},
		"of an older one": {mine, 3, false},
		"of the other":    {mine.With(Generation{Epoch: 3, Holder: "beta"}), 3, false},
		"partial":         {partial, 2, false},
	} {
		var before, after ledger
		before.open("alpha", "v", nil)
		before.writesAt(c.epoch)
		before.adopt(c.lineage)
		after.open("alpha", "", &c.lineage)
		after.writesAt(c.epoch)
		if before.own != c.own || after.own != c.own {
			t.Errorf("%s: %v, %v, want %v", name, before.own, after.own, c.own)
		}
	}
}

// What has to be stored is derived: a decision while a commit is in flight is in the next one.
func TestLedgerNext(t *testing.T) {
	var g ledger
	g.open("alpha", "v", nil)
	g.writesAt(1)
	if g.next(false) != nil || !g.bare() {
		t.Fatal("something to store at the start")
	}
	first := g.next(true)
	g.begin(first)
	g.writesAt(2) // meanwhile
	if l := g.end(); l != first || g.running || g.coming != nil {
		t.Fatalf("ended with %v", l)
	}
	g.adopt(*first)
	if g.own || g.bare() {
		t.Fatal("a generation of epoch 1 counts at 2")
	}
	second := g.next(true)
	g.begin(second)
	g.adopt(*g.end())
	if newest, _ := g.lineage.Newest(); !g.own || newest.Epoch != 2 || len(g.lineage.Line) != 2 {
		t.Fatal(g.lineage)
	}
	if g.met(); g.next(false) == nil || !g.next(false).InStep.Is(Generation{Epoch: 2, Holder: "alpha"}) {
		t.Fatal("that the peer is in step is not stored")
	}
	g.adopt(*g.next(false))
	if g.next(false) != nil {
		t.Fatal("it is stored again")
	}
}
