package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"duet/appmodules"
	"duet/blockrepl"
	"duet/blockrepl/proof"
)

// The proof of sameness in the background. Each open volume of a node that leads has a goroutine that
// compares one extent after the other, as slowly as the policy wishes and never faster than the budget
// of the node allows. What is proven goes to the peer with the state, which keeps it: it belongs to the
// pair of copies, and not to a node.

// Prover is a Primary that can compare a piece of its volume; see blockrepl.Primary. A simulated one need not.
type Prover interface {
	// Prove compares the extent that begins at off, a multiple of proof.Step, and with repair writes over the copy that
	// is known to have changed by itself. It waits for both disks. ErrState: the volume is not Connected.
	Prove(off int64, repair bool) (blockrepl.Proof, error)
}

const (
	// proofPause is how long a proof that cannot go on waits, unless it is woken.
	proofPause = time.Minute
	// lookAtPlace is how often a difference is looked at again: a guest may have written it anew.
	lookAtPlace = time.Hour
)

// proving is the proof of one open volume. Its goroutine ends with the role; configure, poke, verified and begunAnew
// are called by the owner, status by any goroutine.
type proving struct {
	l   *leading
	vol *led
	by  Prover
	all []*led // of the module: while one of them is not in step none is proven

	wake chan struct{} // has a token when something may have changed

	mu     sync.Mutex
	pace   proof.Pace
	wish   time.Duration // 0: off
	repair bool
	look   []int64 // extents to look at first
}

// prove begins the proofs of open volumes.
func (l *leading) prove() {
	if len(l.e.cfg.Module.Volumes()) == 0 {
		return // what is replicated holds nothing
	}
	for _, vol := range l.all {
		by, ok := vol.Primary.(Prover)
		if !ok {
			continue
		}
		v := &proving{l: l, vol: vol, by: by, all: l.all, wake: make(chan struct{}, 1)}
		vol.proving.Store(v)
		l.e.spawn(func(context.Context) { v.run(l.ctx) })
	}
}

// proofs calls fn for each proof under way.
func (l *leading) proofs(fn func(*proving)) {
	for _, vol := range l.all {
		if v := vol.proving.Load(); v != nil {
			fn(v)
		}
	}
}

// configure takes what the policy says now.
func (v *proving) configure(p appmodules.Policy) {
	v.mu.Lock()
	v.wish, v.repair = p.Proof.Every(), p.ProofRepair == appmodules.RepairAuto
	v.mu.Unlock()
	v.poke()
}

// poke has it look at once whether it can go on.
func (v *proving) poke() {
	select {
	case v.wake <- struct{}{}:
	default:
	}
}

// begunAnew voids what was proven if the peer's copy was brought in step as a whole: it is another one.
// It is called before the peer becomes complete, so that no piece of the new pair counts for the old ledger.
func (v *proving) begunAnew() {
	if v.vol.Progress().Whole {
		c, now := v.vol.cfg, v.l.e.rt.Now()
		v.l.e.proofs.change(c, func(l *proof.Ledger) { *l = proof.New(c.ID, c.Size, now) })
	}
	v.poke()
}

func (v *proving) ledger() proof.Ledger { return v.l.e.proofs.of(v.vol.cfg) }

// run compares piece by piece until the role ends.
func (v *proving) run(ctx context.Context) {
	rt := v.l.e.rt
	for ctx.Err() == nil {
		v.l.e.proofs.save(ctx, v.vol.cfg.Target)
		off, due := v.next(rt.Now())
		if wait := due.Sub(rt.Now()); wait > 0 {
			v.rest(ctx, min(wait, proofPause))
		} else if !v.ready() || !v.piece(ctx, off) {
			v.rest(ctx, proofPause)
		}
	}
}

// rest waits until it is poked, or for d.
func (v *proving) rest(ctx context.Context, d time.Duration) {
	ctx, cancel := v.l.e.rt.WithTimeout(ctx, d)
	defer cancel()
	_ = v.l.e.rt.Wait(ctx, v.wake, nil) // whatever ended it
}

// next is what to compare, and when.
func (v *proving) next(now time.Time) (off int64, due time.Time) {
	l := v.l.e.proofs.change(v.vol.cfg, func(l *proof.Ledger) { l.Settle(now) })
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.look) > 0 {
		return v.look[0], now
	}
	if v.wish == 0 {
		return 0, now.Add(proofPause)
	}
	if off, yes := l.Again(now, lookAtPlace); yes {
		return off, now
	}
	return l.At, l.Due(v.wish)
}

// ready: both copies of all volumes are complete and linked, and nothing more urgent, of any module of
// either node, reads the disks.
func (v *proving) ready() bool {
	return !v.l.e.budget.Urgent() &&
		!slices.ContainsFunc(v.all, func(vol *led) bool { return vol.Progress().State != blockrepl.Connected })
}

