package proof

import (
	"slices"
	"time"

	"duet/blockrepl"
)

// Step is how much is compared at once, in bytes.
const Step = blockrepl.ExtentSize

const (
	// maxStretches is in how many parts the age of a proof is known.
	maxStretches = 32
	// maxPlaces bounds the extents that a Ledger names; what there is beyond them is found again by
	// each pass.
	maxPlaces = 64
)

// Place is an extent in which the copies are not proven equal although they were compared.
type Place struct {
	// Off and Len are the bytes of the volume from the first that may differ to the last.
	Off int64 `json:"off"`
	Len int64 `json:"len"`
	// Regions is how many of blockrepl.RegionSize differ; 0: it cannot be read on the node that leads,
	// so nothing is known.
	Regions int `json:"regions"`
	// Changed is the node whose copy changed by itself, so far as that is known; Both says that each did.
	Changed string `json:"changed,omitempty"`
	Both    bool   `json:"both,omitempty"`
	Lost    bool   `json:"lost,omitempty"` // the node that follows cannot read it, or part of it
	// In Unix ms: when it was first found, when both copies were last proven equal there (0:
	// never), when it was last looked at.
	Found  int64 `json:"found"`
	Proven int64 `json:"proven"`
	Looked int64 `json:"looked"`
}

func (p Place) extent() int64 { return p.Off / Step }

// Differs: the copies were read there, and were not equal.
func (p Place) Differs() bool { return p.Regions > 0 }

// Ledger is what is proven of one pair of copies. Times are Unix ms, by the clock of the
// node that led then.
type Ledger struct {
	Volume string `json:"volume"` // identity of the data
	Size   int64  `json:"size"`   // bytes
	Since  int64  `json:"since"`  // the copies became a pair, as far as proof goes
	Began  int64  `json:"began"`  // the present pass
	Ended  int64  `json:"ended,omitempty"`
	At     int64  `json:"at"`   // where the next extent of the pass begins
	Last   int64  `json:"last"` // when the one before was compared
	// Proven is when each stretch, an equal part of the volume, was last proven: the oldest
	// moment of any extent in it, but for Open; 0: never. Start is that of the stretch in work.
	Proven []int64 `json:"proven"`
	Start  int64   `json:"start,omitempty"`
	Torn   bool    `json:"torn,omitempty"` // an extent of the stretch in work had no room in Open
	Open   []Place `json:"open,omitempty"`
}

// New is the ledger of copies of which nothing is proven.
func New(volume string, size int64, now time.Time) Ledger {
	l := Ledger{Volume: volume, Size: size, Since: now.UnixMilli(), Began: now.UnixMilli(), Last: now.UnixMilli()}
	l.Proven = make([]int64, (size+l.stretch()-1)/l.stretch())
	return l
}

// Of reports whether l is about this volume, and whole: one that was stored, or came from another node, is used
// only then.
func (l Ledger) Of(volume string, size int64) bool {
	return l.Volume == volume && l.Size == size && l.At >= 0 && l.At%Step == 0 && l.At < max(size, 1) &&
		int64(len(l.Proven)) == (size+l.stretch()-1)/l.stretch() && len(l.Open) <= maxPlaces &&
		!slices.ContainsFunc(l.Open, func(p Place) bool { return p.Off < 0 || p.Off >= size || p.Len < 0 || p.Regions < 0 })
}

// stretch is the length of one, in bytes.
func (l Ledger) stretch() int64 {
	steps := (l.Size + Step - 1) / Step
	return max((steps+maxStretches-1)/maxStretches, 1) * Step
}

// left is how many extents the pass has still to compare.
func (l Ledger) left() int64 { return (l.Size - l.At + Step - 1) / Step }

// Oldest is the oldest moment at which a part of the volume was last proven; zero: a part never was.
func (l Ledger) Oldest() time.Time {
	oldest := slices.Min(append(slices.Clone(l.Proven), l.Last))
	for _, p := range l.Open {
		oldest = min(oldest, p.Proven)
	}
	if oldest == 0 {
		return time.Time{}
	}
	return time.UnixMilli(oldest)
}

// Age is how old the proof is at now: that of its oldest part. One that was never proven counts
// from when the copies became a pair.
func (l Ledger) Age(now time.Time) time.Duration {
	oldest := l.Oldest()
	if oldest.IsZero() {
		oldest = time.UnixMilli(l.Since)
	}
	return max(now.Sub(oldest), 0)
}

