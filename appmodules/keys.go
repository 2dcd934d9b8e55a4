package appmodules

// CommonKeys are the keys of every module.
var CommonKeys = []Key{
	{"name", "name of the module, 1 to 39 of a-z, 0-9 and -"},
	{"id", "identity of the module: made with it, and never edited; modules of early releases have none"},
	{"kind", "what it protects"},
	{"nodes", "its nodes; the first is the preferred one, unless policy.primary says otherwise"},
	{"policy.arbitration", "where neither witness nor fence agent decides: `safe` waits rather than risk two writers, " +
		"`available` goes on if a ping target answers"},
	{"policy.primary", "where it should run: a node, `last` (where it ran last) or `any`"},
	{"policy.failback", "`auto` brings it back to policy.primary, a node, by itself, so a swap away from there is " +
		"refused; `manual` does not"},
	{"policy.restart.max", "how often it may be restarted, and moved because of a failure, within " +
		"policy.restart.window; then it stops"},
	{"policy.restart.window", "time in which restarts and moves are counted"},
	{"policy.restart.pause", "time between two starts of what did not start; it is tried on the peer first"},
	{"policy.start.order", "of modules that start on a node at the same time the lowest order goes first"},
	{"policy.start.delay", "time after its start before the next order starts"},
	{"policy.disk_budget", "how long an operation on a disk of the node itself may take, before the module moves to a " +
		"peer in step"},
	{"policy.stall_budget", "how long a write waits for a peer that does not answer, before the pair separates"},
	{"policy.shutdown", "how long what it runs may take to end by itself, before it is ended"},
	{"policy.on.crash", "what follows when what it runs dies: `restart`, `failover` or `stop`"},
	{"policy.on.panic", "what follows when the guest's kernel panics: `restart`, `failover` or `stop`"},
	{"policy.on.shutdown", "what follows when it ends by itself on purpose: `restart`, `failover` or `stop`"},
	{"policy.on.admin", "what follows when somebody ends it past Duet: `restart`, `failover` or `stop`"},
	{"policy.cold_start", "`never`, or `after 5m`: when a node that has not met its peer since its own start goes on as " +
		"if it had"},
	{"policy.split_brain", "`keep` sets the loser's version aside and resyncs, `hold` waits for a human first"},
	{"policy.frozen", "what becomes of what it runs while writes wait because nobody grants the right to go on without " +
		"the peer: " +
		"`wait` lets it stand still, `kill after 1m` ends it then, for those who fear old answers more than none"},
	{"policy.proof", "how long the proof takes that both copies are the same, again and again in the background: " +
		"`week`, `48h` or `off`; " +
		"it uses at most 2 % of the disks' time, and takes longer if that is not enough"},
	{"policy.proof_repair", "what follows when the proof finds a difference: `ask` leaves that to a human, `auto` " +
		"writes over " +
		"a copy that is known to have " +
		"changed by itself from the other one; both raise an alarm or a line in the log"},
	{"policy.fence", "`if-needed` uses a fence agent where nothing else can decide, `before-start` besides whatever " +
		"grants the right, before it starts on the other node"},
}
