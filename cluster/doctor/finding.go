package doctor

import (
	"fmt"
	"slices"
	"strings"
)

// The levels of a Finding, the lowest first. They are in the API and in what scripts read.
const (
	OK      = "ok"
	Note    = "note"    // worth knowing, nothing is wrong
	Warning = "warning" // works now, and will not when something else happens
	Problem = "problem" // does not work
)

// Finding is one thing that was looked at. An empty Node means the whole cluster. Its fields are those of
// api.Finding, in their order: package survey converts one into the other.
type Finding struct {
	Node   string
	Level  string
	About  string // in one word: libvirt, network, memory…
	Fact   string // one sentence
	Remedy string // what to do, the harmless first; empty if there is nothing to do
}

// sheet collects the findings about one node.
type sheet struct {
	node string
	out  []Finding
}

func (s *sheet) add(level, about, remedy, format string, args ...any) {
	s.out = append(s.out, Finding{Node: s.node, Level: level, About: about, Remedy: remedy,
		Fact: fmt.Sprintf(format, args...)})
}

// Judge says what the facts mean, node by node and then for the cluster. What is well is a finding too, so that
// people see what was looked at; Worst takes it away again.
func Judge(l Look) []Finding {
	var out []Finding
	for i, n := range l.Nodes {
		s := &sheet{node: n.Name}
		if n.Facts == nil {
			away(s, l, n)
		} else {
			node(s, l, *n.Facts)
		}
		if i > 0 && n.Facts != nil {
			clock(s, l.Nodes[0].Name, n)
		}
		out = append(out, s.out...)
	}
	s := &sheet{}
	versions(s, l)
	networks(s, l)
	arbitration(s, l)
	copies(s, l)
	modules(s, l)
	return append(out, s.out...)
}

// node judges the facts of one node.
func node(s *sheet, l Look, f Facts) {
	hypervisor(s, f)
	confinement(s, f)
	memory(s, f)
	spaces(s, f)
	limits(s, f)
	watchdog(s, f)
	guard(s, f)
	ports(s, f)
	routes(s, l, f)
	witnesses(s, l, f)
	targets(s, f)
	devices(s, f)
	notices(s, l, f)
	for _, what := range f.Unlooked {
		s.add(Note, "unlooked", "", "not looked at: %s", what)
	}
}

// Worst keeps the findings of that level and of the levels above it. A level that is none keeps everything.
func Worst(all []Finding, level string) []Finding {
	order := []string{OK, Note, Warning, Problem}
	return slices.DeleteFunc(slices.Clone(all), func(f Finding) bool {
		return slices.Index(order, f.Level) < slices.Index(order, level)
	})
}

// size writes bytes as people do.
func size(n int64) string {
	v, unit := float64(n), "B"
	for _, next := range []string{"KiB", "MiB", "GiB", "TiB", "PiB"} {
		if v < 1024 {
			break
		}
		v, unit = v/1024, next
	}
	if v >= 100 || unit == "B" {
		return fmt.Sprintf("%.0f %s", v, unit)
	}
	return strings.TrimSuffix(fmt.Sprintf("%.1f", v), ".0") + " " + unit
}
