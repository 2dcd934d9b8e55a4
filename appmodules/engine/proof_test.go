package engine

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"duet/appmodules"
	"duet/blockrepl"
	"duet/blockrepl/backing"
	"duet/blockrepl/proof"
	"duet/cluster"
)

// rotAt is a place where the guests of these tests do not write.
const rotAt = volumeSize - 3*blockrepl.RegionSize + 100

// rot changes a byte of a node's image behind everybody's back.
func (n *simNode) rot(off int64) {
	n.p.t.Helper()
	b := make([]byte, 1)
	if _, err := n.image.ReadAt(b, off); err != nil {
		n.p.t.Fatal(err)
	}
	b[0] ^= 0x20
	if _, err := n.image.WriteAt(b, off); err != nil {
		n.p.t.Fatal(err)
	}
}

// proves boots both nodes with passes as fast as the disks' time allows.
func (p *pair) proves(repair appmodules.ProofRepair) (a, b *simNode) {
	p.t.Helper()
	a, b = p.nodes["alpha"], p.nodes["beta"]
	for _, n := range []*simNode{a, b} {
		n.bootProving(repair)
		must(p.t, n.running().Command(p.t.Context(), appmodules.CmdStart, false))
	}
	p.is(a, "PRIM", "Ready")
	p.is(b, "SECOND", "Ready")
	return a, b
}

func (n *simNode) bootProving(repair appmodules.ProofRepair) {
	n.boot(func(m *appmodules.Module) {
		m.Policy.Proof, m.Policy.ProofRepair = appmodules.ProofPass(time.Millisecond), repair
	})
}

// proof is what the node that leads says of its volume.
func (n *simNode) proof() *ProofStatus {
	if e := n.running(); e != nil {
		if vols := e.State().Status.Volumes; len(vols) > 0 {
			return vols[0].Proof
		}
	}
	return nil
}

// proven waits for a pass that begins from here on.
func (p *pair) proven(n *simNode) proof.Ledger {
	p.t.Helper()
	from := time.Now().Truncate(time.Millisecond).Add(time.Millisecond) // ledgers cut off what is less
	var l proof.Ledger
	p.until(fmt.Sprintf("all was proven on %s from here on", n.name), func() bool {
		st := n.proof()
		if st == nil {
			return false
		}
		l = st.Ledger
		return !l.Oldest().Before(from)
	})
	return l
}

func (n *simNode) told(text string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.ContainsFunc(n.log, func(t Transition) bool { return strings.Contains(t.Why, text) })
}

// TestProofFinds: rot on either side is found in the background while the guest writes: an alarm says where
// it is, which copy it is, and what to type, and the journal has it; that mended, it is over.
func TestProofFinds(t *testing.T) {
	for _, side := range []cluster.NodeID{"alpha", "beta"} {
		t.Run(string(side), func(t *testing.T) {
			p := newPair(t)
			a, b := p.proves(appmodules.RepairAsk)
			p.proven(a)
			p.nodes[side].rot(rotAt)
			notice := p.says(a, CopiesDiffer)
			first := rotAt - rotAt%blockrepl.RegionSize
			for _, want := range []string{"vda", fmt.Sprint(first), "64 KiB",
				fmt.Sprintf("the one on %s has changed by itself", side)} {
				if !strings.Contains(notice.Text, want) {
					t.Errorf("the notice does not say %q: %s", want, notice.Text)
				}
			}
			if !notice.Alarm || !strings.Contains(notice.Remedy, "duet volume verify web01/vda --repair") ||
				strings.Contains(notice.Remedy, "duet swap web01") != (side == "alpha") {
				t.Errorf("%+v", notice)
			}
			p.until("the journal has it", func() bool { return a.told("has changed by itself") })
			place := a.proof().Ledger.Open[0]
			p.until("the peer knows of it", func() bool {
				var l proof.Ledger
				found, err := b.store.Load(proofKey+"vda", &l)
				return err == nil && found && len(l.Open) == 1 && l.Open[0].Changed == string(side)
			})
			// As the remedy says.
			leads := a
			if side == "alpha" {
				must(t, a.running().Command(t.Context(), appmodules.CmdSwap, false))
				p.is(b, "PRIM", "Ready")
				p.is(a, "SECOND", "Ready")
				if notice := p.says(b, CopiesDiffer); strings.Contains(notice.Remedy, "swap") {
					t.Errorf("after the swap: %+v", notice)
				}
				if found := b.proof().Ledger.Open[0].Found; found != place.Found {
					t.Errorf("found at %d, and there at %d", place.Found, found)
				}
				leads = b
			}
			if d, err := leads.running().Verify(t.Context(), "vda", true); err != nil || d.Repaired != 1 {
				t.Fatalf("%+v, %v", d, err)
			}
			p.until("the alarm ends", func() bool { return len(leads.proof().Ledger.Open) == 0 })
			p.proven(leads)
			p.writes(20)
		})
	}
}

