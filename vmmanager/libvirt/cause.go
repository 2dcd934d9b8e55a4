//go:build linux && cgo && libvirt_dlopen

package libvirt

import (
	"math"
	"slices"
	"sync"

	"libvirt.org/go/libvirt"

	"duet/vmmanager"
)

// status is what libvirt says of a VM at one moment.
type status struct {
	state  vmmanager.State
	reason int  // libvirt's reason for the state
	run    int  // libvirt's number of this run; 0 while off
	ending bool // the guest stands still for good: its process is being ended
}

// passing reports whether libvirt itself holds the VM paused for a moment: while
// it starts, stops, is migrated, saved or has its memory written out. What is passing is neither told nor acted on:
// it is over soon, one way or the other.
func (s status) passing() bool {
	if s.state != vmmanager.Paused || s.ending {
		return s.ending
	}
	switch libvirt.DomainPausedReason(s.reason) {
	case libvirt.DOMAIN_PAUSED_STARTING_UP, libvirt.DOMAIN_PAUSED_SHUTTING_DOWN, libvirt.DOMAIN_PAUSED_MIGRATION,
		libvirt.DOMAIN_PAUSED_SAVE, libvirt.DOMAIN_PAUSED_DUMP, libvirt.DOMAIN_PAUSED_SNAPSHOT,
		libvirt.DOMAIN_PAUSED_FROM_SNAPSHOT:
		return true
	}
	return false
}

// differs reports whether a VM has changed what it does between two statuses. Two runs differ although both are
// running: an end and a start were missed.
func (s status) differs(o status) bool { return s.state != o.state || s.run != o.run }

// statusOf reads the state of a domain.
func statusOf(dom *libvirt.Domain) (status, error) {
	state, reason, err := dom.GetState()
	if err != nil {
		return status{}, err
	}
	now := status{state: stateOf(state, reason), reason: reason, ending: state == libvirt.DOMAIN_SHUTDOWN}
	if now.state != vmmanager.Off {
		now.run = runOf(dom)
	}
	return now, nil
}

// runOf returns the number of the present run. It is part of the handle, so it may be read in callbacks.
func runOf(dom *libvirt.Domain) int {
	id, err := dom.GetID()
	if err != nil || id > math.MaxInt32 { // libvirt's "not running" is -1
		return 0
	}
	return int(id)
}

// stateOf translates a libvirt state. A guest that sleeps (pmsuspended) does so of
// its own will and counts as running. One that is about to be off counts as paused: libvirt 11 says so
// (shutdown) of a VM too whose memory was just saved. What is not known counts as running: it may write.
func stateOf(state libvirt.DomainState, reason int) vmmanager.State {
	switch state {
	case libvirt.DOMAIN_SHUTOFF:
		return vmmanager.Off
	case libvirt.DOMAIN_CRASHED:
		return vmmanager.Crashed
	case libvirt.DOMAIN_SHUTDOWN: // on its way off, and its guest stands still
		return vmmanager.Paused
	case libvirt.DOMAIN_PAUSED:
		switch libvirt.DomainPausedReason(reason) {
		case libvirt.DOMAIN_PAUSED_IOERROR:
			return vmmanager.IOError
		case libvirt.DOMAIN_PAUSED_CRASHED: // on_crash=preserve keeps it so
			return vmmanager.Crashed
		}
		return vmmanager.Paused
	}
	return vmmanager.Running
}

// how says how a run ended.
type how uint8

const (
	endedItself  how = iota // orderly, by the guest
	endedByForce            // destroyed or moved away
	endedDead               // the process died
	endedPanic              // libvirt ended it after a panic
	endedSaved              // its memory was saved
)

// howStopped translates the detail of a STOPPED event.
func howStopped(detail int) how {
	switch libvirt.DomainEventStoppedDetailType(detail) {
	case libvirt.DOMAIN_EVENT_STOPPED_SHUTDOWN:
		return endedItself
	case libvirt.DOMAIN_EVENT_STOPPED_CRASHED:
		return endedPanic
	case libvirt.DOMAIN_EVENT_STOPPED_FAILED:
		return endedDead
	case libvirt.DOMAIN_EVENT_STOPPED_SAVED:
		return endedSaved
	}
	return endedByForce
}

// howOff translates the reason of the state SHUTOFF, for a stop whose event was missed.
func howOff(reason int) how {
	switch libvirt.DomainShutoffReason(reason) {
	case libvirt.DOMAIN_SHUTOFF_SHUTDOWN:
		return endedItself
	case libvirt.DOMAIN_SHUTOFF_CRASHED, libvirt.DOMAIN_SHUTOFF_FAILED, libvirt.DOMAIN_SHUTOFF_UNKNOWN,
		libvirt.DOMAIN_SHUTOFF_DAEMON:
		return endedDead
	case libvirt.DOMAIN_SHUTOFF_SAVED:
		return endedSaved
	}
	return endedByForce
}

// run is what is known of the present run of a VM when it ends.
type run struct {
	crashed  bool // the guest panicked in it
	asked    bool // somebody pressed the power button of the VM, or told QEMU to quit
	watchdog bool // its watchdog fired and is set to switch the VM off
	ours     stop // what Duet did to it
}

