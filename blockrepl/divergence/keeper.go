package divergence

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"duet/blockrepl"
)

// Keep is how long a version is kept unless an admin drops it (cluster/DESIGN.md, rule 11), from About.Begun on.
const Keep = 7 * 24 * time.Hour

var (
	// ErrNotOpen is returned for a version that can only be read while its volume is open.
	ErrNotOpen = errors.New("the volume of the version is not open")
	// ErrNotKept is returned for a version that its volume, which is open, is written without: it is damaged or gone.
	ErrNotKept = errors.New("the version is not kept any more")
)

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
// the file from then on, also on an error. A version that cannot be opened does not keep the volume from its VM: it is
// given up, durably, as it would miss what is written from now on and nothing would show that. One that is damaged is
// left as it is: it never opens again. The error is that of the image, of a version that cannot be given up either, or
// is in use, or of one of which it cannot be read whose it is.
func (k *Keeper) Open(id string, file File) (*Image, error) {
	img := &Image{file: file, keeper: k, id: id}
	var err error
	if img.Device, err = Wrap(file); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	img.GivenUp = func(gone *Version, cause error) {
		go k.lost(gone.About(), cause) // the write that goes on must not wait for the log
	}
	entries, err := k.List()
	for _, e := range entries {
		if err == nil {
			err = img.keep(e.Dir)
		}
	}
	if err != nil {
		return nil, errors.Join(err, img.shut())
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.open[id] = img
	return img, nil
}

// lost tells of a version that was given up.
func (k *Keeper) lost(a About, cause error) {
	k.log.Error("a kept version of a split brain is LOST: it could not be saved any more", "version", a.ID,
		"module", a.Module, "volume", a.Target, "err", cause)
}

// keep saves into the version in dir from now on, if it is one of this image. When it returns nil the version is
// opened, or durably none.
func (img *Image) keep(dir string) error {
	about, err := readAbout(dir)
	if about.ID != "" && about.Volume != img.id {
		return nil
	}
	var v *Version
	if err == nil {
		v, err = Open(dir)
	}
	switch {
	case err == nil:
		if err = img.AddVersion(v); err == nil {
			return nil
		}
		if err = errors.Join(err, v.Close()); !errors.Is(err, ErrSize) {
			return err // of the image
		}
	case errors.Is(err, ErrDropped), errors.Is(err, ErrGivenUp):
		return durableNames(dir) // whoever named it so may have died, or still be at it
	case errors.Is(err, ErrDamaged):
		img.keeper.log.Error("a kept version protects nothing any more", "version", filepath.Base(dir), "volume",
			about.Target, "err", err)
		return nil
	case errors.Is(err, ErrInUse), about.ID == "":
		return fmt.Errorf("kept version %s: %w", filepath.Base(dir), err)
	}
	if gone := giveUp(dir, err); gone != nil {
		return fmt.Errorf("kept version %s cannot be opened: %w; it cannot be given up: %w", about.ID, err, gone)
	}
	img.keeper.lost(about, err)
	return nil
}

// shut closes the versions and the file.
func (img *Image) shut() error {
	var errs []error
	for _, v := range img.Versions() {
		errs = append(errs, v.Close())
	}
	return errors.Join(append(errs, img.file.Close())...)
}

// Close closes the image and its versions. It does not flush the image; see package backing.
func (img *Image) Close() error {
	k := img.keeper
	k.mu.Lock()
	if k.open[img.id] == img {
		delete(k.open, img.id)
	}
	k.mu.Unlock()
	return img.shut()
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

// Live is the version that is being saved into and its image; ErrNotOpen while the volume is closed, ErrNotKept if
// the volume is open without the version. Both may be closed at any time: what is read fails then.
func (k *Keeper) Live(a About) (*Image, *Version, error) {
	k.mu.Lock()
	img := k.open[a.Volume]
	k.mu.Unlock()
	if img == nil {
		return nil, nil, fmt.Errorf("version %s: %w", a.ID, ErrNotOpen)
	}
	for _, v := range img.Versions() {
		if v.About().ID == a.ID {
			return img, v, nil
		}
	}
	return nil, nil, fmt.Errorf("version %s: %w", a.ID, ErrNotKept)
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
