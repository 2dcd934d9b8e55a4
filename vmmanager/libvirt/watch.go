//go:build linux && cgo && libvirt_dlopen

package libvirt

import (
	"context"
	"errors"
	"hash/fnv"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"libvirt.org/go/libvirt"

	"duet/vmmanager"
)

const (
	pollTime    = 3 * time.Second        // between two looks at all VMs, in case an event got lost
	confirmTime = 250 * time.Millisecond // before a look that contradicts the events is believed
	askedTime   = 5 * time.Minute        // how long a pressed power button explains a shutdown
	firstDial   = 5 * time.Second        // how long Watch waits for libvirtd before it goes on in the background
	maxRedial   = 2 * time.Second        // between two attempts to connect
)

// Watch sends an Event for every change of every VM until ctx ends. If libvirtd
// answers, every change after Watch returned is seen; if not, Watch goes on trying
// and sends the state of each VM once it is there. Closing the channel is the
// last thing it does. It returns when the first attempt to connect has ended, after firstDial at most. Each Watch
// is a connection and follows all VMs by itself: two of them tell the same events.
func (h *Hypervisor) Watch(ctx context.Context) (<-chan vmmanager.Event, error) {
	w := &watcher{h: h, out: vmmanager.NewEventQueue(), vms: map[string]*seen{}}
	out := make(chan vmmanager.Event)
	started := make(chan struct{}) // closed when the first attempt to connect has ended
	watched := make(chan struct{}) // closed when the watcher has ended
	go func() {
		defer close(watched)
		w.watch(ctx, started)
	}()
	go func() {
		defer close(out)
		w.out.DrainTo(ctx, out)
		<-watched
	}()
	select {
	case <-started:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	return out, nil
}

// watcher follows the VMs of one libvirtd. All fields belong to its goroutine. An event of libvirt's is the first
// news; a look at all VMs every pollTime, and whenever an event says too little, finds what no event told. The two
// are held against each other in compare.
type watcher struct {
	h    *Hypervisor
	out  *vmmanager.EventQueue // put by the watcher, drained by another goroutine
	vms  map[string]*seen      // by name; one that is gone has no entry
	met  bool                  // the VMs were listed once, or the first attempt failed: each list is a reconnect now
	look bool                  // an event said that a definition may have changed: look at once
}

// seen is what the watcher knows of one VM. It begins anew with each connection and with each run of the VM.
type seen struct {
	status
	text     uint64    // hash of its definition; 0 until its first reader has been told to read it
	changes  int       // events of it so far
	doubt    *status   // what the last look saw that no event has told
	asked    time.Time // when somebody pressed its power button
	watchdog bool      // its watchdog fired to switch it off
}

// raw is one event as it leaves a callback. Callbacks must not call libvirt, so it holds only what they were given.
type raw struct {
	vm     string
	run    int
	what   what
	event  libvirt.DomainEventType // these two of a lifecycle event only
	detail int
}

type what uint8

const (
	lifecycle   what = iota
	metadata         // title, description or metadata changed
	powerButton      // QEMU was told to press it
	watchdogOff      // the guest's watchdog fired and is set to switch it off
	record           // what it is made of has changed while it runs
)

// session is one connection of a watcher. Its owner, the watcher, closes it once; callbacks and the reader of
// records only put into its channels.
type session struct {
	conn *libvirt.Connect // its own; looks use it from another goroutine
	raw  chan raw         // a callback never waits for room in it
	lost chan struct{}    // receives when the connection is gone
	full atomic.Bool      // an event found no room: look at all VMs
	undo []func()         // done in reverse
}

// watch runs sessions until ctx ends. The pause after an attempt that failed doubles from 100 ms to maxRedial.
func (w *watcher) watch(ctx context.Context, started chan struct{}) {
	first := true
	for wait := 100 * time.Millisecond; ctx.Err() == nil; wait = min(2*wait, maxRedial) {
		open := ctx
		cancel := context.CancelFunc(func() {})
		if first {
			// Watch waits for this one only.
			open, cancel = context.WithTimeout(ctx, firstDial)
		}
		s, list, err := w.open(open)
		cancel()
		if err == nil {
			w.reconcile(list)
		}
		w.met = true
		if first {
			close(started)
			first = false
		}
		if err == nil {
			w.h.log.Debug("watching VMs", "uri", w.h.uri)
			w.h.learnAnew(ctx)
			w.follow(ctx, s)
			s.close()
			// It was there a moment ago: a libvirtd that is restarted is back soon.
			wait = 50 * time.Millisecond
		} else {
			w.h.log.Debug("libvirtd not reachable", "uri", w.h.uri, "error", err)
		}
		if sleep(ctx, wait) != nil {
			return
		}
	}
}

// open connects, registers for events and then lists all VMs, so that no change falls between. It blocks as long as
// ctx, not as long as libvirtd: an attempt that ends later closes what it has opened.
func (w *watcher) open(ctx context.Context) (*session, map[string]found, error) {
	type opened struct {
		s    *session
		list map[string]found
		err  error
	}
	done := make(chan opened, 1)
	err := w.h.spawn(ctx, func(conn *libvirt.Connect) {
		s := &session{conn: conn, raw: make(chan raw, 1024), lost: make(chan struct{}, 1)}
		// Events first, then the list: what happens in between is told twice rather than never.
		err := s.register()
		s.follow(w.h.runDir, w.h.log)
		var list map[string]found
		if err == nil {
			list, err = listAll(conn)
		}
		if err != nil || ctx.Err() != nil {
			s.close()
			done <- opened{err: translate(err)}
			return
		}
		done <- opened{s, list, nil}
	}, func(err error) { done <- opened{err: err} })
	if err != nil {
		return nil, nil, err
	}
	select {
	case o := <-done:
		if o.s == nil && o.err == nil {
			o.err = ctx.Err()
		}
		return o.s, o.list, o.err
	case <-ctx.Done():
		// It may just have succeeded: then nobody else closes it.
		w.h.calls.Go(func() {
			if o := <-done; o.s != nil {
				o.s.close()
			}
		})
		return nil, nil, ctx.Err()
	}
}

// found is what a look at all VMs finds of one.
type found struct {
	status
	text uint64
}

// listAll returns the status of every VM. Definitions are read too, because
// libvirt has no event for many changes to them (attach-disk --config, setvcpus…).
func listAll(conn *libvirt.Connect) (map[string]found, error) {
	domains, err := conn.ListAllDomains(0)
	if err != nil {
		return nil, err
	}
	list := map[string]found{}
	for i := range domains {
		name, now, lookErr := lookAt(&domains[i])
		_ = domains[i].Free()
		// A VM may vanish while the list is read; it is then simply not in it.
		if lookErr != nil && !hasCode(lookErr, libvirt.ERR_NO_DOMAIN) {
			err = errors.Join(err, lookErr)
		} else if lookErr == nil {
			list[name] = now
		}
	}
	return list, err
}

// lookAt reads one VM. Of its definition only a hash is kept, as the text has passwords in it.
func lookAt(dom *libvirt.Domain) (string, found, error) {
	name, err := dom.GetName()
	if err != nil {
		return "", found{}, err
	}
	now, err := statusOf(dom)
	if err != nil {
		return "", found{}, err
	}
	// The persistent one: what is plugged into a running VM is no edit.
	text, err := dom.GetXMLDesc(wholeText)
	if err != nil {
		return "", found{}, err
	}
	return name, found{now, textHash(text)}, nil
}

// textHash returns a number that is another one for another text, and never 0.
func textHash(text string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(text)) // a hash does not fail
	return max(h.Sum64(), 1)
}

