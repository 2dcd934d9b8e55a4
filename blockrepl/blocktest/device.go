package blocktest

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"

	"duet/blockrepl"
)

// DeviceSize is the size in bytes of the devices the suite wants: one extent, so it has every kind of range in
// little time.
const DeviceSize = 4 << 20

// Device runs the suite of blockrepl.Device, FastReader and Mapper. open returns
// a fresh device of DeviceSize bytes, all zeroes, and closes it when the test ends. FastReader and Mapper are
// tested if the device has them: a wrapper that should pass them on must be checked for that by its own test.
func Device(t *testing.T, open func(t *testing.T) blockrepl.Device) {
	for _, c := range []struct {
		name string
		test func(t *testing.T, dev blockrepl.Device)
	}{
		{"size", deviceSize},
		{"bounds", deviceBounds},
		{"random operations", deviceRandom},
		{"does not keep the buffer", deviceBuffer},
		{"concurrent writers", deviceConcurrent},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(t, open(t)) })
	}
}

// deviceSize: what was never written reads as zeroes, which is what the peer's copy begins with too.
func deviceSize(t *testing.T, dev blockrepl.Device) {
	if dev.Size() != DeviceSize {
		t.Fatalf("size %d, want %d", dev.Size(), DeviceSize)
	}
	if got := mustRead(t, dev, 0, DeviceSize); !bytes.Equal(got, make([]byte, DeviceSize)) {
		t.Error("a new device does not read as zeroes")
	}
	if err := dev.Flush(); err != nil {
		t.Errorf("flush: %v", err)
	}
}

// deviceBounds: what does not lie wholly within the device is refused, changes nothing and does not make an image
// file longer. The last offset overflows when the length is added.
func deviceBounds(t *testing.T, dev blockrepl.Device) {
	p := make([]byte, 2*blockrepl.Sector)
	for _, off := range []int64{
		-blockrepl.Sector, DeviceSize - blockrepl.Sector, DeviceSize, DeviceSize + 1<<20, 1<<63 - blockrepl.Sector,
	} {
		n := int64(len(p))
		_, read := dev.ReadAt(p, off)
		_, write := dev.WriteAt(p, off)
		for name, err := range map[string]error{
			"read": read, "write": write, "discard": dev.Discard(off, n), "zero": dev.Zero(off, n),
		} {
			if err == nil {
				t.Errorf("%s of %d bytes at %d succeeded", name, n, off)
			}
		}
		if fast, ok := dev.(blockrepl.FastReader); ok && fast.TryReadAt(p, off) {
			t.Errorf("fast read at %d succeeded", off)
		}
	}
	if dev.Size() != DeviceSize {
		t.Errorf("size became %d", dev.Size())
	}
	p = p[:blockrepl.Sector]
	if _, err := dev.WriteAt(p, DeviceSize-blockrepl.Sector); err != nil {
		t.Errorf("write of the last sector: %v", err)
	}
}

// deviceRandom compares the device with a plain array after each of many operations, and a page more to each side,
// where a discard or zero that was rounded to blocks would have done harm. The seeds are fixed: a failure comes
// again.
func deviceRandom(t *testing.T, dev blockrepl.Device) {
	rng := rand.New(rand.NewPCG(1, 2))
	fill := rand.NewChaCha8([32]byte{3})
	model := make([]byte, DeviceSize)
	for i := range 400 {
		sectors := int64(1 + rng.IntN(400))
		if rng.IntN(3) == 0 {
			sectors = int64(1 + rng.IntN(8))
		}
		n := sectors * blockrepl.Sector
		off := rng.Int64N((DeviceSize-n)/blockrepl.Sector+1) * blockrepl.Sector
		var err error
		switch rng.IntN(4) {
		case 0, 1:
			fill.Read(model[off : off+n])
			_, err = dev.WriteAt(bytes.Clone(model[off:off+n]), off)
		case 2:
			clear(model[off : off+n])
			err = dev.Discard(off, n)
		case 3:
			clear(model[off : off+n])
			err = dev.Zero(off, n)
		}
		if err != nil {
			t.Fatalf("operation %d at %d+%d: %v", i, off, n, err)
		}
		from := max(0, off-4096)
		to := min(DeviceSize, off+n+4096)
		if got := mustRead(t, dev, from, to-from); !bytes.Equal(got, model[from:to]) {
			t.Fatalf("operation %d at %d+%d: the device differs", i, off, n)
		}
		if i%100 == 99 {
			checkMap(t, dev, model)
			if err := dev.Flush(); err != nil {
				t.Fatalf("flush: %v", err)
			}
		}
	}
	if got := mustRead(t, dev, 0, DeviceSize); !bytes.Equal(got, model) {
		t.Error("the device differs at the end")
	}
}

