// Package vmtest holds the conformance suite of vmmanager.Hypervisor and a guest of 512 bytes to run it with.
// libvirt and fake run it; nothing runs it on hyperv.
//
// The suite asks each hypervisor through its World only: what cannot be done there (a nil Hand) skips the tests
// that need it. It belongs to test binaries, although its files are no _test.go: two packages use it.
//
//	suite.go       the promises, a test for each: a new one of vmmanager.Hypervisor goes here
//	world.go       what a hypervisor brings along, and the reading of events
//	bootsector.go  the guest
package vmtest
