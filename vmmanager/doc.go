// Package vmmanager is the vocabulary of virtual machines on this node: what a
// VM is, which states it has, and the Hypervisor contract that libvirt, hyperv
// and fake fulfil. It imports only the standard library.
//
// It decides nothing: who may run a VM is package cluster's, what follows the end of one is the policy of its
// module (appmodules/workload). Where no hypervisor is installed, Unavailable stands in: the node still votes.
//
//	vm.go                  states, causes and events; what a definition and a disk are
//	hypervisor.go          what runs VMs, and Protector, which changes what their disks are backed by
//	finding.go             what a host has to say of a VM before it is needed there
//	inspect.go locator.go  what only some hypervisors can do besides
//	events.go              the queue between a hypervisor and a slow reader
//	unavailable.go         no hypervisor
//
// A new promise of Hypervisor gets a test in vmtest, which libvirt and fake run. A new method of Protector is for these
// two, and Unavailable refuses it.
package vmmanager
