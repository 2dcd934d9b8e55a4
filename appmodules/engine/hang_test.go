package engine

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"duet/appmodules"
	"duet/blockrepl"
	"duet/blockrepl/backing"
	"duet/cluster"
	"duet/vmmanager"
)

// soonEnough is within what a node answers whose disks do not.
const soonEnough = 300 * time.Millisecond

// hang has no operation on the node's image end until the function it returns is called.
func (n *simNode) hang() (release func()) {
	hold := make(chan struct{})
	remove := n.disk.Inject(backing.Fault{Hold: hold})
	release = sync.OnceFunc(func() {
		remove()
		close(hold)
	})
	n.p.t.Cleanup(release)
	return release
}

// quickly fails the test if fn takes longer than a node may take to answer. That this
// computer was busy, which a clock tells, does not count.
func (p *pair) quickly(what string, fn func()) {
	p.t.Helper()
	const tick = 5 * time.Millisecond
	began, answered, busy := time.Now(), make(chan struct{}), make(chan time.Duration)
	go func() {
		var late time.Duration
		for last := began; ; last = time.Now() {
			select {
			case <-answered:
				busy <- late
				return
			case <-time.After(tick):
				late += time.Since(last) - tick
			}
		}
	}()
	fn()
	took := time.Since(began)
	close(answered)
	if late := <-busy; took > soonEnough+2*late { // each of the two sides may have been
		p.t.Errorf("%s was answered after %v; this computer was busy for %v of it", what, took, late)
	}
}

// says waits until the status of a node has a notice of that kind.
func (p *pair) says(n *simNode, code string) appmodules.Notice {
	p.t.Helper()
	var found appmodules.Notice
	p.until(fmt.Sprintf("%s has the notice %s", n.name, code), func() bool {
		for _, notice := range n.running().State().Status.Notices {
			if notice.Code == code {
				found = notice
				return true
			}
		}
		return false
	})
	return found
}

// TestHungDiskOfStandby: the disk of the standby does not answer. The standby votes all the
// same, the VM goes on after the stall budget, and the standby says what it waits for.
func TestHungDiskOfStandby(t *testing.T) {
	p := newPair(t)
	a, b := p.formed()
	release := b.hang()
	p.is(a, "ALONE", "Ready")
	p.writes(50)
	p.is(b, "SECOND", "Transient")
	if n := p.says(b, "disk-hangs"); !strings.Contains(n.Text, "has not answered for") {
		t.Errorf("the notice is %q", n.Text)
	}
	must(t, b.running().Alive(t.Context()))
	release()
	p.inStep(a, b)
	p.writes(50)
}

// TestHungDiskOfPrimary: the disk of the primary does not answer for longer than the
// budget. The guest goes on on the peer, and the node that has the disk waits for it.
func TestHungDiskOfPrimary(t *testing.T) {
	p := newPair(t)
	a, b := p.formed()
	release := a.hang()
	p.is(b, "ALONE", "Ready")
	p.writes(50)
	if log := journal(a); !strings.Contains(log, "does not answer for 1s") {
		t.Errorf("alpha does not say why it moved:\n%s", log)
	}
	p.says(a, "disk-hangs")
	release()
	p.inStep(b, a)
	p.writes(50)
}

// TestHungDiskWhileAlone: nobody could take over. The VM is not ended for what may pass:
// its writes wait for the disk, and the status says so.
func TestHungDiskWhileAlone(t *testing.T) {
	p, a, _ := widowed(t)
	release := a.hang()
	p.is(a, "ALONE", "Transient")
	p.says(a, "disk-hangs")
	if s, err := a.hv.State(t.Context(), "web01"); err != nil || s == vmmanager.Off {
		t.Errorf("the VM is %v, %v", s, err)
	}
	release()
	p.is(a, "ALONE", "Ready")
	p.writes(50)
	if strings.Contains(journal(a), "the VM is off") {
		t.Error("the VM was ended meanwhile")
	}
}

// asked is a connection whose refusal is looked at.
type asked struct {
	hello   blockrepl.Hello
	refused chan blockrepl.Refusal
}

