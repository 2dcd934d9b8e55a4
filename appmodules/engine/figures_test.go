package engine

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"duet/appmodules"
	"duet/blockrepl"
	"duet/blockrepl/backing"
	"duet/blockrepl/memlog"
	"duet/blockrepl/proof"
)

// twoDisks are the Disks of a node whose VM has another disk, vdb.
type twoDisks struct {
	*simNode
	image *backing.Faulty
	logs  *memlog.Log
	front *front
}

func (d twoDisks) Open(v appmodules.Volume) (Image, error) {
	if v.Target == "vdb" {
		return keepOpen{d.image, d.simNode}, nil
	}
	return d.simNode.Open(v)
}

func (d twoDisks) Log(v appmodules.Volume) blockrepl.DirtyLog {
	if v.Target == "vdb" {
		return d.logs
	}
	return d.simNode.Log(v)
}

func (d twoDisks) Frontend(module string, v appmodules.Volume) (blockrepl.Frontend, error) {
	if v.Target == "vdb" {
		return &session{f: d.front, done: make(chan struct{})}, nil
	}
	return d.simNode.Frontend(module, v)
}

// twins is a pair whose VM has a second disk, which it does not write.
func twins(p *pair) (a, b *simNode, others map[*simNode]twoDisks) {
	p.t.Helper()
	others = map[*simNode]twoDisks{}
	a, b = p.formedAs(func(n *simNode, c *Config) {
		d := twoDisks{n, backing.NewFaulty(backing.NewMemory(volumeSize)), memlog.New(), newFront()}
		p.t.Cleanup(d.logs.Close)
		l := blockrepl.Lineage{Volume: "vol2"}
		if n.name == "alpha" {
			l = l.With(blockrepl.Generation{Epoch: 1, Holder: "alpha"})
		}
		done := make(chan error, 1)
		d.logs.Commit(nil, &l, func(err error) { done <- err })
		must(p.t, <-done)
		others[n] = d
		c.Storage = NewStorage(StorageConfig{Module: c.Module, Node: string(n.name), Disks: d, Logger: c.Logger})
	}, func(m *appmodules.Module) {
		vm := m.Spec.(appmodules.VM)
		vm.Disks = append(slices.Clone(vm.Disks), appmodules.Volume{Target: "vdb", ID: "vol2", Size: volumeSize,
			Paths: map[string]string{"alpha": "a2", "beta": "b2"}})
		m.Spec = vm
	})
	return a, b, others
}

// TestTwoVolumes: the volumes of a module are one: what happens to the one that the guest does not even write ends the
// link of both, and moves both; a peer counts when both are in step.
func TestTwoVolumes(t *testing.T) {
	p := newPair(t)
	a, b, others := twins(p)
	a.inside(func(e *Engine) { _ = e.leading.all[1].conn.Close() })
	p.until("the link is lost", func() bool { return strings.Contains(journal(a), "the peer was lost: ") })
	p.inStep(a, b)
	states := func(n *simNode, want string) {
		t.Helper()
		p.until("both volumes are "+want, func() bool {
			vols := n.running().State().Status.Volumes
			return len(vols) == 2 && vols[0].Target == "vda" && vols[1].Target == "vdb" &&
				vols[0].State == want && vols[1].State == want
		})
	}
	states(a, blockrepl.Connected.String())
	states(b, second)
	others[a].front.last().Close()
	p.inStep(b, a)
	if log := journal(a); !strings.Contains(log, "move to the peer: volume vdb: its front end ended") {
		t.Errorf("alpha says\n%s", log)
	}
	p.writes(20)
	a.die()
	p.is(b, "ALONE", "Ready")
	states(b, blockrepl.Alone.String())
	p.writes(20)
}

