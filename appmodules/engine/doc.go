// Package engine runs modules: one Engine is one module on one node, one
// goroutine owns it.
//
// The goroutine takes events from a mailbox, computes Facts, lets the table of
// package appmodules decide and carries the row's actions out in order. What must
// be durable is saved before the next action; what takes time, as whatever an image or
// a hypervisor does, runs on goroutines of the Engine and posts its end to the mailbox with
// a token, so that an answer that comes too late is recognised. Only a save is waited
// for, and who asks something meanwhile is told so at once.
//
//	engine.go     life cycle
//	facts.go      what is true now
//	actions.go    table action → call
//	authority.go  epochs: ask, vote, hand over, complete (rules of cluster.Record)
//	shelf.go      opening and closing of images, which nobody waits for
//	leading.go    the volumes as primary; linking.go all of them as one link
//	following.go  the volumes as secondary
//	volstatus.go  their figures, and verify
//	command.go    an operator's commands
//	mailbox.go    the queue of the goroutine
//	work.go       the workload: start, stop, what it reports; definition.go strays.go what some have besides; resumes.go
//	step.go       one step of the table
//	keep.go       what is kept; durable.go how it is saved, and what is answered meanwhile
//	status.go     what people see
//	gate.go       start order over all modules of a node
package engine
