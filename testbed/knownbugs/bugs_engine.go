package main

const (
	asks    = "appmodules/engine/authority.go"
	follows = "appmodules/engine/follow.go"
	kernel  = "appmodules/engine/engine.go"
	vm      = "appmodules/engine/guest.go"
	works   = "appmodules/engine/work.go"
	facts   = "appmodules/engine/facts.go"
)

// engines are bugs in what a node does with its right.
func engines() []Bug {
	return []Bug{
		{Name: "lost-vm-not-missed", Source: "ours, 79a02f0; pain 14", By: Model, Within: 10000,
			Breaks: "a VM that ended without an event is never started again",
			Edits: []Edit{{vm, "if now := e.rt.Now(); e.m.Phase != appmodules.Running ||", "if now := e.rt.Now(); true || e.m.Phase != appmodules.Running ||"},
				{works, "if now := e.rt.Now(); e.m.Phase != appmodules.Running ||", "if now := e.rt.Now(); true || e.m.Phase != appmodules.Running ||"}}},
		{Name: "guest-shutdown-is-a-crash", Source: "XCP-ng; trap 11", By: ModelScenarios, Within: 147,
			Breaks: "a guest that shuts down by itself is started again",
			Edits: []Edit{{vm, "case vmmanager.ByGuest:\n\t\te.guestEnded(e.cfg.Module.Policy.On.Shutdown",
				"case vmmanager.ByGuest:\n\t\te.guestEnded(e.cfg.Module.Policy.On.Crash"},
				{"appmodules/workload/vm.go", "case vmmanager.ByGuest:\n\t\treturn []appmodules.Happening{v.on.Shutdown.", "case vmmanager.ByGuest:\n\t\treturn []appmodules.Happening{v.on.Crash."}}},
		{Name: "suspicion-at-start", Source: "corosync#705; trap 14", By: ModelScenarios, Within: 147,
			Breaks: "a node that has just started calls its peer silent before it has listened",
			Edits:  []Edit{{facts, "|| e.rt.Now().Sub(e.began) < e.cfg.Times.Detection", ""}}},
		{Name: "heartbeats-alone-count", Source: "ours, 65c5318", By: ModelScenarios, Within: 147,
			Breaks: "a peer that replicates is called dead because its heartbeats are cut",
			Edits: []Edit{{facts, "|| e.vols.heard() ", ""},
				{facts, "|| e.following.heard() ", ""}}},
		{Name: "full-metadata-disk-ignored", Source: "ours, 3b2f286; etcd on a full disk", By: ModelScenarios, Within: 147,
			Breaks: "a node acts on what it could not save",
			Edits: []Edit{{kernel, "e.event(appmodules.StorageFailed, \"metadata cannot be saved: \"+err.Error())\n\t\treturn false",
				"e.rec = rec\n\t\treturn true"},
				{"appmodules/engine/durable.go", "e.event(appmodules.StorageFailed, \"metadata cannot be saved: \"+err.Error())\n\t\treturn false", "e.rec, e.keep.Saved = rec, keep.Saved\n\t\treturn true"}}},
		{Name: "old-epoch-attached", Source: "DRBD drbd#30; rule 2", By: Model, Within: 3000,
			Breaks: "a secondary that knows a newer epoch serves the primary of an older one",
			Edits: []Edit{{follows, "case cluster.Epoch(h.Epoch) < e.rec.Epoch:\n", "case false:\n"},
				{"appmodules/engine/following.go", "case cluster.Epoch(h.Epoch) < e.rec.Epoch:\n", "case false:\n"}}},
		{Name: "witness-down-stops-the-pair", Source: "SafeKit; Patroni #3572, #3403; trap 10", By: Model, Within: 500,
			Breaks: "a healthy primary steps down because the third service does not answer",
			Edits: []Edit{{asks, "e.post(func() { delete(e.informed, w) })",
				"e.post(func() { delete(e.informed, w); e.step(appmodules.Deposed, \"\") })"}}},
		{Name: "grant-not-durable", Source: "Raft; etcd's lost votes", By: Model, Within: 1000,
			Breaks: "a node acts on a right that it forgets when it is killed",
			Edits:  []Edit{{asks, "if e.save(e.rec.Won(e.self, ask.Epoch, true)) {", "if e.rec = e.rec.Won(e.self, ask.Epoch, true); true {"}}},
		{Name: "swap-without-close", Source: "linstor-proxmox#47: dual primary; pain 17", By: Model, Within: 1000,
			Breaks: "the giver of a planned swap still acknowledges after it has promised the epoch",
			Edits: []Edit{{asks, "from := e.rec.Epoch\n\te.vols.close()\n", "from := e.rec.Epoch\n"},
				{asks, "from := e.rec.Epoch\n\te.dismiss()\n", "from := e.rec.Epoch\n"}}},
		{Name: "slow-peer-hammered", Source: "ours, 3000adb; Longhorn #1940", By: ModelScenarios, Within: 147,
			Breaks: "a peer that is too slow is attached again at once, and costs the guest a stall each time",
			Edits: []Edit{{"appmodules/engine/volumes.go", "if v.stalls < 2 {", "if true {"},
				{"appmodules/engine/linking.go", "if l.stalls < 2 {", "if true {"}}},
	}
}
