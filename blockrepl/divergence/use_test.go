package divergence

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"duet/blockrepl"
	"duet/blockrepl/backing"
)

// slowDevice hands the processor on within each request, so that others come between.
type slowDevice struct{ *backing.Memory }

func (d slowDevice) WriteAt(p []byte, off int64) (int, error) {
	half := len(p) / 2 / blockrepl.Sector * blockrepl.Sector
	if _, err := d.Memory.WriteAt(p[:half], off); err != nil {
		return 0, err
	}
	time.Sleep(20 * time.Microsecond) // the point of this device, not a wait for something
	_, err := d.Memory.WriteAt(p[half:], off+int64(half))
	return len(p), err
}

func (d slowDevice) ReadAt(p []byte, off int64) (int, error) {
	time.Sleep(20 * time.Microsecond) // as above
	return d.Memory.ReadAt(p, off)
}

// Writers write different sectors of the same regions, a version begins and another
// ends in the midst of it, and who reads the versions always sees what they were.
func TestConcurrent(t *testing.T) {
	const size = 24 * blockrepl.RegionSize
	base := slowDevice{backing.NewMemory(size)}
	dir := t.TempDir()
	fill := rand.New(rand.NewPCG(4, 4))
	for range 15 {
		if err := randomWrite(fill, base, 100, nil); err != nil {
			t.Fatal(err)
		}
	}
	first := begin(t, dir, size)
	firstWas := content(t, base)
	dev := wrap(t, base, first)

	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	defer all.Wait()
	defer cancel()
	for w := range int64(4) {
		all.Go(func() {
			p := make([]byte, 1024)
			for i := int64(0); ctx.Err() == nil; i++ {
				for k := range p {
					p[k] = byte(i + w)
				}
				at := (i*w*7 + i) % (size / blockrepl.RegionSize) * blockrepl.RegionSize
				if _, err := dev.WriteAt(p, at+w*4096); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	// What a version begins with is read when it has begun: no write is between then and the flush it does.
	second := begin(t, dir, size)
	if err := dev.AddVersion(second); err != nil {
		t.Fatal(err)
	}
	secondWas := make([]byte, size)
	if err := second.Read(dev, secondWas, 0); err != nil {
		t.Fatal(err)
	}
	for i := 0; i < 40 || first.Regions() < size/blockrepl.RegionSize; i++ {
		wantVersion(t, first, dev, firstWas)
		wantVersion(t, second, dev, secondWas)
	}
	if err := first.Drop(); err != nil {
		t.Fatal(err)
	}
	dev.RemoveVersion(first)
	if len(dev.Versions()) != 1 {
		t.Errorf("%d versions left", len(dev.Versions()))
	}
	wantVersion(t, second, dev, secondWas)
}

// filled is a disk without holes.
func filled(t *testing.T, size int64) *backing.Memory {
	t.Helper()
	m := backing.NewMemory(size)
	if _, err := m.WriteAt(bytes.Repeat([]byte{0xf1}, int(size)), 0); err != nil {
		t.Fatal(err)
	}
	return m
}

// countingDevice counts the reads of region 0.
type countingDevice struct {
	*backing.Faulty
	reads atomic.Int64
}

func (d *countingDevice) ReadAt(p []byte, off int64) (int, error) {
	if off < blockrepl.RegionSize {
		d.reads.Add(1)
	}
	return d.Faulty.ReadAt(p, off)
}

// A region whose saving is under way holds other writes to it back, and no write to others.
func TestRegionIsSavedOnce(t *testing.T) {
	const size = 8 * blockrepl.RegionSize
	memory := filled(t, size)
	was := content(t, memory)
	base := &countingDevice{Faulty: backing.NewFaulty(memory)}
	v := begin(t, t.TempDir(), size)
	dev := wrap(t, base, v)
	hold := make(chan struct{})
	base.Inject(backing.Fault{Ops: []blockrepl.Op{blockrepl.OpRead}, Len: blockrepl.RegionSize, Times: 1, Hold: hold})
	p := bytes.Repeat([]byte{5}, 512)
	var all sync.WaitGroup
	for k := range int64(4) {
		all.Go(func() {
			if _, err := dev.WriteAt(p, k*4096); err != nil {
				t.Error(err)
			}
		})
	}
	for range 3 {
		if _, err := dev.WriteAt(p, 3*blockrepl.RegionSize); err != nil { // not held
			t.Error(err)
		}
	}
	for deadline := time.Now().Add(10 * time.Second); base.reads.Load() == 0 && time.Now().Before(deadline); {
		runtime.Gosched()
	}
	close(hold)
	all.Wait()
	if v.Regions() != 2 || base.reads.Load() != 1 {
		t.Errorf("%d regions saved, region 0 was read %d times", v.Regions(), base.reads.Load())
	}
	wantVersion(t, v, memory, was)
}

func TestExport(t *testing.T) {
	const size = 3<<20 + 512
	rng := rand.New(rand.NewPCG(3, 3))
	base := backing.NewMemory(size)
	was := make([]byte, size)
	for range 6 {
		if err := randomWrite(rng, base, 300, was); err != nil {
			t.Fatal(err)
		}
	}
	v := begin(t, t.TempDir(), size)
	dev := wrap(t, base, v)
	path := filepath.Join(t.TempDir(), "web01.raw")
	if err := os.WriteFile(path+".part", []byte("left by a crash"), 0o600); err != nil {
		t.Fatal(err)
	}
	var last int64
	err := v.Export(t.Context(), dev, path, func(done, total int64) {
		if done <= last || total != size {
			t.Errorf("progress %d of %d after %d", done, total, last)
		}
		last = done
		if err := randomWrite(rng, dev, 900, nil); err != nil {
			t.Error(err)
		}
	})
	if err != nil || last != size {
		t.Fatalf("export: %v, progress to %d", err, last)
	}
	got, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(got, was) {
		t.Fatalf("the exported image differs: %v", err)
	}
	if err := v.Export(t.Context(), dev, path, nil); !errors.Is(err, fs.ErrExist) {
		t.Errorf("export over a file: %v", err)
	}

	stop, why := filepath.Join(t.TempDir(), "stopped.raw"), errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	err = v.Export(ctx, dev, stop, func(int64, int64) { cancel(why) })
	if !errors.Is(err, why) {
		t.Errorf("cancelled: %v", err)
	}
	if left, _ := os.ReadDir(filepath.Dir(stop)); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

// An image is written beside what others do: of exports to one path one is through, and a file that is not its own has
// its name and its content afterwards.
func TestExportBesideOthers(t *testing.T) {
	const size = 1 << 20
	base := filled(t, size)
	was := content(t, base)
	v := begin(t, t.TempDir(), size)
	theirs := []byte("an admin's")
	holds := func(t *testing.T, path string, want []byte) {
		t.Helper()
		if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s has %d bytes: %v", filepath.Base(path), len(got), err)
		}
	}
	for _, c := range []struct {
		name string
		want error
		do   func(path string) error // once all is copied
		left map[string][]byte       // by what follows the path
	}{
		{"the name is taken meanwhile", fs.ErrExist, func(path string) error { return os.WriteFile(path, theirs, 0o600) },
			map[string][]byte{"": theirs}},
		{"another file has the place", ErrInUse, func(path string) error {
			return errors.Join(os.Remove(path+".part"), os.WriteFile(path+".part", theirs, 0o600))
		}, map[string][]byte{".part": theirs}},
		{"another export", nil, func(path string) error {
			if err := v.Export(context.Background(), base, path, nil); !errors.Is(err, ErrInUse) {
				return errors.Join(errors.New("it was not refused"), err)
			}
			return nil
		}, map[string][]byte{"": was}},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "x.raw")
			err := v.Export(t.Context(), base, path, func(done, total int64) {
				if done < total {
					return
				}
				if err := c.do(path); err != nil {
					t.Error(err)
				}
			})
			if !errors.Is(err, c.want) {
				t.Errorf("export: %v, want %v", err, c.want)
			}
			if all, err := os.ReadDir(filepath.Dir(path)); err != nil || len(all) != len(c.left) {
				t.Errorf("left: %v, %v", all, err)
			}
			for name, want := range c.left {
				holds(t, path+name, want)
			}
		})
	}
	t.Run("one that waits for the lock", func(t *testing.T) {
		dir := t.TempDir()
		for i := range 50 {
			path := filepath.Join(dir, strconv.Itoa(i))
			ended := make(chan struct{})
			var other sync.WaitGroup
			other.Go(func() {
				for {
					// Where it is between the making of the file and its lock the file is empty.
					if f, err := openLocked(path+".part", 0); err == nil {
						info, err := f.Stat()
						if err == nil && info.Size() > 0 && mine(f, path+".part") == nil {
							t.Error("the image is nobody's before it has its name")
						}
						_ = f.Close() // nothing was written
					}
					select {
					case <-ended:
						return
					default:
					}
				}
			})
			err := v.Export(t.Context(), base, path, nil)
			close(ended)
			other.Wait()
			if err != nil && !errors.Is(err, ErrInUse) {
				t.Error(err)
			}
		}
	})
}

// The holes of a base are no version's once that is dropped or given up: nothing is saved any more.
func TestExportOfEndedVersion(t *testing.T) {
	const size = 3 << 20
	for want, end := range map[error]func(*Version) error{
		ErrDropped: (*Version).Drop,
		ErrGivenUp: func(v *Version) error { _, err := v.giveUp(errors.New("no room")); return err },
		ErrClosed:  (*Version).Close,
	} {
		base := filled(t, size)
		if err := base.Discard(1<<20, blockrepl.RegionSize); err != nil { // what is behind a hole is looked for there
			t.Fatal(err)
		}
		v := begin(t, t.TempDir(), size)
		path := filepath.Join(t.TempDir(), "x.raw")
		err := v.Export(t.Context(), base, path, func(done, _ int64) {
			if done == 1<<20 {
				if err := errors.Join(end(v), base.Discard(1<<20, 2<<20)); err != nil {
					t.Error(err)
				}
			}
		})
		if !errors.Is(err, want) {
			t.Errorf("export: %v, want %v", err, want)
		}
	}
}

// The base's holes change while the image is exported; the version's do not.
func TestExportOfChangingHoles(t *testing.T) {
	const size = 6 << 20
	base := backing.NewMemory(size)
	was := make([]byte, size)
	copy(was[1<<20:], bytes.Repeat([]byte{8}, 1<<20))
	copy(was[4<<20:], bytes.Repeat([]byte{8}, 1<<20))
	if _, err := base.WriteAt(was, 0); err != nil {
		t.Fatal(err)
	}
	for _, off := range []int64{0, 2 << 20, 3 << 20, 5 << 20} {
		if err := base.Discard(off, 1<<20); err != nil {
			t.Fatal(err)
		}
	}
	v := begin(t, t.TempDir(), size)
	dev := wrap(t, base, v)
	path := filepath.Join(t.TempDir(), "x.raw")
	err := v.Export(t.Context(), dev, path, func(done, _ int64) {
		if done == 1<<20 { // data becomes hole and hole data
			if err := errors.Join(dev.Discard(1<<20, 1<<20), dev.Discard(4<<20, 1<<20), dev.Zero(2<<20, 1<<20)); err != nil {
				t.Error(err)
			}
			if _, err := dev.WriteAt(bytes.Repeat([]byte{3}, 1<<20), 3<<20); err != nil {
				t.Error(err)
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, was) {
		t.Fatalf("the exported image differs: %v", err)
	}
}

func TestDropWhileInUse(t *testing.T) {
	const size = 4 << 20
	dir := t.TempDir()
	base := filled(t, size)
	v := begin(t, dir, size)
	dev := wrap(t, base, v)
	if _, err := dev.WriteAt(make([]byte, 512), 0); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "x.raw")
	err := v.Export(t.Context(), dev, path, func(done, _ int64) {
		if err := v.Drop(); err != nil {
			t.Error(err)
		}
	})
	if !errors.Is(err, ErrDropped) {
		t.Errorf("export: %v", err)
	}
	if _, err := dev.WriteAt(make([]byte, 512), 1<<20); err != nil {
		t.Errorf("write after drop: %v", err)
	}
	if err := v.Read(base, make([]byte, 512), 0); !errors.Is(err, ErrDropped) {
		t.Errorf("read after drop: %v", err)
	}
	if err := errors.Join(v.Drop(), v.Close()); err != nil {
		t.Errorf("again: %v", err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// A version that is closed but not dropped must not be lost by writing on.
func TestClosedVersionFailsWrites(t *testing.T) {
	base := backing.NewMemory(1 << 20)
	v := begin(t, t.TempDir(), 1<<20)
	dev := wrap(t, base, v)
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	for name, err := range map[string]error{"discard": dev.Discard(0, 512), "zero": dev.Zero(0, 512)} {
		if !errors.Is(err, ErrAside) || !errors.Is(err, ErrClosed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	dev.RemoveVersion(v)
	if err := dev.Zero(0, 512); err != nil {
		t.Errorf("after removal: %v", err)
	}
}

func TestListOpenDrop(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "aside") // Begin makes it
	if all, err := List(dir); err != nil || len(all) != 0 {
		t.Fatalf("list of nothing: %v, %v", all, err)
	}
	if err := Sweep(dir); err != nil {
		t.Fatal(err)
	}
	lineage := blockrepl.Lineage{Volume: "vol"}.With(blockrepl.Generation{Epoch: 6, Holder: "beta"})
	var versions []*Version
	for i, id := range []string{"a1", "b2", "c3", "d4", "e5"} {
		v, err := Begin(dir, About{
			ID: id, Size: 1 << 20, Begun: time.Unix(int64(i), 0), Winner: Side{Node: "beta", Lineage: lineage},
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = v.Close() }) // some are dropped by then
		versions = append(versions, v)
	}
	refused(t, dir, versions[0])
	for _, v := range versions[1:] {
		if err := v.Close(); err != nil {
			t.Fatal(err)
		}
	}
	damage(t, versions)
	leftovers(t, dir)
	for range 2 { // before and after Sweep
		all, err := List(dir)
		if err != nil || len(all) != 4 {
			t.Fatalf("list: %+v, %v", all, err)
		}
		for i, e := range all {
			if damaged := i > 0; e.About.ID != []string{"a1", "b2", "c3", "d4"}[i] || damaged != errors.Is(e.Err, ErrDamaged) {
				t.Errorf("entry %d: %+v", i, e)
			}
		}
		if got := all[0].About.Winner; got.Node != "beta" || got.Lineage.String() != lineage.String() ||
			!got.LastWrite.IsZero() {
			t.Errorf("winner %+v", got)
		}
		if err := Sweep(dir); err != nil {
			t.Fatal(err)
		}
	}
	for _, v := range versions[1:4] {
		if _, err := Open(v.dir); !errors.Is(err, ErrDamaged) {
			t.Errorf("open %s: %v", v.dir, err)
		}
		if err := errors.Join(Drop(v.dir), Drop(v.dir)); err != nil {
			t.Errorf("drop %s: %v", v.dir, err)
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
		t.Errorf("left: %v, %v", left, err)
	}
}

// refused tries what must not work while the version with the id a1 is open.
func refused(t *testing.T, dir string, open *Version) {
	t.Helper()
	if _, err := Begin(dir, About{ID: "a1", Size: 1 << 20}); !errors.Is(err, fs.ErrExist) {
		t.Errorf("same id again: %v", err)
	}
	if _, err := Begin(dir, About{ID: "../x", Size: 1 << 20}); err == nil {
		t.Error("an id with a slash was accepted")
	}
	if _, err := Open(open.dir); !errors.Is(err, ErrInUse) {
		t.Errorf("open twice: %v", err)
	}
	if err := Drop(open.dir); !errors.Is(err, ErrInUse) {
		t.Errorf("drop of an open one: %v", err)
	}
}

// Many disks may diverge in the same second; each gets an id of its own.
func TestBeginDrawsAgain(t *testing.T) {
	dir, at := t.TempDir(), time.Date(2025, 1, 31, 14, 22, 33, 0, time.UTC)
	for range 120 { // some of which draw the same with near certainty
		v, err := Begin(dir, About{Size: 512, Begun: at})
		if err != nil {
			t.Fatal(err)
		}
		if err := v.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if all, err := List(dir); err != nil || len(all) != 120 {
		t.Errorf("%d versions, %v", len(all), err)
	}
}

// damage spoils the second, third and fourth version in three ways.
func damage(t *testing.T, versions []*Version) {
	t.Helper()
	err := errors.Join(
		os.Remove(filepath.Join(versions[1].dir, mapName)),
		os.WriteFile(filepath.Join(versions[2].dir, aboutName), []byte("{"), 0o600),
		os.Truncate(filepath.Join(versions[3].dir, dataName), 512),
	)
	if err != nil {
		t.Fatal(err)
	}
}

// leftovers makes what processes leave that die in Begin, and at two points of Drop of the fifth version.
func leftovers(t *testing.T, dir string) {
	t.Helper()
	err := errors.Join(
		os.MkdirAll(filepath.Join(dir, beginPrefix+"123", dataName), 0o700),
		os.Mkdir(filepath.Join(dir, "gone"), 0o700),
		os.WriteFile(filepath.Join(dir, "gone", droppedName), nil, 0o600),
		forget(filepath.Join(dir, "e5")),
	)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(filepath.Join(dir, "e5")); !errors.Is(err, ErrDropped) {
		t.Errorf("open of a dropped one: %v", err)
	}
}

// Drop removes files of a version and nothing else, whatever it is pointed at.
func TestDropLeavesForeignFiles(t *testing.T) {
	dir := t.TempDir()
	keep := filepath.Join(dir, "precious")
	if err := os.WriteFile(keep, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Drop(dir); err == nil {
		t.Error("drop of a directory with other files succeeded")
	}
	if _, err := os.Stat(keep); err != nil {
		t.Error(err)
	}
}
