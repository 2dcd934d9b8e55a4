package divergence

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"duet/blockrepl"
	"duet/blockrepl/backing"
)

var errDead = errors.New("the power is gone")

// world counts what is done to all its files and devices and dies at one of these steps.
type world struct {
	mu   sync.Mutex
	left int // steps before death; below 0: none
	dead bool
	rng  *rand.Rand
}

// step returns whether the step is done, and if not, which share of a write still is.
func (w *world) step() (share float64, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.dead:
		return 0, errDead
	case w.left == 0:
		w.dead = true
		return w.rng.Float64(), errDead
	}
	w.left--
	return 1, nil
}

func (w *world) reborn(left int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.dead, w.left = false, left
}

// What a power cut keeps or loses as a whole; less than a sector in the map, so that frames tear.
const (
	dataGrain = blockrepl.Sector
	mapGrain  = 16
)

// crashFile is a file whose unsynced bytes a power cut may take back.
type crashFile struct {
	w      *world
	grain  int64
	mu     sync.Mutex
	b      []byte
	synced int64            // size at the last Sync
	undo   map[int64][]byte // synced content of grains written since
	fail   error            // returned by the next WriteAt, or Sync
	failOn string
}

func newCrashFile(w *world, grain int64, b []byte, size int64) *crashFile {
	f := &crashFile{w: w, grain: grain, b: make([]byte, size), synced: size, undo: make(map[int64][]byte)}
	copy(f.b, b)
	return f
}

func (f *crashFile) ReadAt(p []byte, off int64) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return bytes.NewReader(f.b).ReadAt(p, off)
}

