package cluster

import (
	"slices"
	"testing"
)

// TestVotersExchange explores every order in which two nodes can store the steps of an
// exchange, with calls that are lost before or after they took effect, and nodes that crash
// and go on from what they stored: what the two need for a right to write always has a voter
// in common, whichever spare takes over from whomever, and no order gets stuck.
func TestVotersExchange(t *testing.T) {
	w := []Witness{{Addr: "w1"}, {Addr: "w2"}, {Addr: "w3"}}
	begin := Voters{}.With(w[0]).With(w[1]).With(w[2])
	type pair struct{ a, b string }
	seen := map[pair]bool{}
	var visit func(a, b Voters, steps int)
	key := func(v Voters) string {
		return string(rune(v.Version)) + v.Active[0].Addr + v.Active[len(v.Active)-1].Addr
	}
	visit = func(a, b Voters, steps int) {
		if k := (pair{key(a), key(b)}); seen[k] || steps == 0 {
			return
		} else {
			seen[k] = true
		}
		if !common(a, b) {
			t.Fatalf("no voter in common: %v and %v", a, b)
		}
		for _, next := range nextSteps(a) {
			if next.Newer(b) && a.Equal(b) { // a leads: b stores first, then a, or a crashes between
				visit(a, next, steps-1)
				visit(next, next, steps-1)
			}
		}
		if b.Newer(a) { // whoever is behind follows when they meet
			visit(b, b, steps-1)
		}
		if a.Newer(b) {
			visit(a, a, steps-1)
		}
		visit(b, a, steps-1) // the other one leads
	}
	visit(begin, begin, 12)
	t.Logf("%d pairs of states", len(seen))
	if len(seen) < 12 {
		t.Fatal("the search saw next to nothing")
	}
	if jumped := begin.Joined(w[1]).Settled(); common(begin, jumped) {
		t.Error("the check would not notice a step that was left out")
	}
}

// nextSteps are the changes that a node may propose.
func nextSteps(v Voters) []Voters {
	if len(v.Active) == 2 {
		return []Voters{v.Settled()}
	}
	var out []Voters
	for _, s := range v.Spares {
		out = append(out, v.Joined(s))
	}
	return out
}

func common(a, b Voters) bool {
	return slices.ContainsFunc(a.Active, func(w Witness) bool { return slices.Contains(b.Active, w) })
}

func TestVoters(t *testing.T) {
	w1, w2 := Witness{Addr: "w1"}, Witness{Addr: "w2"}
	v := Voters{}.With(w1).With(w2)
	if !slices.Equal(v.Active, []Witness{w1}) || !slices.Equal(v.Spares, []Witness{w2}) || v.Version != 2 {
		t.Fatal(v)
	}
	s := v.Joined(w2).Settled()
	if !slices.Equal(s.Active, []Witness{w2}) || !slices.Equal(s.Spares, []Witness{w1}) || !s.Newer(v) || v.Newer(s) {
		t.Fatal(s)
	}
	if n := s.Without(w1).Without(w2); len(n.All()) != 0 || n.Version != 6 {
		t.Fatal(n)
	}
	if _, ok := v.Find("w2"); !ok {
		t.Fatal("w2 is not found")
	}
	if a, b := v.Without(w1), v.Without(w2); a.Equal(b) || a.Newer(b) == b.Newer(a) {
		t.Fatal("two changes of one version have no order")
	}
	if !slices.Equal(v.Spares, []Witness{w2}) {
		t.Fatal("a change went through to the state before")
	}
}
