package guard

import (
	"cmp"
	"math"
	"slices"
	"time"
)

// never is a deadline that does not come.
const never = time.Duration(math.MaxInt64)

const (
	// settle is how long a guard that starts waits for a daemon that may well be alive.
	settle = 500 * time.Millisecond
	// wonder is how long nobody vouches for a guest that is not paused until its peer is asked.
	wonder = 5 * time.Second
)

// held is a guest that is guarded.
type held struct {
	Guest
	Until  time.Duration `json:"until"` // when it is paused, by Now
	Said   time.Duration `json:"said"`  // the last word that vouched for it, or the first one
	Paused bool          `json:"paused"`
}

// verb is what is to be done with a guest's process.
type verb uint8

const (
	pause verb = iota
	resume
	end
)

// order is one thing to do.
type order struct {
	do    verb
	guest *held
}

// roster decides, and is a value without lock, clock or I/O: the caller gives it the time and carries out its orders.
type roster struct {
	guests map[string]*held // by module
	began  time.Duration
}

// newRoster begins with what the last run knew. Its deadlines hold, once settle is over.
func newRoster(now time.Duration, left []held) *roster {
	r := &roster{guests: make(map[string]*held), began: now}
	for _, h := range left {
		r.guests[h.Module] = &h
	}
	return r
}

// sorted lists the guests by module.
func (r *roster) sorted() []*held {
	all := make([]*held, 0, len(r.guests))
	for _, h := range r.guests {
		all = append(all, h)
	}
	slices.SortFunc(all, func(a, b *held) int { return cmp.Compare(a.Module, b.Module) })
	return all
}

// hear takes a word. A guest of no module any more is let go; one that is paused, only by its end: nobody says that
// it may go on. A word that does not vouch never postpones the deadline of a guest that is known; a new process
// begins with that of its Limit, so one that nobody ever vouches for is paused too.
func (r *roster) hear(w Word) (do []order) {
	told := make(map[string]bool, len(w.Guests))
	for _, g := range w.Guests {
		told[g.Module] = true
		if g.PID == 0 {
			continue // the end of the process that it had shows by itself
		}
		h := r.guests[g.Module]
		fresh := h == nil || h.PID != g.PID || h.Start != g.Start
		until := never
		if g.Limit > 0 {
			until = w.At + g.Limit
		}
		switch {
		case fresh:
			r.guests[g.Module] = &held{Guest: g, Until: until, Said: w.At}
		case g.Right:
			h.Guest, h.Until, h.Said = g, until, w.At
			if h.Paused {
				h.Paused = false
				do = append(do, order{resume, h})
			}
		default:
			// The peer's patience with a daemon that left on purpose ends with the next run that it hears.
			h.Until = min(h.Until, until)
		}
	}
	for module, h := range r.guests {
		if !told[module] && !h.Paused {
			delete(r.guests, module)
		}
	}
	return do
}

// late pauses the guests whose time is over.
func (r *roster) late(now time.Duration) (do []order) {
	if now < r.began+settle {
		return nil
	}
	for _, h := range r.sorted() {
		if !h.Paused && now >= h.Until {
			h.Paused = true
			do = append(do, order{pause, h})
		}
	}
	return do
}

// undone takes back an order that could not be carried out.
func (r *roster) undone(o order) {
	switch o.do {
	case pause:
		o.guest.Paused = false
	case resume:
		o.guest.Paused = true
	}
}

// doubtful are the guests whose peers are to be asked. A guest that runs is asked about too where nobody has vouched
// for it for long: one that is never paused (ALONE) among them.
func (r *roster) doubtful(now time.Duration) (out []*held) {
	for _, h := range r.sorted() {
		if h.Paused || now-h.Said >= wonder {
			out = append(out, h)
		}
	}
	return out
}

// learn takes a peer's answer to a question about a guest. An answer of another module of its name says nothing. The
// answer is to a question about one process: another one of the module is not ended for it. The epoch that counts is
// that of the last word that vouched, or of the first word, and not that of the question.
func (r *roster) learn(about Guest, s Standing) (do []order) {
	h := r.guests[about.Module]
	if h != nil && h.PID == about.PID && h.Start == about.Start && s.of(h.ID) && s.Over(h.Peer, h.Epoch) {
		do = append(do, order{end, h})
	}
	return do
}

// report is the answer to a word.
func (r *roster) report() Report {
	out := Report{Paused: []string{}}
	for _, h := range r.sorted() {
		if h.Paused {
			out.Paused = append(out.Paused, h.Module)
		}
	}
	return out
}
