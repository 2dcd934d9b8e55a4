package divergence

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"duet/blockrepl/durable"
)

// Entry is one version found by List.
type Entry struct {
	Dir   string // for Open and Drop
	About About  // only ID, from the name of the directory, if Err is not nil; whole for ErrGivenUp
	Err   error  // ErrGivenUp, ErrDamaged or what the system says
}

// List returns the versions under dir in order of id, the damaged ones with their
// error. It opens none, so their maps are not checked, and may run beside anything else: a version that is dropped
// meanwhile is left out. A dir that does not exist has none.
func List(dir string) ([]Entry, error) {
	names, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list versions: %w", err)
	}
	var all []Entry
	for _, n := range names {
		if !n.IsDir() || strings.HasPrefix(n.Name(), ".") {
			continue
		}
		e := Entry{Dir: filepath.Join(dir, n.Name())}
		e.About, e.Err = inspect(e.Dir)
		if errors.Is(e.Err, ErrDropped) || errors.Is(e.Err, fs.ErrNotExist) && !errors.Is(e.Err, ErrDamaged) {
			continue
		}
		if e.Err != nil && !errors.Is(e.Err, ErrGivenUp) {
			e.About = About{ID: n.Name()}
		}
		all = append(all, e)
	}
	return all, nil
}

// inspect reads about.json and looks at the sizes of the other files.
func inspect(dir string) (About, error) {
	about, err := readAbout(dir)
	if err != nil {
		return About{}, err
	}
	if about.GivenUp != "" {
		return about, fmt.Errorf("%w: %s", ErrGivenUp, about.GivenUp)
	}
	data, err := os.Stat(filepath.Join(dir, dataName))
	if err != nil {
		return About{}, missing(err)
	}
	m, err := os.Stat(filepath.Join(dir, mapName))
	if err != nil {
		return About{}, missing(err)
	}
	if data.Size() != about.Size || m.Size() < mapHeader {
		return About{},
			fmt.Errorf("%w: %s has %d bytes of %d, %s has %d", ErrDamaged, dataName, data.Size(), about.Size, mapName, m.Size())
	}
	return about, nil
}

// Drop forgets the version in dir without opening it, so that a damaged one can be
// dropped too. It is ErrInUse while the version is open, here or elsewhere. A version that is open here is dropped by
// Version.Drop; see Keeper.Drop. Dropping again one that is gone is no error.
func Drop(dir string) error {
	lock, err := openLocked(filepath.Join(dir, mapName), 0)
	switch {
	case err == nil:
		err = forget(dir)
		_ = lock.Close() // was only a lock
	case errors.Is(err, fs.ErrNotExist):
		err = forget(dir)
	}
	if err != nil {
		return fmt.Errorf("drop version: %w", err)
	}
	return remove(dir)
}

// forget durably makes the directory no version any more. Needs no space where about.json is there, so a full disk
// can be freed by it.
func forget(dir string) error {
	err := durable.Rename(filepath.Join(dir, aboutName), filepath.Join(dir, droppedName))
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	// Forgotten already, or damaged.
	f, err := os.OpenFile(filepath.Join(dir, droppedName), os.O_WRONLY|os.O_CREATE, 0o600)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // nothing is left of it
	}
	if err == nil {
		err = f.Close()
	}
	if err == nil {
		err = durable.SyncDir(dir)
	}
	return err
}

// remove gives the space of a forgotten version back, and touches no file that is not
// of a version. The marker goes last, so that Sweep can finish what is interrupted here.
func remove(dir string) error {
	if _, err := os.Lstat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var err error
	for _, name := range []string{dataName, mapName, reasonName, unreadableName, givenUpName, aboutName, droppedName} {
		if e := os.Remove(filepath.Join(dir, name)); !errors.Is(e, fs.ErrNotExist) {
			err = errors.Join(err, e)
		}
		if err == nil && name == aboutName {
			err = durable.SyncDir(dir)
		}
		if err != nil {
			break
		}
	}
	if err == nil {
		err = os.Remove(dir)
	}
	if err == nil {
		err = durable.SyncDir(filepath.Dir(dir))
	}
	if err != nil {
		return fmt.Errorf("remove dropped version: %w", err)
	}
	return nil
}

// Sweep removes what a Begin or Drop under dir left when its process died. It is
// called at the start, before anything else here: it would take a Begin under way for one that died. What it cannot
// remove is reported, and the rest is done all the same.
func Sweep(dir string) error {
	names, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("sweep versions: %w", err)
	}
	for _, n := range names {
		path := filepath.Join(dir, n.Name())
		if strings.HasPrefix(n.Name(), beginPrefix) {
			err = errors.Join(err, os.RemoveAll(path))
			continue
		}
		if _, e := os.Lstat(filepath.Join(path, droppedName)); n.IsDir() && e == nil {
			err = errors.Join(err, remove(path))
		} else if n.IsDir() {
			_ = os.Remove(path) // works only if nothing is left in it
		}
	}
	if err != nil {
		return fmt.Errorf("sweep versions: %w", err)
	}
	return nil
}
