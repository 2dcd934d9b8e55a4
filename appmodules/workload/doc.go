// Package workload has what modules run: a VM, or nothing. Each is an appmodules.Workload
// and keeps its contract; who runs it, package engine, knows none of them.
//
// It applies the policy (policy.on) to what happens, and decides nothing else: when to start or end what runs is for
// the engine, how for package vmmanager. It has no goroutines of its own. Reports come on the goroutine of whoever
// tells it of the hypervisor's events.
//
//	vm.go          a VM: started, ended, what its events mean
//	definition.go  its definition and its disks
//	none.go        nothing, and what tests run
//
// Another kind of workload is a type here that appmodules.Workload fits, and a line in the table of kinds of the node.
package workload
