// Package vmtest holds the conformance suite of vmmanager.Hypervisor, which runs
// on every implementation, and a guest of 512 bytes to run it with.
package vmtest
