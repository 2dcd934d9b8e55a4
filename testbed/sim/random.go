package sim

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// random makes a schedule of faults. The same seed makes the same schedule. The generator and the run have
// streams of their own, so a change of the simulator does not change the schedules; a change of the lists here
// changes all of them.
func random(seed uint64) script {
	g := &generator{rng: rand.New(rand.NewPCG(seed, 1)), settling: 4 * time.Second}
	g.policy()
	g.add("start")
	for range 2 + g.rng.IntN(10) {
		g.pause()
		g.fault()
	}
	g.pause()
	g.recover()
	return g.s
}

// generator: it keeps to what the checks can judge: two writers only where apart says so, and at the end a way
// back for everything.
type generator struct {
	rng *rand.Rand
	s   script
	// ping: a ping target decides, and one node cannot see it, or wired. Without that a partition
	// makes two writers, which arbitration `available` allows and these checks do not.
	ping     bool
	wired    bool          // both see the ping target, and each other: nothing is wrong with the network
	settling time.Duration // after which what was begun before has ended: a shutdown, a fence agent
	apart    bool          // two writers are allowed: an operator overrides
}

func (g *generator) add(format string, args ...any) { g.s = append(g.s, fmt.Sprintf(format, args...)) }

// one of n says yes.
func (g *generator) one(n int) bool { return g.rng.IntN(n) == 0 }

func (g *generator) pick(of ...string) string { return of[g.rng.IntN(len(of))] }

// policy is what comes before start: arbitration in every way that DESIGN.md has, and reactions.
func (g *generator) policy() {
	g.add("calm 100")
	g.apart = g.one(8)
	switch g.rng.IntN(6) {
	case 0:
		g.add("set arbitration safe")
	case 1:
		g.add("set arbitration available")
		if !g.apart {
			g.ping, g.wired = true, g.one(2)
			if !g.wired {
				g.add("ping %s off", g.node())
			}
		}
	case 2:
		g.settling = 10 * time.Second
		g.add("set fence on")
	case 3:
		g.settling = 10 * time.Second
		g.add("set witness on")
		g.add("set fence before-start")
	default:
		g.add("set witness on")
	}
	if g.one(4) {
		g.add("set failback auto")
		g.add("set primary %s", g.node())
	}
	if g.apart {
		g.add("set two-writers allowed")
		if g.one(3) {
			g.add("set split_brain hold")
		}
	}
	for _, set := range []struct {
		part int
		line string
	}{
		{3, "repeat 0.1"}, {1, "set patience 3s"}, {4, "set restarts " + g.pick("0", "1")},
		{3, "set pause 1s"}, {4, "set panic failover"}, {6, "set crash stop"},
		{6, "set shutdown restart"}, {6, "set stall_budget " + g.pick("200ms", "6s")},
		{8, "set cold_start after 4s"}, {3, "set frozen kill after " + g.pick("5s", "1m")},
	} {
		if g.one(set.part) && (set.line != "set cold_start after 4s" || slices.Contains(g.s, "set witness on")) {
			g.add("%s", set.line)
		}
	}
}

func (g *generator) node() string { return names[g.rng.IntN(2)] }

// pause is nothing, or between a millisecond and eight seconds, short ones as often as long ones.
func (g *generator) pause() {
	if g.one(8) {
		return
	}
	d := time.Millisecond << g.rng.IntN(13)
	d += time.Duration(g.rng.Int64N(int64(d)))
	g.add("wait %v", d.Round(time.Millisecond))
}

// link is a pair of places, in one direction or both. With a ping target the witness's cables stay whole: there
// is none.
func (g *generator) link() string {
	a, b := g.rng.IntN(3), g.rng.IntN(3)
	for a == b || (g.ping && (a == witnessName || b == witnessName)) {
		a, b = g.rng.IntN(3), g.rng.IntN(3)
	}
	return names[a] + g.pick(">", "-") + names[b]
}

// single are the faults, and what ends them. Each is as probable as it is often here.
var single = [...]string{
	"power-cut N", "power-cut N", "power-on N", "power-on N", "power-on N", "kill N", "kill N", "boot N", "stop N",
	"shut-down N",
	"freeze N", "freeze-host N", "thaw N", "thaw N", "thaw N", "cut", "cut", "cut", "cut", "heal", "heal", "delay", "drop",
	"disk N fail", "disk N ok", "disk N full", "disk N free", "disk N slow 50ms", "witness on", "witness off",
	"start-fails N on", "start-fails N off", "clock N -1h", "vm-takes N 2s", "vm-takes N 100ms",
	"guest N crash", "guest N panic", "guest N poweroff", "guest N deaf", "guest N obeys",
	"command N swap", "command N swap", "command N swap", "command N swap", "command N stop", "command N start",
	"command N start",
	"command N restart", "command N stop-all",
}

