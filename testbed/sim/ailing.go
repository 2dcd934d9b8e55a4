package sim

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"time"
)

// ailing makes a schedule of faults of disks. The same seed makes the same schedule. It is apart from random
// because disks that lie need another end: a compare, a repair and a compare. In some schedules nothing but
// disks goes wrong: then no VM may end for what its guest did not meet.
func ailing(seed uint64) script {
	g := &generator{rng: rand.New(rand.NewPCG(seed, 2)), settling: 4 * time.Second}
	g.add("calm 100")
	if g.one(4) {
		g.add("set fence on")
		g.settling = 10 * time.Second
	} else {
		g.add("set witness on")
	}
	g.add("set patience 3s")
	g.add("start")
	kinds := loud[:]
	switch g.rng.IntN(4) {
	case 0:
		kinds = append(append(kinds[:len(kinds):len(kinds)], lives[:]...), mute...)
	case 1:
		kinds = append(kinds[:len(kinds):len(kinds)], lives[:]...)
	case 2:
		g.add("only-disks")
	case 3:
		kinds = append(kinds[:len(kinds):len(kinds)], mute...)
		g.add("only-disks")
	}
	for range 1 + g.rng.IntN(5) {
		g.pause()
		g.ails(kinds)
	}
	g.pause()
	g.mendsAll()
	return g.s
}

// loud are faults that an operation tells of, and what ends them. None hangs for good: that is for scenarios, as
// only a mend ends it.
var loud = [...]string{
	"disk N writes fails B", "disk N flushes fails", "disk N fail", "disk N full",
	"disk N reads 50ms B", "disk N writes 50ms",
	"disk N all 300ms B", "disk N writes 3s B", "disk N flushes 3s", "disk N ok", "disk N ok", "disk N free",
}

// mute are faults that nothing tells of.
var mute = []string{"disk N loses B", "disk N strays B", "disk N rots B", "disk N loses B", "glance"}

// lives are ends of processes and computers while disks are ill: a resync has to do
// with what is left, and a log may be torn.
var lives = [...]string{
	"kill N|wait 20ms|boot N", "kill N|wait 4s|boot N", "power-cut N|wait 4s|power-on N", "power-cut N|pause|power-on N",
	"power-cut N|freeze-host M|wait 4s|thaw M|power-on N",
	"power-cut N|freeze-host M|pause|thaw M|wait 1s|power-on N",
	"kill N|disk N torn|boot N|wait 1s|kill N|disk N whole|boot N",
}

// ails adds one of kinds.
func (g *generator) ails(kinds []string) {
	n := g.rng.IntN(2)
	fill := strings.NewReplacer("N", names[n], "M", names[1-n], "B", fmt.Sprint(g.rng.IntN(blocks)))
	for line := range strings.SplitSeq(kinds[g.rng.IntN(len(kinds))], "|") {
		if line == "pause" {
			g.pause()
			continue
		}
		g.add("%s", fill.Replace(line))
	}
}

// mendsAll ends every fault: the pair finds together, and knows in what it differs. The first compare names what
// differs, the second repairs it, the third must find nothing. Only what a disk damaged may differ; checker.same
// looks at the rest.
func (g *generator) mendsAll() {
	g.add(ends)
	for _, n := range names[:2] {
		g.add("thaw %s", n)
		g.add("disk %s ok", n)
		g.add("disk %s free", n)
		g.add("disk %s whole", n)
		g.add("power-on %s", n)
	}
	g.add("wait %v", g.settling)
	for _, n := range names[:2] {
		g.add("power-on %s", n) // a fence agent may have come late
	}
	for range 2 { // one whose disk failed rests, and one may have heard late that the other is well again
		for _, n := range names[:2] {
			g.add("command %s start", n)
		}
		g.add("wait 2s")
	}
	g.add("settle within 2m")
	g.add("compare")
	g.add("compare repair")
	g.add("compare")
	g.add("same")
}
