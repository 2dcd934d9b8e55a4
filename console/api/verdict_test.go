package api

import (
	"slices"
	"strings"
	"testing"
	"time"
)

// twice is a module that runs on a node and has its second copy on the other.
func twice(name, on, other string) ModuleStatus {
	return ModuleStatus{Name: name, Decides: "witness", Nodes: []NodeState{
		{Node: on, Role: "PRIM", Status: "Ready", Complete: true},
		{Node: other, Role: "SECOND", Status: "Ready", Complete: true}}}
}

// office is a cluster of two nodes that stands well, with these changes.
func office(change func(*Status)) Status {
	s := Status{Self: "alpha", Nodes: []NodeStatus{{Name: "alpha"}, {Name: "beta", Alive: true}},
		Witnesses: []WitnessStatus{{Addr: "w:7425", Alive: true}},
		Modules:   []ModuleStatus{twice("web01", "alpha", "beta"), twice("mail01", "beta", "alpha")}}
	if change != nil {
		change(&s)
	}
	return s
}

func TestVerdict(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	silent, until := now.Add(-4*time.Second), now.Add(26*time.Second)
	for _, c := range []struct {
		name   string
		change func(*Status)
		level  Level
		text   string
		safe   string
	}{
		{"all well", nil, OK, "2 modules on both of their nodes; safe to lose: alpha or beta", "alpha beta"},
		{"nothing protected", func(s *Status) { s.Modules = nil }, OK, "no module is protected yet", "alpha beta"},
		{"a node is dead", func(s *Status) {
			s.Nodes[1] = NodeStatus{Name: "beta", Silent: &silent}
			s.Modules[0].Nodes[0].Role, s.Modules[0].Nodes[1].Stale = "ALONE", true
			s.Modules[1].Nodes[0].Stale, s.Modules[1].Nodes[1].Role = true, "ALONE"
		}, Degraded, "2 of 2 modules have one copy only (web01, mail01), beta is down for 4s; safe to lose: no node", ""},
		{"one is being copied", func(s *Status) {
			s.Modules[1].Nodes[0].Volumes, s.Modules[1].Nodes[1].Status = []VolumeStatus{{State: "syncing"}}, "Transient"
		}, Degraded,
			"1 of 2 modules has one copy only (mail01); safe to lose: alpha", "alpha"},
		{"it is said of one that does not run", func(s *Status) {
			s.Modules[0].Nodes[0] = NodeState{Node: "alpha", Role: "WAIT", Status: "NotReady"}
			s.Modules[0].Nodes[1] = NodeState{Node: "beta", Role: "STOP", Status: "NotReady"}
		}, Down, "1 of 2 modules does not run (web01); safe to lose: no node", ""},
		{"one has given up, and the other follows it", func(s *Status) {
			s.Modules[0].Nodes[0] = NodeState{Node: "alpha", Role: "SECOND", Status: "Transient"}
			s.Modules[0].Nodes[1] = NodeState{Node: "beta", Role: "STOP", Status: "NotReady"}
		}, Down, "1 of 2 modules does not run (web01); safe to lose: no node", ""},
		{"a failover", func(s *Status) {
			s.Modules[0].Nodes[0].Stale = true
			s.Modules[0].Nodes[1] = NodeState{Node: "beta", Role: "ALONE", Status: "Transient"}
		}, Down, "1 of 2 modules is being started (web01); safe to lose: no node", ""},
		{"an operator has stopped one", func(s *Status) {
			for i := range s.Modules[0].Nodes {
				s.Modules[0].Nodes[i] = NodeState{Node: s.Modules[0].Nodes[i].Node, Role: "STOP", Status: "NotReady", Stopped: true}
			}
		}, OK, "1 module on both of its nodes, 1 stopped; safe to lose: alpha or beta", "alpha beta"},
		{"a disk is elsewhere", func(s *Status) { s.Modules[0].Nodes[0].Notices = []Notice{{Level: "alarm"}} }, Degraded,
			"1 of 2 modules has an alarm (web01); safe to lose: no node", ""},
		{"nobody decides", func(s *Status) { s.Modules[0].Decides = Nobody }, Degraded,
			"2 modules on both of their nodes; safe to lose: no node, because nobody decides for web01 when they lose each " +
				"other: add a witness", ""},
		{"nobody decides for many", func(s *Status) {
			for _, name := range []string{"a", "b", "c", "d"} {
				m := twice(name, "alpha", "beta")
				m.Decides = Nobody
				s.Modules = append(s.Modules, m)
			}
		}, Degraded, "6 modules on both of their nodes; safe to lose: no node, because nobody decides for a, b, c, … when " +
			"they lose each other: add a witness", ""},
		{"the witness is gone", func(s *Status) {
			s.Witnesses[0].Alive = false
			for i := range s.Modules {
				for j := range s.Modules[i].Nodes {
					s.Modules[i].Nodes[j].Notices = []Notice{CannotDecide("the witness w:7425 is silent", "x", "VM", "")}
				}
			}
		}, Degraded, "the witness w:7425 is silent on alpha and beta; safe to lose: no node", ""},
		{"a witness is gone that nothing goes by", func(s *Status) { s.Modules, s.Witnesses[0].Alive = nil, false }, Degraded,
			"the witness w:7425 is silent", "alpha beta"},
		{"no ping target answers on one", func(s *Status) {
			s.Modules[1].Nodes[0].Notices = []Notice{CannotDecide("no ping target answers", "alpha", "VM", "")}
		}, Degraded, "no ping target answers on beta; safe to lose: beta", "beta"},
		{"one that is stopped is on one node only", func(s *Status) {
			for i := range s.Modules[0].Nodes {
				n := &s.Modules[0].Nodes[i]
				n.Role, n.Status, n.Stopped, n.Complete, n.Volumes = "STOP", "NotReady", true, i == 0, []VolumeStatus{{}}
			}
		}, Degraded, "web01 is stopped with one copy only, 1 stopped; safe to lose: beta", "beta"},
		{"one that is stopped, and the copy there is of an older epoch", func(s *Status) {
			for i := range s.Modules[0].Nodes {
				n := &s.Modules[0].Nodes[i]
				n.Role, n.Status, n.Stopped, n.Epoch, n.Volumes = "STOP", "NotReady", true, uint64(i), []VolumeStatus{{}}
			}
		}, Degraded, "web01 is stopped with one copy only, 1 stopped; safe to lose: alpha", "alpha"},
		{"one that is stopped is on both", func(s *Status) {
			for i := range s.Modules[0].Nodes {
				n := &s.Modules[0].Nodes[i]
				n.Role, n.Status, n.Stopped, n.Volumes = "STOP", "NotReady", true, []VolumeStatus{{}}
			}
		}, OK, "1 module on both of its nodes, 1 stopped; safe to lose: alpha or beta", "alpha beta"},
		{"the other host would refuse one", func(s *Status) {
			s.Modules[0].Nodes[1].Notices = []Notice{{Level: "warning", Text: "slow"},
				{Level: "refused", Text: "interface 1: there is no network onlya"}}
		}, Degraded, "1 of 2 modules would not start on beta (web01: interface 1: there is no network onlya); " +
			"safe to lose: beta", "beta"},
		{"the other host would refuse two", func(s *Status) {
			s.Modules = append(s.Modules, twice("db01", "alpha", "beta"))
			for _, i := range []int{0, 2} {
				s.Modules[i].Nodes[1].Notices = []Notice{{Level: "refused", Text: "no"}}
			}
		}, Degraded, "2 of 3 modules would not start on beta (web01, db01); safe to lose: beta", "beta"},
		{"each would refuse one", func(s *Status) {
			for i := range s.Modules {
				s.Modules[i].Nodes[1].Notices = []Notice{{Level: "refused", Text: "no"}}
			}
		}, Degraded, "1 of 2 modules would not start on beta (web01: no), 1 of 2 modules would not start on alpha " +
			"(mail01: no); safe to lose: no node", ""},
		{"one that is stopped would be refused", func(s *Status) {
			for i := range s.Modules[0].Nodes {
				n := &s.Modules[0].Nodes[i]
				n.Role, n.Status, n.Stopped, n.Notices = "STOP", "NotReady", true, []Notice{{Level: "refused", Text: "no"}}
			}
		}, OK, "1 module on both of its nodes, 1 stopped; safe to lose: alpha or beta; web01 has something to mend: no",
			"alpha beta"},
		{"a snapshot is over a volume", func(s *Status) {
			n := s.Modules[0].Nodes
			n[0].Status, n[0].VM, n[0].Notices = "NotReady", "running", []Notice{{Level: "alarm"}}
			n[1].Status = "Transient"
		}, Degraded, "1 of 2 modules runs, but its newest writes are not replicated (web01); safe to lose: no node", ""},
		{"its disk gives it errors", func(s *Status) {
			n := s.Modules[0].Nodes
			n[0].Status, n[0].VM = "NotReady", "io-error"
			n[1].Status = "Transient"
		}, Down, "1 of 2 modules stands still (web01); safe to lose: no node", ""},
		{"a node that stood still has not heard yet that the other one has taken over", func(s *Status) {
			n := s.Modules[1].Nodes
			n[0] = NodeState{Node: "beta", Role: "PRIM", Status: "Transient", VM: "frozen", Complete: true}
			n[1] = NodeState{Node: "alpha", Role: "ALONE", Status: "Ready", VM: "running", Epoch: 1, Complete: true}
		}, Degraded, "1 of 2 modules has one copy only (mail01); safe to lose: beta", "beta"},
		{"a node that stood still itself has not heard the other one yet", func(s *Status) {
			s.Modules[1].Nodes[0].Stale = true
		}, Degraded, "1 of 2 modules is not known to run (mail01); safe to lose: no node", ""},
		{"it catches up by then", func(s *Status) {
			s.Modules[1].Nodes[0].Stale, s.Modules[1].Nodes[1].Status = true, "Transient"
		}, Degraded, "1 of 2 modules is not known to run (mail01); safe to lose: no node", ""},
		{"the other one is not heard at all", func(s *Status) {
			s.Modules[1].Nodes[0].Stale, s.Nodes[1].Alive, s.Nodes[1].Silent = true, false, &silent
		}, Down, "1 of 2 modules runs on no node that answers (mail01), 1 of 2 modules has one copy only (web01), beta is " +
			"down for 4s; safe to lose: no node", ""},
		{"the other one has not said yet whether it goes on with one that stands still here", func(s *Status) {
			s.Modules[0].Nodes[0].Status, s.Modules[0].Nodes[0].VM = "Transient", "frozen"
			s.Modules[0].Nodes[1].Stale = true
		}, Down, "1 of 2 modules stands still (web01); safe to lose: no node", ""},
		{"one is being stopped", func(s *Status) {
			s.Modules[0].Nodes[0] = NodeState{Node: "alpha", Role: "WAIT", Status: "Transient", VM: "running",
				Passing: Passing{Stopping: true}}
		}, Degraded, "1 of 2 modules is being stopped (web01); safe to lose: no node", ""},
		{"the other daemon has stood still for a moment", func(s *Status) {
			n := s.Modules[0].Nodes
			n[0].Role, n[0].Epoch, n[0].Holder, s.Nodes[1].Quiet = "ALONE", 8, "alpha", true
		}, Degraded, "1 of 2 modules is not known to run (mail01), 1 of 2 modules has one copy only (web01), the " +
			"heartbeats of beta are overdue; safe to lose: no node", ""},
		{"its heartbeats are heard yet", func(s *Status) {
			s.Modules[0].Nodes[0].Role, s.Modules[0].Nodes[0].Epoch = "ALONE", 8
		}, Degraded, "1 of 2 modules has one copy only (web01); safe to lose: beta", "beta"},
		{"its word is overdue", func(s *Status) { s.Modules[0].Nodes[1].Quiet, s.Modules[1].Nodes[0].Quiet = true, true },
			Degraded, "1 of 2 modules is not known to run (mail01), 1 of 2 modules is not known to be on both of its nodes " +
				"(web01); safe to lose: no node", ""},
		{"it gets its first copy", func(s *Status) { s.Modules[0].Nodes[0].Volumes = []VolumeStatus{{State: "syncing"}} },
			Degraded, "1 of 2 modules has one copy only (web01); safe to lose: beta", "beta"},
		{"both say that they run it", func(s *Status) { s.Modules[0].Nodes[1].Role = "ALONE" }, Degraded,
			"1 of 2 modules runs on both nodes, each on its own (web01); safe to lose: no node", ""},
		{"the other one leaves", func(s *Status) { s.Nodes[1].Leaving = true }, Degraded,
			"beta leaves; safe to lose: beta", "beta"},
		{"duetd was stopped where one runs", func(s *Status) {
			s.Nodes[1] = NodeStatus{Name: "beta", Leaving: true, Silent: &silent, Awaited: &until}
			s.Modules[1].Nodes[0].Stale, s.Modules[1].Nodes[1].Status = true, "Transient"
			s.Modules = s.Modules[1:]
		}, Down, "1 of 1 module stands still (mail01), duetd was stopped on beta 4s ago: start it there, or wait 26s: then " +
			"the other node may take over; safe to lose: no node", ""},
		{"duetd was stopped, and nobody decides", func(s *Status) {
			s.Nodes[1] = NodeStatus{Name: "beta", Leaving: true, Silent: &silent, Awaited: &until}
			s.Modules[1].Nodes[0].Stale, s.Modules[1].Nodes[1].Status = true, "Transient"
			s.Modules[1].Decides, s.Modules = Nobody, s.Modules[1:]
		}, Down, "1 of 1 module stands still (mail01), duetd was stopped on beta 4s ago: start it there; safe to lose: no " +
			"node, because nobody decides for mail01 when they lose each other: add a witness", ""},
		{"duetd is being stopped where one runs, which is not known yet but by the connection that is gone",
			func(s *Status) { s.Modules[1].Nodes[1].Status, s.Modules = "Transient", s.Modules[1:] }, Degraded,
			"1 of 1 module has one copy only (mail01); safe to lose: no node", ""},
		{"it takes the time for its return", func(s *Status) {
			over := now.Add(-time.Second)
			s.Nodes[1] = NodeStatus{Name: "beta", Leaving: true, Silent: &silent, Awaited: &over}
			s.Modules[1].Nodes[0].Stale, s.Modules[1].Nodes[1].Status = true, "Transient"
			s.Modules = s.Modules[1:]
		}, Down, "1 of 1 module runs on no node that answers (mail01), duetd was stopped on beta 4s ago: start it there; " +
			"safe to lose: no node", ""},
		{"its node is cut off, and the other one asks for the right", func(s *Status) {
			s.Nodes[1] = NodeStatus{Name: "beta", Silent: &silent}
			s.Modules[1].Nodes[0].Stale, s.Modules[1].Nodes[1].Status = true, "Transient"
			s.Modules = s.Modules[1:]
		}, Down, "1 of 1 module runs on no node that answers (mail01), beta is down for 4s; safe to lose: no node", ""},
		{"its node is cut off, and the other one has the right", func(s *Status) {
			s.Nodes[1] = NodeStatus{Name: "beta", Silent: &silent}
			s.Modules[1].Nodes[0].Stale, s.Modules[1].Nodes[1].Role = true, "ALONE"
			s.Modules[1].Nodes[1].Status, s.Modules = "Transient", s.Modules[1:]
		}, Down, "1 of 1 module is being started (mail01), beta is down for 4s; safe to lose: no node", ""},
		{"one is being protected on the other node", func(s *Status) {
			s.Self = "beta"
			s.Nodes[0].Alive = true
			s.Modules[0].Nodes[0].Joins, s.Modules[0].Nodes[0].Status = true, "Transient"
			s.Modules[0].Nodes[1].Status = "Transient"
		}, Degraded, "1 of 2 modules is being protected (web01); safe to lose: no node", ""},
		{"one was being protected on the other node, which is silent", func(s *Status) {
			s.Self = "beta"
			s.Nodes[0] = NodeStatus{Name: "alpha", Silent: &silent}
			s.Modules[0].Nodes[0].Joins, s.Modules[0].Nodes[0].Stale = true, true
			s.Modules[0].Nodes[1].Status, s.Modules = "Transient", s.Modules[:1]
		}, Down, "1 of 1 module runs on no node that answers (web01), alpha is down for 4s; safe to lose: no node", ""},
		{"one was just made here, and its node has told nothing of it", func(s *Status) {
			s.Self = "beta"
			s.Nodes[0].Alive = true
			s.Modules[0].Nodes[0] = NodeState{Node: "alpha", Role: "UNKNOWN", Status: "NotReady", Stale: true}
			s.Modules[0].Nodes[1] = NodeState{Node: "beta", Role: "STOP", Status: "NotReady", Stopped: true,
				Passing: Passing{Joins: true}, Epoch: 1, Holder: "alpha", Volumes: []VolumeStatus{{}}}
		}, Degraded, "1 of 2 modules is being protected (web01); safe to lose: no node", ""},
		{"one is being protected, and its engine has not been told to run it yet", func(s *Status) {
			s.Modules[0].Task = &Task{Kind: "protect"}
			for i := range s.Modules[0].Nodes {
				n := &s.Modules[0].Nodes[i]
				n.Role, n.Status, n.Stopped, n.Complete, n.Volumes = "STOP", "NotReady", true, i == 0, []VolumeStatus{{}}
			}
		}, Degraded, "1 of 2 modules is being protected (web01); safe to lose: no node", ""},
		{"one is being protected, and its VM is about to find its volumes", func(s *Status) {
			s.Modules[0].Task = &Task{Kind: "protect"}
			s.Modules[0].Nodes[0].Status, s.Modules[0].Nodes[0].VM = "Transient", "io-error"
			s.Modules[0].Nodes[1].Status = "Transient"
		}, Degraded, "1 of 2 modules is being protected (web01); safe to lose: no node", ""},
		{"one was to be protected, which does not come to an end", func(s *Status) {
			s.Modules[0].Task = &Task{Kind: "protect"}
			s.Modules[0].Nodes = []NodeState{{Node: "alpha", Role: "STOP", Status: "NotReady"}}
		}, Down, "1 of 2 modules does not run (web01); safe to lose: beta", "beta"},
		{"its protect has ended, and it does not run yet", func(s *Status) {
			s.Modules[0].Task = &Task{Kind: "protect", Done: true}
			s.Modules[0].Nodes[0].Status, s.Modules[0].Nodes[1].Status = "Transient", "Transient"
		}, Down, "1 of 2 modules is being started (web01); safe to lose: no node", ""},
		{"one was destroyed", func(s *Status) {
			for i := range s.Modules[0].Nodes {
				n := &s.Modules[0].Nodes[i]
				n.Role, n.Status, n.Stopped = "STOP", "NotReady", true
			}
			s.Modules[0].Nodes[0].Ended = "stopped by an admin outside Duet"
		}, Down, "1 of 2 modules has ended otherwise than by Duet (web01); safe to lose: no node", ""},
		{"it was stopped on the node only that answers", func(s *Status) {
			n := s.Modules[0].Nodes
			n[1].Role, n[1].Status, n[1].Stopped, n[0].Role, s.Self = "STOP", "NotReady", true, "ALONE", "beta"
			s.Nodes[0].Alive, s.Nodes[0].Quiet = true, true
		}, Degraded, "1 of 2 modules is not known to run (web01), 1 of 2 modules is not known to be on both of its nodes " +
			"(mail01), the heartbeats of alpha are overdue; safe to lose: no node", ""},
		{"something is to be mended", func(s *Status) {
			s.Modules[1].Nodes[0].Notices = []Notice{{Level: "note", Text: "by the way"},
				{Level: "warning", Text: "alpha does not get the VM's present definition"}}
		}, OK, "2 modules on both of their nodes; safe to lose: alpha or beta; mail01 has something to mend: alpha does " +
			"not get the VM's present definition", "alpha beta"},
		{"something is to be mended of two", func(s *Status) {
			for i := range s.Modules {
				s.Modules[i].Nodes[0].Notices = []Notice{{Level: "warning", Text: "no guard"}}
			}
		}, OK, "2 modules on both of their nodes; safe to lose: alpha or beta; web01, mail01 have something to mend",
			"alpha beta"},
		{"its peer was removed", func(s *Status) {
			s.Nodes = s.Nodes[:1]
			s.Modules[0].Nodes[0].Role, s.Modules = "ALONE", s.Modules[:1]
			s.Modules[0].Nodes[0].Notices = []Notice{CannotDecide("no ping target answers", "beta", "VM", ""),
				{Level: "warning", Code: "definition-unfit", Text: "beta does not get it"}}
			s.Modules[0].Nodes[1].Notices = []Notice{{Level: "refused", Text: "no bridge on beta"}}
		}, Degraded, "1 of 1 module has one copy only (web01); safe to lose: no node", ""},
		{"somebody has paused one", func(s *Status) { s.Modules[0].Nodes[0].VM = "paused" }, Degraded,
			"1 of 2 VMs is paused (web01); safe to lose: alpha or beta", "alpha beta"},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := office(c.change).Judged(now).Verdict
			if v.Level != c.level || v.Text != c.text || strings.Join(v.Safe, " ") != c.safe {
				t.Errorf("%s: %s (%v)\nwant %s: %s (%s)", v.Level, v.Text, v.Safe, c.level, c.text, c.safe)
			}
		})
	}
}

