// Package chaos strikes a pair of real daemons with random faults and judges what the
// users of the protected VMs saw.
//
// One cluster carries three modules: a Linux guest that writes numbered records, and
// two VMs whose guest leaves its disk alone while a Writer of the test works on it by
// the same socket as QEMU, on whichever host serves it. A Plan is made from its seed
// alone. After its faults everything heals; the pair must then be PRIM and SECOND
// again, and nothing that was acknowledged may be missing.
//
// It needs what testcluster needs (root, libvirt, QEMU) and ends with it; only the cluster's folder stays, with
// its logs. A schedule is made from its seed, but what real daemons do in it is not: the same seed need not fail
// twice.
//
// Not here: two disks that fail together, a witness that loses its memory, and, in a pair without a witness,
// networks that are all cut: under arbitration available that makes two writers (cluster/DESIGN.md, "Not
// covered").
//
// Goroutines: Build, Inject and Judge are called by one. A Writer has one for each host, and seven for each
// connection; an operator's command has one, which Inject waits for when it heals.
//
//	plan.go     seed → Plan: what strikes when (pure)
//	inject.go   carries a Plan out
//	pair.go     the cluster, its healing and its health
//	judge.go    what must hold after a Plan
//	writer.go   the writer of a volume and its history
//	session.go  one connection of the writer
//	nbd.go      an NBD client
package chaos
