// Package libvirtd runs a libvirt daemon of its own in every node of a cluster on one computer.
//
// It needs root, Linux, and libvirt 9.0 or newer with QEMU. The distribution's own daemon is not touched, only
// its configuration is read. What a daemon keeps is in Config.Dir and stays there; sockets and pid files are in
// the node's /run and go with it. A Daemon is for one goroutine.
package libvirtd