// TestProofRepairs: by rule the copy that changed follows the other, and the journal has it.
func TestProofRepairs(t *testing.T) {
	for _, side := range []cluster.NodeID{"alpha", "beta"} {
		t.Run(string(side), func(t *testing.T) {
			p := newPair(t)
			a, _ := p.proves(appmodules.RepairAuto)
			p.proven(a)
			p.nodes[side].rot(rotAt)
			p.until("it is repaired", func() bool { return a.told("repaired by rule") && a.told("the copy on "+string(side)) })
			p.proven(a)
			for _, n := range p.nodes {
				b := make([]byte, 1)
				if _, err := n.image.ReadAt(b, rotAt); err != nil || b[0] != 0 {
					t.Errorf("%s holds %d, %v", n.name, b[0], err)
				}
			}
		})
	}
}

// TestProofLasts: what is proven outlives the daemon and goes with the right to write; the copy of another
// disk is another pair.
func TestProofLasts(t *testing.T) {
	p := newPair(t)
	a, b := p.proves(appmodules.RepairAsk)
	first := p.proven(a)
	saved := func(n *simNode) (l proof.Ledger) {
		_, err := n.store.Load(proofKey+"vda", &l)
		must(t, err)
		return l
	}
	p.until("both nodes have kept it", func() bool {
		return !saved(a).Oldest().Before(first.Oldest()) && !saved(b).Oldest().Before(first.Oldest())
	})
	a.die()
	p.is(b, "ALONE", "Ready")
	p.until("the new primary knows it", func() bool {
		st := b.proof()
		return st != nil && st.Ledger.Since == first.Since && !st.Ledger.Oldest().Before(first.Oldest())
	})
	alone := b.proof().Ledger.Last
	p.writes(50)
	if last := b.proof().Ledger.Last; last != alone {
		t.Errorf("a piece was proven without the peer, at %d", last)
	}
	a.bootProving(appmodules.RepairAsk) // what differs is resynced, and that voids nothing
	p.is(a, "SECOND", "Ready")
	if l := p.proven(b); l.Since != first.Since {
		t.Errorf("another pair since %d, was %d", l.Since, first.Since)
	}
	b.halt()
	p.until("the other goes on", func() bool { return a.running().State().Status.Role.String() == "ALONE" })
	// The disk of the node that died is replaced by an empty one.
	done := make(chan error, 1)
	entries, _, err := b.logs.Load()
	must(t, err)
	for i := range entries {
		entries[i].Hot, entries[i].Dirty = false, 0
	}
	b.logs.Commit(entries, &blockrepl.Lineage{Volume: "vol"}, func(err error) { done <- err })
	must(t, <-done)
	b.bootProving(appmodules.RepairAsk)
	p.is(b, "SECOND", "Ready")
	p.until("it is another pair", func() bool { return a.proof().Ledger.Since > first.Since })
	p.proven(a)
}

// TestProofOff: a module that wants none has none, and an edit begins it at once.
func TestProofOff(t *testing.T) {
	p := newPair(t)
	a, b := p.nodes["alpha"], p.nodes["beta"]
	off := func(m *appmodules.Module) { must(t, m.Policy.Proof.UnmarshalText([]byte("off"))) }
	for _, n := range []*simNode{a, b} {
		n.boot(off)
		must(t, n.running().Command(t.Context(), appmodules.CmdStart, false))
	}
	p.is(a, "PRIM", "Ready")
	p.writes(200)
	if st := a.proof(); st == nil || st.Pass != 0 || st.Ledger.At != 0 || st.Ledger.Ended != 0 {
		t.Errorf("%+v", st)
	}
	m := module()
	m.Policy.Proof = appmodules.ProofPass(time.Millisecond)
	must(t, a.running().Configure(t.Context(), m))
	p.proven(a)
}

// TestProofGivesWay: while something more urgent reads the disks of the node, of whatever module, no piece begins.
func TestProofGivesWay(t *testing.T) {
	p := newPair(t)
	a, _ := p.proves(appmodules.RepairAsk)
	p.proven(a)
	budget := a.running().budget
	var urgent atomic.Bool
	urgent.Store(true)
	budget.Join("another module", urgent.Load)
	<-budget.Turn // whoever had it has ended
	last := a.proof().Ledger.Last
	budget.Done()
	p.writes(300)
	if now := a.proof().Ledger.Last; now != last {
		t.Errorf("a piece was compared at %d", now)
	}
	urgent.Store(false)
	e := a.running()
	must(t, e.call(t.Context(), func() { e.leading.proofs((*proving).poke) }))
	p.proven(a)
}

// TestProofOfAnUnreadableCopy: a sector that the standby cannot read is an alarm that says so.
func TestProofOfAnUnreadableCopy(t *testing.T) {
	p := newPair(t)
	a, b := p.proves(appmodules.RepairAsk)
	a.rot(rotAt) // on both, so that it is no hole, which is not read
	b.rot(rotAt)
	p.until("they are the same", func() bool { return len(a.proof().Ledger.Open) == 0 })
	p.proven(a)
	remove := b.disk.Inject(backing.Fault{Ops: []blockrepl.Op{blockrepl.OpRead}, Off: rotAt, Len: 1,
		Err: errors.New("medium error")})
	defer remove()
	// A look between the two that rot them may have found a difference, which the next one takes back.
	p.until("alpha has an alarm that says which copy cannot be read", func() bool {
		return slices.ContainsFunc(a.running().State().Status.Notices, func(n appmodules.Notice) bool {
			return n.Alarm && n.Code == CopiesDiffer && strings.Contains(n.Text, "the one on beta cannot be read")
		})
	})
}
