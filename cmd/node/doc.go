// Package node is the daemon as a library: New wires every part, Start runs them,
// Stop ends them in reverse. All wiring of the program is here and nowhere else.
//
//	node.go      Config, New, Start, Stop
//	modules.go   the engines of this node: create, load, remove
//	rpc.go       what nodes ask of each other, served on the mux
//	caller.go    the calling side of rpc.go: engine.Peer
//	disks.go     images, dirty logs and frontends of volumes
//	backend.go   the API's Backend: status, actions, log; configs.go, tasks.go the rest of it
//	protect.go   put a VM under protection: images.go, seeding.go; release.go gives it back
//	unfinished.go  what of both is left when the daemon dies in between
//	restore.go   give modules to a peer that does not know them
//	metrics.go   Prometheus
//	members.go   join tokens, admission, cluster.json
package node
