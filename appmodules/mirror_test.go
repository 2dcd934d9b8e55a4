package appmodules

import (
	"flag"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "rewrite the golden files; only commit what you understand")

// golden compares got with the file and rewrites it under -update.
func golden(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("read golden (make one with -update): %v", err)
	}
	if got != string(want) {
		t.Errorf("%s differs; look at the change with go test -update and git diff", path)
	}
}

// TestTable pins the whole behaviour: a change of it shows as a diff of this text.
func TestTable(t *testing.T) {
	var b strings.Builder
	for _, r := range Table() {
		fmt.Fprintln(&b, r)
	}
	golden(t, filepath.Join("testdata", "mirror.txt"), b.String())
}

// TestDocument keeps the document of the machine equal to the table.
func TestDocument(t *testing.T) {
	var b strings.Builder
	b.WriteString("# The mirror machine\n\nMade from the table in `appmodules/mirror.go` by `go test ./appmodules " +
		"-update`. What users see: ")
	for p := range phaseCount {
		r, s := Machine{p, InStep}.Display()
		fmt.Fprintf(&b, "%s is %s (%s); ", p, r, s)
	}
	b.WriteString("without a peer, PRIM is shown as ALONE. Reasons are given as for a VM; another kind puts its own " +
		"nouns there.\n\n```mermaid\nstateDiagram-v2\n    [*] --> Stopped\n")
	seen := map[string]bool{}
	for _, r := range Table() {
		edge := fmt.Sprintf("    %s --> %s: %s\n", r.From, r.To, r.On)
		if r.From != r.To && !seen[edge] {
			seen[edge] = true
			b.WriteString(edge)
		}
	}
	b.WriteString("```\n\n| from | on | to | does | why |\n| --- | --- | --- | --- | --- |\n")
	for _, r := range Table() {
		fmt.Fprintf(&b, "| %s |\n", KindVM.Words().Fill(r.String()))
	}
	golden(t, filepath.Join("..", "docs", "mirror.md"), b.String())
}

// TestEveryPairIsDecided: a phase and event without a row stands in the list of
// ignored pairs, so that nobody forgets one in silence.
func TestEveryPairIsDecided(t *testing.T) {
	var b strings.Builder
	for p := range phaseCount {
		var ignored []string
		for e := range eventCount {
			if len(mirrorIndex(p, e)) == 0 {
				ignored = append(ignored, e.String())
			}
		}
		fmt.Fprintf(&b, "%s: %s\n", p, strings.Join(ignored, " "))
	}
	golden(t, filepath.Join("testdata", "mirror-ignored.txt"), b.String())
}

// allFacts lists all combinations of facts. EndsFrozen goes along with Holder,
// Open and AtHome with Home, Balked with them, PeerBalked with Impaired: no pair has guards of both.
func allFacts(yield func(Facts) bool) {
	for n := range 1 << 17 {
		bit := func(i int) bool { return n&(1<<i) != 0 }
		f := Facts{Holder: bit(0), Complete: bit(1), Alone: bit(2), PeerAnswers: bit(3), PeerHolds: bit(4),
			PeerActive: bit(5), PeerYields: bit(6), Silent: bit(7), Up: bit(8), Home: bit(10), Wanted: bit(11),
			Worse: bit(12), TakesBack: bit(14), Impaired: bit(15), EndsFrozen: bit(0), Open: bit(10), AtHome: bit(10),
			Tries: Tries{RestartsLeft: bit(9), MovesLeft: bit(13), GaveUp: bit(16), Balked: bit(10), PeerBalked: bit(15)}}
		if !yield(f) {
			return
		}
	}
}

// factsOf is allFacts where a guard asks for them; elsewhere one combination is enough.
func factsOf(p Phase, e Event) iter.Seq[Facts] {
	for _, r := range mirrorIndex(p, e) {
		if r.If.Holds != nil {
			return allFacts
		}
	}
	return func(yield func(Facts) bool) { yield(Facts{}) }
}

// TestSafety tries every phase, link, event and combination of facts.
func TestSafety(t *testing.T) {
	withVM := []Phase{Starting, Running, Frozen, Restarting, Leaving, Stopping}
	writing := []Phase{Starting, Running, Restarting}
	for p := range phaseCount {
		for e := range eventCount {
			if len(mirrorIndex(p, e)) == 0 {
				continue // ignored: nothing to try
			}
			for l := NoLink; l <= InStep; l++ {
				for f := range factsOf(p, e) {
					m := Machine{p, l}
					next, row := m.Step(e, f)
					if row == nil {
						if next != m {
							t.Fatalf("%s %s: no row, but the machine changed", p, e)
						}
						continue
					}
					has := func(a Action) bool { return slices.Contains(row.Do, a) }
					if has(Ask) && p == Waiting && !f.Complete && !f.PeerYields && !f.TakesBack {
						t.Fatalf("asks to take over with a stale copy: %s", row)
					}
					if has(OpenPrimary) && !f.Holder && !has(Override) && e != TakeOver && e != Granted && e != DiskHung {
						t.Fatalf("opens as primary without the right: %s", row)
					}
					if has(GoAlone) && !has(Override) && e != Granted && e != PeerStale && !f.Alone {
						t.Fatalf("goes on alone without a grant: %s", row)
					}
					keeps := slices.Contains(append(withVM, Opening), next.Phase)
					if (slices.Contains(withVM, p) || p == Opening && f.Up) && !keeps && !has(Kill) && e != Down &&
						next.Phase != Killing && next.Phase != Handing {
						t.Fatalf("leaves the workload behind: %s", row)
					}
					if e == Deposed && p != Killing && p != Asking && (!has(CloseVolumes) || !has(Kill)) {
						t.Fatalf("a deposed holder goes on: %s", row)
					}
					if e == PeerLost && slices.Contains(writing, next.Phase) {
						t.Fatalf("a needed peer was lost and writes go on: %s", row)
					}
					if next.Phase == Stopped && p != Stopped && !has(CloseVolumes) &&
						slices.Contains(append(withVM, Opening, Handing, Following, Standby), p) {
						t.Fatalf("stopped with open volumes: %s", row)
					}
				}
			}
		}
	}
}