func (a asked) Hello() blockrepl.Hello           { return a.hello }
func (a asked) Refuse(r blockrepl.Refusal) error { a.refused <- r; return nil }
func (a asked) Close() error                     { return nil }

// refusesQuickly checks that n tells peer, which attaches at the epoch n knows, that and why it cannot.
func (p *pair) refusesQuickly(n, peer *simNode) {
	p.t.Helper()
	hello := blockrepl.Hello{
		Node: string(peer.name), Epoch: uint64(n.running().State().Record.Epoch),
		Lineage: blockrepl.Lineage{Volume: "vol"},
	}
	in := asked{hello, make(chan blockrepl.Refusal, 1)}
	p.quickly("who attaches", func() {
		_ = n.running().OnAttach(p.t.Context(), in)
		if r := <-in.refused; r.Reason == "" {
			p.t.Error("refused without a reason")
		}
	})
}

// claim is what peer, which is complete, would ask n for.
func claim(n, peer *simNode) cluster.Ask {
	rec := n.running().State().Record
	return cluster.Ask{Module: "web01", Node: peer.name, Epoch: rec.Next(peer.name), Complete: rec.Epoch}
}

// inStep waits until one node leads and the other has all data.
func (p *pair) inStep(prim, second *simNode) {
	p.t.Helper()
	p.is(prim, "PRIM", "Ready")
	p.is(second, "SECOND", "Ready")
}

// widowed is a pair of which beta has died: alpha goes on alone.
func widowed(t *testing.T) (p *pair, a, b *simNode) {
	t.Helper()
	p = newPair(t)
	a, b = p.formed()
	b.die()
	p.is(a, "ALONE", "Ready")
	return p, a, b
}

// inEachRole runs a test on the standby of a pair, and on the primary of another.
func inEachRole(t *testing.T, test func(t *testing.T, p *pair, n, peer *simNode, primary bool)) {
	t.Run("standby", func(t *testing.T) {
		p := newPair(t)
		a, b := p.formed()
		test(t, p, b, a, false)
	})
	t.Run("primary", func(t *testing.T) {
		p := newPair(t)
		a, b := p.formed()
		test(t, p, a, b, true)
	})
}

// TestAnswersWhileDisksHang: a node whose image disks hang votes, answers who attaches, takes
// commands and is alive, each within 300 ms, in either role and while it reopens volumes.
func TestAnswersWhileDisksHang(t *testing.T) {
	inEachRole(t, func(t *testing.T, p *pair, n, peer *simNode, primary bool) {
		n.hang()
		alive := func(when string) {
			p.quickly("Alive "+when, func() { must(t, n.running().Alive(t.Context())) })
		}
		alive("when the disk begins to hang")
		if primary {
			p.is(peer, "ALONE", "Ready")
		} else {
			p.quickly("the vote", func() {
				ans, err := n.running().OnAsk(t.Context(), claim(n, peer))
				if err != nil || !ans.Yes {
					t.Errorf("the vote is %+v, %v", ans, err)
				}
			})
		}
		alive("while the image is closed")
		p.is(n, "SECOND", "Transient")
		p.refusesQuickly(n, peer)
		p.quickly("a command", func() { must(t, n.running().Command(t.Context(), appmodules.CmdStop, false)) })
		p.is(n, "STOP", "NotReady")
		p.quickly("a command", func() { must(t, n.running().Command(t.Context(), appmodules.CmdStart, false)) })
		alive("while it waits to reopen the image")
	})
}

// TestStopWhileDisksHang: an engine stops although its disk does not answer.
func TestStopWhileDisksHang(t *testing.T) {
	inEachRole(t, func(t *testing.T, _ *pair, n, _ *simNode, _ bool) {
		n.hang()
		began := time.Now()
		n.running().Stop(t.Context())
		if took := time.Since(began); took > 9*time.Second {
			t.Errorf("the stop took %v", took)
		}
	})
}

