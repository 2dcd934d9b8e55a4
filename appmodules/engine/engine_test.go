package engine

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"duet/appmodules"
	"duet/blockrepl"
	"duet/blockrepl/backing"
	"duet/vmmanager"
)

var (
	seeds     = flag.Int("seeds", 10, "schedules of TestRandomFaults")
	firstSeed = flag.Uint64("seed", 0, "first of them")
)

func TestPrimaryDies(t *testing.T) {
	p := newPair(t)
	a, b := p.formed()
	a.die()
	p.is(b, "ALONE", "Ready")
	p.writes(50)
	a.boot()
	p.is(a, "SECOND", "Ready")
	p.is(b, "PRIM", "Ready")
	must(t, b.running().Command(t.Context(), appmodules.CmdSwap, false))
	p.is(a, "PRIM", "Ready")
	p.is(b, "SECOND", "Ready")
	p.writes(50)
}

func TestSecondaryDies(t *testing.T) {
	p := newPair(t)
	a, b := p.formed()
	b.die()
	p.is(a, "ALONE", "Ready")
	p.writes(50)
	b.boot()
	p.is(b, "SECOND", "Ready")
	p.is(a, "PRIM", "Ready")
	p.writes(50)
}

func TestDaemonRestarts(t *testing.T) {
	p := newPair(t)
	a, b := p.formed()
	for _, n := range []*simNode{a, b, a} {
		n.halt()
		n.boot()
		p.is(a, "PRIM", "Ready")
		p.is(b, "SECOND", "Ready")
		p.writes(50)
	}
}

// TestCompleteIsToldToVolumes: the end of a catch-up is told to the volumes of a standby also where its record is
// complete already: after a restart of its daemon they do not know that they have all again.
func TestCompleteIsToldToVolumes(t *testing.T) {
	p := newPair(t)
	a, b := p.formed()
	var c Complete
	a.inside(func(e *Engine) { c = Complete{Module: "web01", Epoch: e.rec.Epoch, Tickets: e.leading.tickets()} })
	told := &listening{}
	b.inside(func(e *Engine) {
		vol := e.following.all[0]
		told.Secondary = vol.Secondary
		vol.Secondary = told
	})
	if err := b.running().OnComplete(t.Context(), c); err != nil || told.completed.Load() != 1 {
		t.Errorf("told %d times, %v", told.completed.Load(), err)
	}
	p.inStep(a, b)
}

// listening counts what a Secondary is told.
type listening struct {
	Secondary
	completed atomic.Int64
}

func (l *listening) Complete(ctx context.Context, t blockrepl.Ticket) error {
	l.completed.Add(1)
	return l.Secondary.Complete(ctx, t)
}

// TestWithdraw: a guest may wait for its volume while its node is away or waits for the right to serve it, and for no
// longer.
func TestWithdraw(t *testing.T) {
	p := newPair(t)
	a, b := p.nodes["alpha"], p.nodes["beta"]
	safe := func(m *appmodules.Module) { m.Policy.Arbitration = "safe" }
	a.boot(safe)
	p.until("alpha, which is stopped, lets nobody wait", func() bool { return a.withdrawn.Load() > 0 })
	b.boot(safe)
	for _, n := range []*simNode{a, b} {
		must(t, n.running().Command(t.Context(), appmodules.CmdStart, false))
	}
	p.is(a, "PRIM", "Ready")
	p.is(b, "SECOND", "Ready")
	ended := a.withdrawn.Load()
	stays := func(when string) {
		t.Helper()
		if n := a.withdrawn.Load() - ended; n != 0 {
			t.Errorf("waiting was ended %d times %s", n, when)
		}
	}
	a.halt()
	a.boot(safe)
	p.is(a, "PRIM", "Ready")
	stays("by a restart")
	a.running().Stop(t.Context())
	stays("by a stop")
	a.halt()
	b.halt()
	a.boot(safe)
	p.until("alpha waits for the right", func() bool { return a.running().State().Status.Role == appmodules.Wait })
	stays("while the node waited for the right")
	b.boot(safe)
	p.is(a, "PRIM", "Ready")
	p.is(b, "SECOND", "Ready")
	stays("when it got the right")
	must(t, a.running().Command(t.Context(), appmodules.CmdSwap, false))
	p.is(b, "PRIM", "Ready")
	p.is(a, "SECOND", "Ready")
	if a.withdrawn.Load() == ended {
		t.Error("who waits on the node that follows is not told")
	}
}

