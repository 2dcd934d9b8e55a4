package blockrepl

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// traffic holds flights, each in the one place its step names, whatever comes in whatever order.
func TestTrafficPlaces(t *testing.T) {
	for seed := range uint64(200) {
		y := &yard{t: t, rng: rand.New(rand.NewPCG(seed, 0)), w: newWatch(time.Second, 0)}
		for range 200 {
			y.step()
			y.check()
		}
		y.open = true
		for y.drain(); len(y.all) > 0; y.drain() {
			y.check()
		}
		if y.t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

// yard plays the Primary at random.
type yard struct {
	t    *testing.T
	rng  *rand.Rand
	w    watch
	all  []*flight
	open bool // everything is let go
	traffic
}

// admit sends f somewhere.
func (y *yard) admit(f *flight) {
	switch n := y.rng.IntN(4); {
	case f.req == nil:
		y.granted(f)
	case y.open || n == 0:
		y.pass(f)
	case n == 1:
		y.wait(f, stepHeld, 1)
	case f.excl:
		y.wait(f, stepMarking, 1)
	default:
		y.admitAll(y.suspend(f, 1))
	}
}

func (y *yard) admitAll(list []*flight) {
	for _, f := range list {
		y.admit(f)
	}
}

func (y *yard) step() {
	switch y.rng.IntN(7) {
	case 0, 1:
		off := y.rng.Int64N(8)
		f := &flight{off: off, end: off + 1 + y.rng.Int64N(3), excl: y.rng.IntN(2) == 0}
		if !f.excl || y.rng.IntN(4) > 0 {
			f.req = &Request{}
		}
		y.all = append(y.all, f)
		if y.enter(f, &y.w) {
			y.admit(f)
		}
	case 2:
		y.admitAll(y.admissible())
	case 3:
		y.admitAll(y.marked())
	case 4:
		for _, f := range y.resumed() {
			if y.enter(f, &y.w) {
				y.admit(f)
			}
		}
	case 5:
		for _, f := range y.ready {
			y.issue(f, 1)
		}
		y.taken()
	case 6:
		y.finish()
	}
}

// finish ends a flight that was issued, or has it sent again.
func (y *yard) finish() {
	for i, f := range y.all {
		switch {
		case f.step != stepIssued || f.queued:
			continue
		case f.req != nil && f.excl && !y.open && y.rng.IntN(3) == 0:
			y.sendAgain(f)
			y.sendAgain(f)
			return
		}
		y.all = slices.Delete(y.all, i, i+1)
		if f.req == nil {
			y.admitAll(y.unlock(f))
		} else {
			y.admitAll(slices.Clone(y.leave(f)))
		}
		return
	}
}

// drain lets everything go once.
func (y *yard) drain() {
	y.admitAll(y.admissible())
	y.admitAll(y.marked())
	for _, f := range y.resumed() {
		if y.enter(f, &y.w) {
			y.admit(f)
		}
	}
	for _, f := range y.ready {
		y.issue(f, 1)
	}
	y.taken()
	y.finish()
}

// check is the invariant.
func (y *yard) check() {
	y.t.Helper()
	issued := 0
	for _, f := range y.all {
		in := 0
		for step, list := range map[step][]*flight{
			stepHeld: y.held, stepMarking: y.marking, stepSuspended: y.suspended, stepReady: y.ready,
		} {
			n := 0
			for _, have := range list {
				if have == f {
					n++
				}
			}
			want := f.step == step || step == stepReady && f.queued
			if n > 1 || (n == 1) != want {
				y.t.Errorf("a flight of step %d is %d times in the list of step %d", f.step, n, step)
			}
			in += n
		}
		if tabled := f.slot >= 0 && y.in(f); tabled == (f.step == stepSuspended) {
			y.t.Errorf("a flight of step %d in the table: %v", f.step, tabled)
		}
		if f.step == stepIssued && f.excl && f.req != nil {
			issued++
		}
		if f.step == stepBlocked && (in != 0 || f.blockers == 0) {
			y.t.Errorf("blocked by %d and in %d lists", f.blockers, in)
		}
	}
	if issued != y.issued || len(y.held)+len(y.marking)+len(y.suspended) != y.waiting() {
		y.t.Errorf("%d writes were issued, %d are counted", issued, y.issued)
	}
}

func (y *yard) in(f *flight) bool {
	list := *y.table.list(f)
	return int(f.slot) < len(list) && list[f.slot].f == f
}

// What is dismissed is answered once, but for what a goroutine is working on.
func TestTrafficDismiss(t *testing.T) {
	var x traffic
	w := newWatch(time.Second, 0)
	request := func(off int64, excl bool) *flight {
		r := &Request{Off: off}
		r.flight = flight{off: off, end: off + 1, excl: excl, req: r}
		x.enter(&r.flight, &w)
		return &r.flight
	}
	ready, held, suspended, busy := request(0, true), request(1, true), request(2, false), request(3, true)
	blocked, lock := request(0, true), &flight{off: 9, end: 10, excl: true}
	x.enter(lock, &w)
	x.pass(ready)
	x.wait(held, stepHeld, 1)
	x.suspend(suspended, 1)
	x.pass(busy)
	x.issue(busy, 1)
	busy.busy++
	flush := &Request{Op: OpFlush}
	x.flush(flush)
	answered := map[*Request]int{}
	for _, c := range x.dismiss().list {
		answered[c.r]++
	}
	for _, r := range []*Request{ready.req, held.req, suspended.req, blocked.req, flush} {
		if answered[r] != 1 {
			t.Errorf("a request at %d is answered %d times", r.Off, answered[r])
		}
	}
	if len(answered) != 5 || x.waiting() != 0 || x.moves() {
		t.Errorf("%d answered, %d left", len(answered), x.waiting())
	}
}