// TestHungMetadata: a node whose metadata disk does not answer can promise nothing. It says
// so within 300 ms, and counts as what it is: alive, and no voter.
func TestHungMetadata(t *testing.T) {
	p := newPair(t)
	a, b := p.nodes["alpha"], p.nodes["beta"]
	for _, n := range []*simNode{a, b} {
		n.boot(func(m *appmodules.Module) { m.Policy.DiskBudget = appmodules.Duration(4 * time.Second) })
		must(t, n.running().Command(t.Context(), appmodules.CmdStart, false))
	}
	p.inStep(a, b)
	release := b.store.hang()
	t.Cleanup(release)
	e := b.running()
	rec := e.State().Record
	ask := claim(b, a)
	for range 3 {
		p.quickly("the vote", func() {
			if ans, err := e.OnAsk(t.Context(), ask); err == nil {
				t.Errorf("a vote that is not durable: %+v", ans)
			}
		})
		p.quickly("Alive", func() { must(t, e.Alive(t.Context())) })
		p.refusesQuickly(b, a)
		p.quickly("a command", func() {
			if err := e.Command(t.Context(), appmodules.CmdStop, false); err == nil {
				t.Error("a command was taken that cannot be noted")
			}
		})
	}
	if e.State().Record != rec {
		t.Errorf("it acts on a record that is not durable: %+v", e.State().Record)
	}
	p.is(a, "ALONE", "Ready") // arbitration: available
	p.writes(20)
	p.is(b, "WAIT", "NotReady") // after the budget it takes no part
	release()
	p.inStep(a, b)
}

// TestHungMetadataAtStart: a start waits for a metadata disk that does not answer a moment, not for ever: others are
// started after it, and the watchdog asks whether this one is alive. It takes part when the disk answers.
func TestHungMetadataAtStart(t *testing.T) {
	p := newPair(t)
	a, b := p.formed()
	a.halt()
	release := a.store.hang()
	t.Cleanup(release)
	var given atomic.Bool // up: this is what the test waits for where a start waits for ever
	late := time.AfterFunc(10*time.Second, func() { given.Store(true); release() })
	a.boot()
	late.Stop()
	if given.Load() {
		t.Error("the start waited for the disk")
	}
	must(t, a.running().Alive(t.Context()))
	p.is(b, "ALONE", "Ready")
	release()
	p.inStep(b, a)
	p.writes(20)
}

// TestSaveOfUnknownEnd: a save that took too long may have become durable after all. Nothing
// counts as saved then but what is saved anew, though it seems unchanged.
func TestSaveOfUnknownEnd(t *testing.T) {
	p := newPair(t)
	a := p.nodes["alpha"]
	a.boot()
	e := a.running()
	release := a.store.hang()
	t.Cleanup(release)
	must(t, e.call(t.Context(), func() {
		before := e.rec
		if e.save(before.Promise("alpha", 0)) {
			t.Error("saved on a disk that hangs")
		}
		if e.rec != before {
			t.Error("the record counts although it is not durable")
		}
		if e.save(before) {
			t.Error("what is on the disk is not known, and counts as saved")
		}
	}))
	release()
	p.until("the record on the disk is the one that counts", func() bool {
		var on cluster.Record
		saved := false
		must(t, e.call(t.Context(), func() { saved = e.save(e.rec) }))
		_, err := a.store.Load(recordKey, &on)
		return saved && err == nil && on == e.rec
	})
}

// TestRecordOfReplacedEngine: what the engine before has saved since New counts, also when it cannot be
// read at first. Until then this node neither votes nor saves what it has read before.
func TestRecordOfReplacedEngine(t *testing.T) {
	p := newPair(t)
	a, b := p.formed()
	b.halt()
	before := a.running().State().Record
	a.halt()
	var read atomic.Int32
	var well atomic.Bool
	newer := before.Promise("beta", 5) // the engine before has voted for the peer
	a.store.read = func() error {
		switch n := read.Add(1); {
		case n == 3: // New has read both
			return cmp.Or(a.store.Save(recordKey, newer), errors.New("a sector cannot be read"))
		case n > 3 && !well.Load():
			return errors.New("a sector cannot be read")
		}
		return nil
	}
	a.boot()
	p.until("it was tried again", func() bool { return read.Load() > 4 })
	var on cluster.Record
	must(t, json.Unmarshal(a.store.vals[recordKey], &on))
	if on != newer {
		t.Errorf("an old record was saved over a newer one: %+v", on)
	}
	must(t, a.running().call(t.Context(), func() {
		if a.running().save(before.Promise("alpha", 0)) {
			t.Error("saved what was made of the older record")
		}
	}))
	well.Store(true)
	p.until("the record is the newer one", func() bool { return a.running().State().Record.Promised >= newer.Promised })
	b.boot()
	p.inStep(a, b)
}