// checkMap fails unless holes are holes and the map comes to its end. Data that is called a hole would be lost by a
// resync, which does not send it; zeroes that are called data cost only time, so they are allowed.
func checkMap(t *testing.T, dev blockrepl.Device, model []byte) {
	t.Helper()
	mapper, ok := dev.(blockrepl.Mapper)
	if !ok {
		return
	}
	for off := int64(0); off < DeviceSize; {
		start, end, err := mapper.Data(off)
		if err != nil {
			t.Fatalf("map at %d: %v", off, err)
		}
		if start < off || end > DeviceSize || (start >= end && start != DeviceSize) {
			t.Fatalf("map at %d: %d-%d", off, start, end)
		}
		if len(bytes.Trim(model[off:start], "\x00")) != 0 {
			t.Fatalf("map at %d: data before %d is called a hole", off, start)
		}
		off = end
	}
}

// deviceBuffer: the caller uses its buffer again when WriteAt returns. The session of a Secondary does so at once.
func deviceBuffer(t *testing.T, dev blockrepl.Device) {
	p := bytes.Repeat([]byte{7}, 64<<10)
	if _, err := dev.WriteAt(p, 0); err != nil {
		t.Fatal(err)
	}
	clear(p)
	if got := mustRead(t, dev, 0, int64(len(p))); !bytes.Equal(got, bytes.Repeat([]byte{7}, len(p))) {
		t.Error("the device changed with the caller's buffer")
	}
}

// deviceConcurrent has writers of ranges that do not overlap, and flushes beside writes of others.
func deviceConcurrent(t *testing.T, dev blockrepl.Device) {
	const writers, share = 8, DeviceSize / 8
	var all sync.WaitGroup
	errs := make([]error, writers)
	for w := range writers {
		all.Go(func() {
			base := int64(w) * share
			for i := int64(0); i < share; i += 8 << 10 {
				_, err := dev.WriteAt(bytes.Repeat([]byte{byte(w + 1)}, 8<<10), base+i)
				errs[w] = errors.Join(errs[w], err)
			}
			errs[w] = errors.Join(errs[w], dev.Flush())
		})
	}
	all.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	for w := range writers {
		if got := mustRead(t, dev, int64(w)*share, share); !bytes.Equal(got, bytes.Repeat([]byte{byte(w + 1)}, share)) {
			t.Errorf("what writer %d wrote is not there", w)
		}
	}
}

// mustRead reads and, if the device can, reads again the fast way and compares. That the fast way does not answer
// is no fault: the page may have left the cache.
func mustRead(t *testing.T, dev blockrepl.Device, off, n int64) []byte {
	t.Helper()
	p := make([]byte, n)
	if m, err := dev.ReadAt(p, off); err != nil || m != len(p) {
		t.Fatalf("read at %d+%d: %d, %v", off, n, m, err)
	}
	if fast, ok := dev.(blockrepl.FastReader); ok {
		q := make([]byte, n)
		if fast.TryReadAt(q, off) && !bytes.Equal(p, q) {
			t.Fatalf("fast read at %d+%d differs", off, n)
		}
	}
	return p
}
