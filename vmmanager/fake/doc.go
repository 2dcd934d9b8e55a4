// Package fake is a hypervisor in memory, for tests and simulations. Its VMs do
// nothing but change state; tests play the guest, the admin and the hardware
// through the hands of Hypervisor (GuestShutdown, Crash, AdminDestroy…), and a
// writer given to Config.OnRun stands for what a running guest does to its disks.
//
// It keeps the contract of vmmanager (vmtest runs on it) with no process, daemon or disk: nothing is copied,
// confined or granted, Runs lets everybody in, and a definition's Text is opaque bytes, so that its Disks are all
// that says where a disk is. With a Wait of the simulation's own it takes no real time.
//
//	hypervisor.go  states: start, shutdown, kill, and the writer of each run
//	protect.go     definitions and disks; judge.go inspect.go watch.go the rest of the contract
//	hands.go       everybody else
package fake
