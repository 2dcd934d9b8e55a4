// Package protect has the works that bring a VM onto replicated volumes and take it off again: protect, release and
// return.
//
// It promises that a VM whose work fails, or whose daemon dies at any point, ends on its own disks or on its volumes,
// with its newest data and running if it ran, and that no plan is left but what its peer has still to hear
// (TestCutAnywhere). It copies no data and makes no image by itself: the hypervisor and Volumes do. Return alone is
// no plan: each disk is on its volume or where it was, and an admin repeats the command.
//
// Each is a plan: named steps with do and undo, of which the one that begins is durable before it begins. What fails,
// or is cut short by the end of the daemon, is undone while that is possible and goes forward afterwards; the run
// after it decides from the mark that was stored and, where that does not say enough, by looking at the VM.
//
// A work runs on the goroutine of its task. One that could not be ended goes on on a goroutine of Spawn, which
// repeats it until it is through or the node ends; works share nothing but the store. A peer that cannot be told how
// it ended keeps nobody: it is told later.
//
// What a work does is changed in its steps. A new step has a name of its own, which stays, as a plan may be taken up
// by a later version; it has to be repeatable, and its undo too. What is needed of the node goes into site.go.
//
//	plan.go     how a plan goes forward, back and on: pure
//	works.go    the plans of this node: stored, taken up, repeated until they are through
//	request.go  the module that a request asks for
//	judge.go    what this node and its peer say against the VM
//	protect.go  undo.go  the plan of a protect, and its way back; seeding.go volumes without an engine
//	release.go  back.go  the plan of a release; return
//	site.go     what a plan needs of the node around it
package protect
