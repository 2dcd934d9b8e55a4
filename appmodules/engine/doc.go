// Package engine runs modules: one Engine is one module on one node, one
// goroutine owns it.
//
// It promises that this node begins to acknowledge writes only after its record says durably that it holds the newest
// epoch it knows (cluster/DESIGN.md, rule 1), and that a yes to the peer is given after the volumes here were fenced,
// never before (rule 5). It decides nothing by itself: what is right is in package cluster, what follows from what in
// the table of package appmodules. It moves no data, starts no VM and opens no connection: packages blockrepl,
// appmodules/workload and cluster/control do.
//
// The goroutine takes events from a mailbox, computes Facts, lets the table of
// package appmodules decide and carries the row's actions out in order. What must
// be durable is saved before the next action; what takes time, as whatever an image or
// a hypervisor does, runs on goroutines of the Engine and posts its end to the mailbox with
// a token, so that an answer that comes too late is recognised. Only a save is waited
// for, and who asks something meanwhile is told so at once.
//
// Goroutines of an Engine: the owner, in run; tellLoop, which exchanges states with the peer; one for each call that
// changes the workload, each attempt to connect, each ask and each volume's proof. All of these end with Stop. What
// Runtime.Begin starts, a job of the shelf or a call beside an engine that has given it up, ends when its disk
// answers.
//
// A new situation is a row of the table or a fact; what an action does is changed where actions.go sends it; what is
// to survive the daemon goes into kept; what may wait goes onto a goroutine whose end can come too late. See
// DESIGN.md.
//
//	contract.go   what an engine needs of others, and what two engines tell each other; runtime.go its time
//	engine.go     life cycle
//	facts.go      what is true now
//	actions.go    table action → call
//	authority.go  epochs: ask, vote, hand over, complete (rules of cluster.Record); standing.go what guards ask
//	shelf.go      opening and closing of images, which nobody waits for; storage.go link.go what is opened
//	leading.go    the volumes as primary; linking.go all of them as one link
//	following.go  the volumes as secondary
//	volstatus.go  their figures, and verify
//	proof.go      comparing both copies in the background; proofs.go proofstatus.go what came of it
//	command.go    an operator's commands
//	mailbox.go    the queue of the goroutine
//	work.go       the workload: start, stop, what it reports; definition.go edits.go strays.go what some have besides;
//	              resumes.go
//	step.go       one step of the table
//	keep.go       what is kept; durable.go how it is saved, and what is answered meanwhile
//	status.go     what people see
//	gate.go       start order over all modules of a node
package engine