// TestSafeWaits: without a witness and without the peer a safe module stands still
// and says why; when the peer is back it goes on, and no second writer was made.
func TestSafeWaits(t *testing.T) {
	p := newPair(t)
	a, b := p.nodes["alpha"], p.nodes["beta"]
	safe := func(m *appmodules.Module) { m.Policy.Arbitration = "safe" }
	a.boot(safe)
	b.boot(safe)
	for _, n := range []*simNode{a, b} {
		must(t, n.running().Command(t.Context(), appmodules.CmdStart, false))
	}
	p.is(a, "PRIM", "Ready")
	p.is(b, "SECOND", "Ready")
	p.writes(20)
	p.cut.Store(true)
	p.sever()
	p.is(a, "PRIM", "Transient")
	p.until("alpha says why", func() bool {
		return strings.Contains(a.running().State().Status.Why,
			"arbitration is safe")
	})
	p.until("beta does not take over and says why", func() bool {
		s := b.running().State().Status
		return s.Role == appmodules.Wait && strings.Contains(s.Why, "duet prim web01")
	})
	p.cut.Store(false)
	p.is(a, "PRIM", "Ready")
	p.is(b, "SECOND", "Ready")
	p.writes(20)
}

func TestReplicationBreaksHeartbeatsLive(t *testing.T) {
	p := newPair(t)
	a, b := p.formed()
	p.data.Store(true)
	p.sever()
	p.is(a, "ALONE", "Ready")
	p.writes(50)
	if st := b.running().State(); st.Record.IsComplete() {
		t.Fatal("beta agreed to be outdated and still counts as complete")
	}
	p.data.Store(false)
	p.is(b, "SECOND", "Ready")
	p.is(a, "PRIM", "Ready")
}

// TestStopAndStart: a stop of the module stops both nodes, and nobody takes over.
func TestStopAndStart(t *testing.T) {
	p := newPair(t)
	a, b := p.formed()
	must(t, a.running().Command(t.Context(), appmodules.CmdStopAll, false))
	p.is(a, "STOP", "NotReady")
	p.is(b, "STOP", "NotReady")
	for _, n := range []*simNode{a, b} {
		must(t, n.running().Command(t.Context(), appmodules.CmdStart, false))
	}
	p.is(a, "PRIM", "Ready")
	p.is(b, "SECOND", "Ready")
	// Stopping the primary's node moves the module.
	must(t, a.running().Command(t.Context(), appmodules.CmdStop, false))
	p.is(a, "STOP", "NotReady")
	p.is(b, "ALONE", "Ready")
	p.writes(20)
	must(t, a.running().Command(t.Context(), appmodules.CmdStart, false))
	p.is(a, "SECOND", "Ready")
}

func TestGuestEnds(t *testing.T) {
	p := newPair(t)
	a, b := p.formed()
	t.Run("crash", func(t *testing.T) {
		must(t, a.hv.Crash("web01"))
		p.until("alpha counts a restart", func() bool {
			return strings.Contains(journal(a),
				"the guest failed: restart it here")
		})
		p.is(a, "PRIM", "Ready")
		p.writes(20)
	})
	t.Run("too many crashes move it", func(t *testing.T) {
		for range 3 {
			p.until("the VM runs", func() bool { s, _ := a.hv.State(t.Context(), "web01"); return s == vmmanager.Running })
			p.is(a, "PRIM", "Ready")
			must(t, a.hv.Crash("web01"))
		}
		p.is(b, "PRIM", "Ready")
		p.is(a, "SECOND", "Ready")
		p.writes(20)
	})
	t.Run("shutdown from inside", func(t *testing.T) {
		must(t, b.hv.GuestShutdown("web01"))
		p.is(b, "STOP", "NotReady")
		p.is(a, "STOP", "NotReady")
	})
}

