package blockrepl

import "testing"

// A read is deferred while its region is suspect, but not for one that cannot be read here;
// the numbers outlive the worklist.
func TestCatchup(t *testing.T) {
	var c catchup
	if !c.over() || !c.tried() || c.touches(0, 1) || c.defers(0, 1) {
		t.Fatal("suspect without a worklist")
	}
	c.sent(1) // of an attachment that is over
	const size = 2 * ExtentSize
	c.begin(map[uint32]uint64{0: 1, 1: 2}, size, 5)
	if c.over() || c.tried() || !c.defers(0, 1) || c.defers(RegionSize, RegionSize+1) || !c.touches(0, size) {
		t.Fatal("what is suspect is not deferred")
	}
	if id, _, urgent, _ := c.work.take(); id != 0 || !urgent {
		t.Fatalf("extent %d first, urgent %v", id, urgent)
	}
	c.work.giveUp(0, 1)
	c.work.done(1, 2)
	c.sent(RegionSize)
	if c.over() || !c.tried() || c.defers(0, 1) || !c.touches(0, 1) {
		t.Fatal("waiting for what cannot be read")
	}
	c.work.done(0, 1)
	var g Progress
	if c.show(&g, 10); !c.over() || g.ToCompare != 0 || g.Compared != 2*RegionSize || g.Moved != RegionSize {
		t.Fatalf("%+v", g)
	}
	c.finish()
	g = Progress{}
	if c.show(&g, 20); c.work != nil || g.Compared != 2*RegionSize || g.Moved != RegionSize || g.Rate != 0 {
		t.Fatalf("%+v", g)
	}
	c.begin(map[uint32]uint64{0: 1}, size, 30)
	if c.drop(); !c.over() {
		t.Fatal("suspect although this node decides")
	}
}
