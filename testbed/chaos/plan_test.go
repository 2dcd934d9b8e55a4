package chaos

import (
	"slices"
	"testing"

	"duet/testbed/testcluster"
)

// TestPlans: a plan follows from its seed, is worth running, and keeps the rules
// without which a loss would be nobody's fault.
func TestPlans(t *testing.T) {
	seen := map[Kind]int{}
	for seed := range uint64(2000) {
		for _, witness := range []bool{true, false} {
			p := Make(seed, witness)
			if p.String() != Make(seed, witness).String() {
				t.Fatalf("seed %d gives two plans", seed)
			}
			if len(p.Faults) == 0 || !slices.IsSortedFunc(p.Faults, func(a, b Fault) int { return int(a.At - b.At) }) {
				t.Errorf("not in order, or empty: %v", p)
			}
			judgePlan(t, p, witness)
			for _, f := range p.Faults {
				seen[f.Kind]++
			}
		}
	}
	if len(seen) != 20 {
		t.Errorf("%d kinds of faults occur: %v", len(seen), seen)
	}
}

func judgePlan(t *testing.T, p Plan, witness bool) {
	t.Helper()
	power, networks := map[string]bool{}, map[string]bool{}
	for _, f := range p.Faults {
		switch f.Kind {
		case PowerCut, FailDisk:
			power[f.Host] = true
		case KillHost, SilenceHost, FreezeHost, FillDisk, CutHosts:
			if len(power) > 0 {
				t.Errorf("it strikes the host that has the only good disk: %v", p)
			}
		}
		switch {
		case witness:
		case f.Kind == Isolate || f.Kind == KillWitness || f.Kind == CutWitness:
			t.Errorf("without a witness: %v", p)
		case f.Kind == CutHosts || f.Kind == Lossy || f.Kind == Slow:
			networks[f.Network] = true
		}
	}
	if len(power) == 2 != p.Blackout {
		t.Errorf("blackout %v: %v", p.Blackout, p)
	}
	if networks[""] || len(networks) > 1 {
		t.Errorf("without a witness the hosts lose every network: %v", p)
	}
}

// TestCuts: what a fault of the network takes away is what the LAN understands.
func TestCuts(t *testing.T) {
	for _, tt := range []struct {
		f    Fault
		cuts int
	}{
		{Fault{Kind: CutHosts, Host: testcluster.Alpha}, 2},
		{Fault{Kind: CutHosts, Host: testcluster.Alpha, OneWay: true}, 1},
		{Fault{Kind: CutWitness, Host: testcluster.Beta}, 2},
		{Fault{Kind: Isolate, Host: testcluster.Beta}, 2},
		{Fault{Kind: Lossy, Network: testcluster.Back, Amount: 20}, 2},
		{Fault{Kind: KillDaemon, Host: testcluster.Beta}, 0},
	} {
		if got := cuts(tt.f); len(got) != tt.cuts || tt.f.Amount != 0 && got[0].Percent != tt.f.Amount {
			t.Errorf("%v: %+v", tt.f, got)
		}
	}
}
