// Package fake is a hypervisor in memory, for tests and simulations. Its VMs do
// nothing but change state; tests play the guest, the admin and the hardware
// through the hands of Hypervisor (GuestShutdown, Crash, AdminDestroy…), and a
// writer given to Config.OnRun stands for what a running guest does to its disks.
package fake
