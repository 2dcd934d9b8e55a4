package divergence

import (
	"bytes"
	"math/rand/v2"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"

	"duet/blockrepl"
	"duet/blockrepl/backing"
	"duet/blockrepl/blocktest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// begin makes a version of size bytes that is closed when the test ends.
func begin(t testing.TB, dir string, size int64) *Version {
	t.Helper()
	v, err := Begin(dir, About{Volume: "vol", Module: "web01", Target: "vda", Node: "alpha", Epoch: 7, Size: size})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = v.Close() }) // the test may have dropped it
	return v
}

func wrap(t testing.TB, base blockrepl.Device, versions ...*Version) *Device {
	t.Helper()
	d, err := Wrap(base, versions...)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// content reads a whole device.
func content(t testing.TB, dev blockrepl.Device) []byte {
	t.Helper()
	p := make([]byte, dev.Size())
	if _, err := dev.ReadAt(p, 0); err != nil {
		t.Fatal(err)
	}
	return p
}

// wantVersion fails unless v over base reads as want.
func wantVersion(t testing.TB, v *Version, base blockrepl.Device, want []byte) {
	t.Helper()
	got := make([]byte, len(want))
	if err := v.Read(base, got, 0); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		at := 0
		for got[at] == want[at] {
			at++
		}
		t.Fatalf("version %s differs at %d (region %d): %#x, want %#x", v.About().ID, at, at/blockrepl.RegionSize, got[at],
			want[at])
	}
}

// randomWrite does one write, discard or zero of up to max sectors and does the same to model, if that is not nil.
func randomWrite(rng *rand.Rand, dev blockrepl.Device, max int, model []byte) error {
	n := int64(1+rng.IntN(max)) * blockrepl.Sector
	off := rng.Int64N((dev.Size()-n)/blockrepl.Sector+1) * blockrepl.Sector
	p := make([]byte, n)
	var err error
	switch rng.IntN(8) {
	case 0:
		err = dev.Discard(off, n)
	case 1:
		err = dev.Zero(off, n)
	default:
		word := rng.Uint64() | 1
		for i := range p {
			p[i] = byte(word>>(i%7*8)) ^ byte(i>>9)
		}
		_, err = dev.WriteAt(p, off)
	}
	if err == nil && model != nil {
		copy(model[off:], p)
	}
	return err
}

func TestDeviceSuite(t *testing.T) {
	memory := func(t *testing.T) blockrepl.Device { return backing.NewMemory(blocktest.DeviceSize) }
	file := func(t *testing.T) blockrepl.Device {
		f, err := backing.CreateFile(filepath.Join(t.TempDir(), "image"), blocktest.DeviceSize)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = f.Close() })
		return f
	}
	plain := func(t *testing.T) blockrepl.Device { return onlyDevice{backing.NewMemory(blocktest.DeviceSize)} }
	for _, c := range []struct {
		name     string
		open     func(t *testing.T) blockrepl.Device
		versions int
	}{
		{"memory", memory, 1}, {"file", file, 1}, {"no version", memory, 0}, {"two versions", memory, 2},
		{"only a Device", plain, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			blocktest.Device(t, func(t *testing.T) blockrepl.Device {
				var all []*Version
				for range c.versions {
					all = append(all, begin(t, t.TempDir(), blocktest.DeviceSize))
				}
				return wrap(t, c.open(t), all...)
			})
		})
	}
}

// onlyDevice hides what a device can do beyond the contract.
type onlyDevice struct{ blockrepl.Device }

