package badgerlog

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"duet/blockrepl/durable"
)

// openRoom is more than badger writes while it opens or closes: one memory
// table, its log and the manifest. The ballast holds it twice where it can.
const (
	openRoom    = 8 << 20
	ballastSize = 2 * openRoom
)

// ErrFull is returned while the disk has no room for another commit. It goes
// away by itself when there is room again: the store does not break by it. To a Primary a commit that is refused is
// the failure of its local copy all the same, as its writes cannot wait for an admin.
var ErrFull = errors.New("disk is full")

// room watches the free space of the file system of dir. Free is asked before each transaction, as others fill the
// disk too.
type room struct {
	dir     string
	minFree int64
	free    func(dir string) (int64, error)

	mu   sync.Mutex
	held bool // the ballast file is there
}

// reserve is how much has to be free for a small record: half of minFree, but room for
// a memory table in any case.
func (r *room) reserve() int64 { return min(r.minFree, max(r.minFree/2, openRoom*3/2)) }

// check fails with ErrFull unless need bytes are free.
func (r *room) check(need int64) error {
	free, err := r.free(r.dir)
	if err != nil {
		return fmt.Errorf("ask for free space of %s: %w", r.dir, err)
	}
	if free < need {
		return fmt.Errorf("%w: %s has %d KiB free and needs %d KiB; delete something there or enlarge it",
			ErrFull, r.dir, free>>10, need>>10)
	}
	return nil
}

// retake makes the ballast file, of half the size at least, if it is not there and
// leaves at least that many bytes free. A failure is no fault: commits are guarded
// by MinFree, and it is tried again.
func (r *room) retake(leave int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	free, err := r.free(r.dir)
	size := min(free-leave-1<<20, ballastSize)
	if r.held || err != nil || size < openRoom {
		return
	}
	r.held = reserve(r.ballast(), int(size)) == nil
	if !r.held {
		_ = os.Remove(r.ballast())
	}
}

// drop gives the ballast's room to badger. It is not taken again before badger is done with opening or closing.
func (r *room) drop() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.held = false
	if err := os.Remove(r.ballast()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("drop ballast: %w", err)
	}
	return nil
}

func (r *room) ballast() string { return filepath.Join(r.dir, "ballast") }

// writeNoise makes a file whose content no file system can compress away.
func writeNoise(path string, size int) error {
	b := make([]byte, size)
	rand.Read(b)
	return os.WriteFile(path, b, 0o600)
}

// dirSync makes the names of badger's new files durable, which badger leaves to
// the file system's journal.
type dirSync struct {
	dir  string
	last time.Time // modification time of dir at the last sync
}

// afterCommit syncs the directory if a file came or went since the last time. It is called before a commit counts as
// durable: the log of a new memory table that has no durable name would be lost with all that was synced into it.
func (d *dirSync) afterCommit() error {
	fi, err := os.Stat(d.dir)
	if err != nil {
		return err
	}
	// Older kernels stamp with the clock tick, so a fresh stamp may hide a second change.
	if fi.ModTime().Equal(d.last) && time.Since(d.last) > 100*time.Millisecond {
		return nil
	}
	d.last = fi.ModTime()
	return d.sync()
}

func (d *dirSync) sync() error { return durable.SyncDir(d.dir) }