func TestCommandsAreRefusedWithAReason(t *testing.T) {
	p := newPair(t)
	a, b := p.formed()
	if err := b.running().Command(t.Context(), appmodules.CmdPrim, true); !errors.Is(err, ErrRefused) ||
		!strings.Contains(err.Error(), "duet swap") {
		t.Errorf("prim beside a running primary: %v", err)
	}
	if err := b.running().Command(t.Context(), appmodules.CmdSwap, false); !errors.Is(err, ErrRefused) {
		t.Errorf("swap on a secondary: %v", err)
	}
	b.die()
	p.is(a, "ALONE", "Ready")
	p.writes(20)
	a.halt()
	b.boot()
	p.is(b, "WAIT", "NotReady")
	err := b.running().Command(t.Context(), appmodules.CmdPrim, false)
	if !errors.Is(err, ErrConfirm) {
		t.Fatalf("prim on old data without --yes: %v", err)
	}
	for _, fact := range []string{"beta (here): knows epoch 1 of alpha, complete at epoch 1",
		"vda: generation 1/alpha, last written " + written.Local().Format(time.DateTime),
		"MiB that the other side may lack", "alpha: not heard since this node started"} {
		if !strings.Contains(err.Error(), fact) {
			t.Errorf("no %q in:\n%v", fact, err)
		}
	}
	must(t, b.running().Command(t.Context(), appmodules.CmdStop, false))
	p.is(b, "STOP", "NotReady")
	a.boot()
	p.is(a, "ALONE", "Ready")
	must(t, a.running().Command(t.Context(), appmodules.CmdStopAll, false))
	p.is(a, "STOP", "NotReady")
	p.until("beta has heard of it", func() bool {
		err = b.running().Command(t.Context(), appmodules.CmdPrim, false)
		return !errors.Is(err, ErrRefused)
	})
	if !errors.Is(err, ErrConfirm) ||
		!strings.Contains(err.Error(), "alpha: knows epoch 2 of alpha, complete at epoch 2\n  vda: generation 2/alpha") {
		t.Errorf("prim beside a stopped holder that answers: %v", err)
	}
}

// TestPrimAsksBesideASilentPeer: a node that held the right when its daemon ended cannot know that its peer did not
// take it meanwhile, as whole as its own record looks.
func TestPrimAsksBesideASilentPeer(t *testing.T) {
	p := newPair(t)
	a, b := p.formed()
	p.writes(20)
	a.halt()
	p.is(b, "ALONE", "Ready")
	p.writes(20)
	b.die()
	a.boot()
	p.is(a, "WAIT", "NotReady")
	err := a.running().Command(t.Context(), appmodules.CmdPrim, false)
	if !errors.Is(err, ErrConfirm) || !strings.Contains(err.Error(), "beta has not been heard since this node started") ||
		!strings.Contains(err.Error(), "two writers") {
		t.Fatalf("prim while beta may be alive: %v", err)
	}
	p.is(a, "WAIT", "NotReady")
	must(t, a.running().Command(t.Context(), appmodules.CmdPrim, true))
	p.is(a, "ALONE", "Ready")
	must(t, a.running().Command(t.Context(), appmodules.CmdPrim, false)) // it is so already
}

// TestWaitingIsShownSteadily: a node that asks in vain, again and again, shows why it
// waits and since when, and not each of its attempts.
func TestWaitingIsShownSteadily(t *testing.T) {
	p := newPair(t)
	a, b := p.formed()
	b.ping.Store(false)
	a.die()
	var shown Status
	var first uint64
	p.until("beta asks once more", func() (again bool) {
		must(t, b.running().call(t.Context(), func() { again, first = b.running().again, b.running().token }))
		shown = b.running().State().Status
		return again
	})
	p.until("it asked three times more", func() bool {
		now := b.running().State().Status
		if now.Role != appmodules.Wait || now.Status != appmodules.NotReady || now.Why != shown.Why ||
			now.Since != shown.Since {
			t.Fatalf("it shows %s (%s) since %v: %s; before it was since %v: %s", now.Role, now.Status, now.Since, now.Why,
				shown.Since, shown.Why)
		}
		var phases uint64
		must(t, b.running().call(t.Context(), func() { phases = b.running().token - first }))
		return phases >= 6 // it waits, asks, waits, asks
	})
	if !strings.Contains(shown.Why, "not granted") {
		t.Errorf("it shows %q", shown.Why)
	}
}

// TestEvacuate: a computer that goes down gives its module to a peer that is in step at
// once; otherwise it shuts the VM down. Either way it takes part again after its boot.
func TestEvacuate(t *testing.T) {
	p := newPair(t)
	a, b := p.formed()
	evacuate := func(n *simNode) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		n.running().Evacuate(ctx)
		must(t, ctx.Err())
		p.is(n, "STOP", "NotReady")
		n.halt()
	}
	evacuate(a)
	p.is(b, "ALONE", "Ready")
	p.writes(20)
	evacuate(b)
	if s, err := b.hv.State(t.Context(), "web01"); err != nil || s != vmmanager.Off {
		t.Fatalf("the VM is %v, %v", s, err)
	}
	b.boot()
	p.is(b, "ALONE", "Ready")
	a.boot()
	p.is(a, "SECOND", "Ready")
	a.running().Evacuate(t.Context())
	p.is(a, "SECOND", "Ready") // nothing runs there: it stays as it is until the daemon ends
}

