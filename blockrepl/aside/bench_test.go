package aside

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"duet/blockrepl"
	"duet/blockrepl/backing"
)

// benchImage is a file full of data. DUET_BENCH_DIR names a directory on the disk to measure.
func benchImage(b *testing.B, size int64) (*backing.File, string) {
	b.Helper()
	dir, err := os.MkdirTemp(os.Getenv("DUET_BENCH_DIR"), "aside")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = os.RemoveAll(dir) })
	f, err := backing.CreateFile(filepath.Join(dir, "image"), size)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = f.Close() })
	p := make([]byte, 1<<20)
	for off := int64(0); off < size; off += int64(len(p)) {
		for i := range p {
			p[i] = byte(i) | 1
		}
		if _, err := f.WriteAt(p, off); err != nil {
			b.Fatal(err)
		}
	}
	if err := f.Flush(); err != nil {
		b.Fatal(err)
	}
	return f, dir
}

// BenchmarkOverwrite is what a 4 KiB write to a saved region costs; compare raw and wrapped.
func BenchmarkOverwrite(b *testing.B) {
	const size = 64 << 20
	f, dir := benchImage(b, size)
	v := begin(b, dir, size)
	dev := wrap(b, f, v)
	if err := dev.Save(0, size); err != nil {
		b.Fatal(err)
	}
	for _, c := range []struct {
		name string
		dev  blockrepl.Device
	}{{"raw", f}, {"wrapped", dev}} {
		b.Run(c.name, func(b *testing.B) {
			rng := rand.New(rand.NewPCG(1, 1))
			p := make([]byte, 4096)
			b.SetBytes(4096)
			for b.Loop() {
				if _, err := c.dev.WriteAt(p, rng.Int64N(size/4096)*4096); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(c.name+" parallel", func(b *testing.B) {
			b.SetBytes(4096)
			b.RunParallel(func(pb *testing.PB) {
				rng := rand.New(rand.NewPCG(1, rand.Uint64()))
				p := make([]byte, 4096)
				for pb.Next() {
					if _, err := c.dev.WriteAt(p, rng.Int64N(size/4096)*4096); err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
}

// BenchmarkFirstOverwrite is a resync over regions that are not saved yet, as large as
// one frame of it, with the given number of workers; also the raw image.
func BenchmarkFirstOverwrite(b *testing.B) {
	const size = 256 << 20
	for _, frame := range []int64{blockrepl.RegionSize, 8 * blockrepl.RegionSize} {
		for _, workers := range []int{0, 1, 2, 4, 16} {
			name := fmt.Sprintf("%dKiB/workers=%d", frame>>10, workers)
			if workers == 0 {
				name = fmt.Sprintf("%dKiB/raw", frame>>10)
			}
			b.Run(name, func(b *testing.B) {
				f, dir := benchImage(b, size)
				b.SetBytes(size)
				for b.Loop() {
					b.StopTimer()
					var dev blockrepl.Device = f
					if workers > 0 {
						dev = wrap(b, f, begin(b, dir, size))
					}
					b.StartTimer()
					overwrite(b, dev, frame, max(workers, 1))
				}
			})
		}
	}
}

func overwrite(b *testing.B, dev blockrepl.Device, frame int64, workers int) {
	var next atomic.Int64
	var all sync.WaitGroup
	for range workers {
		all.Go(func() {
			p := make([]byte, frame)
			for {
				off := (next.Add(1) - 1) * frame
				if off >= dev.Size() {
					return
				}
				if _, err := dev.WriteAt(p, off); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
}
