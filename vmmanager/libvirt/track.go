//go:build linux && cgo && libvirt_dlopen

package libvirt

import (
	"time"

	"libvirt.org/go/libvirt"

	"duet/vmmanager"
)

// reconcile takes the list of a new connection for the truth. After the first
// one it is told for every VM, changed or not: events may have been missed. Events that were on their way are lost
// with their connection, so what Duet did to runs of a VM that is off explains nothing any more.
func (w *watcher) reconcile(list map[string]found) {
	for name, now := range list {
		w.vms[name] = &seen{status: now.status, text: now.text}
		if now.state == vmmanager.Off {
			w.h.stops.forget(name)
		}
		if w.met {
			w.out.Put(vmmanager.Event{VM: name, State: now.state, Cause: vmmanager.ByReconnect})
		}
	}
	for name := range w.vms {
		if _, ok := list[name]; !ok {
			delete(w.vms, name)
			w.out.Put(vmmanager.Event{VM: name, State: vmmanager.Absent, Cause: vmmanager.ByReconnect})
		}
	}
}

// handle turns one event of libvirt into what it means. A VM that was not known counts as off until now, so that
// what the event says is news.
func (w *watcher) handle(e raw) {
	v := w.vms[e.vm]
	if e.what == record { // says nothing of the VM's state, which the look at all VMs is about
		if v != nil {
			w.out.Put(vmmanager.Event{VM: e.vm, State: v.state, Cause: vmmanager.ByDisk})
		}
		return
	}
	if v == nil || v.state == vmmanager.Absent {
		v = &seen{status: status{state: vmmanager.Off}}
		w.vms[e.vm] = v
	}
	// A look that began before this event says nothing of this VM, and neither does the doubt of an earlier one.
	v.changes++
	v.doubt = nil
	switch e.what {
	case powerButton:
		v.asked = time.Now()
	case watchdogOff:
		v.watchdog = true
	case metadata:
		w.look = true
	case lifecycle:
		w.live(e, v)
	}
}

// live handles an event of the life of a VM. The number of the run in an event tells a new run even if the event of
// its start was lost. After a stop the number is forgotten: the next one is another.
func (w *watcher) live(e raw, v *seen) {
	if e.run != 0 && e.run != v.run { // a new run: nothing that was done to an earlier one counts
		*v = seen{status: status{state: vmmanager.Off, run: e.run}, text: v.text, changes: v.changes}
	}
	switch e.event {
	case libvirt.DOMAIN_EVENT_STARTED, libvirt.DOMAIN_EVENT_RESUMED: // a resume is told only if a pause was
		w.become(e.vm, v, vmmanager.Running, vmmanager.ByStart)
	case libvirt.DOMAIN_EVENT_SUSPENDED:
		if libvirt.DomainEventSuspendedDetailType(e.detail) == libvirt.DOMAIN_EVENT_SUSPENDED_IOERROR {
			w.become(e.vm, v, vmmanager.IOError, vmmanager.ByIOError)
			return
		}
		// A pause is also the first sign of a panic or a snapshot: the look finds the reason.
		w.look = true
	case libvirt.DOMAIN_EVENT_CRASHED:
		// The other detail, "crashloaded", is a guest that saves a dump and then reboots by itself.
		if libvirt.DomainEventCrashedDetailType(e.detail) == libvirt.DOMAIN_EVENT_CRASHED_PANICKED {
			w.become(e.vm, v, vmmanager.Crashed, vmmanager.ByPanic)
		}
	case libvirt.DOMAIN_EVENT_SHUTDOWN:
		if libvirt.DomainEventShutdownDetailType(e.detail) == libvirt.DOMAIN_EVENT_SHUTDOWN_HOST {
			v.asked = time.Now() // QEMU was told to quit by a signal
		}
	case libvirt.DOMAIN_EVENT_STOPPED:
		w.become(e.vm, v, vmmanager.Off, w.whyOff(e.vm, v, howStopped(e.detail)))
		v.run = 0
	case libvirt.DOMAIN_EVENT_DEFINED: // the look compares the text: this may be the same again
		w.look = true
	case libvirt.DOMAIN_EVENT_UNDEFINED:
		if v.state == vmmanager.Off {
			delete(w.vms, e.vm)
			w.out.Put(vmmanager.Event{VM: e.vm, State: vmmanager.Absent, Cause: vmmanager.ByEdit})
			return
		}
		w.out.Put(vmmanager.Event{VM: e.vm, State: v.state, Cause: vmmanager.ByEdit}) // it runs on without one
	}
}