// Settle has no time of l lie after now: the clock was set back, or another node's was ahead.
func (l *Ledger) Settle(now time.Time) {
	n := now.UnixMilli()
	if l.Since <= n && l.Began <= n && l.Last <= n { // nothing is later than the last of these
		return
	}
	for _, at := range []*int64{&l.Since, &l.Began, &l.Ended, &l.Last, &l.Start} {
		*at = min(*at, n)
	}
	l.Proven, l.Open = slices.Clone(l.Proven), slices.Clone(l.Open)
	for i := range l.Proven {
		l.Proven[i] = min(l.Proven[i], n)
	}
	for i := range l.Open {
		p := &l.Open[i]
		p.Found, p.Proven, p.Looked = min(p.Found, n), min(p.Proven, n), min(p.Looked, n)
	}
}

// Looked takes what a comparison of the extent at off, begun at now, has found: nil, or the place
// that is not proven. It reports whether that is news: a place that was not known, or is larger
// than it was.
func (l *Ledger) Looked(now time.Time, off int64, found *Place) (news bool) {
	i := slices.IndexFunc(l.Open, func(p Place) bool { return p.extent() == off/Step })
	switch {
	case found == nil && i >= 0:
		l.Open = slices.Delete(slices.Clone(l.Open), i, i+1)
	case found != nil:
		news = l.note(now, i, *found)
	}
	if off == l.At {
		l.advance(now)
	}
	return news
}

// note keeps a place; i is where the extent stands in Open, or -1.
func (l *Ledger) note(now time.Time, i int, p Place) (news bool) {
	p.Found, p.Looked, p.Proven = now.UnixMilli(), now.UnixMilli(), l.Proven[p.Off/l.stretch()]
	if i < 0 {
		if len(l.Open) == maxPlaces {
			l.Torn = l.Torn || p.extent()*Step == l.At
			return true
		}
		l.Open = append(slices.Clone(l.Open), p)
		return true
	}
	before := l.Open[i]
	p.Found, p.Proven = before.Found, before.Proven
	news = p.Regions > before.Regions
	if p.Changed == "" && !p.Both && !news { // a restart forgets what the side is known by
		p.Changed, p.Both = before.Changed, before.Both
	}
	l.Open = slices.Clone(l.Open)
	l.Open[i] = p
	return news
}

// advance goes on to the next extent of the pass.
func (l *Ledger) advance(now time.Time) {
	if l.At%l.stretch() == 0 {
		l.Start = now.UnixMilli()
	}
	at := l.At / l.stretch()
	l.At, l.Last = l.At+Step, now.UnixMilli()
	if l.At < l.Size && l.At%l.stretch() != 0 {
		return
	}
	if !l.Torn && l.Start > 0 {
		l.Proven = slices.Clone(l.Proven) // whoever has a copy of l shares it
		l.Proven[at] = l.Start
	}
	l.Torn, l.Start = false, 0
	if l.At >= l.Size {
		l.At, l.Began, l.Ended = 0, now.UnixMilli(), now.UnixMilli()
	}
}

// Verified notes that everything was compared at once, from began on, and was equal or has been
// made so. A pass begins anew.
func (l *Ledger) Verified(began, now time.Time) {
	l.Proven = slices.Repeat([]int64{began.UnixMilli()}, len(l.Proven))
	l.At, l.Start, l.Torn, l.Open = 0, 0, false, nil
	l.Began, l.Ended, l.Last = now.UnixMilli(), now.UnixMilli(), now.UnixMilli()
}

// Again is an extent that was not proven and is to be looked at again, as whatever was wrong
// there may have been mended; false: none.
func (l Ledger) Again(now time.Time, every time.Duration) (off int64, yes bool) {
	for _, p := range l.Open {
		if now.Sub(time.UnixMilli(p.Looked)) >= every {
			return p.extent() * Step, true
		}
	}
	return 0, false
}

// Differs is how many bytes are known to differ, in whole regions.
func (l Ledger) Differs() (bytes int64) {
	for _, p := range l.Open {
		bytes += int64(p.Regions) * blockrepl.RegionSize
	}
	return bytes
}

// Moved reports whether l says so much more than saved that it is worth a write to a disk: another place,
// another stretch, or ten minutes of work.
func (l Ledger) Moved(saved Ledger) bool {
	const enough = int64(10 * time.Minute / time.Millisecond)
	same := func(a, b Place) bool { a.Looked = b.Looked; return a == b }
	return l.Volume != saved.Volume || l.Since != saved.Since || l.Began != saved.Began || l.Last-saved.Last >= enough ||
		!slices.Equal(l.Proven, saved.Proven) || !slices.EqualFunc(l.Open, saved.Open, same)
}
