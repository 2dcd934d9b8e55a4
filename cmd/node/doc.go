// Package node is the daemon as a library: New wires every part, Start runs them,
// Stop ends them in reverse. All wiring of the program is here and nowhere else:
// what a part knows and decides is in the room that it comes from.
//
//	node.go      Config, New, Start, Stop; life.go: what runs, and how it ends
//	kinds.go     the rooms that modules are made of, and the kinds that this node runs
//	rpc.go       what nodes ask of each other, served on the mux; caller.go: the calling side
//	backend.go   the API's Backend, as far as no room is one: status, log, actions
//	site.go      the node as package protect sees it; release.go, works.go beside it
//	restore.go   gives modules to a peer that does not know them
//	guard.go     watchdog.go  standing.go  what ends or pauses guests when this daemon does not work
//	survey.go    witness.go  members.go  verify.go  one room each
package node