// TestHandoverIsConfirmedOnlyByAnHeir: a node that holds the epoch alone must not
// confirm a handover of it, or the other would count as complete without its writes.
func TestHandoverIsConfirmedOnlyByAnHeir(t *testing.T) {
	p := newPair(t)
	a, b := p.formed()
	a.die()
	p.is(b, "ALONE", "Ready")
	e := b.running()
	rec := e.State().Record
	if err := e.OnHandover(t.Context(), Handover{Module: "web01", From: rec.Epoch - 1, Epoch: rec.Epoch}); err == nil {
		t.Fatal("a node that went on alone confirmed a handover")
	}
}

// TestDiskIsFull: a full disk moves the module when it is the primary's, and is no
// reason to stop when it is the secondary's; either way it says so and loses nothing.
// TestTicketOfTheAttachmentBefore: a primary that has greeted again was told that this
// copy is not complete and may have gone on alone; the end of its earlier resync, late on the
// way, must not make the copy complete. Found by the model of package cluster.
func TestTicketOfTheAttachmentBefore(t *testing.T) {
	p := newPair(t)
	a, b := p.formed()
	var tickets map[string]blockrepl.Ticket
	must(t, a.running().call(t.Context(), func() { tickets = a.running().leading.tickets() }))
	must(t, b.running().call(t.Context(), func() {
		f := b.running().following
		if _, err := f.adopt(tickets); err != nil {
			t.Errorf("the ticket of the present attachment: %v", err)
		}
		f.all[0].link++ // a newer Hello was accepted; the session before it has not ended
		if f.adopted(tickets) {
			t.Error("the ticket of an older attachment made the copy complete")
		}
		f.adopts = false
		if _, err := f.adopt(tickets); err == nil {
			t.Error("the ticket of an older attachment is taken")
		}
	}))
}

// TestSplitBrainKeepsBoth: a partition in which both nodes see the ping target makes two
// writers, which arbitration `available` allows. When it ends the node that had the right
// before goes on without a pause of its VM, and the other's version is kept.
func TestSplitBrainKeepsBoth(t *testing.T) {
	for _, hold := range []bool{false, true} {
		t.Run(fmt.Sprintf("hold %v", hold), func(t *testing.T) {
			p := newPair(t)
			a, b := p.nodes["alpha"], p.nodes["beta"]
			policy := func(m *appmodules.Module) {
				if hold {
					m.Policy.SplitBrain = appmodules.SplitHold
				}
			}
			for _, n := range []*simNode{a, b} {
				n.boot(policy)
				must(t, n.running().Command(t.Context(), appmodules.CmdStart, false))
			}
			p.settle([]*simNode{a, b})
			p.writes(50)
			p.apart.Store(true)
			p.cut.Store(true)
			p.sever()
			p.is(a, "ALONE", "Ready")
			p.is(b, "ALONE", "Ready")
			p.writes(50)
			p.cut.Store(false)
			if hold {
				p.until("beta waits for a human", func() bool {
					return strings.Contains(a.running().State().Status.Volumes[0].Problem, "split_brain is hold")
				})
				if n := b.kept(); n != 0 {
					t.Fatalf("%d versions were set aside before anybody decided", n)
				}
				must(t, b.running().Command(t.Context(), appmodules.CmdSecond, true))
			}
			p.is(a, "PRIM", "Ready")
			p.is(b, "SECOND", "Ready")
			if n := b.kept(); n != 1 {
				t.Fatalf("beta kept %d versions, want 1", n)
			}
			if n := a.kept(); n != 0 {
				t.Fatal("the winner set its version aside")
			}
			if log := journal(a); strings.Contains(log, "newer epoch") || strings.Count(log, "\nthe VM runs\n") != 1 {
				t.Fatalf("the winner's VM did not simply go on:\n%s", log)
			}
			if !strings.Contains(journal(b), "duet volume diverged") {
				t.Fatal("the loser's log does not say where its version is")
			}
		})
	}
}

