package hyperv

import (
	"strings"

	"duet/vmmanager"
)

// enabledState is the EnabledState of an Msvm_ComputerSystem, and what RequestStateChange takes. The numbers are
// Microsoft's, of that class.
type enabledState int32

// The states that mean something here; the provider has a dozen more, all of them running or on the way to it.
const (
	running        enabledState = 2
	off            enabledState = 3
	shutDown       enabledState = 4 // as a request: ask the guest; as a state: it is stopping
	saved          enabledState = 6
	paused         enabledState = 9
	starting       enabledState = 10
	fastSaved      enabledState = 32779
	hibernated     enabledState = 32783
	offCritical    enabledState = 32786
	savedCritical  enabledState = 32788
	pausedCritical enabledState = 32789 // paused because its storage is gone
	pausedOld      enabledState = 32768 // what providers before Windows Server 2016 say
	savedOld       enabledState = 32769
)

// stateOf translates a state. One that is not known counts as running: it may write.
func stateOf(s enabledState) vmmanager.State {
	switch {
	case s == off || s == offCritical || isSaved(s):
		return vmmanager.Off
	case s == paused || s == pausedOld:
		return vmmanager.Paused
	case s == pausedCritical:
		return vmmanager.IOError
	}
	return vmmanager.Running
}

// isSaved reports whether the memory of the VM is in a file and it does not run.
func isSaved(s enabledState) bool {
	return s == saved || s == savedOld || s == fastSaved || s == hibernated || s == savedCritical
}

// causeOf says why a VM is found in a state; ours reports that Duet stopped it. Only what a look can see is told
// apart: a crash, a panic and an admin's hand are all the guest's own end.
func causeOf(s vmmanager.State, ours bool) vmmanager.Cause {
	switch {
	case s == vmmanager.Off && ours:
		return vmmanager.ByDuet
	case s == vmmanager.Off:
		return vmmanager.ByGuest
	case s == vmmanager.Paused:
		return vmmanager.ByAdmin
	case s == vmmanager.IOError:
		return vmmanager.ByIOError
	case s == vmmanager.Absent:
		return vmmanager.ByEdit
	}
	return vmmanager.ByStart
}

// isVM reports whether an Msvm_ComputerSystem is a VM: its Name is a GUID, where
// the host, which is in the same class, has its host name.
func isVM(name string) bool {
	if len(name) != 36 {
		return false
	}
	for i, c := range name {
		dash := i == 8 || i == 13 || i == 18 || i == 23
		if dash != (c == '-') || !dash && !strings.ContainsRune("0123456789abcdefABCDEF", c) {
			return false
		}
	}
	return true
}

// changes returns the events that lead from one list of states to the next. Their order is none. What changed and
// changed back between two looks is not among them; a VM that is new, or gone, was edited. VMs of one name are one
// entry.
func changes(was, is map[string]vmmanager.State, ours func(vm string) bool) []vmmanager.Event {
	var events []vmmanager.Event
	for name, state := range is {
		old, known := was[name]
		switch {
		case !known:
			events = append(events, vmmanager.Event{VM: name, State: state, Cause: vmmanager.ByEdit})
		case old != state:
			events = append(events, vmmanager.Event{VM: name, State: state, Cause: causeOf(state, ours(name))})
		}
	}
	for name := range was {
		if _, ok := is[name]; !ok {
			events = append(events, vmmanager.Event{VM: name, State: vmmanager.Absent, Cause: vmmanager.ByEdit})
		}
	}
	return events
}
