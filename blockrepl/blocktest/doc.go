// Package blocktest holds the conformance suites of package blockrepl's
// contracts, run by the test of each implementation, and what those tests share.
//
//	Device    files, block devices, memory
//	DirtyLog  badgerlog, memlog
//	Queue     Primary and the PlainQueue of this package
//	Frontend  nbd
//
// A suite gets a function that opens a fresh implementation; it never sleeps and leaves no goroutine.
package blocktest
