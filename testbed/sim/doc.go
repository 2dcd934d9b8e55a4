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
//	secondary.go the volume on the node that follows
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
package sim
