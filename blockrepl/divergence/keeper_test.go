package divergence

import (
	"bytes"
	"errors"
	"log/slog"
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

// lasting is a Memory with a Close that does nothing: it outlives its image.
type lasting struct{ *backing.Memory }

func (lasting) Close() error { return nil }
