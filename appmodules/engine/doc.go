// Package engine runs modules: one Engine is one module on one node, one
// goroutine owns it.
//
// The goroutine takes events from a mailbox, computes Facts, lets the table of
// package appmodules decide and carries the row's actions out in order. What must
// be durable is saved before the next action; what takes time runs on goroutines
// of the Engine and posts its end to the mailbox with a token, so that an answer
// that comes too late is recognised.
//
//	engine.go     life cycle, mailbox, step
//	facts.go      what is true now
//	actions.go    table action → call
//	authority.go  epochs: ask, vote, hand over, complete (rules of cluster.Record)
//	volumes.go    the volumes as primary: all of them as one link
//	follow.go     the volumes as secondary
//	volstatus.go  their figures, and verify
//	command.go    an operator's commands
//	mailbox.go    the queue of the goroutine
//	work.go       the workload: start, stop, what it reports; definition.go strays.go what some have besides
//	step.go       one step of the table; keep.go what is durable
//	status.go     what people see
//	gate.go       start order over all modules of a node
package engine
