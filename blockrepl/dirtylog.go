package blockrepl

import "errors"

// ErrLocalCopy is wrapped by what Secondary.Serve returns when this node's image or
// log failed, and not the connection.
var ErrLocalCopy = errors.New("local copy failed")

// The two units of the dirty tracker. One Extent has RegionsPerExtent regions,
// so that the dirty regions of an extent are the bits of one uint64.
const (
	ExtentSize       = 4 << 20
	RegionSize       = 64 << 10
	RegionsPerExtent = ExtentSize / RegionSize
)

// Entry is what the log remembers of one extent.
type Entry struct {
	Extent uint32 // offset / ExtentSize
	// Hot: writes may be in flight, so after a crash every region of the extent may differ.
	Hot bool
	// Dirty has one bit per region that may differ from the peer's copy (bit 0 = lowest offset).
	Dirty uint64
}

// Suspect is how many bytes of a volume of size bytes entries say may differ, in whole regions.
func Suspect(entries []Entry, size int64) int64 {
	var n int64
	for _, e := range entries {
		mask := e.Dirty
		if e.Hot {
			mask = ^uint64(0)
		}
		n += int64(ones(mask&wholeExtent(e.Extent, size))) * RegionSize
	}
	return min(n, size)
}

// DirtyLog remembers durably which parts of one volume may differ from the
// peer's copy, and the Lineage of the data. It has one user, the tracker of
// that volume, which may have several calls in flight.
type DirtyLog interface {
	// Commit stores the entries and, if not nil, the lineage as one atomic step
	// and then calls done on a goroutine of the log: nil means it survives power
	// loss. An entry that is neither Hot nor Dirty is forgotten. Commits take
	// effect in the order of the calls. The log may keep entries until done. Commit itself
	// waits for no storage, as its caller may hold locks.
	Commit(entries []Entry, lineage *Lineage, done func(error))
	// Load returns everything remembered, in order of extent; a nil lineage if none was ever stored.
	Load() ([]Entry, *Lineage, error)
}