// TestVerdictKeepsWhatItJudges: the status that a backend keeps is not written to.
func TestVerdictKeepsWhatItJudges(t *testing.T) {
	s := office(nil)
	before := slices.Clone(s.Modules)
	s.Judged(time.Now())
	if s.Modules[0].Level != before[0].Level || s.Verdict.Text != "" {
		t.Error("Judged has changed its receiver")
	}
}

// TestJustAfterAStandstill: a node that has stood still says of itself, too, that it is not known what runs.
func TestJustAfterAStandstill(t *testing.T) {
	row := func(node, role string) NodeState {
		return NodeState{Node: node, Role: role, Status: "Ready", Epoch: 1, Holder: "alpha", Complete: true, Quiet: true}
	}
	s := Status{Self: "alpha", Nodes: []NodeStatus{{Name: "alpha", Alive: true}, {Name: "beta", Alive: true}},
		Modules: []ModuleStatus{{Name: "web01", Decides: "witness", Nodes: []NodeState{row("alpha", "PRIM"),
			row("beta", "SECOND")}}}}
	got := s.Judged(time.Now()).Verdict
	const want = "1 of 1 module is not known to run (web01); safe to lose: no node"
	if got.Level != Degraded || got.Text != want {
		t.Errorf("%s: %s", got.Level, got.Text)
	}
}
