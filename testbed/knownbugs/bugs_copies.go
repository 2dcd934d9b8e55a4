package main

// copies are bugs of the secondary and of how copies come together.
func copies() []Bug {
	return []Bug{
		{Name: "complete-before-flushed", Source: "MongoDB, NATS: acknowledged before flushed; cluster/DESIGN.md, rule 7", By: Crashes, Within: 2000,
			Breaks: "a copy says that it is complete before what it was sent is durable",
			Edits: []Edit{{repl + "secondary.go", "if err := s.dev.Flush(); err != nil {\n\t\treturn fmt.Errorf(\"flush before complete", "if err := error(nil); err != nil {\n\t\treturn fmt.Errorf(\"flush before complete"},
				{repl + "secondary.go", "forget, lineage, s.dev.Flush, func() {", "forget, lineage, func() error { return nil }, func() {"}}},
		{Name: "always-intact", Source: "blockrepl: Welcome.Intact", By: Crashes, Within: 2000,
			Breaks: "a copy whose process died says that it lost nothing",
			Edits:  []Edit{{repl + "secondary.go", "Intact: n.complete && s.intact == n.epoch", "Intact: n.complete"}}},
		{Name: "discard-not-mirrored", Source: "DRBD ChangeLog 9.3.x: discards; row 19 of peers", By: Crashes, Within: 400,
			Breaks: "a resync does not make holes on the peer where there are holes here",
			Edits:  []Edit{{repl + "session.go", "err = n.s.dev.Discard(off, int64(h.Count))", "err = nil"}}},
		{Name: "ack-before-apply", Source: "DRBD protocol A; SafeKit async", By: Crashes, Within: 400,
			Breaks: "the secondary acknowledges a write that it does not have",
			Edits: []Edit{{repl + "session.go", "if err = n.apply(h, payload); err != nil {",
				"if h.Flags&wire.FlagResync != 0 {\n\t\t\terr = n.apply(h, payload)\n\t\t}\n\t\tif err != nil {"},
				{repl + "session.go", "switch err = n.apply(h, payload); {", "if !n.complete {\n\t\t\terr = n.apply(h, payload)\n\t\t}\n\t\tswitch {"}}},
		{Name: "secondary-flush-lies", Source: "pain 1; disks and file systems that ignore flushes", By: Crashes, Within: 400,
			Breaks: "the secondary answers a flush without flushing",
			Edits: []Edit{{repl + "session.go", "if err := n.s.dev.Flush(); err != nil {", "if err := error(nil); err != nil {"},
				{repl + "session.go", "err := n.s.dev.Flush()", "err := error(nil)"}}},
		{Name: "equal-whatever-differs", Source: "drbd#145, linstor-server#207: up to date and different", By: Crashes, Within: 400,
			Breaks: "a compare says that regions are equal which are not",
			Edits: []Edit{{repl + "sums.go", "differs |= 1 << bit", "differs |= 0"},
				{repl + "sums.go", "differs |= bit\n\t\t\t}", "differs |= 0\n\t\t\t}"}}},
		{Name: "lineage-forgets", Source: "ganeti#1167; DRBD two-phase commit of an id", By: Crashes, Within: 400,
			Breaks: "a generation is stored without the ones before it, and copies that belong together have diverged",
			Edits: []Edit{{repl + "generation.go", "line := append(append(make([]Generation, 0, len(l.Line)+1), l.Line...), g)",
				"line := append(make([]Generation, 0, len(l.Line)+1), g)"}}},
		{Name: "reattached-without-resend", Source: "DRBD: requests of a lost connection; drbd#30", By: Crashes, Within: 400,
			Breaks: "a peer that comes back is not sent what was in flight",
			Edits: []Edit{{repl + "link.go", "\tp.resend()\n", "\n"},
				{repl + "link.go", "\tp.review(nil) // with a new link nothing can end\n", "\n"}}},
	}
}
