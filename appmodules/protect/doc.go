// Package protect has the works that bring a VM onto replicated volumes and take it off again: protect, release,
// return, and giving a module anew to a peer that lost it.
//
// Each is a plan: named steps with do and undo, of which the one that begins is durable before it begins. What fails,
// or is cut short by the end of the daemon, is undone while that is possible and goes forward afterwards; the run after
// it decides from the mark that was stored and, where that does not say enough, by looking at the VM.
//
//	plan.go     how a plan goes forward, back and on: pure
//	works.go    the plans of this node: stored, taken up, repeated until they are through
//	request.go  the module that a request asks for
//	protect.go  undo.go  release.go  back.go  renew.go  the plans
//	site.go     what a plan needs of the node around it
package protect
