// Package blocktest holds the conformance suites of package blockrepl's
// contracts, run by the test of each implementation, and what those tests share.
//
//	Device    files, block devices, memory
//	DirtyLog  badgerlog, memlog
//	Queue     the PlainQueue of this package
//	Frontend  nbd
//
// A suite gets a function that opens a fresh implementation, once for each of its cases, and leaves no goroutine. It
// waits for events, for at most patience; only "nothing happens" is waited for by the clock. What a suite proves is
// the contract as its callers see it. It does not prove durability: no suite but that of DirtyLog opens anything
// again, and none cuts the power. That is the matter of each implementation's own tests, and of package
// testbed/sim.
//
// A promise that is added to an interface of package blockrepl gets its case here first, so that every implementation
// has to keep it.
//
// Files: device.go, dirtylog.go, queue.go and frontend.go are one suite each; plain.go is the PlainQueue.
package blocktest
