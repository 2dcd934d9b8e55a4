package divergence

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"duet/blockrepl"
	"duet/blockrepl/durable"
)

// exportGrain is the smallest hole Export makes.
const exportGrain = 4096

// Export writes the whole version as a sparse raw image to path, which must not exist
// yet; it is durable when Export returns nil. Until then it is path.part, which an error
// removes. Progress, if not nil, is called on this goroutine with bytes of About.Size. ErrInUse
// means that another Export writes to the same path, fs.ErrExist that something has it: what is there stays as it is.
// Base is as for Read; that it is written meanwhile does not change what is exported.
func (v *Version) Export(ctx context.Context, base blockrepl.Device, path string,
	progress func(done, total int64)) error {
	if err := v.export(ctx, base, path, progress); err != nil {
		return fmt.Errorf("export version %s: %w", v.about.ID, err)
	}
	return nil
}

// export holds the lock of its file until that has its name: in between another export would begin it anew.
func (v *Version) export(ctx context.Context, base blockrepl.Device, path string,
	progress func(done, total int64)) error {
	if err := v.fits(base); err != nil {
		return err
	}
	if err := free(path); err != nil {
		return err
	}
	part := path + ".part"
	f, err := openLocked(part, os.O_CREATE)
	if errors.Is(err, ErrInUse) {
		return fmt.Errorf("another export writes to %s: %w", path, err)
	}
	if err != nil {
		return err
	}
	defer f.Close() // nothing is written after its sync
	err = mine(f, part)
	if err == nil {
		err = f.Truncate(0) // a crash may have left one
	}
	if err == nil {
		err = makeSparse(f)
	}
	if err == nil {
		err = f.Truncate(v.about.Size)
	}
	if err == nil {
		err = v.copyTo(ctx, base, f, progress)
	}
	if err == nil {
		err = f.Sync()
	}
	if err == nil { // a rename replaces whatever there is
		err = errors.Join(mine(f, part), free(path))
	}
	if err == nil {
		err = durable.Rename(part, path)
	}
	if err != nil && mine(f, part) == nil {
		err = errors.Join(err, os.Remove(part))
	}
	return err
}

// free returns fs.ErrExist if something has the name, be it a link to nowhere.
func free(path string) error {
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s: %w", path, errors.Join(fs.ErrExist, err))
	}
	return nil
}

// mine returns ErrInUse unless f is what the name stands for: its lock says nothing of another file.
func mine(f *os.File, path string) error {
	have, err := f.Stat()
	if err != nil {
		return err
	}
	if at, err := os.Lstat(path); err != nil || !os.SameFile(have, at) {
		return fmt.Errorf("%s is another file by now: %w", path, errors.Join(ErrInUse, err))
	}
	return nil
}

// copyTo writes what is not zero to w, which reads as zeroes.
func (v *Version) copyTo(ctx context.Context, base blockrepl.Device, w io.WriterAt,
	progress func(done, total int64)) error {
	buf := make([]byte, chunk)
	empty := holes{dev: base}
	for off := int64(0); off < v.about.Size; {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		n, err := v.hole(&empty, off)
		if err != nil {
			return err
		}
		if n == 0 {
			n = min(chunk, v.about.Size-off)
			if err := v.Read(base, buf[:n], off); err != nil {
				return err
			}
			err := spans(buf[:n], exportGrain, func(from, to int, zero bool) error {
				if zero {
					return nil
				}
				_, err := w.WriteAt(buf[from:to], off+int64(from))
				return err
			})
			if err != nil {
				return err
			}
		}
		off += n
		if progress != nil {
			progress(off, v.about.Size)
		}
	}
	return nil
}

// hole returns how many bytes from off, the start of a region, are zeroes without
// reading them. What base said before is right as long as the region is not saved: it
// did not change since. That holds only while the version saves: the errors are those of one that has ended.
func (v *Version) hole(base *holes, off int64) (int64, error) {
	if err := v.begin(); err != nil {
		return 0, err
	}
	defer v.use.RUnlock()
	regions := regionsOf(v.about.Size)
	first := off / blockrepl.RegionSize
	free := base.regions(first, regions-first)
	end := first
	for end < regions && (v.saved.has(end) && v.holes.has(end) || !v.saved.has(end) && end-first < free) {
		end++
	}
	return min(end*blockrepl.RegionSize, v.about.Size) - off, nil
}
