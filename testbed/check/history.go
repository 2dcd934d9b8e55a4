package check

import (
	"fmt"
	"maps"
	"slices"
)

// Promise is what an acknowledgement is worth in a test.
type Promise int

const (
	// Acked holds while at least one host lives at any instant: whatever was acknowledged is there.
	Acked Promise = iota
	// Flushed holds even if all hosts lose their power: what a flush covered is there.
	Flushed
)

// Console is what the guest said on one console, boot after boot. A VM that moves between hosts has one per host.
type Console struct {
	Where string
	Boots []Boot
}

// Boot is one boot of the guest. Records it wrote follow the last one it found.
type Boot struct {
	ID      string
	Scanned bool     // whether the next two are known
	Last    uint64   // newest record found on the disk at boot
	Holes   []uint64 // older records that were missing; nil if the console does not name them
	Acks    []uint64
	Flushes []uint64 // newest record covered by each acknowledged flush
}

// Disk is what lies on the disk in the end.
type Disk struct {
	First, Last uint64            // the range of records it should hold, 0 and 0 for none
	Boots       map[uint64]string // record → id of the boot that wrote it
	Breaks      []uint64          // records that do not continue their predecessor
}

// Rule names a promise that can be broken.
type Rule string

const (
	// Lost is an acknowledged record that is not there.
	Lost Rule = "acknowledged write lost"
	// TwoWriters are two boots that wrote at the same time.
	TwoWriters Rule = "two writers"
	// Order is a guest that contradicts itself; the test is broken rather than the cluster.
	Order Rule = "console out of order"
)

// Violation is one broken promise.
type Violation struct {
	Rule Rule
	Text string // what was seen, in a sentence
}

// String returns rule and text.
func (v Violation) String() string { return string(v.Rule) + ": " + v.Text }

// History compares what all consoles of one VM say with its disk. A nil result means that nothing promised was
// lost and that no two boots wrote at the same time. A line that is missing on a console only makes it say less,
// so no loss is found that was none.
func History(consoles []Console, disk Disk, promise Promise) []Violation {
	h := history{disk: disk, promise: promise}
	for _, c := range consoles {
		var before uint64 // newest promise of the boots before on this console
		for _, b := range c.Boots {
			w := writer{Boot: b, where: fmt.Sprintf("boot %.8s on %s", b.ID, c.Where)}
			w.promised = slices.Clone(b.Acks)
			if promise == Flushed {
				covered := top(b.Flushes)
				w.promised = slices.DeleteFunc(w.promised, func(n uint64) bool { return n > covered })
			}
			if b.Scanned && b.Last < before {
				h.say(Lost, "%s found records up to %d, but an earlier boot there was promised %d", w.where, b.Last, before)
			}
			before = max(before, top(w.promised))
			h.writers = append(h.writers, w)
		}
	}
	for i, w := range h.writers {
		h.alone(w)
		h.onDisk(w)
		for _, other := range h.writers[i+1:] {
			h.between(w, other)
		}
	}
	h.runs()
	return h.found
}

type writer struct {
	Boot
	where    string
	promised []uint64
}

type history struct {
	disk    Disk
	promise Promise
	writers []writer
	found   []Violation
}

func (h *history) say(rule Rule, format string, args ...any) {
	h.found = append(h.found, Violation{rule, fmt.Sprintf(format, args...)})
}

// alone checks what one boot says by itself.
func (h *history) alone(w writer) {
	next := w.Last + 1
	for _, n := range w.Acks {
		if n < next {
			h.say(Order, "%s acknowledged %d after it had come to %d", w.where, n, next-1)
			return
		}
		next = n + 1 // a line may be missing, so numbers may be
	}
	if len(w.Acks) > 0 && !w.Scanned {
		h.say(Order, "%s wrote without having read the disk", w.where)
	}
}

// onDisk checks that the records a boot was promised are there and are still its own.
func (h *history) onDisk(w writer) {
	var lost, foreign []uint64
	for _, n := range w.promised {
		if n < h.disk.First {
			continue // the disk is a ring, and this was overwritten in order
		}
		switch id, ok := h.disk.Boots[n]; {
		case !ok:
			lost = append(lost, n)
		case id != w.ID:
			foreign = append(foreign, n)
		}
	}
	if len(lost) > 0 {
		h.say(Lost, "%s was promised %s, not on the disk", w.where, list(lost))
	}
	if len(foreign) > 0 {
		h.say(TwoWriters, "%s was promised %s, but boot %.8s wrote there too", w.where, list(foreign),
			h.disk.Boots[foreign[0]])
	}
}

// between checks that of two boots one ended before the other read the disk. Which one came first follows from what
// they found; so a boot that was promised more than a boot with a later beginning found has either lost that or went
// on writing beside it.
func (h *history) between(a, b writer) {
	if !a.Scanned || !b.Scanned {
		return
	}
	if a.Last > b.Last {
		a, b = b, a
	}
	newest := top(a.promised)
	switch {
	case a.Last == b.Last && len(a.promised) > 0 && len(b.promised) > 0:
		h.say(TwoWriters, "%s and %s both continued after record %d", a.where, b.where, a.Last)
	case a.Last < b.Last && newest > b.Last:
		h.say(TwoWriters, "%s was promised %d, but %s began after %d", a.where, newest, b.where, b.Last)
	}
	for _, n := range b.Holes {
		if slices.Contains(a.promised, n) {
			h.say(Lost, "%s was promised %d, which %s did not find", a.where, n, b.where)
		}
	}
}

// runs checks that the records of each boot lie side by side on the disk and continue each other. Without the promise
// of acknowledged writes a power loss may tear holes that look alike, so this is left out then.
func (h *history) runs() {
	if h.promise == Flushed {
		return
	}
	ended := map[string]bool{}
	var now string
	for _, n := range slices.Sorted(maps.Keys(h.disk.Boots)) {
		id := h.disk.Boots[n]
		if id == now {
			continue
		}
		if ended[id] {
			h.say(TwoWriters, "on the disk boot %.8s wrote again at record %d, after boot %.8s", id, n, now)
		}
		ended[now], now = true, id
	}
	if len(h.disk.Breaks) > 0 {
		h.say(TwoWriters, "on the disk %s do not continue what lies before", list(h.disk.Breaks))
	}
}

func top(ns []uint64) uint64 {
	var t uint64
	for _, n := range ns {
		t = max(t, n)
	}
	return t
}

// list names the first few records.
func list(ns []uint64) string {
	const most = 5
	if len(ns) > most {
		return fmt.Sprintf("records %v and %d more", ns[:most], len(ns)-most)
	}
	return fmt.Sprintf("records %v", ns)
}
