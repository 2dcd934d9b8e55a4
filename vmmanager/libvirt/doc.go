// Package libvirt runs virtual machines through libvirtd.
//
// It is built with the tag libvirt_dlopen on Linux with cgo, and opens
// libvirt.so.0 at run time: a node without libvirt can still run every module
// that is not a VM. Elsewhere New says why there are no VMs.
//
// Each operation opens a connection of its own (0.7 ms on a unix socket). So
// there is no shared connection to go stale, a libvirtd that was restarted is
// simply met again, and twenty-five guests that shut down at once do not wait
// for the five calls libvirtd takes from one client. Watch keeps one connection
// open as long as it runs.
//
// Definitions are edited as text: only the bytes that must change do, so
// elements that this package has never heard of survive.
package libvirt