// urgent: a volume of the module is brought in step or verified, by either node. Any goroutine.
func (e *Engine) urgent() bool {
	all := e.shelf.live()
	if peer, heard := e.PeerState(); e.rt.Now().Sub(heard) < e.cfg.Times.Detection {
		all = append(all, peer.Status.Volumes...)
	}
	return slices.ContainsFunc(all, func(v VolumeStatus) bool {
		return v.Verifying || v.ToCompare > v.Unreadable // the rest may never end
	})
}

// piece waits for its turn and compares one extent. It reports false if that was not possible. With the turn it holds
// up every other proof of the node, so it keeps it no longer than the comparison and the pause before it. Whether it
// may go on is asked again when it has the turn, for which it may have waited long.
func (v *proving) piece(ctx context.Context, off int64) bool {
	e := v.l.e
	rt, budget, asked := e.rt, e.budget, e.rt.Now()
	if rt.Wait(ctx, budget.Turn, nil) != nil {
		return false
	}
	defer budget.Done()
	if sleep(ctx, rt, budget.Wait(rt.Now())) != nil || !v.ready() {
		return false
	}
	v.mu.Lock()
	repair := v.repair
	v.mu.Unlock()
	began, since := rt.Now(), v.ledger().Since
	type result struct {
		blockrepl.Proof
		pause time.Duration
	}
	done := make(chan result, 1) // nobody takes it if the role ends first
	err := beside(ctx, rt, func() error {
		f, err := v.by.Prove(off, repair)
		done <- result{f, budget.Spend(began, f.Cost)}
		return err
	})
	if err != nil {
		if ctx.Err() == nil && !errors.Is(err, blockrepl.ErrState) {
			e.cfg.Logger.Debug("a piece could not be proven",
				"module", e.cfg.Module.Name, "volume", v.vol.cfg.Target, "err", err)
		}
		return false
	}
	r := <-done
	v.mu.Lock()
	v.pace.Spent(began.Sub(asked), r.pause)
	v.look = slices.DeleteFunc(v.look, func(at int64) bool { return at == off })
	v.mu.Unlock()
	v.found(began, since, r.Proof)
	return true
}

// found takes what the comparison of an extent gave, of the pair of copies that there is since then.
func (v *proving) found(began time.Time, since int64, f blockrepl.Proof) {
	e, target := v.l.e, v.vol.cfg.Target
	place, news := v.place(f), false
	l := e.proofs.change(v.vol.cfg, func(l *proof.Ledger) {
		if l.Since == since {
			news = l.Looked(began, f.Off, place)
		}
	})
	for _, d := range f.Differs {
		if d.Repaired {
			e.tell(fmt.Sprintf("volume %s: %d KiB at byte %d differed and were repaired by rule (proof_repair: auto): "+
				"the copy on %s had changed by itself", target, d.Regions*blockrepl.RegionSize>>10, d.Off, v.node(d.Changed)))
		}
	}
	if !news || !place.Differs() {
		return
	}
	i := slices.IndexFunc(l.Open, func(p proof.Place) bool { return p.Off == place.Off })
	if i < 0 { // there are more than a ledger names: the status counts them all
		e.tell(fmt.Sprintf("volume %s: the copies differ at byte %d", target, place.Off))
		return
	}
	e.tell(e.difference(target, l.Open[i]))
}

// place is where an extent is not proven; nil: it is.
func (v *proving) place(f blockrepl.Proof) *proof.Place {
	if f.Same() {
		return nil
	}
	p := proof.Place{Off: f.Off, Len: f.Len}
	var side blockrepl.Side
	for _, d := range f.Differs {
		switch {
		case d.Repaired:
			continue
		case p.Regions == 0:
			p.Off, side = d.Off, d.Changed
		case side != d.Changed:
			side = blockrepl.SideUnknown // not all of it has one cause
		}
		p.Len, p.Lost = d.Off+d.Len-p.Off, p.Lost || d.Lost
		p.Regions += d.Regions
	}
	p.Changed, p.Both = v.node(side), side == blockrepl.SideBoth
	return &p
}

// node is whose copy a side is; empty: not one.
func (v *proving) node(s blockrepl.Side) string {
	switch s {
	case blockrepl.SideHere:
		return string(v.l.e.self)
	case blockrepl.SidePeer:
		return string(v.l.e.peer)
	}
	return ""
}

// verified takes the end of a verify that began then: it is a proof of everything, or says where to look.
func (v *proving) verified(began time.Time, ev blockrepl.VerifyDone) {
	defer v.poke()
	if ev.Same() {
		now := v.l.e.rt.Now()
		v.l.e.proofs.change(v.vol.cfg, func(l *proof.Ledger) { l.Verified(began, now) })
		return
	}
	open := v.ledger().Open
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, p := range open {
		v.look = append(v.look, p.Off-p.Off%proof.Step)
	}
	for _, off := range ev.Differs {
		v.look = append(v.look, off-off%proof.Step)
	}
	slices.Sort(v.look)
	v.look = slices.Compact(v.look)
}
