package divergence

import (
	"bytes"
	"context"
	"fmt"
	"io"

	"duet/blockrepl"
)

// Read fills p with the version's content at off: what was saved, and base where
// nothing was. Base is the image, itself or in a Device, which may be written through
// a Device meanwhile. The errors are blockrepl.ErrRange, ErrSize, ErrDropped, ErrGivenUp, ErrClosed or those of the
// disk. What could not be read when it was to be saved reads as zeroes, see About.Unreadable.
func (v *Version) Read(base blockrepl.Device, p []byte, off int64) error {
	if err := v.fits(base); err != nil {
		return err
	}
	if err := checkRange(off, int64(len(p)), v.about.Size); err != nil {
		return err
	}
	if err := v.begin(); err != nil {
		return err
	}
	defer v.use.RUnlock()
	if err := v.read(base, p, off); err != nil {
		return fmt.Errorf("read version %s at %d: %w", v.about.ID, off, err)
	}
	return nil
}

// read takes each stretch of regions that are all saved, or all not, with one request.
func (v *Version) read(base blockrepl.Device, p []byte, off int64) error {
	for len(p) > 0 {
		first, end := touched(off, int64(len(p)))
		saved := v.saved.has(first)
		end = v.saved.same(first, end)
		n := min(int64(len(p)), end*blockrepl.RegionSize-off)
		var err error
		if saved {
			err = v.readSaved(p[:n], off)
		} else {
			err = v.readBase(base, p[:n], off)
		}
		if err != nil {
			return err
		}
		p, off = p[n:], off+n
	}
	return nil
}

// readBase reads regions that were not saved. One that still is not afterwards was not
// changed before the read ended; one that is by now is read again where it was saved. It must look at saved after the
// read: a region is marked before the image changes, so a mark that is not there yet proves that the bytes are old.
func (v *Version) readBase(base blockrepl.Device, p []byte, off int64) error {
	if n, err := base.ReadAt(p, off); n < len(p) {
		return readError(err)
	}
	for first, end := touched(off, int64(len(p))); first < end; first++ {
		if !v.saved.has(first) {
			continue
		}
		from := max(off, first*blockrepl.RegionSize)
		to := min(off+int64(len(p)), (first+1)*blockrepl.RegionSize)
		if err := v.readSaved(p[from-off:to-off], from); err != nil {
			return err
		}
	}
	return nil
}

// readSaved reads regions that are all saved: holes as zeroes, the rest from data.
func (v *Version) readSaved(p []byte, off int64) error {
	for len(p) > 0 {
		first, end := touched(off, int64(len(p)))
		end = v.holes.same(first, end)
		n := min(int64(len(p)), end*blockrepl.RegionSize-off)
		if v.holes.has(first) {
			clear(p[:n])
		} else if m, err := v.data.ReadAt(p[:n], off); int64(m) < n {
			return fmt.Errorf("read %s: %w", dataName, readError(err))
		}
		p, off = p[n:], off+n
	}
	return nil
}

// touched returns the regions [first, end) that [off, off+n) lies in; n > 0.
func touched(off, n int64) (first, end int64) {
	return off / blockrepl.RegionSize, (off+n-1)/blockrepl.RegionSize + 1
}

func (v *Version) fits(base blockrepl.Device) error {
	if base.Size() != v.about.Size {
		return fmt.Errorf("version %s has %d bytes, the image %d: %w", v.about.ID, v.about.Size, base.Size(), ErrSize)
	}
	return nil
}

func checkRange(off, n, size int64) error {
	if off < 0 || n < 0 || off > size || n > size-off {
		return fmt.Errorf("%d+%d of %d: %w", off, n, size, blockrepl.ErrRange)
	}
	return nil
}

// Reader returns the whole version as a file of About.Size bytes; see Read. Each ReadAt is a Read of its own, so
// Drop may come in between.
func (v *Version) Reader(base blockrepl.Device) io.ReaderAt { return reader{v, base} }

type reader struct {
	v    *Version
	base blockrepl.Device
}

// ReadAt keeps the contract of io.ReaderAt.
func (r reader) ReadAt(p []byte, off int64) (int, error) {
	size := r.v.about.Size
	if off >= size {
		return 0, io.EOF
	}
	n := min(int64(len(p)), size-max(off, 0))
	if err := r.v.Read(r.base, p[:n], off); err != nil {
		return 0, err
	}
	if n < int64(len(p)) {
		return int(n), io.EOF
	}
	return int(n), nil
}

// Differs compares what was saved with base now and calls each, if not nil, for every
// run of regions that are not equal, in order, off and n in bytes. It returns the sum of n. An
// answer about an image that is being written is stale at once. It ends with the error of ctx or of each; the sum
// is then that of what was compared so far. It reads all that was saved twice, once here and once in the image.
func (v *Version) Differs(ctx context.Context, base blockrepl.Device, each func(off, n int64) error) (int64, error) {
	if err := v.fits(base); err != nil {
		return 0, err
	}
	buf := make([]byte, 2*chunk)
	var sum, from, to int64 // [from, to) differs and was not reported yet
	report := func() error {
		if from == to || each == nil {
			return nil
		}
		return each(from, to-from)
	}
	regions := regionsOf(v.about.Size)
	for first := int64(0); first < regions; {
		end := v.saved.same(first, regions)
		if !v.saved.has(first) {
			first = end
			continue
		}
		end = min(end, first+chunk/blockrepl.RegionSize)
		if err := context.Cause(ctx); err != nil {
			return sum, err
		}
		off := first * blockrepl.RegionSize
		n := min(end*blockrepl.RegionSize, v.about.Size) - off
		was, is := buf[:n], buf[chunk:chunk+n]
		if err := v.both(base, was, is, off); err != nil {
			return sum, err
		}
		for at := int64(0); at < n; at += blockrepl.RegionSize {
			stop := min(at+blockrepl.RegionSize, n)
			if bytes.Equal(was[at:stop], is[at:stop]) {
				continue
			}
			if off+at != to {
				if err := report(); err != nil {
					return sum, err
				}
				from = off + at
			}
			to = off + stop
			sum += stop - at
		}
		first = end
	}
	return sum, report()
}

// both reads a saved range and what the image has there now.
func (v *Version) both(base blockrepl.Device, was, is []byte, off int64) error {
	if err := v.Read(base, was, off); err != nil {
		return err
	}
	if n, err := base.ReadAt(is, off); n < len(is) {
		return fmt.Errorf("read image at %d: %w", off, readError(err))
	}
	return nil
}