// register asks for events; close undoes it, or libvirt would keep the connection for ever. On an error what was
// registered so far is in undo. The callbacks run on libvirt's event loop, one for all connections of the process:
// whoever waits in one stops them all, and Watch with them.
func (s *session) register() error {
	err := s.conn.RegisterCloseCallback(func(*libvirt.Connect, libvirt.ConnectCloseReason) {
		select {
		case s.lost <- struct{}{}:
		default:
		}
	})
	if err == nil {
		s.undo = append(s.undo, func() { _ = s.conn.UnregisterCloseCallback() })
	} else if !hasCode(err, libvirt.ERR_NO_SUPPORT) {
		return err
	}
	id, err := s.conn.DomainEventLifecycleRegister(nil,
		func(_ *libvirt.Connect, dom *libvirt.Domain, e *libvirt.DomainEventLifecycle) {
			s.put(dom, lifecycle, e.Event, e.Detail)
		})
	if err != nil {
		return err
	}
	s.undo = append(s.undo, func() { _ = s.conn.DomainEventDeregister(id) })
	// The others only make causes more exact and edits known sooner, and not every driver has them.
	if id, err := s.conn.DomainEventMetadataChangeRegister(nil,
		func(_ *libvirt.Connect, dom *libvirt.Domain, _ *libvirt.DomainEventMetadataChange) {
			s.put(dom, metadata, 0, 0)
		}); err == nil {
		s.undo = append(s.undo, func() { _ = s.conn.DomainEventDeregister(id) })
	}
	if id, err := s.conn.DomainEventWatchdogRegister(nil,
		func(_ *libvirt.Connect, dom *libvirt.Domain, e *libvirt.DomainEventWatchdog) {
			if e.Action == libvirt.DOMAIN_EVENT_WATCHDOG_POWEROFF || e.Action == libvirt.DOMAIN_EVENT_WATCHDOG_SHUTDOWN {
				s.put(dom, watchdogOff, 0, 0)
			}
		}); err == nil {
		s.undo = append(s.undo, func() { _ = s.conn.DomainEventDeregister(id) })
	}
	if id, err := s.conn.DomainQemuMonitorEventRegister(nil, "POWERDOWN",
		func(_ *libvirt.Connect, dom *libvirt.Domain, _ *libvirt.DomainQemuMonitorEvent) {
			s.put(dom, powerButton, 0, 0)
		}, 0); err == nil {
		s.undo = append(s.undo, func() { _ = s.conn.DomainQemuEventDeregister(id) })
	}
	return nil
}

