//go:build !(linux && cgo && libvirt_dlopen)

package libvirt

import (
	"fmt"
	"log/slog"

	"duet/vmmanager"
)

// Config says which libvirtd to use.
type Config struct {
	URI    string       // libvirt's name of the connection
	RunDir string       // where libvirtd keeps the run-time files of its guests
	Logger *slog.Logger // where to log
}

// Hypervisor stands in for the one of builds with libvirt; there is never a value of it. The methods are there so
// that what uses it compiles.
type Hypervisor struct {
	vmmanager.Hypervisor
	vmmanager.Protector
}

// New returns ErrUnavailable: this build has no libvirt.
func New(Config) (*Hypervisor, error) {
	return nil, fmt.Errorf("%w: this build of Duet has no libvirt, KVM needs Linux and the build tag libvirt_dlopen",
		vmmanager.ErrUnavailable)
}

// Close does nothing.
func (*Hypervisor) Close() error { return nil }
