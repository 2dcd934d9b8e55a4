package blockrepl

import (
	"encoding/json"
	"fmt"
	"time"
)

// Generation names one stretch of history in which a single node wrote without
// its peer. The pair is unique because an epoch is granted to one node only;
// where arbitration was overridden two nodes may hold the same epoch, and the
// different Holder makes the divergence visible (cluster/DESIGN.md, rule 11).
type Generation struct {
	Epoch  uint64 `json:"epoch"`
	Holder string `json:"holder"`
	// Began is when its first write came, by the holder's clock, in Unix ms; 0: unknown.
	// It is for people and is no part of the name.
	Began int64 `json:"began,omitempty"`
}

// Is reports whether both name the same stretch.
func (g Generation) Is(o Generation) bool { return g.Epoch == o.Epoch && g.Holder == o.Holder }

// Lineage is the history of a volume's data: its identity and its generations,
// oldest first. A copy that was never written has no generations. It is a value, but Line is shared by copies of it: a
// method that changes Line makes a new one.
type Lineage struct {
	Volume string       `json:"volume"` // random at creation, same on both nodes
	Line   []Generation `json:"line"`
	// Partial: a resync into this copy has begun and not ended, so its content
	// belongs to no point of the history. Set durably before the first byte.
	Partial bool `json:"partial,omitempty"`
	// InStep is the newest generation at which the peer's copy was complete: the
	// dirty regions say what a copy of that generation lacks, no older one.
	InStep Generation `json:"in_step,omitzero"`
}

// MaxLine bounds the remembered history; older generations fall off the front. A copy that missed more than these
// is taken for diverged.
const MaxLine = 256

// Relation says how one copy stands to another.
type Relation uint8

// The relations of Compare. Only Ahead allows overwriting the other copy
// without asking, and only Behind allows being overwritten.
const (
	Same Relation = iota
	Ahead
	Behind
	Diverged
	Unrelated
)

// String returns the word admins see.
func (r Relation) String() string {
	if int(r) < len(relationNames) {
		return relationNames[r]
	}
	return fmt.Sprintf("relation %d", r)
}

var relationNames = [...]string{"same", "ahead", "behind", "diverged", "unrelated"}

// Compare says how l's data stands to o's; the whole rule for who may overwrite whom.
//
//	volumes differ                           unrelated
//	newest generations equal (or both none)  same
//	o is empty, or o's newest is in l        ahead
//	l is empty, or l's newest is in o        behind
//	otherwise                                diverged
//
// A truncated history can hide the common ancestor; the answer is then Diverged,
// which overwrites nothing. Partial does not enter: it says that a copy cannot be
// a source, not where it comes from.
func (l Lineage) Compare(o Lineage) Relation {
	if l.Volume != o.Volume {
		return Unrelated
	}
	ln, lok := l.Newest()
	on, ook := o.Newest()
	switch {
	case lok == ook && ln.Is(on):
		return Same
	case !ook || l.contains(on):
		return Ahead
	case !lok || o.contains(ln):
		return Behind
	}
	return Diverged
}

// Newest is the generation the data belongs to; false if it was never written.
func (l Lineage) Newest() (Generation, bool) {
	if len(l.Line) == 0 {
		return Generation{}, false
	}
	return l.Line[len(l.Line)-1], true
}

// With returns l extended by g, or l itself if g is already its newest.
func (l Lineage) With(g Generation) Lineage {
	if n, ok := l.Newest(); ok && n.Is(g) {
		return l
	}
	line := append(append(make([]Generation, 0, len(l.Line)+1), l.Line...), g)
	if len(line) > MaxLine {
		line = line[len(line)-MaxLine:]
	}
	l.Line = line
	return l
}

// Common returns l cut back to the newest generation that o has too: what both copies
// were before they went apart. Without one it has no generations.
func (l Lineage) Common(o Lineage) Lineage {
	n := len(l.Line)
	for n > 0 && !o.contains(l.Line[n-1]) {
		n--
	}
	l.Line = l.Line[:n:n]
	return l
}

// Parted is when the first write came that l has and o lacks, by the clock of whoever
// wrote it; zero if there is none or it is unknown.
func (l Lineage) Parted(o Lineage) time.Time {
	n := len(l.Common(o).Line)
	if n == len(l.Line) || l.Line[n].Began == 0 {
		return time.Time{}
	}
	return time.UnixMilli(l.Line[n].Began)
}

func (l Lineage) contains(g Generation) bool {
	for _, have := range l.Line {
		if have.Is(g) {
			return true
		}
	}
	return false
}

// String is for logs: volume@epoch/holder.
func (l Lineage) String() string {
	g, ok := l.Newest()
	if !ok {
		return l.Volume + "@empty"
	}
	return fmt.Sprintf("%s@%d/%s", l.Volume, g.Epoch, g.Holder)
}

// MarshalBinary encodes l for the DirtyLog: as JSON, the same as in Hello and Welcome, so that a release that knows
// more fields can add them. One that does not know a field loses it when it stores the lineage again.
func (l Lineage) MarshalBinary() ([]byte, error) { return json.Marshal(l) }

// UnmarshalBinary decodes what MarshalBinary made.
func (l *Lineage) UnmarshalBinary(b []byte) error {
	if err := json.Unmarshal(b, l); err != nil {
		return fmt.Errorf("decode lineage: %w", err)
	}
	return nil
}
