package proof

import (
	"maps"
	"slices"
	"sync"
	"time"
)

// Share is the part of the disks' time that a node that leads may use for proofs, of all
// its volumes together. Each comparison keeps both disks busy, and the peer may lead
// other modules on them: no disk gives more than twice this, 2 %.
const Share = 0.01

// Pace is the speed of one volume's passes.
type Pace struct {
	// need is the time from one piece to the next that the budget has allowed of late.
	need time.Duration
}

// Due is when the next extent of the pass is to be compared: those that are left are spread evenly
// over what is left of the time that a whole pass is wished to take. A pass that is late hurries.
func (l Ledger) Due(wish time.Duration) time.Time {
	last := time.UnixMilli(l.Last)
	if l.At == 0 && l.Ended == 0 {
		return last // nothing was ever compared
	}
	return last.Add(even(l, last, wish, l.left()))
}

// even is the time for each of n extents at now.
func even(l Ledger, now time.Time, wish time.Duration, n int64) time.Duration {
	return max(time.UnixMilli(l.Began).Add(wish).Sub(now), 0) / time.Duration(max(n, 1))
}

// Spent notes what one piece took: waited for the budget, and then the pause that it makes necessary.
func (p *Pace) Spent(waited, pause time.Duration) {
	need := max(waited, pause)
	if p.need == 0 {
		p.need = need
	}
	p.need += (need - p.need) / 8
}

// Ends is when the pass will end, and whether that is late because the budget does not suffice for
// what is wished.
func (p Pace) Ends(l Ledger, now time.Time, wish time.Duration) (at time.Time, late bool) {
	left := time.Duration(l.left())
	need, has := left*p.need, left*even(l, now, wish, l.left())
	return now.Add(max(need, has)), need > has+wish/10
}

// Budget is the time of the disks of a node that all its proofs may use. Safe for concurrent use.
type Budget struct {
	// Turn holds a token that is taken for one piece at a time, in the order of asking, and put back.
	Turn  chan struct{}
	share float64

	mu     sync.Mutex
	free   time.Time
	others map[any]func() bool
}

// NewBudget is one of which nothing is used, of a share of the disks' time: Share on a node.
func NewBudget(share float64) *Budget {
	b := &Budget{share: share, Turn: make(chan struct{}, 1), others: make(map[any]func() bool)}
	b.Turn <- struct{}{}
	return b
}

// Done gives the turn back. It must follow each token that was taken, once: a second one would let two pieces run
// at once.
func (b *Budget) Done() { b.Turn <- struct{}{} }

// Wait is for how long no piece may begin.
func (b *Budget) Wait(now time.Time) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	return max(b.free.Sub(now), 0)
}

// Spend notes a piece that began then and kept the busier disk at work for cost. It returns how long
// after that beginning no other begins.
func (b *Budget) Spend(began time.Time, cost time.Duration) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	pause := time.Duration(float64(cost) / b.share)
	if free := began.Add(pause); free.After(b.free) {
		b.free = free
	}
	return pause
}

// Join adds one who says whether it has more urgent work for the disks; nil takes it out again.
func (b *Budget) Join(who any, urgent func() bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.others[who] = urgent; urgent == nil {
		delete(b.others, who)
	}
}

// Urgent: somebody has more urgent work for the disks, so no piece is to begin. They are asked without mu, so they may
// lock what they like.
func (b *Budget) Urgent() bool {
	b.mu.Lock()
	all := slices.Collect(maps.Values(b.others))
	b.mu.Unlock()
	return slices.ContainsFunc(all, func(urgent func() bool) bool { return urgent() })
}