// TestVerifyIsRefused: only volumes that are open as primary, and whose peer is in step, are verified; a verify whose
// volume is closed, or whose caller is gone, says so.
func TestVerifyIsRefused(t *testing.T) {
	p := newPair(t)
	a, b := p.formed()
	verify := func(n *simNode, target, want string) {
		t.Helper()
		_, err := n.running().Verify(t.Context(), target, false)
		if !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), want) {
			t.Errorf("verify of %s on %s: %v, want %q", target, n.name, err, want)
		}
	}
	verify(a, "vdz", "volume vdz is not open as primary on alpha")
	verify(b, "vda", "volume vda is not open as primary on beta")
	hold := make(chan struct{})
	remove := b.disk.Inject(backing.Fault{Ops: []blockrepl.Op{blockrepl.OpRead}, Hold: hold})
	release := sync.OnceFunc(func() { close(hold) })
	defer release()
	defer remove()
	gone, cancel := context.WithCancel(t.Context())
	ends := make(chan error, 1)
	go func() {
		_, err := a.running().Verify(gone, "vda", false)
		ends <- err
	}()
	p.until("it is under way", func() bool { return a.running().State().Status.Volumes[0].Verifying })
	if !a.running().urgent() {
		t.Error("a proof in the background may read the disks beside a verify")
	}
	verify(a, "vda", "a verify needs PRIM (Ready) and SECOND (Ready)")
	cancel()
	if err := <-ends; !errors.Is(err, context.Canceled) {
		t.Errorf("a verify whose caller is gone: %v", err)
	}
	remove()
	release()
	b.die()
	p.is(a, "ALONE", "Ready")
	verify(a, "vda", "a verify needs PRIM (Ready) and SECOND (Ready)")
}

// TestVerifyOfWhatNobodyCanRead: a region that neither node can read was not compared, and the log does not call the
// copies identical.
func TestVerifyOfWhatNobodyCanRead(t *testing.T) {
	p := newPair(t)
	var log lines
	a, b := p.formedAs(func(n *simNode, c *Config) {
		if n.name == "alpha" {
			c.Logger = slog.New(slog.NewTextHandler(&log, nil))
		}
	})
	for _, n := range []*simNode{a, b} {
		defer n.disk.Inject(backing.Fault{Ops: []blockrepl.Op{blockrepl.OpRead}, Len: 512, Err: syscall.EIO})()
	}
	if d, err := a.running().Verify(t.Context(), "vda", false); err != nil || d.Unreadable != 1 || d.Same() {
		t.Errorf("%+v, %v", d, err)
	}
	if text := log.String(); strings.Contains(text, "identical") || !strings.Contains(text, "uncompared=1") {
		t.Errorf("the log says\n%s", text)
	}
}

// lines is a log that is read while it is written.
type lines struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// TestVerifyEndsWithTheVolume: who waits for a verify hears that the volume was closed meanwhile.
func TestVerifyEndsWithTheVolume(t *testing.T) {
	p := newPair(t)
	a, b := p.formed()
	hold := make(chan struct{})
	remove := b.disk.Inject(backing.Fault{Ops: []blockrepl.Op{blockrepl.OpRead}, Hold: hold})
	defer close(hold)
	defer remove()
	long, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	ends := make(chan error, 1)
	go func() {
		_, err := a.running().Verify(long, "vda", false)
		ends <- err
	}()
	p.until("it is under way", func() bool { return a.running().State().Status.Volumes[0].Verifying })
	a.inside(func(e *Engine) { e.dismiss() })
	if err := <-ends; err == nil || !strings.Contains(err.Error(), "the volume was closed") {
		t.Errorf("the verify ended with %v", err)
	}
}

// TestStanding: who has the right in use or asks for it is taking; what is mirrored counts on both sides, and no more
// once the peer is gone.
func TestStanding(t *testing.T) {
	p := newPair(t)
	a, b := p.formed()
	stands := func(n *simNode, role appmodules.Role, taking bool) {
		t.Helper()
		s, err := n.running().Standing(t.Context())
		if err != nil || s.Role != role || s.Taking != taking || s.Record != n.running().State().Record {
			t.Errorf("%s stands as %+v, %v; want %s, taking %v", n.name, s, err, role, taking)
		}
	}
	stands(a, appmodules.Prim, true)
	stands(b, appmodules.Second, false)
	before := a.running().Mirrored()
	p.writes(20)
	if n, m := a.running().Mirrored(), b.running().Mirrored(); n < before+20 || m == 0 {
		t.Errorf("%d writes were mirrored here, %d before, and %d there", n, before, m)
	}
	b.die()
	p.is(a, "ALONE", "Ready")
	alone := a.running().Mirrored()
	p.writes(20)
	if n := a.running().Mirrored(); n != alone {
		t.Errorf("%d writes were mirrored to nobody", n-alone)
	}
	stands(a, appmodules.Alone, true)
	a.halt()
	b.boot(safe)
	p.is(b, "WAIT", "NotReady")
	stands(b, appmodules.Wait, false)
	must(t, b.running().Command(t.Context(), appmodules.CmdStop, false))
	stands(b, appmodules.Stop, false)
	if n := b.running().Mirrored(); n != 0 {
		t.Errorf("%d writes of volumes that are closed", n)
	}
}