// chains are faults that hit at the worst moment. The waits are those of steps of a start or a swap (a VM takes
// 100 to 200 ms here, a shutdown 200 ms), so that the fault hits between two of them.
var chains = [...]string{
	"guest N deaf|command N OP|pause|single",
	"command N OP|wait 199ms|FREEZE N|wait 5s|thaw N",
	"command N OP|wait 50ms|FREEZE N|wait 5s|thaw N",
	"command N swap|wait 201ms|FREEZE N|wait 17s|thaw N",
	"guest N crash|wait 20ms|FREEZE N|wait 4s|thaw N",
	"vm-takes N 2s|guest N crash|wait 1900ms|guest N crash|pause|single",
	"guest N ill|guest N crash|pause|single",
	"guest N ill|guest M ill|guest N panic|pause|single",
	"vm-takes N 2s|command N restart|pause|single|single",
	"vm-takes N 2s|FREEZE N|wait 4s|thaw N|command N OP",
	"power-cut N|wait 4s|power-on N|wait 20ms|command M restart|single",
	"power-cut N|wait 4s|power-on N|wait 20ms|disk M fail",
	"cut all alpha-beta|wait 62s|single",
	"kill N|wait 4s|boot N|single",
	"kill N|wait 20ms|boot N",
	"stop N|wait 1s|boot N",
	"shut-down N|pause|single|single",
}

// overrides are what may make two writers.
var overrides = [...]string{
	"command N prim yes", "command N prim yes", "command N prim", "command N second yes", "command N second yes",
	"cut all alpha-beta|wait 4s|command N prim yes|wait 1s|heal",
	"cut all alpha-beta|wait 4s|command N prim yes|command M prim yes|wait 1s|heal|single",
	"command N stop|wait 1s|command N prim yes",
	"command N stop|wait 1s|command N second yes",
	"cut all alpha-beta|wait 4s|command M restart|wait 50ms|heal",
	"cut all alpha-beta|wait 4s|guest M crash|wait 50ms|heal",
}

// fault adds one of what goes wrong, or ends it.
func (g *generator) fault() {
	lines := single[g.rng.IntN(len(single))]
	switch k := g.rng.IntN(6); {
	case k == 0:
		lines = chains[g.rng.IntN(len(chains))]
	case k < 3 && g.apart:
		lines = overrides[g.rng.IntN(len(overrides))]
	}
	n := g.rng.IntN(2)
	fill := strings.NewReplacer("N", names[n], "M", names[1-n], "OP", g.pick("swap", "restart", "stop", "stop-all"),
		"FREEZE", g.pick("freeze", "freeze-host"))
	for line := range strings.SplitSeq(lines, "|") {
		switch line {
		case "pause":
			g.pause()
			continue
		case "single":
			line = strings.ReplaceAll(single[g.rng.IntN(len(single))], "N", g.node())
		}
		switch line {
		case "cut":
			line = fmt.Sprintf("cut %s %s", g.pick("control", "data", "all"), g.link())
		case "delay":
			line = fmt.Sprintf("delay %s %dms", g.pick("control", "data"), g.rng.IntN(300))
		case "drop":
			line = fmt.Sprintf("drop 0.%d", g.rng.IntN(6))
		}
		if verb, _, _ := strings.Cut(line, " "); g.wired && slices.Contains(ofNetwork, verb) {
			continue
		}
		g.add("%s", fill.Replace(line))
	}
}

// ofNetwork are the lines that wired does without.
var ofNetwork = []string{"cut", "delay", "drop", "heal"}

// ends is the first line after which nothing goes wrong any more.
const ends = "drop 0"

// recover ends every fault: the pair has to find together again by itself, and then stays together whatever the
// witness does. What an operator has to do is done: stopped modules are started, twice, as one may hear late of
// the other. After that it has two minutes; a pair that does not settle by then is a violation as well.
func (g *generator) recover() {
	g.add(ends)
	g.add("heal")
	g.add("delay control 0s")
	g.add("delay data 0s")
	g.add("witness on")
	for _, n := range names[:2] {
		g.add("thaw %s", n)
		g.add("disk %s ok", n)
		g.add("disk %s free", n)
		g.add("start-fails %s off", n)
		g.add("vm-takes %s 100ms", n)
		g.add("guest %s obeys", n)
		g.add("guest %s well", n)
		g.add("power-on %s", n)
	}
	g.add("wait %v", g.settling)
	g.add("gone within 25s")
	for _, n := range names[:2] {
		g.add("power-on %s", n)
		g.add("command %s start", n)
	}
	g.add("wait 2s")
	for _, n := range names[:2] {
		g.add("command %s start", n) // one may have heard late that the other had been stopped on purpose
		if g.apart {
			g.add("command %s second yes", n)
		}
	}
	g.add("settle within 2m")
	if g.one(4) {
		g.add("wait 2s")
		g.add("mark")
		g.add("witness off")
		g.add("wait 3s")
		g.add("pause below 1s")
	}
}
