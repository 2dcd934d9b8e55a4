package sim

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// random makes a schedule of faults. The same seed makes the same schedule.
func random(seed uint64) script {
	g := &generator{rng: rand.New(rand.NewPCG(seed, 1))}
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

type generator struct {
	rng *rand.Rand
	s   script
	// ping: a ping target decides, and one node cannot see it. Without that a partition
	// makes two writers, which arbitration `available` allows and these checks do not.
	ping   bool
	cutoff string
}

func (g *generator) add(format string, args ...any) { g.s = append(g.s, fmt.Sprintf(format, args...)) }

func (g *generator) policy() {
	switch g.rng.IntN(5) {
	case 0:
		g.add("set arbitration safe")
	case 1:
		g.add("set arbitration available")
		g.ping = true
		g.cutoff = g.node()
		g.add("ping %s off", g.cutoff)
	case 2:
		g.add("set arbitration safe")
		g.add("set fence on")
	default:
		g.add("set witness on")
	}
	if g.rng.IntN(4) == 0 {
		g.add("set failback auto")
		g.add("set primary alpha")
	}
	if g.rng.IntN(3) == 0 {
		g.add("repeat 0.1")
	}
}

func (g *generator) node() string { return names[g.rng.IntN(2)] }

// pause is between a millisecond and eight seconds, short ones as often as long ones.
func (g *generator) pause() {
	d := time.Millisecond << g.rng.IntN(13)
	d += time.Duration(g.rng.Int64N(int64(d)))
	g.add("wait %v", d.Round(time.Millisecond))
}

func (g *generator) link() string {
	a, b := g.rng.IntN(3), g.rng.IntN(3)
	for a == b || (a == witnessName && g.ping) || (b == witnessName && g.ping) {
		a, b = g.rng.IntN(3), g.rng.IntN(3)
	}
	sep := ">"
	if g.rng.IntN(2) == 0 {
		sep = "-"
	}
	return names[a] + sep + names[b]
}

func (g *generator) fault() {
	wires := []string{"control", "data", "all"}
	n := g.node()
	switch g.rng.IntN(24) {
	case 0, 1:
		g.add("power-cut %s", n)
	case 2, 3, 4:
		g.add("power-on %s", n)
	case 5, 6:
		g.add("kill %s", n)
	case 7:
		g.add("stop %s", n)
	case 8:
		g.add("freeze %s", n)
	case 9:
		g.add("freeze-host %s", n)
	case 10, 11:
		g.add("thaw %s", n)
	case 12, 13, 14:
		g.add("cut %s %s", wires[g.rng.IntN(3)], g.link())
	case 15, 16:
		g.add("heal")
	case 17:
		g.add("delay %s %dms", wires[g.rng.IntN(2)], g.rng.IntN(300))
	case 18:
		g.add("drop 0.%d", g.rng.IntN(6))
	case 19:
		g.add("disk %s %s", n, []string{"fail", "ok", "full", "free", "slow 50ms"}[g.rng.IntN(5)])
	case 20:
		g.add("witness %s", []string{"on", "off"}[g.rng.IntN(2)])
	case 21:
		g.add("guest %s %s", n, []string{"crash", "panic", "poweroff"}[g.rng.IntN(3)])
	default:
		g.add("command %s %s", n, []string{"swap", "swap", "swap", "stop", "start", "restart", "stop-all"}[g.rng.IntN(7)])
	}
}

// recover ends every fault: the pair has to find together again by itself.
func (g *generator) recover() {
	g.add("heal")
	g.add("drop 0")
	g.add("delay control 0s")
	g.add("delay data 0s")
	g.add("witness on")
	for _, n := range names[:2] {
		g.add("thaw %s", n)
		g.add("disk %s ok", n)
		g.add("disk %s free", n)
		g.add("ping %s on", n)
		g.add("power-on %s", n)
	}
	g.add("wait 25s") // a daemon that is being stopped has ended by now
	for _, n := range names[:2] {
		g.add("power-on %s", n)
		g.add("command %s start", n)
	}
	g.add("settle within 2m")
}

// shrink removes faults from a failing script as long as it fails in the same way:
// what is before the start and what ends all faults stays.
func shrink(s script, seed uint64, failure string) (script, uint64) {
	fails := func(s script) (uint64, bool) {
		for try := range uint64(8) {
			if _, err := s.run(seed+try<<32, false); err != nil && kind(err.Error()) == kind(failure) {
				return seed + try<<32, true
			}
		}
		return 0, false
	}
	last := slices.Index(s, "heal")
	for i, line := range s {
		if strings.HasPrefix(line, "drop 0") && len(line) == len("drop 0") {
			last = i
		}
	}
	head, tail := slices.Index(s, "start")+1, len(s)-last
	for progress := true; progress; {
		progress = false
		for size := len(s) / 2; size > 0; size /= 2 {
			for i := head; i+size <= len(s)-tail; {
				less := slices.Delete(slices.Clone(s), i, i+size)
				if found, ok := fails(less); ok {
					s, seed, progress = less, found, true
					continue
				}
				i++
			}
		}
	}
	return s, seed
}

// kind is what a failure is about, without its numbers.
func kind(failure string) string {
	return strings.Map(func(r rune) rune {
		if r >= '0' && r <= '9' {
			return -1
		}
		return r
	}, strings.ReplaceAll(strings.ReplaceAll(failure, "alpha", "N"), "beta", "N"))
}
