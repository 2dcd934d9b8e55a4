package hyperv

import (
	"maps"
	"strings"
	"sync"
	"time"

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

// toStart reports whether a Start has something to do. A VM that somebody paused stays so.
func toStart(s enabledState) bool {
	now := stateOf(s)
	return now != vmmanager.Running && now != vmmanager.Paused
}

// stops are the VMs that Duet stopped, or tried to, and when. Its methods may be called by several goroutines.
type stops struct {
	mu sync.Mutex
	at map[string]time.Time
}

// note is called before a stop: a look may see the change sooner than the call returns.
func (s *stops) note(vm string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.at == nil {
		s.at = map[string]time.Time{}
	}
	s.at[vm] = time.Now()
}

// forget is called before a start: the end of the new run is not Duet's.
func (s *stops) forget(vm string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.at, vm)
}

// ours reports whether the end of a VM's run is Duet's doing.
func (s *stops) ours(vm string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.at[vm].IsZero()
}

// past forgets the stops of VMs that were off in one look and are up or gone in the next: somebody else may have
// started them. A stop since the first of the two began may be of the new run, and stays.
func (s *stops) past(was, is map[string]vmmanager.State, since time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.DeleteFunc(s.at, func(vm string, at time.Time) bool {
		old, known := was[vm]
		now, there := is[vm]
		return known && old == vmmanager.Off && (!there || now != vmmanager.Off) && at.Before(since)
	})
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
