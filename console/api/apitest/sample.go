package apitest

import (
	"time"

	"duet/console/api"
)

// Sample is the status of a cluster in which web01 resyncs, db is ready and old waits. Each call makes it anew:
// tests may change it.
func Sample() api.Status {
	silent := Now().Add(-90 * time.Second)
	return api.Status{
		Cluster: "office", Self: "alpha", Version: "1.0",
		Nodes: []api.NodeStatus{
			{Name: "alpha", Alive: true, Version: "1.0", API: "10.0.0.1:7422"},
			{Name: "beta", Alive: true, Version: "1.1", API: "10.0.0.2:7422",
				Paths: map[string]bool{"hb1": true, "hb2": false}},
			{Name: "gamma", Version: "1.0", Silent: &silent, Paths: map[string]bool{"hb1": false}},
		},
		Witnesses: []api.WitnessStatus{
			{Addr: "10.0.0.9:7425", Alive: true},
			{Addr: "10.0.0.8:7425", Spare: true, Silent: &silent, Why: "it cannot take the voter's place: connection refused"},
		},
		Modules: []api.ModuleStatus{web01(), db(), old()},
	}
}

// web01 runs on alpha alone, and beta would refuse it.
func web01() api.ModuleStatus {
	came := Now().Add(-2 * time.Hour)
	sync := &api.Sync{Kind: "resync", Total: 10 << 30, Compared: 4 << 30, Differed: 1 << 30, Moved: 1 << 30,
		Rate: 100 << 20, ETA: 61}
	return api.ModuleStatus{Name: "web01", Kind: "vm", VM: "web01", Decides: "witness", Nodes: []api.NodeState{
		{
			Node: "alpha", Role: "ALONE", Status: "Ready", Why: "the VM runs here; beta is catching up",
			Since: Now().Add(-2 * time.Hour),
			Epoch: 4, Holder: "alpha", Complete: true, VM: "running",
			Came: &api.Arrival{At: &came, Why: "the primary is silent and the data here are complete: take over; the peer " +
				"is silent and the witness 10.0.0.9:7425 agreed (rule 3b)"},
			Volumes: []api.VolumeStatus{{
				Name: "web01/vda", Target: "vda", Path: "/vm/web01.raw", Size: 20 << 30, State: "syncing",
				Generation: "7f3a", DirtyBytes: 6 << 30, Sync: sync, LagMicros: 840, WriteOps: 1200, ReadOps: 5300,
			}},
		},
		{
			Node: "beta", Role: "SECOND", Status: "Transient", Why: "its data follow alpha and are not complete yet",
			Since: Now().Add(-time.Minute),
			Epoch: 4, Holder: "alpha", VM: "off",
			Volumes: []api.VolumeStatus{{Name: "web01/vda", Target: "vda", Path: "/vm/web01.raw", Size: 20 << 30,
				State: "second", Generation: "6e11"}},
			Notices: []api.Notice{
				{Level: "refused", Code: "bridge-missing", Text: "interface 1: there is no bridge br0",
					Remedy: "`ip link add br0 type bridge`"},
				{Level: "note", Code: "uefi-variables", Text: "UEFI variables: they are not replicated yet"},
			},
		},
	}}
}

// db is on both nodes, with the proof of its copies late.
func db() api.ModuleStatus {
	proven := Now().Add(-50 * time.Hour)
	return api.ModuleStatus{Name: "db", Kind: "vm", VM: "postgres", Decides: "witness", Nodes: []api.NodeState{
		{
			Node: "beta", Role: "PRIM", Status: "Ready", Why: "the VM runs here, every write is on both nodes",
			Since: Now().Add(-30 * time.Hour),
			Epoch: 12, Holder: "beta", Complete: true, VM: "running",
			Volumes: []api.VolumeStatus{{
				Name: "db/vda", Target: "vda", Path: "/dev/vg0/db", Size: 100 << 30, State: "connected", Generation: "11aa",
				LagMicros: 310, Proven: &proven, Proof: dbProof(),
			}},
		},
		{
			Node: "alpha", Role: "SECOND", Status: "Ready", Why: "may take over", Since: Now().Add(-30 * time.Hour),
			Epoch: 12, Holder: "beta", Complete: true, VM: "off",
			Volumes: []api.VolumeStatus{{Name: "db/vda", Target: "vda", Path: "/dev/vg0/db", Size: 100 << 30, State: "second",
				Generation: "11aa"}},
		},
	}}
}

// dbProof takes longer than was wished.
func dbProof() *api.Proof {
	ends := Now().Add(300 * time.Hour)
	return &api.Proof{Age: (50 * time.Hour).Seconds(), Pass: (168 * time.Hour).Seconds(),
		Done: 25 << 30, Ends: &ends, Late: true}
}

// old waits for gamma, which is dead and had the right.
func old() api.ModuleStatus {
	return api.ModuleStatus{Name: "old", Kind: "vm", VM: "old", Decides: "witness", Nodes: []api.NodeState{
		{
			Node: "alpha", Role: "WAIT", Status: "NotReady",
			Why:   "gamma held epoch 2 and does not answer; start gamma, or duet prim old --node alpha",
			Since: Now().Add(-90 * time.Second), Epoch: 2, Holder: "gamma", VM: "off",
		},
		{Node: "gamma", Role: "PRIM", Status: "Ready", Why: "the VM runs here, every write is on both nodes",
			Since: Now().Add(-9 * time.Hour), Epoch: 2, Holder: "gamma", Complete: true, VM: "running", Stale: true},
	}}
}

// Work is a task seen four times: begun, halfway, almost done, done.
func Work() []api.Task {
	t := func(step string, s *api.Sync) api.Task {
		return api.Task{ID: "t1", Kind: "protect", Module: "web01", Step: step, Sync: s, Began: Now()}
	}
	half := api.Sync{Kind: "adopt", Total: 10 << 30, Compared: 5 << 30, Moved: 3 << 30, Rate: 100 << 20, ETA: 51.2}
	more := half
	more.Compared, more.ETA = 9<<30, 10.2
	done := t("done", nil)
	ended := Now().Add(2 * time.Minute)
	done.Done, done.Ended, done.Result = true, &ended, "web01 is protected: alpha has the VM, beta the second copy"
	return []api.Task{t("making the volume on beta", nil), t("copying vda", &half), t("copying vda", &more), done}
}
