package divergence

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"duet/blockrepl"
)

// Keep is how long a version is kept unless an admin drops it (cluster/DESIGN.md, rule 11), from About.Begun on.
const Keep = 7 * 24 * time.Hour

// ErrNotOpen is returned for a version that can only be read while its volume is open.
var ErrNotOpen = errors.New("the volume of the version is not open")

// Keeper has the versions of one node. It must open every image that may have versions: what is written around it
// changes them without a trace. Its methods may be called by several goroutines; mu is never held while a disk works.
type Keeper struct {
	dir string
	log *slog.Logger

	mu   sync.Mutex
	open map[string]*Image // by the identity of their data
}

// NewKeeper finishes what an earlier run left in dir. It is called before any image is opened.
func NewKeeper(dir string, log *slog.Logger) (*Keeper, error) {
	return &Keeper{dir: dir, log: log, open: map[string]*Image{}}, Sweep(dir)
}

// File is what an image lies in: a backing.File on a node.
type File interface {
	blockrepl.Device
	io.Closer
}

// Image is an open image: every write to it goes through the versions that are kept of it. It is closed when nobody
// writes any more.
type Image struct {
	*Device
	file   File
	keeper *Keeper
	id     string // Lineage.Volume
}

// Open takes file, the image of the volume with that identity, together with the versions that are kept of it. It owns
// the file from then on, also on an error. A version that cannot be opened does not keep the volume from its VM:
// that is logged, and the version is of no use from the next write on.
func (k *Keeper) Open(id string, file File) (*Image, error) {
	img := &Image{file: file, keeper: k, id: id}
	var err error
	if img.Device, err = Wrap(file); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	img.GivenUp = func(gone *Version, cause error) {
		a := gone.About()
		go k.log.Error("a kept version of a split brain is LOST: it could not be saved any more", "version", a.ID,
			"module", a.Module, "volume", a.Target, "err", cause) // the write that goes on must not wait for the log
	}
	entries, err := k.List()
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	for _, e := range entries {
		if e.Err != nil || e.About.Volume != id {
			continue
		}
		if err := img.keep(e.Dir); err != nil {
			k.log.Error("a kept version protects nothing any more", "version", e.About.ID, "volume", e.About.Target, "err", err)
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.open[id] = img
	return img, nil
}

// keep saves into the version in dir from now on.
func (img *Image) keep(dir string) error {
	v, err := Open(dir)
	if err != nil {
		return err
	}
	if err := img.AddVersion(v); err != nil {
		return errors.Join(err, v.Close())
	}
	return nil
}

// Close closes the image and its versions. It does not flush the image; see package backing.
func (img *Image) Close() error {
	k := img.keeper
	k.mu.Lock()
	if k.open[img.id] == img {
		delete(k.open, img.id)
	}
	k.mu.Unlock()
	var errs []error
	for _, v := range img.Versions() {
		errs = append(errs, v.Close())
	}
	return errors.Join(append(errs, img.file.Close())...)
}

// Save begins to keep the present content of the image as a version, which it returns; nil if an earlier attempt that
// did not get further has begun one of the same content: a second one would have what the resync has written by then.
// When it returns without an error the image may be overwritten. Not for two goroutines at once.
func (img *Image) Save(about About) (*Version, error) {
	for _, have := range img.Versions() {
		if have.About().Loser.Lineage.Compare(about.Loser.Lineage) == blockrepl.Same {
			return nil, nil
		}
	}
	v, err := Begin(img.keeper.dir, about)
	if err != nil {
		return nil, err
	}
	if err := img.AddVersion(v); err != nil {
		return nil, errors.Join(err, v.Drop())
	}
	return v, nil
}

// List returns all versions, the damaged ones with their error.
func (k *Keeper) List() ([]Entry, error) { return List(k.dir) }

// Find returns the version with that ID; false if there is none.
func (k *Keeper) Find(id string) (Entry, bool, error) {
	entries, err := k.List()
	for _, e := range entries {
		if e.About.ID == id {
			return e, true, nil
		}
	}
	return Entry{}, false, err
}

// Live is the version that is being saved into and its image, or ErrNotOpen. Both may be closed at any time: what
// is read fails then.
func (k *Keeper) Live(a About) (*Image, *Version, error) {
	k.mu.Lock()
	img := k.open[a.Volume]
	k.mu.Unlock()
	if img != nil {
		for _, v := range img.Versions() {
			if v.About().ID == a.ID {
				return img, v, nil
			}
		}
	}
	return nil, nil, fmt.Errorf("version %s: %w", a.ID, ErrNotOpen)
}

// Drop forgets a version, durably. If it is open the Device lets go of it first, so that no write saves into it any
// more.
func (k *Keeper) Drop(e Entry) error {
	if img, v, err := k.Live(e.About); err == nil {
		img.RemoveVersion(v)
		return v.Drop()
	}
	return Drop(e.Dir)
}

// Expire forgets the versions whose time is over, the given up ones too. A damaged one stays until an admin drops
// it: how old it is is not known.
func (k *Keeper) Expire(now time.Time) error {
	entries, err := k.List()
	for _, e := range entries {
		if (e.Err == nil || errors.Is(e.Err, ErrGivenUp)) && now.Sub(e.About.Begun) > Keep {
			k.log.Info("a kept version has reached its end", "version", e.About.ID, "module", e.About.Module)
			err = errors.Join(err, k.Drop(e))
		}
	}
	return err
}