// become records a state and tells it if it is new.
func (w *watcher) become(name string, v *seen, state vmmanager.State, why vmmanager.Cause) {
	if v.state != state {
		w.out.Put(vmmanager.Event{VM: name, State: state, Cause: why})
	}
	v.state = state
}

// whyOff finds the cause of the end of a VM's run. What was seen of the run (a panic, a button, a watchdog)
// explains its end; a button only for askedTime, since a guest may have ignored it.
func (w *watcher) whyOff(name string, v *seen, h how) vmmanager.Cause {
	return stopCause(h, run{
		crashed:  v.state == vmmanager.Crashed,
		asked:    !v.asked.IsZero() && time.Since(v.asked) < askedTime,
		watchdog: v.watchdog,
		ours:     w.h.stops.of(name, v.run),
	})
}

// counts returns how many events each VM has had.
func (w *watcher) counts() map[string]int {
	counts := map[string]int{}
	for name, v := range w.vms {
		counts[name] = v.changes
	}
	return counts
}

// compare holds a look at all VMs against what the events have told. before are
// the counts from when the look began: a VM with events since is left to them. A
// difference counts only when two looks agree on it, for an event may be on its
// way; compare reports whether there is one to look at again. A VM that libvirt itself holds for a moment (passing)
// is left for the next look. Definitions are compared too; one that has changed is told at once, without a second
// look, since nothing else tells of it.
func (w *watcher) compare(list map[string]found, before map[string]int) (again bool) {
	for name := range w.vms {
		if _, ok := list[name]; !ok {
			list[name] = found{status: status{state: vmmanager.Absent}}
		}
	}
	for name, now := range list {
		v := w.vms[name]
		if v == nil {
			v = &seen{status: status{state: vmmanager.Absent}}
			w.vms[name] = v
		}
		differs := v.differs(now.status)
		switch {
		case v.changes != before[name] || now.passing(): // its events are newer than the look
		case !differs && now.state == vmmanager.Absent:
			delete(w.vms, name) // the last look saw it, but it was gone again before it was believed
		case !differs:
			v.doubt = nil
		case v.doubt == nil || v.doubt.differs(now.status):
			v.doubt = &now.status
			again = true
		default:
			w.believe(name, v, now)
		}
		if v.state != vmmanager.Absent && now.state != vmmanager.Absent && v.text != now.text {
			v.text = now.text
			w.out.Put(vmmanager.Event{VM: name, State: v.state, Cause: vmmanager.ByEdit})
		}
	}
	return again
}

// believe takes over what two looks saw and no event told. The cause is found from libvirt's reason for the state,
// which says less than an event does: who switched it off is not in it.
func (w *watcher) believe(name string, v *seen, now found) {
	why := stateCause(now.state, now.reason)
	switch {
	case now.state == vmmanager.Off && v.state == vmmanager.Absent:
		why = vmmanager.ByEdit
	case now.state == vmmanager.Off:
		why = w.whyOff(name, v, howOff(now.reason))
	}
	w.h.log.Debug("missed an event", "vm", name, "state", now.state, "cause", why)
	text := v.text
	if v.state == vmmanager.Absent {
		text = now.text // who hears of a VM for the first time reads its definition anyway
	}
	*v = seen{status: now.status, text: text, changes: v.changes}
	if now.state == vmmanager.Absent {
		delete(w.vms, name)
	}
	w.out.Put(vmmanager.Event{VM: name, State: now.state, Cause: why})
}
