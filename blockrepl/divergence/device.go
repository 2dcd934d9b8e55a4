package divergence

import (
	"errors"
	"fmt"
	"slices"
	"sync"

	"duet/blockrepl"
)

// Device is an image whose old content is saved before it changes. It owns neither
// the image nor the versions. What the image offers beyond blockrepl.Device is passed through.
//
// Callers keep overlapping writes apart, as for any Device, and save relies on it: while it reads old content
// nobody else may be writing there. A write that has to save first may take as long as two syncs of the disk that
// has the versions, and counts against whatever budget its caller has for the image.
type Device struct {
	// GivenUp, if not nil, is called once for a version that cannot be kept whole, by the
	// write that goes on without it: it must not block. Set it before the first write.
	GivenUp func(v *Version, cause error)

	base blockrepl.Device
	fast blockrepl.FastReader // nil: base is none

	// mu is held for reading by every change, saving included, so that a version
	// begins between two of them and is gone when nobody saves into it any more.
	mu       sync.RWMutex
	versions []*Version
}

var (
	_ blockrepl.Device     = (*Device)(nil)
	_ blockrepl.FastReader = (*Device)(nil)
	_ blockrepl.Mapper     = (*Device)(nil)
)

// Wrap returns base with the given open versions; it flushes base if there are any, see
// AddVersion. All writers of the image must use the one Device.
func Wrap(base blockrepl.Device, versions ...*Version) (*Device, error) {
	d := &Device{base: base}
	d.fast, _ = base.(blockrepl.FastReader)
	for _, v := range versions {
		if err := d.AddVersion(v); err != nil {
			return nil, err
		}
	}
	return d, nil
}

// AddVersion begins to save into v. A new version is the content of the image at this
// moment: it waits for the changes under way, flushes base, so that no power loss can
// change what is not saved, and holds back new changes meanwhile. The error is ErrSize or that of the flush. A
// version that was opened again must be added before the first write to the image. Adding twice does nothing.
func (d *Device) AddVersion(v *Version) error {
	if err := v.fits(d.base); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if slices.Contains(d.versions, v) {
		return nil
	}
	if err := d.base.Flush(); err != nil {
		return fmt.Errorf("flush image before version %s: %w", v.about.ID, err)
	}
	d.versions = append(slices.Clip(d.versions), v)
	return nil
}

// RemoveVersion stops saving into v: it waits for the changes under way. From then on v does not hold
// what the image was, so it is for versions that are dropped next.
func (d *Device) RemoveVersion(v *Version) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.versions = slices.DeleteFunc(slices.Clone(d.versions), func(have *Version) bool { return have == v })
}

// Versions returns those it saves into, without what was dropped or given up. It waits for who ends one just now.
func (d *Device) Versions() []*Version {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return slices.DeleteFunc(slices.Clone(d.versions), (*Version).ended)
}

// save is the way of every change; mu is held. For saved regions it is a bitmap test.
func (d *Device) save(off, n int64) error {
	if len(d.versions) == 0 || n == 0 {
		return nil
	}
	if err := checkRange(off, n, d.base.Size()); err != nil {
		return err
	}
	first, end := touched(off, n)
	for _, v := range d.versions {
		if v.saved.hasAll(first, end) {
			continue
		}
		if err := v.save(d.base, first, end); err != nil {
			if err := d.goWithout(v, err); err != nil {
				return fmt.Errorf("%w: version %s: %w", ErrAside, v.about.ID, err)
			}
		}
	}
	return nil
}

// goWithout gives up a version that could not be saved into, and returns nil when the image
// may change without it: durably, so that no later Open takes what is left for whole. One that was closed cannot be
// given up, and the write fails.
func (d *Device) goWithout(v *Version, cause error) error {
	first, err := v.giveUp(cause)
	if err != nil {
		return errors.Join(cause, err)
	}
	if first && d.GivenUp != nil {
		d.GivenUp(v, cause)
	}
	return nil
}

// WriteAt saves what was there, then writes p at off. It is ErrAside, and nothing was
// written, if that could not be saved.
func (d *Device) WriteAt(p []byte, off int64) (int, error) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if err := d.save(off, int64(len(p))); err != nil {
		return 0, err
	}
	return d.base.WriteAt(p, off)
}

// Discard saves what was there, then discards; errors as WriteAt.
func (d *Device) Discard(off, n int64) error {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if err := d.save(off, n); err != nil {
		return err
	}
	return d.base.Discard(off, n)
}

// Zero saves what was there, then zeroes; errors as WriteAt.
func (d *Device) Zero(off, n int64) error {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if err := d.save(off, n); err != nil {
		return err
	}
	return d.base.Zero(off, n)
}

// ReadAt reads the image.
func (d *Device) ReadAt(p []byte, off int64) (int, error) { return d.base.ReadAt(p, off) }

// TryReadAt reads the image if it can without waiting.
func (d *Device) TryReadAt(p []byte, off int64) bool {
	return d.fast != nil && d.fast.TryReadAt(p, off)
}

// Flush flushes the image; what is saved is durable already.
func (d *Device) Flush() error { return d.base.Flush() }

// Size is the size of the image.
func (d *Device) Size() int64 { return d.base.Size() }

// Data finds the next allocated range of the image; one that knows no holes is all data.
func (d *Device) Data(off int64) (start, end int64, err error) {
	if m, ok := d.base.(blockrepl.Mapper); ok {
		return m.Data(off)
	}
	return off, d.base.Size(), nil
}
