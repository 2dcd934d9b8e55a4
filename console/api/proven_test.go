package api

import (
	"slices"
	"testing"
	"time"
)

// The ways in which alpha may have beta's last word.
const (
	fresh   = iota
	late    // its heartbeats come, and its word is overdue
	overdue // its heartbeats are overdue, its word is not yet
	dead    // it is taken for dead
	leaving // it is about to go
	left    // it has gone, and is waited for
	foreign // it is no member
	refuses // it takes alpha for no member
	ways
)

// words are all that a node can say of itself, as far as a verdict goes by it.
func words(node string) (out []NodeState) {
	for _, role := range []string{"STOP", "WAIT", "ALONE", "PRIM", "SECOND", "UNKNOWN"} {
		for _, status := range []string{"NotReady", "Transient", "Ready"} {
			if status != "NotReady" && role == "UNKNOWN" || status == "Ready" && (role == "STOP" || role == "WAIT") {
				continue
			}
			for i := range 12 {
				n := NodeState{Node: node, Role: role, Status: status, Epoch: 7 + uint64(i&1), Complete: i&2 == 0,
					VM: "off", Volumes: []VolumeStatus{{State: []string{"connected", "syncing", "second"}[i>>2]}}}
				n.Holder = map[uint64]string{7: "beta", 8: "alpha"}[n.Epoch]
				switch {
				case n.leads() && i>>2 == 2:
					n.VM, n.Volumes[0].State = "frozen", "connected"
				case n.leads():
					n.VM = "running"
				case i>>2 == 2 && role != "STOP":
					continue // says no more
				}
				if n.Stopped = role == "STOP" && i>>2 > 0; n.Stopped && i>>2 == 1 {
					n.Ended = "stopped by an admin outside Duet"
				}
				out = append(out, n)
			}
		}
	}
	return out
}

// proves: what is known here and now proves that the module stands well, and which of the two may be lost. It is what
// the words and how they came mean, said once more: a holder says that its peer is in step, the peer says so of the
// same right, and both words are fresh.
func proves(a, b NodeState, way int, decides string) (well bool, safe []string) {
	known := way == fresh || way == leaving
	holds := func(n, o NodeState) bool { // and the other one is in step
		return n.Role == "PRIM" && n.Status == "Ready" && n.Complete && n.Volumes[0].State == "connected" &&
			o.Role == "SECOND" && o.Status == "Ready" && o.Complete && n.Epoch == o.Epoch && n.Holder == o.Holder
	}
	if known && a.Stopped && b.Stopped && a.Ended+b.Ended == "" {
		newest := max(a.Epoch, b.Epoch)
		has := func(n NodeState) bool { return n.Complete && n.Epoch == newest }
		if has(b) && way == fresh {
			safe = append(safe, "alpha")
		}
		if has(a) {
			safe = append(safe, "beta") // also if it is about to go
		}
		return way == fresh && has(a) && has(b), safe
	}
	if decides == Nobody {
		return false, nil
	}
	goesOn := func(n, o NodeState, heard bool) bool { // n goes on without the other one
		up := func(n NodeState) bool {
			return (n.Role == "PRIM" || n.Role == "ALONE") &&
				(n.Status == "Ready" || n.Status == "NotReady" && n.VM == "running")
		}
		if heard && holds(o, n) {
			return true
		}
		// Of a holder whose follower has lost it, it is not known whether it still runs.
		inStep := n.Role == "PRIM" && n.Status == "Ready" && n.Complete && n.Volumes[0].State == "connected"
		torn := heard && inStep && o.Role == "SECOND" && o.Status == "Transient"
		return up(n) && !torn && !(heard && up(o)) // of two that run it, it is not known which is right
	}
	if way == fresh && goesOn(b, a, true) || way == fresh && holds(a, b) {
		safe = append(safe, "alpha")
	}
	if goesOn(a, b, known) {
		safe = append(safe, "beta")
	}
	return way == fresh && (holds(a, b) || holds(b, a)), safe
}

// TestNothingGoodUnproven: in no combination of what both nodes say, and how fresh that is, the verdict is OK or a node
// may be lost that the facts do not prove; and where they prove it, it is said.
func TestNothingGoodUnproven(t *testing.T) {
	now := time.Now()
	good, lost := 0, 0
	for _, a := range words("alpha") {
		for _, b := range words("beta") {
			for way := range ways {
				for _, decides := range []string{"witness", Nobody} {
					if decides == Nobody && way != fresh {
						continue // it proves no more
					}
					s := seen(a, b, way, decides, now)
					v := s.Judged(now)
					well, safe := proves(a, b, way, decides)
					if (v.Verdict.Level == OK) != well || well && v.Modules[0].Level != OK {
						t.Fatalf("%s (%s), and well is %v\nway %d, %s decides\n%+v\n%+v", v.Verdict.Level, v.Verdict.Text, well,
							way, decides, a, b)
					}
					for _, n := range v.Verdict.Safe {
						if !slices.Contains(safe, n) {
							t.Fatalf("%s may be lost, it says (%s), and proven is %v\nway %d, %s decides\n%+v\n%+v", n,
								v.Verdict.Text, safe, way, decides, a, b)
						}
					}
					if well {
						good++
					}
					lost += len(v.Verdict.Safe)
					if well && decides != Nobody && len(v.Verdict.Safe) != 2 {
						t.Fatalf("all is well, and safe is %v\n%+v\n%+v", v.Verdict.Safe, a, b)
					}
				}
			}
		}
	}
	if good == 0 || lost == 0 {
		t.Error("nothing was ever well")
	}
}

// seen is what alpha knows when beta's last word came to it in that way.
func seen(a, b NodeState, way int, decides string, now time.Time) Status {
	beta := NodeStatus{Name: "beta", Alive: way != dead && way != left, Quiet: way == overdue,
		Leaving: way == leaving || way == left}
	if way == left {
		silent, until := now.Add(-time.Second), now.Add(29*time.Second)
		beta.Silent, beta.Awaited = &silent, &until
	}
	b.Quiet, b.Stale, b.Parted = way == late, way == dead || way == left || way == refuses, way == refuses
	s := Status{Self: "alpha", Nodes: []NodeStatus{{Name: "alpha"}, beta},
		Modules: []ModuleStatus{{Name: "web01", Decides: decides, Nodes: []NodeState{a, b}}}}
	if way == foreign {
		s.Nodes = s.Nodes[:1]
	}
	return s
}
