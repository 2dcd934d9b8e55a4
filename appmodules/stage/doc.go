// Package stage has the parts that applications are made of on Linux: each is a workload.Stage.
//
//	files_linux.go     directories on the application's volume
//	address_linux.go   a virtual address
//	commands_linux.go  a pair of commands
//
// They know nothing of modules or of each other: the order is the application's. What they touch is for other packages:
// block devices for blockrepl/host, file systems for appmodules/directory, addresses for lb/vip.
//
// What they do takes most rights that a host has, and has to be seen by all of it. So they do not run in the daemon,
// which talks to the network and has a view of its own of the file systems, but in a process beside it, duetd apps,
// which takes orders on a socket of root's only:
//
//	room_linux.go  the stages of this host's applications, in that process
//	serve.go       its socket
//	remote.go      the same stages as the daemon sees them
package stage