// TestEveryRowCanHappen: a row behind one that always holds is dead text.
func TestEveryRowCanHappen(t *testing.T) {
	used := map[*Row]bool{}
	for p := range phaseCount {
		for e := range eventCount {
			if len(mirrorIndex(p, e)) == 0 {
				continue // ignored: nothing to try
			}
			for l := NoLink; l <= InStep; l++ {
				for f := range factsOf(p, e) {
					if _, row := (Machine{p, l}).Step(e, f); row != nil {
						used[row] = true
					}
				}
			}
		}
	}
	for p := range phaseCount {
		for e := range eventCount {
			for i := range mirrorIndex(p, e) {
				if r := &mirrorIndex(p, e)[i]; !used[r] {
					t.Errorf("no facts lead to the row %s", r)
				}
			}
		}
	}
}

func TestEveryPhaseCanBeLeft(t *testing.T) {
	for p := range phaseCount {
		if !slices.ContainsFunc(Table(), func(r Row) bool { return r.From == p && r.To != p }) {
			t.Errorf("no row leaves %s", p)
		}
	}
}

func TestDisplay(t *testing.T) {
	for _, c := range []struct {
		m    Machine
		want string
	}{
		{Machine{Stopped, NoLink}, "STOP NotReady"},
		{Machine{Waiting, NoLink}, "WAIT NotReady"},
		{Machine{Asking, NoLink}, "WAIT Transient"},
		{Machine{Starting, NoLink}, "ALONE Transient"},
		{Machine{Running, NoLink}, "ALONE Ready"},
		{Machine{Running, Syncing}, "PRIM Ready"},
		{Machine{Running, InStep}, "PRIM Ready"},
		{Machine{Frozen, NoLink}, "PRIM Transient"},
		{Machine{Following, Syncing}, "SECOND Transient"},
		{Machine{Standby, InStep}, "SECOND Ready"},
		{Machine{Killing, NoLink}, "WAIT Transient"},
	} {
		if r, s := c.m.Display(); fmt.Sprint(r, " ", s) != c.want {
			t.Errorf("%v shows as %s %s, want %s", c.m, r, s, c.want)
		}
	}
}

func TestValidate(t *testing.T) {
	good := Default()
	good.Name, good.Nodes, good.Spec = "web01", []string{"alpha", "beta"}, VM{Domain: "web01"}
	disk := func(v Volume) Spec { return VM{Domain: "web01", Disks: []Volume{v}} }
	both := map[string]string{"alpha": "/a", "beta": "/b"}
	if f := good.Validate(); len(f) != 0 {
		t.Fatalf("the default is faulty: %v", f)
	}
	for path, spoil := range map[string]func(*Module){
		"name":                func(m *Module) { m.Name = "Web 01" },
		"kind":                func(m *Module) { m.Kind = "nothing" },
		"nodes":               func(m *Module) { m.Nodes = []string{"alpha", "alpha"} },
		"vm.domain":           func(m *Module) { m.Spec = VM{} },
		"policy.arbitration":  func(m *Module) { m.Policy.Arbitration = "maybe" },
		"policy.primary":      func(m *Module) { m.Policy.Primary = "gamma" },
		"policy.failback":     func(m *Module) { m.Policy.Failback = "yes" },
		"policy.restart.max":  func(m *Module) { m.Policy.Restart.Max = -1 },
		"policy.stall_budget": func(m *Module) { m.Policy.StallBudget = 0 },
		"policy.disk_budget":  func(m *Module) { m.Policy.DiskBudget = Duration(time.Millisecond) },
		"policy.shutdown":     func(m *Module) { m.Policy.Shutdown = 0 },
		"policy.on.crash":     func(m *Module) { m.Policy.On.Crash = "explode" },
		"volumes[0].size":     func(m *Module) { m.Spec = disk(Volume{Target: "vda", Size: 7, Paths: both}) },
		"volumes[0].paths": func(m *Module) {
			m.Spec = disk(Volume{Target: "vda", Size: 512, Paths: map[string]string{"alpha": "/a"}})
		},
		"volumes[0].target":     func(m *Module) { m.Spec = disk(Volume{Target: "../../vda", Size: 512, Paths: both}) },
		"volumes[0].id":         func(m *Module) { m.Spec = disk(Volume{Target: "vda", ID: "a/b", Size: 512, Paths: both}) },
		"policy.start.delay":    func(m *Module) { m.Policy.Start.Delay = -1 },
		"policy.restart.window": func(m *Module) { m.Policy.Restart.Window = -1 },
	} {
		m := good
		spoil(&m)
		faults := m.Validate()
		if len(faults) != 1 || faults[0].Path != path {
			t.Errorf("%s: faults are %v", path, faults)
		}
	}
}
