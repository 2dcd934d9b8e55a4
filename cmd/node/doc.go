// Package node is the daemon as a library: New wires every part, Start runs them, Stop ends them in reverse. All
// wiring of the program is here and nowhere else: what a part knows and decides is in the room that it comes from.
// So this package has no rule of the cluster in it, and the rooms do not know each other: where one needs another,
// it is given a function.
//
//	node.go      Config, New, Start, Stop; life.go: what runs, and how it ends
//	kinds.go     the rooms that modules are made of, and the kinds that this node runs
//	rpc.go       what nodes ask of each other, served on the mux; caller.go: the calling side
//	backend.go   the API's Backend, as far as no room is one: status, log, actions
//	site.go      the node as package protect sees it; release.go, works.go beside it
//	guard.go     watchdog.go  standing.go  what ends or pauses guests when this daemon does not work
//	survey.go    witness.go  members.go  verify.go  one room each
//
// # Goroutines
//
// Those of spawn end with the node's context, which Stop ends after the modules and before the heartbeats. The
// guard's sentry and the watchdog outlive them (outlive): they vouch for guests, or reset the computer, for as long
// as something of a module may still run. Requests of other nodes and of the API run on goroutines of their
// servers. Stop waits for those of the API; one of another node may outlive its caller (control.Handle) and is not
// waited for. The node itself has no lock: everything is guarded in its room.
//
// # What must not change
//
// The names of requests between nodes and the JSON that they carry are read by the release before: testdata has the
// messages of both versions (wire_test.go). A request that is new is refused by an older node with
// cluster.ErrOlder, and who sends it has to have a way without it, or say which node to bring up first. All
// requests may arrive twice.
//
// # Where to change what
//
//	a request of the API          package api (Backend), then the room that answers it; here only if it needs two rooms
//	a request between nodes       rpc.go, and a Check of what it carries: every field may be made up by a hostile member
//	a kind of module              newKinds, beside appmodules.Kinds
//	what runs beside the modules  start, at the place that its end needs: it is ended before all that stands above it
package node
