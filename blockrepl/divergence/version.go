package divergence

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"duet/blockrepl"
	"duet/blockrepl/durable"
)

// The files of a version.
const (
	aboutName   = "about.json"
	dataName    = "data"
	mapName     = "map"
	droppedName = "dropped"
	beginPrefix = ".begin-" // a version that Begin has not finished
)

// Version is the content an image had at one moment, kept while the image changes.
// All methods may be called by several goroutines at once. Those that use the files hold off Close, Drop and giving up
// until they have ended, so these may wait for the disk.
type Version struct {
	dir   string
	about About
	data  file
	mapf  file

	// saved and holes say which regions are durably here; a hole is saved too. A
	// bit of saved is set after that of holes, so who sees the first sees the second.
	saved, holes   bitmap
	regions, bytes atomic.Int64 // saved; bytes without the holes

	use  sync.RWMutex // held for reading while the files are used
	gone error        // ErrClosed, ErrDropped or ErrGivenUp; guarded by use

	claiming sync.Mutex
	claims   map[int64]*claim // regions being saved, by number

	queue   sync.Mutex
	next    *batch     // collects what waits for the next commit; guarded by queue
	syncing sync.Mutex // held during a commit; guards what follows, and every batch's result
	log     mapLog
	mapSize int64 // of the file: beyond log.tail it is zeroes
	broken  error // first failed sync; never cleared

	buffers sync.Pool // *[]byte of chunk bytes
}

// Begin makes a version in a new directory under dir, which is made too if it does
// not exist (its parent should), and opens it. About.Size is required. The version survives power loss
// when Begin returns; it saves nothing until a Device has it. With an ID that is taken the error is fs.ErrExist.
func Begin(dir string, about About) (*Version, error) {
	if about.Begun.IsZero() {
		about.Begun = time.Now()
	}
	about.Format = aboutFormat
	err := os.MkdirAll(dir, 0o700)
	if err == nil {
		err = durable.SyncDir(filepath.Dir(dir))
	}
	if err != nil {
		return nil, fmt.Errorf("begin version: %w", err)
	}
	named := about.ID != ""
	for {
		if !named {
			about.ID = newID(about.Begun)
		}
		err = create(dir, about)
		if err == nil {
			v, err := Open(filepath.Join(dir, about.ID))
			if err != nil { // the image must not change beside it
				return nil, errors.Join(err, Drop(filepath.Join(dir, about.ID)))
			}
			return v, nil
		}
		if named || !errors.Is(err, fs.ErrExist) {
			return nil, fmt.Errorf("begin version %s: %w", about.ID, err)
		}
		// Several disks in one second may draw the same id: draw again, 1,024 are there.
	}
}

// create makes all files under a name that no one reads and renames that to the id:
// a version is there wholly or not at all. A name of the kind that is left by a crash is removed by Sweep.
func create(dir string, about About) error {
	text, err := encodeAbout(about)
	if err != nil {
		return err
	}
	final := filepath.Join(dir, about.ID)
	if _, err := os.Lstat(final); !errors.Is(err, fs.ErrNotExist) {
		return errors.Join(fs.ErrExist, err)
	}
	temp, err := os.MkdirTemp(dir, beginPrefix)
	if err != nil {
		return err
	}
	err = writeDurable(filepath.Join(temp, aboutName), text, int64(len(text)))
	if err == nil {
		err = writeDurable(filepath.Join(temp, dataName), nil, about.Size)
	}
	if err == nil {
		err = writeDurable(filepath.Join(temp, mapName), encodeMapHeader(about), mapHeader)
	}
	if err == nil {
		err = durable.SyncDir(temp)
	}
	if err == nil {
		err = durable.Rename(temp, final)
	}
	if err != nil {
		err = errors.Join(err, os.RemoveAll(temp))
	}
	return err
}

// Open opens the version in dir and locks it until Close or Drop. The errors are
// ErrDamaged, ErrDropped, ErrGivenUp, ErrInUse, fs.ErrNotExist or what the system says. The image must not have
// been written since the version was closed: what was not saved is taken from it, and nothing would show the
// difference.
func Open(dir string) (*Version, error) {
	about, err := readAbout(dir)
	if err == nil && about.GivenUp != "" {
		err = ErrGivenUp
	}
	if err != nil {
		return nil, fmt.Errorf("open version %s: %w", dir, err)
	}
	mapf, err := openLocked(filepath.Join(dir, mapName), 0)
	if err != nil {
		return nil, fmt.Errorf("open version %s: %w", dir, missing(err))
	}
	data, err := os.OpenFile(filepath.Join(dir, dataName), os.O_RDWR, 0)
	if err != nil {
		_ = mapf.Close() // nothing was written
		return nil, fmt.Errorf("open version %s: %w", dir, missing(err))
	}
	v, err := open(about, osFile{data}, osFile{mapf})
	if err != nil {
		_ = errors.Join(data.Close(), mapf.Close()) // nothing was written
		return nil, fmt.Errorf("open version %s: %w", dir, err)
	}
	v.dir = dir
	return v, nil
}

