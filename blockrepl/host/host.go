// Package host makes block devices of this host's kernel of volumes that a daemon serves on NBD sockets, for file
// systems to lie on.
//
// What stands between the kernel and the daemon outlives the daemon: a small process per volume (Serve) that speaks NBD
// to it and sends again what was not answered. Death, restart and upgrade of the daemon are a pause, never an error.
//
//	host.go   the contract
//	loop.go   a loop device on a file of package onefile
//	serve.go  the small process
package host

import "context"

// Driver makes block devices of volumes. Any goroutine may call it; calls for one name take turns, which is the
// caller's to see to.
type Driver interface {
	// Attach makes a block device of what is served at socket, or finds the one that an earlier call, or an earlier run of
	// the daemon, has made under the name. It waits until the volume is served, as long as ctx lasts, and the process
	// behind the device is admitted there. The device has sectors of 4096 bytes.
	Attach(ctx context.Context, name, socket, export string) (device string, err error)
	// Attached is the device that was made under a name; empty: none, or one behind which nobody is any more, see Detach.
	Attached(name string) (device string, err error)
	// Abort has everything fail that waits for a device, and all that comes: for a volume that this node may not use any
	// more, and which answers nothing. Then it can be detached.
	Abort(name string) error
	// Detach takes the device away. When it returns nil no request can come any more. What still uses the device is an
	// error; what is gone already is none.
	Detach(ctx context.Context, name string) error
}