// TestSlowHypervisorAtStart: a hypervisor that does not answer keeps nobody waiting for a vote.
func TestSlowHypervisorAtStart(t *testing.T) {
	p := newPair(t)
	a, b := p.formed()
	b.halt()
	hold := make(chan struct{})
	release := sync.OnceFunc(func() { close(hold) })
	t.Cleanup(release)
	b.slow = hold
	b.boot()
	e := b.running()
	p.quickly("Alive", func() { must(t, e.Alive(t.Context())) })
	p.quickly("the vote", func() {
		if _, err := e.OnAsk(t.Context(), cluster.Ask{Module: "web01", Node: "alpha", Epoch: 1}); err != nil {
			t.Errorf("the vote: %v", err)
		}
	})
	release()
	p.inStep(a, b)
}

// TestVoteWhileTheDaemonComesBack: the standby has asked for the right since the daemon was gone. One that is back, and
// whose VM is there, goes on with it, also while it does not know yet how the VM stands.
func TestVoteWhileTheDaemonComesBack(t *testing.T) {
	p := newPair(t)
	a, b := p.formed()
	a.halt()
	hold := make(chan struct{})
	release := sync.OnceFunc(func() { close(hold) })
	t.Cleanup(release)
	a.slow = hold
	a.boot()
	ask := cluster.Ask{Module: "web01", Node: "beta", Epoch: 2, Complete: 1}
	ans, err := a.running().OnAsk(t.Context(), ask)
	if err != nil || ans.Yes {
		t.Errorf("it gives its VM away while that is there: %+v, %v", ans, err)
	}
	release()
	p.inStep(a, b)
	if log := journal(a); strings.Contains(log, "is ended") {
		t.Errorf("the VM did not go on:\n%s", log)
	}
}

// TestFrontendEnds: a front end that ends by itself leaves the VM without its disk: the
// module moves.
func TestFrontendEnds(t *testing.T) {
	p := newPair(t)
	a, b := p.formed()
	a.front.last().Close()
	p.inStep(b, a)
	if log := journal(a); !strings.Contains(log, "front end ended") {
		t.Errorf("alpha does not say why it moved:\n%s", log)
	}
}

// TestPowerLossWhileStopped: what a module has written is on disk when it has stopped, so
// its node loses nothing with its power.
func TestPowerLossWhileStopped(t *testing.T) {
	p := newPair(t)
	a, b := p.formed()
	must(t, a.running().Command(t.Context(), appmodules.CmdStopAll, false))
	p.is(a, "STOP", "NotReady")
	p.is(b, "STOP", "NotReady")
	for _, n := range []*simNode{a, b} {
		p.until(fmt.Sprintf("%s notes that all is on disk", n.name), func() bool {
			var k kept
			_, err := n.store.Load(keptKey, &k)
			return err == nil && k.Boot == ""
		})
		n.die()
		n.boot()
		must(t, n.running().Booted(t.Context()))
		if n.running().State().Record.Cold {
			t.Errorf("%s counts as one that lost writes", n.name)
		}
		n.die() // without having opened anything
		n.boot()
		must(t, n.running().Booted(t.Context()))
		if n.running().State().Record.Cold {
			t.Errorf("%s counts as one that lost writes after a second loss of power", n.name)
		}
	}
	must(t, a.running().Command(t.Context(), appmodules.CmdStart, false))
	must(t, b.running().Command(t.Context(), appmodules.CmdStart, false))
	p.settle([]*simNode{a, b})
	one, other := a, b
	if one.running().State().Status.Role != appmodules.Prim {
		one, other = b, a
	}
	one.die()
	one.boot()
	p.is(other, "PRIM", "Ready")
	if !strings.Contains(journal(one), "this node lost power and the peer did not") &&
		!strings.Contains(journal(other), "the primary is silent") {
		t.Error("a primary that lost power counts as one that did not")
	}
}

