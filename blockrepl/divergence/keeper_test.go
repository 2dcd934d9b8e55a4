package divergence

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"duet/blockrepl"
	"duet/blockrepl/backing"
)

// TestKeeper: an image is opened with the versions that are kept of it and of no other, and they end with their time.
func TestKeeper(t *testing.T) {
	const size = 4 * blockrepl.RegionSize
	dir := filepath.Join(t.TempDir(), "versions")
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	k, err := NewKeeper(dir, log)
	if err != nil {
		t.Fatal(err)
	}
	open := func(k *Keeper, id string, m *backing.Memory) *Image {
		t.Helper()
		img, err := k.Open(id, lasting{m})
		if err != nil {
			t.Fatal(err)
		}
		return img
	}
	disk := filled(t, size)
	img := open(k, "vol", disk)
	was := content(t, img)
	lost := blockrepl.Lineage{Volume: "vol"}.With(blockrepl.Generation{Epoch: 3, Holder: "alpha"})
	about := About{Volume: "vol", Module: "web01", Target: "vda", Node: "alpha", Epoch: 7, Size: size,
		Loser: Side{Lineage: lost}}
	v, err := img.Save(about)
	if err != nil || v == nil {
		t.Fatalf("began %v, %v", v, err)
	}
	if again, err := img.Save(about); err != nil || again != nil {
		t.Errorf("the same content was saved twice: %v, %v", again, err)
	}
	a := v.About()
	if err := img.Close(); err != nil {
		t.Fatal(err)
	}
	if _, _, err := k.Live(a); !errors.Is(err, ErrNotOpen) {
		t.Errorf("of a closed volume: %v", err)
	}

	if k, err = NewKeeper(dir, log); err != nil { // the next run
		t.Fatal(err)
	}
	other := open(k, "other", filled(t, size))
	defer other.Close()
	img = open(k, "vol", disk)
	defer img.Close()
	if len(other.Versions()) != 0 || len(img.Versions()) != 1 {
		t.Fatalf("%d versions of another volume, %d of its own", len(other.Versions()), len(img.Versions()))
	}
	if _, err := img.WriteAt(bytes.Repeat([]byte{9}, 4096), 0); err != nil {
		t.Fatal(err)
	}
	live, v, err := k.Live(a)
	if err != nil {
		t.Fatal(err)
	}
	wantVersion(t, v, live, was)

	e, ok, err := k.Find(a.ID)
	if _, unknown, _ := k.Find("nobody"); !ok || unknown || err != nil || e.About.Epoch != 7 {
		t.Errorf("found %+v, %v, %v; unknown %v", e, ok, err, unknown)
	}
	for _, c := range []struct {
		after time.Duration
		left  int
	}{{Keep - time.Hour, 1}, {Keep + time.Hour, 0}} {
		if err := k.Expire(a.Begun.Add(c.after)); err != nil {
			t.Fatal(err)
		}
		if all, err := k.List(); err != nil || len(all) != c.left || len(img.Versions()) != c.left {
			t.Errorf("after %v there are %d versions, %v; the image saves into %d", c.after, len(all), err, len(img.Versions()))
		}
	}
}

// block puts a directory in place of a file of a version, so that it cannot be opened, until free is called.
func block(t *testing.T, v *Version, name string) (free func()) {
	t.Helper()
	path := filepath.Join(v.dir, name)
	aside := filepath.Join(t.TempDir(), name)
	if err := errors.Join(os.Rename(path, aside), os.Mkdir(path, 0o700)); err != nil {
		t.Fatal(err)
	}
	return func() {
		// Given up, the version may have taken the place of the directory away.
		if err := errors.Join(os.RemoveAll(path), os.Rename(aside, path)); err != nil {
			t.Fatal(err)
		}
	}
}

// TestVersionThatCannotBeOpened: when its image goes on without it a version is given up for good, also if its files
// can be opened the next time; where it is not known to be one of this image, or cannot be given up, the image does not
// go on.
func TestVersionThatCannotBeOpened(t *testing.T) {
	const size = 4 * blockrepl.RegionSize
	hold := func(t *testing.T, v *Version, _ string) func() {
		t.Helper()
		other, err := Open(v.dir)
		if err != nil {
			t.Fatal(err)
		}
		return func() {
			if err := other.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, c := range []struct {
		what, name string
		block      func(*testing.T, *Version, string) (free func())
		goesOn     bool
	}{
		{"its map cannot be opened", mapName, block, true},
		{"its data cannot be opened", dataName, block, true},
		{"whose it is cannot be read", aboutName, block, false},
		{"it is in use", "", hold, false},
	} {
		t.Run(c.what, func(t *testing.T) {
			k, err := NewKeeper(filepath.Join(t.TempDir(), "versions"), slog.New(slog.NewTextHandler(t.Output(), nil)))
			if err != nil {
				t.Fatal(err)
			}
			disk := filled(t, size)
			img, err := k.Open("vol", lasting{disk})
			if err != nil {
				t.Fatal(err)
			}
			was := content(t, img)
			v, err := img.Save(About{Volume: "vol", Module: "web01", Target: "vda", Size: size})
			if err != nil {
				t.Fatal(err)
			}
			if err := img.Close(); err != nil {
				t.Fatal(err)
			}
			free := c.block(t, v, c.name)
			img, err = k.Open("vol", lasting{disk})
			if (err == nil) != c.goesOn {
				t.Fatalf("the image goes on: %v", err)
			}
			if err == nil {
				if _, err := img.WriteAt(bytes.Repeat([]byte{9}, 4096), 0); err != nil {
					t.Fatal(err)
				}
				if err := img.Close(); err != nil {
					t.Fatal(err)
				}
			}
			free()
			if img, err = k.Open("vol", lasting{disk}); err != nil {
				t.Fatal(err)
			}
			defer img.Close()
			live, found, err := k.Live(v.About())
			if c.goesOn {
				if err == nil {
					t.Errorf("a version that missed a write passes for whole")
				}
				if all, err := k.List(); err != nil || len(all) != 1 || !errors.Is(all[0].Err, ErrGivenUp) {
					t.Errorf("listed as %+v, %v", all, err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			wantVersion(t, found, live, was)
		})
	}
}

// TestGivenUpIsNotLive: a version that is given up while its image is written is none of it any more.
func TestGivenUpIsNotLive(t *testing.T) {
	const size = 4 * blockrepl.RegionSize
	k, err := NewKeeper(filepath.Join(t.TempDir(), "versions"), slog.New(slog.NewTextHandler(t.Output(), nil)))
	if err != nil {
		t.Fatal(err)
	}
	img, err := k.Open("vol", lasting{filled(t, size)})
	if err != nil {
		t.Fatal(err)
	}
	defer img.Close()
	v, err := img.Save(About{Volume: "vol", Module: "web01", Target: "vda", Size: size})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := k.Live(v.About()); err != nil {
		t.Fatal(err)
	}
	if err := v.data.Close(); err != nil { // what is saved next fails
		t.Fatal(err)
	}
	if _, err := img.WriteAt(bytes.Repeat([]byte{9}, 4096), 0); err != nil {
		t.Fatal(err)
	}
	if _, _, err := k.Live(v.About()); err == nil || errors.Is(err, ErrNotOpen) {
		t.Errorf("a version that was given up: %v", err)
	}
	if left := img.Versions(); len(left) != 0 {
		t.Errorf("the image saves into %d versions", len(left))
	}
}

// lasting is a Memory with a Close that does nothing: it outlives its image.
type lasting struct{ *backing.Memory }

func (lasting) Close() error { return nil }
