// Package vmmanager is the vocabulary of virtual machines on this node: what a
// VM is, which states it has, and the Hypervisor contract that libvirt, hyperv
// and fake fulfil. It imports only the standard library.
package vmmanager