// TestStopAfterCrashFlushes: a daemon that was killed left writes unflushed. The next one
// flushes them when it stops in order, also if the module was not opened again.
func TestStopAfterCrashFlushes(t *testing.T) {
	p, a, _ := widowed(t)
	must(t, a.running().Command(t.Context(), appmodules.CmdStop, false))
	must(t, a.running().call(t.Context(), func() { a.running().keep.Wanted = false; a.running().saveKept() }))
	p.until("alpha stops", func() bool { return a.running().State().Status.Role == appmodules.Stop })
	a.halt()
	var k kept
	_, err := a.store.Load(keptKey, &k)
	must(t, err)
	k.Boot = fmt.Sprint(a.boots.Load()) // as if it had been killed before it noted the end
	must(t, a.store.Save(keptKey, k))
	a.boot()
	a.running().Stop(t.Context())
	a.die()
	a.boot()
	must(t, a.running().Booted(t.Context()))
	if a.running().State().Record.Cold {
		t.Error("alpha counts as one that lost writes")
	}
}

// TestReasonOfTheEnd: a module that has stopped says what stopped it.
func TestReasonOfTheEnd(t *testing.T) {
	p, a, _ := widowed(t)
	a.disk.Inject(backing.Fault{Ops: []blockrepl.Op{blockrepl.OpWrite}, Err: errors.New("medium error")})
	p.is(a, "STOP", "NotReady")
	if why := a.running().State().Status.Why; !strings.Contains(why, "medium error") {
		t.Errorf("it says %q", why)
	}
}

// TestDiskErrorsOfTheGuest: a VM whose disk gives it errors is let go on a few times, and then
// left paused; it is not Ready, and says why. A peer that comes back is a reason to try again.
func TestDiskErrorsOfTheGuest(t *testing.T) {
	p, a, b := widowed(t)
	for range promptly {
		p.until("the VM runs", func() bool { s, _ := a.hv.State(t.Context(), "web01"); return s == vmmanager.Running })
		must(t, a.hv.BreakDisk("web01"))
		must(t, a.hv.MendDisk("web01"))
	}
	p.until("the VM runs", func() bool { s, _ := a.hv.State(t.Context(), "web01"); return s == vmmanager.Running })
	must(t, a.hv.BreakDisk("web01"))
	p.is(a, "ALONE", "NotReady")
	p.says(a, "disk-errors")
	must(t, a.hv.MendDisk("web01"))
	b.boot()
	p.is(a, "PRIM", "Ready")
	p.writes(20)
}

// TestUnreadableRegion: data that cannot be read here, and cannot be mended, end no VM. The
// status says how much there is.
func TestUnreadableRegion(t *testing.T) {
	p := newPair(t)
	data := make([]byte, blockrepl.RegionSize)
	data[0] = 1
	if _, err := p.nodes["alpha"].image.WriteAt(data, 4<<20); err != nil {
		t.Fatal(err)
	}
	a, b := p.formed()
	remove := a.disk.Inject(backing.Fault{Ops: []blockrepl.Op{blockrepl.OpRead, blockrepl.OpWrite, blockrepl.OpZero,
		blockrepl.OpDiscard},
		Off: 4 << 20, Len: blockrepl.RegionSize, Err: errors.New("medium error")})
	defer remove()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	_, _ = a.running().Verify(ctx, "vda", false) // how it ends is blockrepl's to say
	if n := p.says(a, "disk-unreadable"); !strings.Contains(n.Text, "64 KiB") {
		t.Errorf("the notice is %q", n.Text)
	}
	p.inStep(a, b)
	p.writes(50)
}
