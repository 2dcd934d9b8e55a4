// Package libvirtd runs a libvirt daemon of its own in every node of a cluster on one computer.
//
// It needs root, Linux, and libvirt 9.0 or newer with QEMU.
package libvirtd
