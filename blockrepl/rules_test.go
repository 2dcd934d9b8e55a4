package blockrepl

import (
	"fmt"
	"testing"
)

// lineages are all shapes that matter, by name; generations are named by letters.
func line(volume, gens string) Lineage {
	l := Lineage{Volume: volume}
	for i, c := range gens {
		l.Line = append(l.Line, Generation{Epoch: uint64(c - 'a' + 1), Holder: fmt.Sprint("n", (int(c)+i*0)%2)})
	}
	return l
}

// Compare over every pair of histories of up to three of four generations, against
// the rule spelled out; and the laws: antisymmetric, reflexive.
func TestCompareExhaustive(t *testing.T) {
	var all []string
	for _, a := range []string{"", "a", "b", "c", "d"} {
		for _, b := range []string{"", "a", "b", "c", "d"} {
			for _, c := range []string{"", "a", "b", "c", "d"} {
				all = append(all, a+b+c)
			}
		}
	}
	opposite := map[Relation]Relation{Same: Same, Ahead: Behind, Behind: Ahead, Diverged: Diverged, Unrelated: Unrelated}
	holds := func(s string, c byte) bool {
		for i := range len(s) {
			if s[i] == c {
				return true
			}
		}
		return false
	}
	for _, a := range all {
		for _, b := range all {
			got := line("v", a).Compare(line("v", b))
			var want Relation
			switch {
			case a == "" && b == "":
				want = Same
			case a == "":
				want = Behind
			case b == "":
				want = Ahead
			case a[len(a)-1] == b[len(b)-1]:
				want = Same
			case holds(a, b[len(b)-1]):
				want = Ahead
			case holds(b, a[len(a)-1]):
				want = Behind
			default:
				want = Diverged
			}
			if got != want {
				t.Fatalf("%q to %q: %v, want %v", a, b, got, want)
			}
			back := line("v", b).Compare(line("v", a))
			// Two lines that hold each other's newest cannot both arise; then both claim to be ahead.
			if back != opposite[got] && !(got == Ahead && back == Ahead) {
				t.Fatalf("%q to %q: %v, and back %v", a, b, got, back)
			}
			if r := line("v", a).Compare(line("w", b)); r != Unrelated {
				t.Fatalf("other volume: %v", r)
			}
		}
	}
}

// With extends, does not repeat, and forgets the oldest.
func TestLineageWith(t *testing.T) {
	l := Lineage{Volume: "v"}
	for i := range MaxLine + 10 {
		g := Generation{Epoch: uint64(i), Holder: "n"}
		l = l.With(g).With(g)
	}
	if newest, _ := l.Newest(); len(l.Line) != MaxLine || newest.Epoch != MaxLine+9 {
		t.Fatal(len(l.Line), newest)
	}
	old := Lineage{Line: make([]Generation, 1, 8)}
	a, b := old.With(Generation{Epoch: 1, Holder: "x"}), old.With(Generation{Epoch: 2, Holder: "y"})
	if a.Line[1] == b.Line[1] {
		t.Fatal("With shares memory between its results")
	}
}

// Parted tells when the history that the other lacks began.
func TestParted(t *testing.T) {
	at := func(ms int64) Generation { return Generation{Epoch: uint64(ms), Holder: "n", Began: ms} }
	common := Lineage{Volume: "v"}.With(at(1)).With(at(2))
	l, o := common.With(at(3)).With(at(4)), common.With(Generation{Epoch: 3, Holder: "o", Began: 7})
	if a, b := l.Parted(o).UnixMilli(), o.Parted(l).UnixMilli(); a != 3 || b != 7 {
		t.Fatal(a, b)
	}
	if got := common.Parted(l); !got.IsZero() {
		t.Fatal(got)
	}
}

// FuzzLineage: whatever decodes encodes to something that decodes to the same.
func FuzzLineage(f *testing.F) {
	b, _ := line("v", "abc").MarshalBinary()
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		var l, again Lineage
		if l.UnmarshalBinary(b) != nil {
			return
		}
		c, err := l.MarshalBinary()
		if err != nil || again.UnmarshalBinary(c) != nil || l.Compare(again) != Same || l.Partial != again.Partial {
			t.Fatalf("%+v and %+v, %v", l, again, err)
		}
	})
}

// Decide, exhaustively over everything it looks at, against the rule spelled out.
func TestDecideExhaustive(t *testing.T) {
	lines := []string{"", "a", "ab", "abc", "ad", "d"}
	flags := []bool{false, true}
	counts := map[Verdict]int{}
	for _, hl := range lines {
		for _, wl := range lines {
			for bits := range 64 {
				bit := func(n int) bool { return bits&(1<<n) != 0 }
				h := Hello{Size: 1, Lineage: line("v", hl)}
				w := Welcome{Size: 1, Lineage: line("v", wl), Complete: bit(0)}
				h.Lineage.Partial, w.Lineage.Partial = bit(1), bit(2)
				if bit(3) {
					w.Size = 2
				}
				if bit(4) && len(hl) > 0 {
					h.Lineage.InStep = line("v", hl).Line[0]
				}
				for _, suspects := range flags {
					got := Decide(h, w, suspects)
					counts[got]++
					checkVerdict(t, h, w, suspects, got)
				}
			}
		}
	}
	w := Welcome{Size: 1, Lineage: line("w", "a")}
	if got := Decide(Hello{Size: 1, Lineage: line("v", "a")}, w, true); got != RefuseVolume {
		t.Error(got)
	}
	for v := InStep; v <= RefuseDiverged; v++ {
		if v != RefuseVolume && counts[v] == 0 {
			t.Errorf("%v never decided", v)
		}
	}
}

// checkVerdict states what each verdict must imply.
func checkVerdict(t *testing.T, h Hello, w Welcome, suspects bool, got Verdict) {
	t.Helper()
	relation := h.Lineage.Compare(w.Lineage)
	newest, written := w.Lineage.Newest()
	bad := false
	switch got {
	case InStep:
		bad = suspects || w.Lineage.Partial
		fallthrough
	case ResyncSuspects:
		// The dirty regions must say all that this copy lacks.
		bad = bad || !written || !(relation == Same || relation == Ahead && newest == h.Lineage.InStep)
		fallthrough
	case ResyncAll:
		bad = bad || h.Size != w.Size || h.Lineage.Partial || relation == Behind || relation == Diverged ||
			relation == Unrelated
		bad = bad || w.Complete && (relation != Same || w.Lineage.Partial)
	case RefuseSize:
		bad = h.Size == w.Size
	case RefuseSource:
		bad = !h.Lineage.Partial
	case RefuseBehind:
		bad = relation != Behind
	case RefuseDiverged:
		bad = relation != Diverged && !w.Complete
	}
	if bad {
		t.Fatalf("%v for %+v and %+v, suspects %v (%v)", got, h, w, suspects, relation)
	}
}
