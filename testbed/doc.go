// Package testbed holds what proves Duet: a cluster on one computer, faults, and
// the rules of the source tree itself.
//
//	netns/    hosts as network namespaces, and their cables
//	proc/     processes of a host: start, kill, freeze
//	libvirtd/ a libvirtd of its own for each host
//	guest/    the tiny test VM that writes numbered records
//	check/    what must hold after every test
//	machine/  real Debian machines, and the README followed on them (machine/field)
//	sim/      engines and volumes on a virtual clock; campaign/ and knownbugs/ search with it
//	testcluster/ a cluster of real daemons and VMs; scenario/ and chaos/ put it under faults
//	previous/ the programs of the release before this one
//	bench/    figures beside those of peers
package testbed