// TestConfigureMoves: a policy that is exchanged counts at once: a module that belongs on the other node goes there,
// and one whose writes wait goes on where the new policy lets it.
func TestConfigureMoves(t *testing.T) {
	t.Parallel() // it waits most of the time
	p := newPair(t)
	a, b := p.formedAs(func(*simNode, *Config) {}, safe)
	must(t, a.running().Command(t.Context(), appmodules.CmdSwap, false))
	p.inStep(b, a)
	m := module()
	safe(&m)
	m.Policy.Failback, m.Policy.Primary = "auto", "alpha"
	must(t, b.running().Configure(t.Context(), m))
	p.inStep(a, b)
	if log := journal(b); !strings.Contains(log, "the preferred primary is in step again: fail back") {
		t.Errorf("beta says\n%s", log)
	}
	p.writes(20)
	p.data.Store(true)
	b.die()
	p.until("its VM stands still", func() bool { return a.running().State().Status.Workload == "frozen" })
	p.until("nobody lets it go on", func() bool { return strings.Contains(a.why(), "arbitration is safe") })
	m.Policy.Arbitration = "available"
	must(t, a.running().Configure(t.Context(), m))
	p.is(a, "ALONE", "Ready")
	p.writes(20)
}

// TestDifference: the sentence on a place where the copies differ says what is known of it, and the remedy fits.
func TestDifference(t *testing.T) {
	p := newPair(t)
	e := stopped(p)
	proven := time.Date(2026, 3, 4, 5, 6, 7, 0, time.Local)
	at := proof.Place{Off: 1 << 20, Len: 1 << 16, Regions: 1}
	place := func(fn func(*proof.Place)) proof.Place {
		one := at
		fn(&one)
		return one
	}
	for _, c := range []struct {
		places         []proof.Place
		says, remedies string
	}{
		{[]proof.Place{at}, "the copies differ in 64 KiB between byte 1048576 and 1114112; which one changed is not known",
			"find out which copy is right"},
		{[]proof.Place{place(func(p *proof.Place) { p.Both, p.Proven = true, proven.UnixMilli() })},
			"both have changed by themselves since both were last found equal (2026-03-04 05:06:07 or later)",
			"find out which copy is right"},
		{[]proof.Place{place(func(p *proof.Place) { p.Changed = "beta" })}, "the one on beta has changed by itself since " +
			"both were last found equal", "makes the copy on beta follow; look at that node's disk"},
		{[]proof.Place{place(func(p *proof.Place) { p.Changed, p.Lost = "beta", true })}, "the one on beta cannot be read",
			"duet volume verify web01/vda --repair makes the copy on beta follow"},
		{[]proof.Place{place(func(p *proof.Place) { p.Changed = "beta" }), place(func(p *proof.Place) {
			p.Changed, p.Off = "alpha", 2<<20
		}), place(func(p *proof.Place) { p.Off = 3 << 20 })},
			"; and at 2 more places, such as byte 2097152, 3145728", "find out which copy is right"},
		{[]proof.Place{{Off: 5, Len: 7}}, "", ""}, // not compared, and not different
	} {
		notices := e.proofNotices(VolumeStatus{Target: "vda", Proof: &ProofStatus{Ledger: proof.Ledger{Open: c.places}}})
		if c.says == "" {
			if len(notices) != 0 {
				t.Errorf("%+v: %+v", c.places, notices)
			}
			continue
		}
		if len(notices) != 1 || !notices[0].Alarm || !strings.Contains(notices[0].Text, c.says) ||
			!strings.Contains(notices[0].Remedy, c.remedies) {
			t.Errorf("%+v: %+v, want %q and %q", c.places, notices, c.says, c.remedies)
		}
	}
}

