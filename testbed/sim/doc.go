// Package sim runs a whole cluster in one goroutine on a virtual clock: two nodes, a
// witness, the volume of one module, its VM and an admin.
//
// What decides is the code of production: appmodules/engine with its table, package
// cluster's authority, and of blockrepl the handshake (Decide), lineages, generations
// and tickets. What touches the world is simulated: the network, the disks, which
// lose unflushed writes when power is cut, fail, hang, and lie, the hypervisor, the guest, and the byte
// path of a volume, whose rules (blockrepl/DESIGN.md) are written down once more here
// in a few hundred lines, block by block instead of byte by byte. The production byte
// path takes the model's place in a second backend: engine.NewStorage with its Primary
// and Secondary on the same disks, over byte streams on the same network, on the clock
// of testing/synctest. It does the same scripts, is held to the same promises, and is
// the one that counts; the model is several times faster and its runs are the same
// each time, which those of goroutines are not quite.
//
//	sched.go     virtual time; coroutines in place of goroutines; a process and its death
//	network.go   calls between nodes, replication connections, cuts by direction, delay, repetition
//	disk.go      what survives: blocks, dirty log, store
//	primary.go   the volume on the node that writes; hold.go its flushes; resync.go its peer
//	secondary.go the volume on the node that follows; tenant.go what either has in its disk and log
//	guest.go     the VM and what its guest wrote, was promised and reads
//	cluster.go   two nodes, witness, fence; node.go one of them, its daemon and its power;
//	             hearing.go what heartbeats tell it; story.go what is told of it
//	live.go      goroutines of production in this world; production.go the real byte path,
//	             image.go its disks, logs and frontend, stream.go its connections
//	illness.go   what disks do wrong; damage.go what must hold then; ailing.go at random
//	check.go     what must never happen; healthy.go what must never happen to a pair that is well
//	script.go    scenarios in text, transcripts; faults.go and expect.go their lines
//	random.go    random schedules
//	search.go    many of them, and how a failing one shrinks to a script
//	cover.go     which rows of the table were taken
//	broken.go    contracts that are not kept, to prove that the checks notice
//
// testdata has scenarios: a comment that says what happened in an operator's words, a
// script, a line of dashes and the transcript, which TestScenarios compares byte for
// byte. With -update it writes them anew: only commit the change if you understand
// what caused it. testdata/open has those that fail, each with a fault of the engine
// that is known; only -open runs them.
//
// A run depends on its script and its seed only.
//
// Promises. A failure is a broken promise of docs/safety.md or an expectation of a script that was not met; it
// can be done again from script and seed. Nothing sleeps by the real clock and no run leaves a goroutine behind
// (TestLeak).
//
// Not here: two modules at a time (the start order), the spares of a witness, members that come and go, the
// daemon's own start (cmd/node), the formats in which badgerlog and backing keep things.
//
// Kinder than the real thing: a block is written whole or not at all; the store of the engine is durable at
// once; the witness loses nothing; a fence agent never fails; a frozen process of the real byte path computes on
// until it reaches out. Harsher: calls come twice, late and in any order; what was not flushed is lost block by
// block; a process dies between any two of its waits; messages of a connection travel one after the other.
//
// Goroutines. The world is one goroutine. Tasks of a process are coroutines in it (sched.go): they need no lock,
// and nothing else happens while one of them runs. With the real byte path its goroutines run beside the world,
// in one bubble of testing/synctest (live.go): they post what they have to say, and only what both sides touch
// has a lock: live, gate, disk and stream.
//
// Where to change what: a new fault is a verb (script.go) with its method (faults.go) and a line of random.go or
// ailing.go, and of harmless (healthy.go) if it disturbs nobody; a new promise is a method of checker, told from
// where it can be broken, best with a kind of broken that TestBroken has to find; a rule of blockrepl that
// changes is changed in primary.go, secondary.go or attach.go too, and the scenarios are done by both byte
// paths.
package sim