// stopCause says who is to be held responsible for the end of a run. The order matters. A Kill looks like a death
// of the process, so it comes first; a Shutdown does not excuse a crash or a panic that comes after it; a panic is
// told apart from the force that ends its process; a saved memory is told even if a button was pressed before.
func stopCause(h how, r run) vmmanager.Cause {
	switch {
	case r.ours == killed, r.ours == asked && h != endedDead && h != endedPanic:
		return vmmanager.ByDuet
	case r.crashed || r.watchdog || h == endedPanic: // the guest itself is at fault, whoever ended its process
		return vmmanager.ByPanic
	case h == endedDead: // nobody asked for it
		return vmmanager.ByCrash
	case h == endedSaved:
		return vmmanager.BySave
	case h == endedByForce || r.asked: // past Duet: virsh destroy, shutdown, or a signal to QEMU
		return vmmanager.ByAdmin
	}
	return vmmanager.ByGuest // orderly, and nobody pressed the button
}

// stateCause says why a VM is found in a state that is not Off. A pause that nothing explains is an admin's.
func stateCause(state vmmanager.State, reason int) vmmanager.Cause {
	switch state {
	case vmmanager.IOError:
		return vmmanager.ByIOError
	case vmmanager.Crashed:
		return vmmanager.ByPanic
	case vmmanager.Paused:
		if libvirt.DomainPausedReason(reason) == libvirt.DOMAIN_PAUSED_WATCHDOG {
			return vmmanager.ByPanic // the guest hung and its watchdog is set to pause it
		}
		return vmmanager.ByAdmin
	case vmmanager.Absent:
		return vmmanager.ByEdit
	}
	return vmmanager.ByStart
}

// stop is what Duet did to end a run.
type stop uint8

const (
	untouched stop = iota
	asked          // Shutdown: a crash after it is still a crash
	killed         // Kill
)

// stops remembers which runs Duet ended. An event that tells of an end may come after the next start: then the run
// that it is of says whose doing it was. Entries are few and short-lived: the next start marks them as past, a new
// connection that finds the VM off forgets them, and mostStops bounds what is left.
type stops struct {
	mu sync.Mutex
	by map[string][]stopped // the newest last
}

type stopped struct {
	run  int  // 0 if libvirtd could not be asked for it
	how  stop // the strongest that was noted
	past bool // the VM was started again since
}

// mostStops is how many ends of a VM are remembered: more events of it are hardly ever on their way.
const mostStops = 8

// note remembers that Duet ends that run of the VM. Noting twice keeps the stronger: a Kill after a Shutdown is a
// Kill. It is called before the stop, whose event may come sooner than its answer. takeBack is for a stop that did not
// come about: what was noted before it stays, and so does a stronger one since.
func (s *stops) note(name string, run int, how stop) (takeBack func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.by == nil {
		s.by = map[string][]stopped{}
	}
	all := s.by[name]
	i := slices.IndexFunc(all, func(o stopped) bool { return o.run == run && !o.past })
	if i < 0 {
		all = append(all[max(0, len(all)+1-mostStops):], stopped{run: run})
		s.by[name] = all
		i = len(all) - 1
	}
	before := all[i].how
	all[i].how = max(before, how)
	return func() { s.setBack(name, run, how, before) }
}

// setBack has the note of a stop say again what it said before.
func (s *stops) setBack(name string, run int, how, before stop) {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := s.by[name]
	if i := slices.IndexFunc(all, func(o stopped) bool { return o.run == run && !o.past }); i >= 0 && all[i].how == how {
		all[i].how = before
	}
	s.keep(name, slices.DeleteFunc(all, func(o stopped) bool { return o.how == untouched }))
}

// forget is called when the VM is known to be off, by a connection that gets no event of what was before.
func (s *stops) forget(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.by, name)
}

// begin is called before the VM starts. A stop of a run that is not known was of one before.
func (s *stops) begin(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := slices.DeleteFunc(s.by[name], func(o stopped) bool { return o.run == 0 })
	for i := range all {
		all[i].past = true
	}
	s.keep(name, all)
}

// began is called when it has started: a libvirtd that was restarted counts runs anew. A past stop with the number
// of the new run would be taken for its end.
func (s *stops) began(name string, run int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keep(name, slices.DeleteFunc(s.by[name], func(o stopped) bool { return o.past && o.run == run }))
}

// keep stores what is left of a VM. mu is held.
func (s *stops) keep(name string, all []stopped) {
	if len(all) == 0 {
		delete(s.by, name)
		return
	}
	s.by[name] = all
}

// of returns what Duet did to that run; run 0 stands for the present one, whose number is not known. The newest
// that fits counts. A stop noted while libvirtd did not answer has no number, and fits any run until the next
// start.
func (s *stops) of(name string, run int) stop {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, o := range slices.Backward(s.by[name]) {
		if o.run == run && run != 0 || !o.past && (o.run == 0 || run == 0) {
			return o.how
		}
	}
	return untouched
}
