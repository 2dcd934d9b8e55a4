package main

const (
	asks    = "appmodules/engine/authority.go"
	follows = "appmodules/engine/follow.go"
	kernel  = "appmodules/engine/engine.go"
	vm      = "appmodules/engine/guest.go"
	facts   = "appmodules/engine/facts.go"
)

// engines are bugs in what a node does with its right.
func engines() []Bug {
	return []Bug{
		{Name: "vote-before-fence", Source: "DESIGN §5.5; simplyblock: fence, then grant", By: Production, Within: 3000,
			Breaks: "the secondary goes on acknowledging after it has promised the next epoch",
			Edits: []Edit{{asks, "e.vols.close()\n\te.cancelAsk()\n\tif !e.save(rec) {\n\t\treturn cluster.Answer{}, errForgetful",
				"e.cancelAsk()\n\tif !e.save(rec) {\n\t\treturn cluster.Answer{}, errForgetful"}}},
		{Name: "witness-not-told", Source: "ours, aae46c3: a witness without memory", By: Model, Within: 3000,
			Breaks: "an epoch that was got without the witness is unknown to it, and a stale copy gets its yes",
			Edits:  []Edit{{asks, "if e.informed[w] >= ask.Epoch {", "if true || e.informed[w] >= ask.Epoch {"}}},
		{Name: "cold-ask-overtaken", Source: "ours, bef7c05, random search", By: Model, Within: 20000,
			Breaks: "a copy that lost power is promoted by an ask that began before its peer came back",
			Edits:  []Edit{{asks, "if ok && !ev.PeerYes && ask.Cold && !e.silent() {", "if false && !e.silent() {"}}},
		{Name: "heir-alone-confirms", Source: "ours, 012f9ff", By: Model, Within: 20000,
			Breaks: "a node that got the epoch by asking confirms the handover of it, and the giver takes itself for complete",
			Edits: []Edit{{asks, "case e.rec.Epoch == h.Epoch && e.rec.Holds(e.self) && !e.rec.Alone:",
				"case e.rec.Epoch == h.Epoch && e.rec.Holds(e.self):"}}},
		{Name: "late-ask-of-a-pair-in-step", Source: "ours, scenario late-ask-and-a-pair-in-step", By: ModelScenarios, Within: 147,
			Breaks: "a repeated ask takes a pair apart that is in step",
			Edits:  []Edit{{asks, "if rec == e.rec && rec.IsComplete() {", "if false {"}}},
		{Name: "late-start-after-kill", Source: "ours, 56b9495; VirtualDomain agent", By: Model, Within: 3000,
			Breaks: "a VM's start that was under way ends after its kill: two guests",
			Edits: []Edit{{vm, "last.cancel()\n\t\t\t_ = e.rt.Wait(context.Background(), last.done, nil) // it was cancelled",
				"_ = last"}}},
		{Name: "lost-vm-not-missed", Source: "ours, 79a02f0; pain 14", By: Model, Within: 3000,
			Breaks: "a VM that ended without an event is never started again",
			Edits:  []Edit{{vm, "if now := e.rt.Now(); e.m.Phase != appmodules.Running ||", "if now := e.rt.Now(); true || e.m.Phase != appmodules.Running ||"}}},
		{Name: "guest-shutdown-is-a-crash", Source: "XCP-ng; trap 11", By: ModelScenarios, Within: 147,
			Breaks: "a guest that shuts down by itself is started again",
			Edits: []Edit{{vm, "case vmmanager.ByGuest:\n\t\te.guestEnded(e.cfg.Module.Policy.On.Shutdown",
				"case vmmanager.ByGuest:\n\t\te.guestEnded(e.cfg.Module.Policy.On.Crash"}}},
		{Name: "suspicion-at-start", Source: "corosync#705; trap 14", By: Model, Within: 5000,
			Breaks: "a node that has just started calls its peer silent before it has listened",
			Edits:  []Edit{{facts, "|| e.rt.Now().Sub(e.began) < e.cfg.Times.Detection", ""}}},
		{Name: "heartbeats-alone-count", Source: "ours, 65c5318", By: ModelScenarios, Within: 147,
			Breaks: "a peer that replicates is called dead because its heartbeats are cut",
			Edits:  []Edit{{facts, "|| e.vols.heard() ", ""}}},
		{Name: "full-metadata-disk-ignored", Source: "ours, 3b2f286; etcd on a full disk", By: Model, Within: 2000,
			Breaks: "a node acts on what it could not save",
			Edits: []Edit{{kernel, "e.event(appmodules.StorageFailed, \"metadata cannot be saved: \"+err.Error())\n\t\treturn false",
				"e.rec = rec\n\t\treturn true"}}},
		{Name: "old-epoch-attached", Source: "DRBD drbd#30; rule 2", By: Model, Within: 3000,
			Breaks: "a secondary that knows a newer epoch serves the primary of an older one",
			Edits:  []Edit{{follows, "case cluster.Epoch(h.Epoch) < e.rec.Epoch:\n", "case false:\n"}}},
		{Name: "ticket-of-another-link", Source: "ours, ed78ff0", By: Model, Within: 20000,
			Breaks: "a late word that everything was sent completes a copy that has missed writes since",
			Edits:  []Edit{{follows, "if !ok || vol.sec == nil || !vol.attached || t.Link != vol.link {", "if !ok || vol.sec == nil || !vol.attached {"}}},
		{Name: "witness-down-stops-the-pair", Source: "SafeKit; Patroni #3572, #3403; trap 10", By: Model, Within: 500,
			Breaks: "a healthy primary steps down because the third service does not answer",
			Edits: []Edit{{asks, "e.post(func() { delete(e.informed, w) })",
				"e.post(func() { delete(e.informed, w); e.step(appmodules.Deposed, \"\") })"}}},
	}
}