func TestDiskIsFull(t *testing.T) {
	full := backing.Fault{Ops: []blockrepl.Op{blockrepl.OpWrite, blockrepl.OpZero}, Err: syscall.ENOSPC}
	t.Run("primary", func(t *testing.T) {
		p := newPair(t)
		a, b := p.formed()
		mend := a.disk.Inject(full)
		p.is(b, "ALONE", "Ready")
		p.writes(20)
		p.until("alpha says why", func() bool { return strings.Contains(journal(a), "no space left") })
		p.is(a, "WAIT", "NotReady") // it tried to follow, and its disk is still full
		mend()
		p.is(a, "SECOND", "Ready") // by itself
		p.writes(20)
	})
	t.Run("secondary", func(t *testing.T) {
		p := newPair(t)
		a, b := p.formed()
		mend := b.disk.Inject(full)
		p.is(a, "ALONE", "Ready")
		p.is(b, "WAIT", "NotReady")
		p.until("beta says why", func() bool {
			return strings.Contains(journal(b), "no space left") &&
				strings.Contains(b.running().State().Status.Why, "tried again in")
		})
		p.writes(20)
		mend()
		must(t, b.running().Command(t.Context(), appmodules.CmdStart, false)) // at once
		p.is(b, "SECOND", "Ready")
	})
}

// TestMetadataCannotBeSaved: a node that cannot remember does not act.
func TestMetadataCannotBeSaved(t *testing.T) {
	p := newPair(t)
	a, b := p.formed()
	b.store.mu.Lock()
	b.store.fail = errors.New("disk full")
	b.store.mu.Unlock()
	p.data.Store(true)
	p.sever()
	// beta cannot give its vote, but a ping target answers.
	p.is(a, "ALONE", "Ready")
	p.writes(20)
	if b.running().State().Record.Epoch != 1 {
		t.Error("beta acts on a vote it could not save")
	}
}

// TestRandomFaults: whatever happens, no acknowledged write is lost, and when it is
// over both nodes find together again. Cuts end before both could go on alone: that
// case, which arbitration `available` allows, belongs to the safety rules.
func TestRandomFaults(t *testing.T) {
	count := *seeds
	if testing.Short() {
		count = min(count, 3)
	}
	for seed := *firstSeed; seed < *firstSeed+uint64(count); seed++ {
		rng := rand.New(rand.NewPCG(seed, 1))
		p := newPair(t)
		a, b := p.formed()
		nodes := []*simNode{a, b}
		for range 8 {
			n := nodes[rng.IntN(2)]
			switch rng.IntN(6) {
			case 0:
				p.settle(nodes)
				n.die()
				pause(time.Duration(rng.IntN(400)) * time.Millisecond)
				n.boot()
			case 1:
				n.halt()
				pause(time.Duration(rng.IntN(100)) * time.Millisecond)
				n.boot()
			case 2:
				p.sever()
			case 3:
				p.data.Store(true)
				p.sever()
				pause(time.Duration(rng.IntN(300)) * time.Millisecond)
				p.data.Store(false)
			case 4:
				_ = n.running().Command(t.Context(), appmodules.CmdSwap, false) // refused unless it is primary and in step
			case 5:
				_ = n.hv.Crash("web01") // refused unless it runs
			}
			if bad := p.lost.Load(); bad != nil {
				p.dump()
				t.Fatalf("seed %d: data lost: %s", seed, bad)
			}
		}
		p.settle(nodes)
		p.writes(20)
		for _, n := range nodes {
			n.halt()
			_ = n.hv.Kill(t.Context(), "web01")
		}
	}
}

// settle waits until one node is primary and the other in step.
func (p *pair) settle(nodes []*simNode) {
	p.t.Helper()
	p.until("the pair is in step", func() bool {
		roles := ""
		for _, n := range nodes {
			s := n.running().State().Status
			roles += s.Role.String() + s.Status.String()
		}
		return roles == "PRIMReadySECONDReady" || roles == "SECONDReadyPRIMReady"
	})
}

func pause(d time.Duration) { <-time.After(d) }

func journal(n *simNode) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	var b strings.Builder
	for _, t := range n.log {
		b.WriteString(t.Why + "\n")
	}
	return b.String()
}

// TestDiesRightAfterResync: the primary loses power in the moment in which its peer
// becomes complete.
func TestDiesRightAfterResync(t *testing.T) {
	p := newPair(t)
	a, b := p.formed()
	rounds := 4
	if *seeds > 10 {
		rounds = *seeds
	}
	for range rounds {
		b.die()
		p.is(a, "ALONE", "Ready")
		b.boot()
		p.is(b, "SECOND", "Ready")
		a.die()
		p.is(b, "ALONE", "Ready")
		p.writes(20)
		a.boot()
		p.settle([]*simNode{a, b})
		a, b = b, a
	}
}