// TestDisksThatFail: what a Storage could not make of an image, a log and a frontend leaves nothing open.
func TestDisksThatFail(t *testing.T) {
	v := module().Volumes()[0]
	errOpen, errFront, errAside, errLog := errors.New("no image"), errors.New("no socket"), errors.New("no space"),
		errors.New("no log")
	d := &disksThatFail{log: memlog.New(), open: errOpen}
	defer d.log.Close()
	s := NewStorage(StorageConfig{Module: module(), Node: "alpha", Disks: d, Logger: stopped(newPair(t)).cfg.Logger})
	report := func(blockrepl.Event) {}
	if _, err := s.Primary(v, report); !errors.Is(err, errOpen) {
		t.Errorf("primary without an image: %v", err)
	}
	if _, err := s.Secondary(v); !errors.Is(err, errOpen) {
		t.Errorf("secondary without an image: %v", err)
	}
	d.open, d.front = nil, errFront
	if _, err := s.Primary(v, report); !errors.Is(err, errFront) || d.opened != 0 {
		t.Errorf("primary without a frontend: %v, and %d images are open", err, d.opened)
	}
	d.front, d.logs = nil, errLog
	if _, err := s.Secondary(v); !errors.Is(err, errLog) || d.opened != 0 {
		t.Errorf("secondary without its log: %v, and %d images are open", err, d.opened)
	}
	if _, err := s.Primary(v, report); !errors.Is(err, errLog) || d.opened != 0 {
		t.Errorf("primary without its log: %v, and %d images are open", err, d.opened)
	}
	if _, _, err := s.Known(v); !errors.Is(err, errLog) {
		t.Errorf("the history without its log: %v", err)
	}
	d.logs = nil
	sec, err := s.Secondary(v)
	must(t, err)
	d.aside = errAside
	if err := sec.Yield(t.Context(), Divergence{}); !errors.Is(err, errAside) ||
		!strings.HasPrefix(err.Error(), "keep this node's version: ") {
		t.Errorf("yield without keeping: %v", err)
	}
	if err := sec.Close(); err != nil || d.opened != 0 {
		t.Errorf("close: %v, and %d images are open", err, d.opened)
	}
}

// TestReopenedIsIntact: what a volume that is closed in order has not lost, the next Secondary of it vouches for; not
// after a flush that failed, nor when the volume was opened to be written here.
func TestReopenedIsIntact(t *testing.T) {
	v, errFront := module().Volumes()[0], errors.New("no socket")
	d := &disksThatFail{log: memlog.New(), front: errFront}
	defer d.log.Close()
	s := NewStorage(StorageConfig{Module: module(), Node: "alpha", Disks: d, Logger: stopped(newPair(t)).cfg.Logger})
	s.(*storage).intact.Store(v.ID, nil) // as after a session
	reopen := func(want bool, flush error) {
		t.Helper()
		sec, err := s.Secondary(v)
		must(t, err)
		if got := sec.(follows).Intact(); got != want {
			t.Errorf("intact: %v, want %v", got, want)
		}
		d.flush = flush
		if err := sec.Close(); !errors.Is(err, flush) {
			t.Errorf("close: %v", err)
		}
	}
	reopen(true, nil)
	reopen(true, errors.New("no flush"))
	reopen(false, nil)
	s.(*storage).intact.Store(v.ID, nil)
	if _, err := s.Primary(v, func(blockrepl.Event) {}); !errors.Is(err, errFront) {
		t.Error(err)
	}
	reopen(false, nil)
}

// disksThatFail are Disks that count the images they have open.
type disksThatFail struct {
	log                             *memlog.Log
	open, front, aside, logs, flush error
	opened                          int
}

// counted is one of these images.
type counted struct {
	blockrepl.Device
	d *disksThatFail
}

func (c counted) Close() error { c.d.opened--; return nil }

func (c counted) Flush() error { return c.d.flush }

func (d *disksThatFail) Open(appmodules.Volume) (Image, error) {
	if d.open != nil {
		return nil, d.open
	}
	d.opened++
	return counted{backing.NewMemory(volumeSize), d}, nil
}

func (d *disksThatFail) Log(appmodules.Volume) blockrepl.DirtyLog { return logThatFails{d.log, d.logs} }

func (d *disksThatFail) Frontend(string, appmodules.Volume) (blockrepl.Frontend, error) {
	return nil, d.front
}

func (d *disksThatFail) Written(appmodules.Volume) time.Time { return time.Time{} }

func (d *disksThatFail) SetAside(appmodules.Volume, Image, Divergence) error { return d.aside }

// logThatFails cannot be read.
type logThatFails struct {
	*memlog.Log
	err error
}

func (l logThatFails) Load() ([]blockrepl.Entry, *blockrepl.Lineage, error) {
	if l.err != nil {
		return nil, nil, l.err
	}
	return l.Log.Load()
}
