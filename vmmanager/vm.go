package vmmanager

import (
	"fmt"
	"strings"
	"unicode"
)

// State is what a hypervisor says of a VM.
type State uint8

// The states of a VM. Paused is a pause with a cause of its own; IOError is a
// pause because a disk did not answer, which the protector resumes. stateNames has their order.
const (
	Absent State = iota // no VM of that name is defined
	Off
	Running
	Paused
	IOError
	Crashed // the guest panicked and is kept for inspection
)

var stateNames = [...]string{"absent", "off", "running", "paused", "io-error", "crashed"}

// String returns the word admins see.
func (s State) String() string {
	if int(s) < len(stateNames) {
		return stateNames[s]
	}
	return fmt.Sprintf("state %d", s)
}

// Cause says why a VM changed its state; the policy depends on it.
type Cause uint8

// The causes of an Event. causeNames has their order.
const (
	ByStart     Cause = iota // it was started or resumed
	ByGuest                  // the guest shut itself down on purpose: not a crash
	ByAdmin                  // somebody stopped it past Duet (virsh destroy, virsh shutdown)
	ByDuet                   // Duet itself stopped it
	ByCrash                  // the process of the hypervisor died
	ByPanic                  // the guest kernel panicked
	ByIOError                // paused because a disk did not answer
	ByEdit                   // its definition changed
	ByReconnect              // the hypervisor's own daemon came back: the state is only re-read
	BySave                   // somebody saved its memory, which switched it off
	ByDisk                   // what one of its disks is on may have changed while it runs, see Strays
)

var causeNames = [...]string{
	"started", "shut down by the guest", "stopped by an admin outside Duet", "stopped by Duet",
	"hypervisor process died", "guest panicked", "paused on an I/O error", "definition edited", "hypervisor reconnected",
	"saved to memory and switched off outside Duet", "a disk changed",
}

// String returns the words admins see.
func (c Cause) String() string {
	if int(c) < len(causeNames) {
		return causeNames[c]
	}
	return fmt.Sprintf("cause %d", c)
}

// Event is one change of one VM.
type Event struct {
	VM    string
	State State
	Cause Cause
}

// Disk is one disk of a VM that can be replicated.
type Disk struct {
	Target string // name inside the VM: vda, sdb
	Path   string // file or block device that holds it
	Format string // raw, qcow2
	Block  bool   // Path is a block device
	Size   int64  // bytes the guest sees
}

// Definition is a VM as a hypervisor keeps it. Text is opaque to everybody but the hypervisor.
type Definition struct {
	Name  string
	Text  []byte
	Disks []Disk // the disks the definition names that Duet can replicate, in its order
	// Autostart: the hypervisor starts the VM by itself when this host boots.
	Autostart bool
	// Saved: the VM is off and its memory is kept, which fits only the disks as they are
	// now and the definition as it was. Definition reads it, nobody else.
	Saved bool
}

// Endpoint says where a protected disk is served: disk target to endpoint of a blockrepl.Frontend.
type Endpoint struct {
	Target string
	Socket string
}

// Edit makes another definition of one: pure, and the same whatever definition of the VM
// it is given, the persistent one or the one that the VM runs with.
type Edit func(Definition) (Definition, error)

// Stray is a disk of a running VM that is not on the volume that Duet serves for it: what
// the guest writes there is not replicated.
type Stray struct {
	Target string // name inside the VM
	On     string // the file or device it is on; empty: the VM has no such disk now
	// Extra: no volume was made for the disk, it was attached later. Else it has left its
	// volume, whose content is older than what the guest has written.
	Extra bool
	// Above: what it is on is a layer over the volume, such as a snapshot makes.
	Above bool
}

// CheckName accepts what hypervisors take for the name of a VM.
func CheckName(name string) error {
	odd := func(r rune) bool { return r == '/' || !unicode.IsPrint(r) }
	if name == "" || len(name) > 255 || strings.ContainsFunc(name, odd) {
		return fmt.Errorf("%q is no name of a VM", name)
	}
	return nil
}
