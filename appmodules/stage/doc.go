// Package stage has the parts that applications are made of on Linux: each is a workload.Stage.
//
//	files_linux.go     directories on the application's volume
//	address_linux.go   a virtual address
//	commands_linux.go  a pair of commands
//
// They know nothing of modules or of each other: the order is the application's. What they touch is for other packages:
// block devices for blockrepl/host, file systems for appmodules/directory, addresses for lb/vip.
package stage
