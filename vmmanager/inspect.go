package vmmanager

import "context"

// Inspector tells what a hypervisor says of itself and of its VMs, for people and for
// checks. It is separate from Hypervisor because nothing that runs a VM depends on it.
type Inspector interface {
	// Inspect asks and changes nothing. ErrUnavailable if the hypervisor does not answer.
	// It may be called by several goroutines and takes seconds at worst.
	Inspect(ctx context.Context) (HostReport, error)
}

// HostReport is a hypervisor on this node.
type HostReport struct {
	Name     string // of the kind: libvirt
	Version  string
	Emulator string // what runs the guests, with its version: QEMU 7.2.15
	// Security are the models that confine the guests' processes, with the label that each gives them.
	Security []SecurityModel
	VMs      []VMReport // all that are defined, by name
}

// SecurityModel is one way in which guests are confined.
type SecurityModel struct {
	Model string // dac, apparmor, selinux
	Label string // of guests without a label of their own: +64055:+106; "" if it is made for each
}

// VMReport is one VM.
type VMReport struct {
	Name      string
	State     State
	Memory    int64  // bytes it may use
	HugePages bool   // it takes them from the huge pages that are set aside
	Text      []byte // its definition without passwords, keys and what may hold some
}

var _ Inspector = Unavailable{}

// Inspect refuses.
func (u Unavailable) Inspect(context.Context) (HostReport, error) { return HostReport{}, u.Err }
