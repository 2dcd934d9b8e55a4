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
//	demo/     the main job, shown on this computer
//	deps/     Debian packages that all of this needs
//
// Nothing here is part of what is installed. What makes namespaces, mounts or VMs needs root on Linux, and ends with
// the process that made it, or is removed by the next one of the same name; sim, check and record need nothing. How
// it is thought out, and which ring shows which fault, is in DESIGN.md.
package testbed
