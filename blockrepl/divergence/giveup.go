package divergence

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"duet/blockrepl"
	"duet/blockrepl/durable"
)

// The files of a version of which something is missing.
const (
	givenUpName    = "given-up"   // about.json under this name: nothing is saved any more
	reasonName     = "reason"     // why, in words; best effort
	unreadableName = "unreadable" // ranges of the old content that could not be read: lines of offset and length
)

// salvageSize is the grain in which old content is read where the image cannot be read.
const salvageSize = 4 << 10

// giveUp ends the version because it cannot be kept whole: durably it is none any more, and
// its space is given back, also to the image, which may lie beside it. The write that could
// not be saved goes on then. First is false if that was done before. It waits for all who use the files. If the new
// name cannot be made durable the version stays as it is, and the write has to fail.
func (v *Version) giveUp(cause error) (first bool, err error) {
	v.use.Lock()
	defer v.use.Unlock()
	switch {
	case errors.Is(v.gone, ErrDropped), errors.Is(v.gone, ErrGivenUp):
		return false, nil
	case v.gone != nil:
		return false, v.gone
	}
	if err := giveUp(v.dir, cause); err != nil {
		return false, fmt.Errorf("give up version %s: %w", v.about.ID, err)
	}
	_ = v.close(ErrGivenUp) // nothing of it is wanted any more
	return true, nil
}

// giveUp durably makes the directory no version any more. Nobody uses its files, or may have use of them.
func giveUp(dir string, cause error) error {
	// A new name needs no space. Only when it says so may the image change without the version.
	if err := durable.Rename(filepath.Join(dir, aboutName), filepath.Join(dir, givenUpName)); err != nil {
		return err
	}
	// What follows only tidies up.
	_ = os.Truncate(filepath.Join(dir, dataName), 0)
	_ = os.WriteFile(filepath.Join(dir, reasonName), []byte(cause.Error()), 0o600)
	return nil
}

// durableNames makes durable what a directory is by the names in it; one that is not there any more needs nothing.
func durableNames(dir string) error {
	if err := durable.SyncDir(dir); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// readGivenUp reads what a version was that was given up; false if it is none.
func readGivenUp(dir string) (About, bool, error) {
	b, err := os.ReadFile(filepath.Join(dir, givenUpName))
	if err != nil {
		return About{}, false, nil
	}
	a, err := decodeAbout(b)
	if err != nil {
		return a, true, err
	}
	a.GivenUp = "its old content could not be saved"
	if why, err := os.ReadFile(filepath.Join(dir, reasonName)); err == nil && len(why) > 0 {
		a.GivenUp = string(why)
	}
	return a, true, nil
}

// salvage reads what can be read of old content that cannot be read in one piece. The rest
// is zeroes, and that is durably noted in the version before the region counts as saved: zeroes must never pass for
// what the guest had written. The error is that of the note alone.
func (v *Version) salvage(base blockrepl.Device, p []byte, off int64) error {
	var lost []byte
	for at := 0; at < len(p); at += salvageSize {
		part := p[at:min(at+salvageSize, len(p))]
		if n, _ := base.ReadAt(part, off+int64(at)); n < len(part) {
			clear(part)
			lost = fmt.Appendf(lost, "%d %d\n", off+int64(at), len(part))
		}
	}
	if len(lost) == 0 {
		return nil
	}
	path := filepath.Join(v.dir, unreadableName)
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err == nil {
		_, err = f.Write(lost)
		err = errors.Join(err, f.Sync(), f.Close())
	}
	if err == nil {
		err = durable.SyncDir(v.dir)
	}
	if err != nil {
		return fmt.Errorf("note what cannot be read: %w", err)
	}
	return nil
}

// unreadable is how many bytes of a version were not to be read when they were to be saved. It is for people: a
// line that was torn by a loss of power may be counted wrong.
func unreadable(dir string) (int64, error) {
	b, err := os.ReadFile(filepath.Join(dir, unreadableName))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	ranges := map[int64]int64{} // a save that failed was done again
	for lines := bufio.NewScanner(bytes.NewReader(b)); lines.Scan(); {
		var off, n int64
		if _, err := fmt.Sscanf(lines.Text(), "%d %d", &off, &n); err == nil {
			ranges[off] = n
		}
	}
	var sum int64
	for _, n := range ranges {
		sum += n
	}
	return sum, nil
}
