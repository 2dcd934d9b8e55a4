package main

const votes = "cluster/authority.go"

// authority are bugs in the rules of who may write.
func authority() []Bug {
	return []Bug{
		{Name: "stale-copy-wins", Source: "DRBD drbd#145; pain 1 of peers", By: Rules, Within: 1,
			Breaks: "a voter says yes to a copy that is not complete at the newest epoch granted to somebody else",
			Edits:  []Edit{{votes, "case r.Holder != a.Node && a.Complete < r.Epoch:", "case false:"}}},
		{Name: "promises-forgotten", Source: "the exhaustive model of DESIGN §5.5; Raft's votedFor", By: Rules, Within: 1,
			Breaks: "a voter says yes to two nodes for one epoch",
			Edits:  []Edit{{votes, "case a.Epoch < r.Promised:", "case a.Epoch < r.Epoch:"}}},
		{Name: "cold-copy-counts", Source: "ours, c905637; Jepsen on NATS 2.12.1", By: Model, Within: 500,
			Breaks: "a copy that lost unflushed writes with its power counts as complete",
			Edits:  []Edit{{votes, "return r.Epoch > 0 && r.Complete == r.Epoch && !r.Cold", "return r.Epoch > 0 && r.Complete == r.Epoch"}}},
		{Name: "cold-copy-is-voted-for", Source: "ours, ed1e3a9", By: Rules, Within: 1,
			Breaks: "a voter whose own copy is whole says yes to one that lost power",
			Edits:  []Edit{{votes, "case a.Cold && r.IsComplete():", "case false:"}}},
		{Name: "cold-holder-leads", Source: "ours, c905637; StarWind's RAM journal", By: Model, Within: 500,
			Breaks: "a holder that lost power overwrites the better copy of its peer",
			Edits: []Edit{{votes, "return r.Cold && !r.Alone && !peer.Cold && peer.Complete == r.Epoch &&",
				"return false && r.Cold && !r.Alone && !peer.Cold && peer.Complete == r.Epoch &&"}}},
		{Name: "heir-that-lost-power", Source: "ours, c8c20e0, random search", By: Rules, Within: 1,
			Breaks: "a planned swap gives the right to a peer that lost power meanwhile",
			Edits:  []Edit{{votes, "return r.Complete == from && !r.Cold && free", "return r.Complete == from && free"}}},
		{Name: "fence-before-it-was-met", Source: "Pacemaker's start-up fencing; trap 14", By: Rules, Within: 1,
			Breaks: "who boots first decides after a blackout: a fence or a ping counts before the peer was met (rule 6)",
			Edits:  []Edit{{votes, "case !ev.Met:", "case false:"}}},
		{Name: "silent-witness-agrees", Source: "Patroni #3572 turned round; simplyblock's arbitration", By: Model, Within: 300,
			Breaks: "a witness that does not answer counts as a yes",
			Edits:  []Edit{{votes, "case !answered:\n\t\t\treturn false, ", "case !answered:\n\t\t\treturn true, "}}},
		{Name: "no-of-the-peer-ignored", Source: "Corosync two_node; Proxmox 2-node quorum reports", By: Rules, Within: 1,
			Breaks: "a peer that answers no is taken for silent",
			Edits:  []Edit{{votes, "case ev.PeerNo != \"\":\n\t\treturn false,", "case ev.PeerNo == \"never\":\n\t\treturn false,"}}},
		{Name: "still-alone-after-resync", Source: "DESIGN §5.7; DRBD ChangeLog 9.2.18", By: Model, Within: 3000,
			Breaks: "the holder forgets that its peer is complete, and goes on alone without asking after a restart",
			Edits:  []Edit{{votes, "r.Alone, r.Took = false, false\n\treturn r", "return r"}}},
		{Name: "epoch-of-others-not-learned", Source: "keepalived#2649: two masters", By: Model, Within: 1000,
			Breaks: "a node that hears of a newer holder goes on with its own epoch",
			Edits:  []Edit{{votes, "if e <= r.Epoch || holder == owner {", "if true || e <= r.Epoch || holder == owner {"}}},
	}
}
