package main

const votes = "cluster/authority.go"

// authority are bugs in the rules of who may write.
func authority() []Bug {
	return []Bug{
		{Name: "stale-copy-wins", Source: "DRBD drbd#145; pain 1 of peers", By: Rules, Within: 1,
			Breaks: "a voter says yes to a copy that is not complete at the newest epoch granted to somebody else",
			Edits:  []Edit{{votes, "case r.Holder != a.Node && a.Complete < r.Epoch:", "case false:"}}},
		{Name: "cold-copy-counts", Source: "ours, c905637; Jepsen on NATS 2.12.1", By: Model, Within: 3000,
			Breaks: "a copy that lost unflushed writes with its power counts as complete",
			Edits:  []Edit{{votes, "return r.Epoch > 0 && r.Complete == r.Epoch && !r.Cold", "return r.Epoch > 0 && r.Complete == r.Epoch"}}},
		{Name: "cold-holder-leads", Source: "ours, c905637; StarWind's RAM journal", By: Model, Within: 500,
			Breaks: "a holder that lost power overwrites the better copy of its peer",
			Edits: []Edit{{votes, "return r.Cold && !r.Alone && !peer.Cold && peer.Complete == r.Epoch &&",
				"return false && r.Cold && !r.Alone && !peer.Cold && peer.Complete == r.Epoch &&"}}},
		{Name: "silent-witness-agrees", Source: "Patroni #3572 turned round; simplyblock's arbitration", By: Model, Within: 3000,
			Breaks: "a witness that does not answer counts as a yes",
			Edits:  []Edit{{votes, "case !answered:\n\t\t\treturn false, ", "case !answered:\n\t\t\treturn true, "}}},
		{Name: "still-alone-after-resync", Source: "cluster/DESIGN.md, rule 7; DRBD ChangeLog 9.2.18", By: Model, Within: 3000,
			Breaks: "the holder forgets that its peer is complete, and goes on alone without asking after a restart",
			Edits:  []Edit{{votes, "r.Alone, r.Took = false, false\n\treturn r", "return r"}}},
		{Name: "epoch-of-others-not-learned", Source: "keepalived#2649: two masters", By: Model, Within: 1000,
			Breaks: "a node that hears of a newer holder goes on with its own epoch",
			Edits:  []Edit{{votes, "if e <= r.Epoch || holder == owner {", "if true || e <= r.Epoch || holder == owner {"}}},
	}
}
