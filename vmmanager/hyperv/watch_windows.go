package hyperv

import (
	"context"
	"time"

	wmi "github.com/microsoft/wmi/pkg/wmiinstance"

	"duet/vmmanager"
)

// Watch looks at all VMs every second and sends an Event for each that has changed,
// until ctx ends. While Hyper-V does not answer nothing is sent; when it answers
// again, the state of each VM is. A slow reader gets the last event of each VM. It waits for the first list, up to
// answerTime, so that, if WMI answers, every change after its return is seen.
func (h *Hypervisor) Watch(ctx context.Context) (<-chan vmmanager.Event, error) {
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	w := &watcher{h: h, began: time.Now(), due: map[string]vmmanager.Event{}, out: make(chan vmmanager.Event)}
	w.known, w.err = h.list(ctx)
	go w.run(ctx)
	return w.out, nil
}

// watcher belongs to the goroutine of run.
type watcher struct {
	h     *Hypervisor
	known map[string]vmmanager.State // as the last look that succeeded found them
	began time.Time                  // when that look began
	err   error                      // of the last look
	due   map[string]vmmanager.Event // not taken yet, the last one of each VM
	out   chan vmmanager.Event
}

// run looks and sends in one goroutine: while a look is under way (up to answerTime) nothing is sent.
func (w *watcher) run(ctx context.Context) {
	defer close(w.out)
	tick := time.NewTicker(pollTime)
	defer tick.Stop()
	for {
		var out chan<- vmmanager.Event // nil while nothing is due
		var next vmmanager.Event
		for _, next = range w.due {
			out = w.out
			break
		}
		select {
		case out <- next:
			delete(w.due, next.VM)
		case <-tick.C:
			w.look(ctx)
		case <-ctx.Done():
			return
		}
	}
}

// look takes what has changed for due; an event that was not taken yet is replaced by the newer one of its VM.
// After a look that failed every VM is told, with ByReconnect.
func (w *watcher) look(ctx context.Context) {
	began := time.Now()
	is, err := w.h.list(ctx)
	lost := w.err != nil
	w.err = err
	if err != nil {
		return // an answer that does not come says nothing about the VMs
	}
	for _, e := range changes(w.known, is, w.h.stops.ours) {
		w.due[e.VM] = e
	}
	if lost {
		for name, state := range is {
			w.due[name] = vmmanager.Event{VM: name, State: state, Cause: vmmanager.ByReconnect}
		}
	}
	w.h.stops.past(w.known, is, w.began)
	w.known, w.began = is, began
}

// list reads the state of all VMs by name.
func (h *Hypervisor) list(ctx context.Context) (map[string]vmmanager.State, error) {
	return ask(ctx, h, func(session *wmi.WmiSession) (map[string]vmmanager.State, error) {
		all, err := systems(session)
		if err != nil {
			return nil, err
		}
		list := map[string]vmmanager.State{}
		for _, s := range all {
			list[s.name] = stateOf(s.state)
			_ = s.Close()
		}
		return list, nil
	})
}