func (f *crashFile) WriteAt(p []byte, off int64) (int, error) {
	share, err := f.w.step()
	if share == 0 {
		return 0, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fail != nil && f.failOn == "write" {
		share, err, f.fail = 0.5, f.fail, nil
	}
	n := int(float64(len(p)) * share)
	if grow := off + int64(n) - int64(len(f.b)); grow > 0 {
		f.b = append(f.b, make([]byte, grow)...)
	}
	for g := off / f.grain; g*f.grain < off+int64(n); g++ {
		from, to := g*f.grain, min((g+1)*f.grain, int64(len(f.b)))
		if from >= off && to <= off+int64(n) && bytes.Equal(f.b[from:to], p[from-off:to-off]) {
			continue // zeroes behind the end, mostly: nothing to lose
		}
		if _, ok := f.undo[g]; !ok {
			f.undo[g] = bytes.Clone(f.b[from:to])
		}
	}
	copy(f.b[off:], p[:n])
	return n, err
}

func (f *crashFile) Sync() error {
	if _, err := f.w.step(); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.fail; err != nil && f.failOn == "sync" {
		f.fail = nil
		return err // and what was written stays volatile
	}
	f.synced = int64(len(f.b))
	clear(f.undo)
	return nil
}

func (f *crashFile) Size() (int64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return int64(len(f.b)), nil
}

func (f *crashFile) Close() error { return nil }

// cut takes back what keep refuses of the unsynced grains, and some of the growth.
func (f *crashFile) cut(keep func() bool) {
	grains := make([]int64, 0, len(f.undo))
	for g := range f.undo {
		grains = append(grains, g)
	}
	slices.Sort(grains)
	for _, g := range grains {
		if !keep() {
			copy(f.b[g*f.grain:], f.undo[g])
		}
	}
	if !keep() {
		f.b = f.b[:f.synced]
	}
	f.synced = int64(len(f.b))
	clear(f.undo)
}

// crashDevice is the image in the same world.
type crashDevice struct {
	*backing.Memory
	w *world
}

func (d crashDevice) WriteAt(p []byte, off int64) (int, error) {
	share, err := d.w.step()
	n := int(float64(len(p))*share) / blockrepl.Sector * blockrepl.Sector
	if n > 0 {
		if _, err := d.Memory.WriteAt(p[:n], off); err != nil {
			return 0, err
		}
	}
	return n, err
}

func (d crashDevice) Discard(off, n int64) error {
	if _, err := d.w.step(); err != nil {
		return err
	}
	return d.Memory.Discard(off, n)
}

func (d crashDevice) Zero(off, n int64) error {
	if _, err := d.w.step(); err != nil {
		return err
	}
	return d.Memory.Zero(off, n)
}

func (d crashDevice) Flush() error {
	if _, err := d.w.step(); err != nil {
		return err
	}
	return d.Memory.Flush()
}

// saved is a version of a crash test with what it must read as.
type saved struct {
	about      About
	data, mapf *crashFile
	v          *Version
	want       []byte
}

func newSaved(t *testing.T, w *world, size int64, id string) *saved {
	t.Helper()
	s := &saved{about: About{Format: aboutFormat, ID: id, Size: size}}
	s.data, s.mapf = newCrashFile(w, dataGrain, nil, size), newCrashFile(w, mapGrain, encodeMapHeader(s.about), mapHeader)
	var err error
	if s.v, err = open(s.about, s.data, s.mapf); err != nil {
		t.Fatal(err)
	}
	return s
}

// crash is one run: the image, two versions, and writers until the world dies.
type crash struct {
	w       *world
	dev     crashDevice
	size    int64
	s       []*saved
	writers int
}

func newCrash(t *testing.T, seed uint64, kill, writers int) *crash {
	const size = 15*blockrepl.RegionSize + 3*blockrepl.Sector
	w := &world{left: -1, rng: rand.New(rand.NewPCG(seed, 1))}
	c := &crash{w: w, dev: crashDevice{backing.NewMemory(size), w}, size: size, writers: writers}
	fill := rand.New(rand.NewPCG(seed, 2))
	for range 12 {
		if err := randomWrite(fill, c.dev, 300, nil); err != nil {
			t.Fatal(err)
		}
	}
	w.left = kill
	return c
}

// write runs the writers for some operations each; they end when the world dies.
func (c *crash) write(dev *Device, seed uint64, ops int) {
	var all sync.WaitGroup
	for k := range c.writers {
		all.Go(func() {
			rng := rand.New(rand.NewPCG(seed, uint64(k)))
			for i := range ops {
				if err := randomWrite(rng, dev, 100, nil); err != nil {
					return
				}
				if i%7 == 3 && dev.Flush() != nil {
					return
				}
			}
		})
	}
	all.Wait()
}

// begin adds a version and notes what it is; false if the world died first.
func (c *crash) begin(t *testing.T, dev *Device) bool {
	s := newSaved(t, c.w, c.size, fmt.Sprintf("v%d", len(c.s)))
	if err := dev.AddVersion(s.v); err != nil {
		return false
	}
	s.want = content(t, c.dev.Memory)
	c.s = append(c.s, s)
	return true
}

// check opens everything again and compares; it returns the Device to go on with.
func (c *crash) check(t *testing.T, left int) *Device {
	t.Helper()
	c.w.reborn(-1)
	dev := wrap(t, c.dev)
	for _, s := range c.s {
		var err error
		if s.v, err = open(s.about, s.data, s.mapf); err != nil {
			t.Fatal(err)
		}
		wantVersion(t, s.v, c.dev, s.want)
		if err := dev.AddVersion(s.v); err != nil {
			t.Fatal(err)
		}
	}
	c.w.reborn(left)
	return dev
}

// cut loses power: of what was not flushed or synced, a share of odds stays.
func (c *crash) cut(odds float64) {
	keep := func() bool { return c.w.rng.Float64() < odds }
	c.dev.PowerCut(func(int64) bool { return keep() })
	for _, s := range c.s {
		s.data.cut(keep)
		s.mapf.cut(keep)
	}
}

// run writes under one version, then under two, then dies; twice. It reports whether the first part came to its end.
func (c *crash) run(t *testing.T, seed uint64, power bool, odds float64) (ended bool) {
	dev := wrap(t, c.dev)
	ops := 16 / c.writers
	if c.begin(t, dev) {
		c.write(dev, seed, ops)
		if c.begin(t, dev) {
			c.write(dev, seed+100, ops)
		}
	}
	ended = !c.w.dead
	if power {
		c.cut(odds)
	}
	dev = c.check(t, c.w.rng.IntN(60)) // if only the process died the volatile part lives on
	c.write(dev, seed+200, ops)
	c.cut(odds)
	dev = c.check(t, -1)
	c.write(dev, seed+300, ops)
	c.check(t, -1)
	return ended
}

// The process or the node dies at every step of a run, between and within each of data write, data
// sync, map write, map sync and the write to the image, and each version is what it was.
func TestCrashAtEveryStep(t *testing.T) {
	stride := 1
	if testing.Short() {
		stride = 5
	}
	for _, power := range []bool{true, false} {
		for _, odds := range []float64{0, 0.6} {
			t.Run(fmt.Sprintf("power %v odds %v", power, odds), func(t *testing.T) {
				kill := 0
				for ; !newCrash(t, 1, kill, 1).run(t, 1, power, odds); kill += stride {
				}
				if kill < 80 {
					t.Errorf("a run has only %d steps", kill)
				}
			})
		}
	}
}

// The same with writers beside each other that share commits, at random steps.
func TestCrashConcurrent(t *testing.T) {
	runs := uint64(150)
	if testing.Short() {
		runs = 30
	}
	for seed := range runs {
		rng := rand.New(rand.NewPCG(seed, 9))
		newCrash(t, seed, rng.IntN(120), 4).run(t, seed, seed%2 == 0, []float64{0, 0.5, 0.9}[seed%3])
	}
}

// A failed write of the saved data leaves the image untouched and may be tried again;
// after a failed sync nothing is saved until the version is opened again.
func TestSaveFails(t *testing.T) {
	broken := errors.New("no space left")
	for _, c := range []struct {
		name   string
		inMap  bool
		failOn string
		again  bool // the same version can go on
	}{
		{"data write", false, "write", true}, {"data sync", false, "sync", false},
		{"map write", true, "write", true}, {"map sync", true, "sync", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			run := newCrash(t, 1, -1, 1)
			if _, err := run.dev.WriteAt(bytes.Repeat([]byte{1}, 6*blockrepl.RegionSize), 0); err != nil {
				t.Fatal(err)
			}
			dev := wrap(t, run.dev)
			run.begin(t, dev)
			s := run.s[0]
			p := bytes.Repeat([]byte{0xee}, 3*blockrepl.RegionSize)
			write := func(off int64) error { _, err := dev.WriteAt(p, off); return err }
			if err := write(8 * blockrepl.RegionSize); err != nil { // the map has grown
				t.Fatal(err)
			}
			before := content(t, run.dev)
			f := s.data
			if c.inMap {
				f = s.mapf
			}
			f.fail, f.failOn = broken, c.failOn
			if err := write(0); !errors.Is(err, ErrAside) || !errors.Is(err, broken) {
				t.Fatalf("write: %v", err)
			}
			if !bytes.Equal(content(t, run.dev), before) {
				t.Fatal("the image was touched")
			}
			wantVersion(t, s.v, run.dev, s.want)
			if err := write(8 * blockrepl.RegionSize); err != nil {
				t.Errorf("write to a saved region: %v", err)
			}
			err := write(0)
			if c.again && err != nil || !c.again && !errors.Is(err, ErrAside) {
				t.Errorf("second try: %v", err)
			}
			dev = run.check(t, -1)
			if err := write(0); err != nil {
				t.Errorf("after opening again: %v", err)
			}
			run.cut(0)
			run.check(t, -1)
		})
	}
}