// Every version reads as the image was when it began, whatever is written later,
// and again after it was opened again.
func TestVersionIsTheSnapshot(t *testing.T) {
	const size = 3<<20 + 5*blockrepl.Sector // the last region is short
	for seed := range uint64(6) {
		rng := rand.New(rand.NewPCG(seed, 1))
		base := backing.NewMemory(size)
		dir := t.TempDir()
		model := make([]byte, size)
		dev := wrap(t, base)
		var versions []*Version
		var snapshots [][]byte
		for i := range 240 {
			if i == 20 || i == 100 {
				v := begin(t, dir, size)
				if err := dev.AddVersion(v); err != nil {
					t.Fatal(err)
				}
				versions, snapshots = append(versions, v), append(snapshots, bytes.Clone(model))
			}
			if i == 170 { // a restart
				for k, v := range versions {
					if err := v.Close(); err != nil {
						t.Fatal(err)
					}
					again, err := Open(v.dir)
					if err != nil {
						t.Fatal(err)
					}
					t.Cleanup(func() { _ = again.Close() })
					if again.Regions() != v.Regions() || again.Bytes() != v.Bytes() {
						t.Fatalf("opened again: %d regions, %d bytes; were %d, %d", again.Regions(), again.Bytes(), v.Regions(),
							v.Bytes())
					}
					versions[k] = again
				}
				dev = wrap(t, base, versions...)
			}
			most := 16
			if rng.IntN(6) == 0 {
				most = 900
			}
			if err := randomWrite(rng, dev, most, model); err != nil {
				t.Fatal(err)
			}
			if i%10 == 0 {
				for k, v := range versions {
					wantVersion(t, v, base, snapshots[k])
				}
			}
		}
		for k, v := range versions {
			wantVersion(t, v, dev, snapshots[k])
			checkReader(t, rng, v, base, snapshots[k])
			checkDiffers(t, v, base, snapshots[k], model)
		}
		if !bytes.Equal(content(t, dev), model) {
			t.Fatal("the image differs from the model")
		}
	}
}

func checkReader(t *testing.T, rng *rand.Rand, v *Version, base blockrepl.Device, want []byte) {
	t.Helper()
	r, whole := v.Reader(base), bytes.NewReader(want)
	for range 50 {
		off := rng.Int64N(int64(len(want)) + 1000)
		p, q := make([]byte, rng.IntN(200<<10)), make([]byte, 200<<10)
		n, err := r.ReadAt(p, off)
		m, wantErr := whole.ReadAt(q[:len(p)], off)
		if n != m || err != wantErr || !bytes.Equal(p[:n], q[:m]) {
			t.Fatalf("read %d at %d: %d, %v, want %d, %v", len(p), off, n, err, m, wantErr)
		}
	}
}

func checkDiffers(t *testing.T, v *Version, base blockrepl.Device, was, is []byte) {
	t.Helper()
	differs := make([]bool, regionsOf(int64(len(was))))
	var sum int64
	last := int64(-1)
	got, err := v.Differs(t.Context(), base, func(off, n int64) error {
		if off <= last {
			t.Errorf("run at %d after or beside one that ends at %d", off, last)
		}
		last = off + n
		sum += n
		for first, end := touched(off, n); first < end; first++ {
			differs[first] = true
		}
		return nil
	})
	if err != nil || got != sum {
		t.Fatalf("differs: %d bytes, %v; %d were reported", got, err, sum)
	}
	for i := range differs {
		from, to := i*blockrepl.RegionSize, min((i+1)*blockrepl.RegionSize, len(was))
		if want := !bytes.Equal(was[from:to], is[from:to]); differs[i] != want {
			t.Errorf("region %d: differs %v, want %v", i, differs[i], want)
		}
	}
}

// Regions that were zeroes take no space, and a hole stays one although the image has data now.
func TestHoles(t *testing.T) {
	const size = 4 << 20
	base := backing.NewMemory(size)
	if err := base.Zero(0, 1<<20); err != nil { // allocated zeroes
		t.Fatal(err)
	}
	if _, err := base.WriteAt([]byte{1: 1, 511: 0}, 2<<20); err != nil {
		t.Fatal(err)
	}
	v := begin(t, t.TempDir(), size)
	before := content(t, base)
	dev := wrap(t, base, v)
	if _, err := dev.WriteAt(bytes.Repeat([]byte{9}, size), 0); err != nil {
		t.Fatal(err)
	}
	if v.Regions() != size/blockrepl.RegionSize || v.Bytes() != blockrepl.RegionSize {
		t.Errorf("%d regions, %d bytes saved", v.Regions(), v.Bytes())
	}
	// An attempt that was interrupted may have left anything where nothing belongs.
	if _, err := v.data.WriteAt([]byte("left"), 3<<20); err != nil {
		t.Fatal(err)
	}
	wantVersion(t, v, base, before)
}

func TestSizes(t *testing.T) {
	v := begin(t, t.TempDir(), 1<<20)
	small := backing.NewMemory(1 << 19)
	if _, err := Wrap(small, v); err == nil {
		t.Error("a version of another size was accepted")
	}
	if err := v.Read(small, make([]byte, 512), 0); err == nil {
		t.Error("a base of another size was read")
	}
	base := backing.NewMemory(1 << 20)
	for _, off := range []int64{-1, 1<<20 - 511, 1 << 62} {
		if err := v.Read(base, make([]byte, 512), off); err == nil {
			t.Errorf("read at %d succeeded", off)
		}
	}
}
