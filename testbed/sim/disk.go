package sim

import (
	"encoding/json"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"duet/blockrepl"
	"duet/cluster"
)

// blocks is the size of the simulated disk. It is small so that schedules meet: two requests of the same block,
// a resync under way where the guest writes. A block holds one number, 0 if it was never written.
const blocks = 8

// disk is the image of a volume: what reads see, and what power loss leaves. The real byte path uses it from its
// own goroutines. A block changes as a whole: torn writes are not simulated. The lock is held for moments only
// and never while time passes, see live.
type disk struct {
	mu              sync.Mutex
	cached, durable [blocks]uint64 // the page cache, and what survives powerCut
	fail            error          // of every operation
	slow            time.Duration  // of each write
	ill             illness
	harmed          atomic.Bool // something was wrong with it at some time
}

// now is what reads would see.
func (d *disk) now() [blocks]uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.cached
}

// failed is why nothing works; nil: something does.
func (d *disk) failed() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.fail
}

func (d *disk) setFail(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fail = err
}

func (d *disk) setSlow(each time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.slow = each
}

// flushed makes durable what was seen when the flush began.
func (d *disk) flushed(seen [blocks]uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.durable = seen
}

// powerCut loses writes that were not flushed: each of them, or none. It is decided for each block by itself, so
// order between blocks is lost, as a write cache loses it. Of several writes of one block the newest survives or
// none, never one between.
func (d *disk) powerCut(rng *rand.Rand) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for b := range blocks {
		if rng.IntN(2) == 0 {
			d.cached[b] = d.durable[b]
		}
		d.durable[b] = d.cached[b]
	}
}

// dirtyLog is the durable memory of a volume: its lineage and which blocks may differ. It follows
// blockrepl.DirtyLog: a commit is atomic, and commits take effect in the order in which they were asked for.
// What has been applied is durable, so it needs no copy of its own for a loss of power.
type dirtyLog struct {
	lineage  blockrepl.Lineage
	suspects [blocks]bool               // of the model
	entries  map[uint32]blockrepl.Entry // of the real byte path
	damaged  error                      // nobody can read it; the model, which has no format, does not look
	// pending are commits that are not durable yet: a crash makes a prefix of them so.
	pending []*commit
}

type commit struct {
	apply func(*dirtyLog)
	gone  bool // the process that wanted it is dead
}

// crash settles what was being written when the process died. Commits that are not in the prefix must not be
// applied by their timers later: gone says so.
func (l *dirtyLog) crash(rng *rand.Rand) {
	for _, c := range l.pending[:rng.IntN(len(l.pending)+1)] {
		c.apply(l)
	}
	for _, c := range l.pending {
		c.gone = true
	}
	l.pending = nil
}

var errDiskFull = errors.New("no space left on device")

// store is an engine.Store: each Save is durable when it returns. Kinder than badgerlog: it takes no time, so no
// engine is killed between a save that was asked for and its end. It is where the checker learns of a grant,
// before the engine can act on it.
type store struct {
	values map[string][]byte
	before []byte // the record before the last Save
	owner  cluster.NodeID
	epoch  cluster.Epoch // newest that was granted to owner
	grant  func()        // told before one is
	full   bool
	met    bool // it was full when something was to be kept, the dirty log's changes included
}

// Load reads a value; false if there is none.
func (s *store) Load(key string, v any) (bool, error) {
	b, ok := s.values[key]
	if !ok {
		return false, nil
	}
	return true, json.Unmarshal(b, v)
}

// room is the error of a full disk.
func (s *store) room() error {
	if !s.full {
		return nil
	}
	s.met = true
	return errDiskFull
}

// Save keeps v, unless the disk is full.
func (s *store) Save(key string, v any) error {
	if err := s.room(); err != nil {
		return err
	}
	b, err := json.Marshal(v)
	if err == nil {
		if key == "record" {
			s.before = s.values[key]
			if r, ok := v.(cluster.Record); ok && r.Holder == s.owner && r.Epoch > s.epoch {
				s.grant()
				s.epoch = r.Epoch
			}
		}
		s.values[key] = b
	}
	return err
}
