package main

const votes = "cluster/authority.go"

// authority are bugs in the rules of who may write.
func authority() []Bug {
	return []Bug{
		{Name: "stale-copy-wins", By: Rules, Within: 1,
			Source: "DRBD drbd#145; pain 1 of peers",
			Breaks: "a voter says yes to a copy that is not complete at the newest epoch granted to somebody else",
			Edit: Edit{votes,
				"case r.Holder != a.Node && a.Complete < r.Epoch:",
				"case false:"}},
		{Name: "cold-copy-counts", By: Model, Within: 3000,
			Source: "ours, c905637; Jepsen on NATS 2.12.1",
			Breaks: "a copy that lost unflushed writes with its power counts as complete",
			Edit: Edit{votes,
				"return r.Epoch > 0 && r.Complete == r.Epoch && !r.Cold",
				"return r.Epoch > 0 && r.Complete == r.Epoch"}},
		{Name: "cold-holder-leads", By: Model, Within: 500,
			Source: "ours, c905637; StarWind's RAM journal",
			Breaks: "a holder that lost power overwrites the better copy of its peer",
			Edit: Edit{votes,
				"return r.Cold && !r.Alone && !peer.Cold && peer.Complete == r.Epoch &&",
				"return false && r.Cold && !r.Alone && !peer.Cold && peer.Complete == r.Epoch &&"}},
		{Name: "silent-witness-agrees", By: Model, Within: 3000,
			Source: "Patroni #3572 turned round; simplyblock's arbitration",
			Breaks: "a witness that does not answer counts as a yes",
			Edit: Edit{votes,
				"case !answered:\n\t\t\treturn false, ",
				"case !answered:\n\t\t\treturn true, "}},
		{Name: "still-alone-after-resync", By: Model, Within: 3000,
			Source: "cluster/DESIGN.md, rule 7; DRBD ChangeLog 9.2.18",
			Breaks: "the holder forgets that its peer is complete, and goes on alone without asking after a restart",
			Edit: Edit{votes,
				"r.Alone, r.Took = false, false\n\treturn r",
				"return r"}},
		{Name: "epoch-of-others-not-learned", By: Model, Within: 1000,
			Source: "keepalived#2649: two masters",
			Breaks: "a node that hears of a newer holder goes on with its own epoch",
			Edit: Edit{votes,
				"if e <= r.Epoch || holder == owner {",
				"if true || e <= r.Epoch || holder == owner {"}},
	}
}
