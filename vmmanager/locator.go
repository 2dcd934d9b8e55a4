package vmmanager

// Locator tells in which process of this host a VM runs. It is separate from Hypervisor because only kinds that run a
// VM in a process of its own have it.
type Locator interface {
	// Process returns the number of the process that runs the VM; 0 if there is none. It is quick and
	// needs no daemon of the hypervisor.
	Process(name string) (pid int, err error)
}
