// Package appmodules says what is protected and how: the configuration of a
// module, its roles, and the state machines as tables of transitions.
//
// Everything here is a value or a pure function. The machine of a mirror knows
// nothing of epochs, disks or hypervisors: it is told Facts and names Actions;
// package engine computes the facts and carries the actions out, one goroutine a
// module.
//
//	module.go kind.go vm.go volume.go keys.go  the configuration of a module, and what its kind adds
//	policy.go    what follows when something fails
//	role.go      what people see of a module on one node
//	machine.go   phases, events, actions, facts; mirror.go the table of a mirror
//	workload.go  what a module runs, and what follows from what happens to it
//
// Its words travel: names of phases, roles and kinds go between nodes of different releases and into their stores, so
// they stay; a role or phase that is not known is read as none of those there are. A change of the table shows in
// testdata and in the document of the machine; what no row may do is in TestSafety. A new key of the policy has a
// zero value that means its default, as nodes of an older release neither send nor keep it.
package appmodules