// readAbout reads what the version in dir is. The name that about.json has is the state of the version: kept, given
// up or dropped. One that is dropped after it was given up has both names until it is removed, and counts as given
// up.
func readAbout(dir string) (About, error) {
	b, err := os.ReadFile(filepath.Join(dir, aboutName))
	if err == nil {
		a, err := decodeAbout(b)
		if err == nil {
			a.Unreadable, err = unreadable(dir)
		}
		return a, err
	}
	if a, is, err := readGivenUp(dir); is {
		return a, err
	}
	if _, gone := os.Lstat(filepath.Join(dir, droppedName)); gone == nil {
		return About{}, ErrDropped
	}
	if _, there := os.Lstat(dir); there == nil {
		err = missing(err)
	}
	return About{}, err
}

// missing makes a file that is not there a damage.
func missing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return err
}

// open reads the map. The last frame may have been written by a process that died,
// or failed, before it was durable: it is written and synced again before it is trusted. Otherwise a region would
// count as saved, the image be overwritten, and a loss of power then take the frame away: neither copy would have
// the content.
func open(about About, data, mapf file) (*Version, error) {
	size, err := data.Size()
	if err == nil && size != about.Size {
		err = fmt.Errorf("%w: %s has %d bytes of %d", ErrDamaged, dataName, size, about.Size)
	}
	if err != nil {
		return nil, err
	}
	if size, err = mapf.Size(); err != nil {
		return nil, err
	}
	b := make([]byte, size)
	if n, err := mapf.ReadAt(b, 0); n < len(b) {
		return nil, fmt.Errorf("read %s: %w", mapName, err)
	}
	v := &Version{about: about, data: data, mapf: mapf, mapSize: size, claims: make(map[int64]*claim), next: new(batch)}
	// The header proves the size, on which the bitmaps depend, before they are made.
	if _, err := replay(b[:min(size, mapHeader)], about, nil); err != nil {
		return nil, err
	}
	v.saved, v.holes = newBitmap(regionsOf(about.Size)), newBitmap(regionsOf(about.Size))
	if v.log, err = replay(b, about, v.mark); err != nil {
		return nil, err
	}
	if v.log.last > 0 {
		if _, err := mapf.WriteAt(b[v.log.last:v.log.tail], v.log.last); err != nil {
			return nil, fmt.Errorf("rewrite %s: %w", mapName, err)
		}
		if err := mapf.Sync(); err != nil {
			return nil, fmt.Errorf("sync %s: %w", mapName, err)
		}
	}
	return v, nil
}

// mark makes the regions of r saved; it is durable. Called by one goroutine at a time. A region counts once,
// however often it is marked.
func (v *Version) mark(r run) {
	end := r.first + r.count
	for i := r.first; i < end; i++ {
		if v.saved.has(i) {
			continue
		}
		v.regions.Add(1)
		if !r.hole {
			v.bytes.Add(min(blockrepl.RegionSize, v.about.Size-i*blockrepl.RegionSize))
		}
	}
	if r.hole {
		v.holes.set(r.first, end)
	}
	v.saved.set(r.first, end)
}

// About says what this version is, as of Open: Unreadable does not grow with what is saved later.
func (v *Version) About() About { return v.about }

// Regions is the number of regions saved so far, the empty ones included.
func (v *Version) Regions() int64 { return v.regions.Load() }

// Bytes is the space the saved regions take.
func (v *Version) Bytes() int64 { return v.bytes.Load() }

// Close waits for calls under way, then closes the files. Writes to regions that are
// not saved fail from now on in a Device that still has this version, with ErrAside: it is not given up, as it is
// to be opened again. A second Close does nothing.
func (v *Version) Close() error {
	v.use.Lock()
	defer v.use.Unlock()
	return v.close(ErrClosed)
}

// close closes the files; use is held for writing. The first reason stays.
func (v *Version) close(why error) error {
	if v.gone != nil {
		return nil
	}
	v.gone = why
	return errors.Join(v.data.Close(), v.mapf.Close())
}

// Drop forgets the version durably and removes its files. It may be used meanwhile:
// reads fail with ErrDropped, a Device that still has it saves nothing into it any more.
// After an error it may be called again: it is forgotten by then, or still whole.
func (v *Version) Drop() error {
	v.use.Lock()
	defer v.use.Unlock()
	if !errors.Is(v.gone, ErrDropped) {
		// Only when the name says so may the image change without the version.
		if err := forget(v.dir); err != nil {
			return fmt.Errorf("drop version %s: %w", v.about.ID, err)
		}
		err := v.close(ErrDropped)
		v.gone = ErrDropped // also if it was closed before
		if err != nil {
			return fmt.Errorf("drop version %s: %w", v.about.ID, err)
		}
	}
	return remove(v.dir)
}

// begin starts one use of the files; the caller ends it with v.use.RUnlock if err is nil.
func (v *Version) begin() error {
	v.use.RLock()
	if v.gone != nil {
		defer v.use.RUnlock()
		return v.gone
	}
	return nil
}

// ended reports whether nothing is saved into it any more, ever.
func (v *Version) ended() bool {
	v.use.RLock()
	defer v.use.RUnlock()
	return errors.Is(v.gone, ErrDropped) || errors.Is(v.gone, ErrGivenUp)
}
