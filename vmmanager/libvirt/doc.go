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
//
// It promises what vmmanager says, and that Kill works without libvirtd. It decides nothing about who may run a VM,
// and keeps nothing on a disk of its own: what has to outlive this process is in libvirt's definitions and saved
// images.
//
// # Goroutines
//
// Each call has one, which owns its connection and outlives a caller that gives up (ask); Close waits for these. A
// Watch has three: the watcher, the sender, and the reader of libvirtd's records; a look at all VMs is a fourth. A
// copy has one that listens for block job events. libvirt's event loop, on which all callbacks run, and the thread
// of the schema checks belong to the process and never end. Callbacks neither wait nor call libvirt.
//
// # Files
//
//	hypervisor.go           New, Close, State, Start
//	call.go                 one call: connection, limit, errors
//	stop.go process.go      Shutdown, and Kill with and without libvirtd
//	resume.go               out of a pause on an I/O error
//	define.go               definitions read and stored; disks.go what they say of disks
//	rewire.go xml.go        edits of them, pure
//	refit.go refits.go      another definition under a guest that goes on
//	copy.go                 Adopt and Release; strays.go where the disks are now
//	drop.go media.go        a start without removable media that are missing
//	grant.go access.go      whom QEMU runs as, and what it may open
//	watch.go track.go       events; cause.go what they mean; records.go those that libvirt does not send
//	needs.go verdict.go     what a definition asks of a host, and what it means that the host lacks it
//	host.go judge.go        what a host has, and the judgement; dry.go libvirt's own; obstacles.go Duet's
//	inspect.go capabilities.go secrets.go   for people
//
// A new thing that a host may lack is a type with a method of in verdict.go, made in needs.go. What libvirt says in
// a dry run gets its code and remedy in dry.go. A disk that cannot be protected is refused in disk.obstacle, a
// device in ties. What Rewire changes of a disk has to be undone by restoreDisk, and its goldens in testdata
// follow. A new place for secrets in a definition is for hideIn.
package libvirt