// follow has changes of libvirtd's records told too. Without them a snapshot is noticed by the look at the VM that
// its engine makes every few seconds.
func (s *session) follow(runDir string, log *slog.Logger) {
	r, err := watchRecords(runDir)
	if err != nil {
		log.Warn("changes of running VMs are seen late", "err", err)
		return
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		r.each(func(vm string) { s.pass(raw{vm: vm, what: record}) })
	}()
	s.undo = append(s.undo, func() { r.close(); <-ended })
}

// put passes an event on from a callback; it never waits.
func (s *session) put(dom *libvirt.Domain, w what, event libvirt.DomainEventType, detail int) {
	if name, err := dom.GetName(); err == nil {
		s.pass(raw{name, runOf(dom), w, event, detail})
	}
}

// pass drops an event for which there is no room: the look that follows finds the state, not the cause.
func (s *session) pass(e raw) {
	select {
	case s.raw <- e:
	default:
		s.full.Store(true)
	}
}

// close undoes register and follow, and then closes the connection.
func (s *session) close() {
	for _, undo := range slices.Backward(s.undo) {
		undo()
	}
	_, _ = s.conn.Close()
}

// look is the outcome of looking at all VMs.
type look struct {
	list   map[string]found // by name; what is not in it is gone
	before map[string]int   // events each VM had had when it began
	err    error
}

// follow handles events and looks at all VMs now and then, until ctx ends or the connection is lost. One look goes
// on at a time, on a goroutine of its own, since events must not wait for a libvirtd that is busy. A look that
// fails ends the session: what comes next is a list that counts. follow returns after the look, which uses the
// connection.
func (w *watcher) follow(ctx context.Context, s *session) {
	looked := make(chan look, 1)
	looking := false
	timer := time.NewTimer(pollTime)
	defer timer.Stop()
	defer func() {
		if looking {
			<-looked
		}
	}()
	for {
		if !looking && (w.look || s.full.Swap(false)) {
			w.look = false
			timer.Reset(0)
		}
		select {
		case e := <-s.raw:
			w.handle(e)
		case <-timer.C:
			looking = true
			before := w.counts()
			go func() {
				list, err := listAll(s.conn)
				looked <- look{list, before, err}
			}()
		case l := <-looked:
			looking = false
			if l.err != nil {
				return
			}
			timer.Reset(pollTime)
			if w.compare(l.list, l.before) {
				timer.Reset(confirmTime)
			}
		case <-s.lost:
			return
		case <-ctx.Done():
			return
		}
	}
}
